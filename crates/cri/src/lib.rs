//! The container runtime interface (CRI v1) as Rust traits and plain types.
//!
//! Start reading at [`RuntimeService`] and [`ImageService`]; [`PodNetwork`] is what a runtime
//! calls to give a sandbox its addresses.
//!
//! Invariants: names, fields and states are those of CRI v1, so that the embedded runtime in
//! process and another runtime over its socket stand behind the same traits. Times are
//! [`jiff::Timestamp`] instead of nanoseconds, and an absent time is `None` instead of zero.
//!
//! It deliberately does not speak gRPC, and has no opinion on how containers are run.
//!
//! Tested by unit tests beside the code; the traits are tested by their implementations.

#![forbid(unsafe_code)]

mod service;

mod container;
mod error;
mod event;
mod id;
mod image;
mod network;
mod resources;
mod sandbox;
mod security;
mod stats;
mod status;
mod stream;

pub use container::{
    Container, ContainerConfig, ContainerFilter, ContainerMetadata, ContainerState,
    ContainerStatus, Device, IdMapping, ImageSpec, KeyValue, LinuxContainerConfig, Mount,
    MountPropagation,
};
pub use error::{Code, CriError};
pub use event::{ContainerEvent, ContainerEventType, EventStream};
pub use id::{ContainerId, SandboxId};
pub use image::{AuthConfig, FilesystemUsage, Image, ImageFsInfo};
pub use network::{PodNetwork, PodNetworkError, PodNetworkRequest};
pub use resources::{HugepageLimit, LinuxContainerResources};
pub use sandbox::{
    DnsConfig, LinuxPodSandboxConfig, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxMetadata, PodSandboxState, PodSandboxStatus, PortMapping, Protocol,
};
pub use security::{
    Capability, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, ProfileType, SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};
pub use service::{ExecRequest, ExecSyncResponse, ImageService, RuntimeService};
pub use stats::{ContainerStats, CpuUsage, MemoryUsage};
pub use status::{
    CgroupDriver, RuntimeCondition, RuntimeConfig, RuntimeHandler, RuntimeStatus, VersionInfo,
};
pub use stream::{DuplexStream, ExecSession, InputStream, OutputStream, TerminalSize};
