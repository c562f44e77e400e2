//! Certificates, kubeconfig files and the host check.
//!
//! Start reading at [`Pki`], which makes what is absent under a directory in kubeadm's layout and
//! renews what is about to expire, then [`kubeconfig`] and [`doctor`].
//!
//! Invariants: private keys are files of mode 0600 and never printed; an authority's key is never
//! replaced; a user's kubeconfig keeps everything in it that is not ours.
//!
//! It starts nothing and speaks to no server.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod certificate;
pub mod doctor;
pub mod kubeconfig;
mod node_request;
mod pki;

pub use certificate::{KeyedCertificate, Purpose, is_current};
pub use node_request::{NodeRequest, node_request};
pub use pki::{Pki, PkiError, ServingNames, self_signed, self_signed_kubelet};
