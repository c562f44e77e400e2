//! What a user may do.
//!
//! Start reading at [`Attributes`], the question, and [`Authorizer`], which asks the node
//! authorizer and RBAC in this order. [`forbidden`] is the answer a client sees.
//!
//! Invariants: nothing is allowed unless something allows it; evaluation is pure and quick, rules
//! come compiled through [`RuleSource`].
//!
//! It reads no API objects itself and keeps no cache: the server compiles roles and bindings when
//! they change.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod attributes;
mod authorizer;
mod node;
mod rbac;
mod status;

pub use attributes::{Attributes, Subject, required_fields};
pub use authorizer::{Authorizer, Decision, Mode};
pub use node::NodeGraph;
pub use rbac::{
    Binding, BindingSubject, PolicyRule, RoleRef, RuleIndex, RuleSource, compacted, covers,
    escalated,
};
pub use status::{forbidden, forbidden_status};
