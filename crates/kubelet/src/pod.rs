//! One pod: deciding, acting, reporting.

pub(crate) mod admission;
pub(crate) mod allocation;
pub(crate) mod container_config;
pub(crate) mod container_status;
pub(crate) mod crash_backoff;
pub(crate) mod end;
pub(crate) mod env;
pub(crate) mod env_file;
pub(crate) mod expansion;
pub(crate) mod fields;
pub(crate) mod final_status;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod hooks;
pub(crate) mod host_rules;
pub(crate) mod image;
pub(crate) mod last_words;
pub(crate) mod lifecycle;
pub(crate) mod names;
pub(crate) mod observed;
pub(crate) mod pod_resources;
pub(crate) mod preemption;
pub(crate) mod probes;
pub(crate) mod qos;
pub(crate) mod sandbox_config;
pub(crate) mod security;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod start_time;
pub(crate) mod status;
pub(crate) mod status_writer;
pub(crate) mod storage_limits;
pub(crate) mod sub_path;
pub(crate) mod users;
pub(crate) mod worker;
pub(crate) mod workers;
