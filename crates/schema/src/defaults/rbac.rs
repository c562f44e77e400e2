//! `rbac.authorization.k8s.io`: bindings.

use serde_json::{Map, Value};

use super::{Logic, Rule, fill, text};

pub(super) const RULES: &[Rule] =
    &[("rbac/v1.RoleRef", "apiGroup", "\"rbac.authorization.k8s.io\"")];

pub(super) const LOGIC: &[Logic] = &[("rbac/v1.Subject", subject)];

fn subject(subject: &mut Map<String, Value>) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        fill(subject, "apiGroup", "rbac.authorization.k8s.io");
    }
}
