//! The chain of authorizers.

use std::sync::Arc;

use crate::attributes::{Attributes, Subject};
use crate::node::{self, NodeGraph};
use crate::rbac::{self, RuleSource};

/// One link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is allowed, except to `system:masters`.
    AlwaysDeny,
    /// Kubelets reach what belongs to their pods.
    Node,
    /// Roles and bindings.
    Rbac,
}

impl Mode {
    /// Reads a word of `--authorization-mode`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "AlwaysAllow" => Some(Self::AlwaysAllow),
            "AlwaysDeny" => Some(Self::AlwaysDeny),
            "Node" => Some(Self::Node),
            "RBAC" => Some(Self::Rbac),
            _ => None,
        }
    }
}

/// The answer, with the reason that upstream would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow(String),
    /// Nobody said yes.
    NoOpinion(String),
}

impl Decision {
    /// Whether it is yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}

/// Asks its modes in order; the first yes wins.
pub struct Authorizer {
    modes: Vec<Mode>,
    rules: Arc<dyn RuleSource>,
    nodes: Arc<dyn NodeGraph>,
}

impl Authorizer {
    /// A chain.
    pub fn new(modes: Vec<Mode>, rules: Arc<dyn RuleSource>, nodes: Arc<dyn NodeGraph>) -> Self {
        Self { modes, rules, nodes }
    }

    /// Whether the subject may.
    pub fn authorize(&self, subject: Subject<'_>, attributes: &Attributes) -> Decision {
        if subject.is_in("system:masters") {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let decision = match mode {
                Mode::AlwaysAllow => Decision::Allow(String::new()),
                Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
                Mode::Node => node::authorize(&*self.nodes, subject, attributes),
                Mode::Rbac => rbac::authorize(&self.rules.rules(), subject, attributes),
            };
            match decision {
                Decision::Allow(reason) => return Decision::Allow(reason),
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<rbac::RuleIndex> {
        self.rules.rules()
    }
}
