//! Load for clusters: `ironclad bench`.

pub(crate) mod fleet;

mod beats;
pub(crate) mod node_object;
mod pace;
mod pod_facts;
mod pod_status;
mod pod_step;
pub(crate) mod registration;
mod tally;
