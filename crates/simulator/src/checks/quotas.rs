//! What must hold of quotas: nothing is created beyond one, and its count never falls behind.

use serde_json::Value;

use super::{Checks, is_active};
use crate::api::{Api, Commit, quantity};

impl Checks {
    /// The count of a quota is changed.
    pub(super) fn quota(&mut self, api: &Api, commit: &Commit) {
        let Some(new) = &commit.new else { return };
        let Some(used) = quantity(&new.value["status"]["used"]["pods"]) else { return };
        let present = charged(api, &commit.key.1);
        if used < present {
            let name = &commit.key.2;
            self.violated(format!("quota {name} counts {used} pods; there are {present}"));
        }
    }

    /// A pod is created.
    pub(super) fn within_quotas(&mut self, api: &Api, namespace: &str) {
        let present = charged(api, namespace);
        let exceeded = api.all("/resourcequotas").find(|quota| {
            let hard = quantity(&quota["status"]["hard"]["pods"]);
            quota["metadata"]["namespace"] == *namespace && hard.is_some_and(|hard| present > hard)
        });
        if let Some(quota) = exceeded {
            let (name, hard) = (&quota["metadata"]["name"], &quota["status"]["hard"]["pods"]);
            self.violated(format!("quota {name} allows {hard} pods; there are {present}"));
        }
    }
}

/// Pods that count. Those that are overdue to be gone do not, and whether one is depends on whose
/// clock is asked.
fn charged(api: &Api, namespace: &str) -> i64 {
    let counts = |pod: &&Value| pod["metadata"]["namespace"] == *namespace && is_active(pod);
    i64::try_from(api.all("/pods").filter(counts).count()).unwrap_or(i64::MAX)
}
