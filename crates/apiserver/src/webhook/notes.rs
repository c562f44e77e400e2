//! What is recorded of webhooks in the audit log.
//!
//! Upstream: `apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`.

use audit::Level;

use super::hook::Hook;
use crate::audit::quoted;
use crate::context::RequestContext;

/// Those that change objects.
pub(super) const MUTATION: &str = "mutation";
/// Those that refuse them.
pub(super) const VALIDATION: &str = "validating";

/// A webhook that is asked.
#[derive(Clone, Copy)]
pub(super) struct Notes<'a> {
    pub(super) ctx: &'a RequestContext,
    pub(super) hook: &'a Hook,
    /// [`MUTATION`] or [`VALIDATION`].
    pub(super) phase: &'static str,
    /// 1 when webhooks are asked again.
    pub(super) round: usize,
    /// Its place among them.
    pub(super) at: usize,
}

impl Notes<'_> {
    /// Whether it changed the object.
    pub(super) fn mutated(&self, is_mutated: bool) {
        self.ctx.annotate(&self.key("mutation"), || {
            format!("{{{},\"mutated\":{is_mutated}}}", self.who())
        });
    }

    /// Its patch, where the objects themselves are recorded.
    pub(super) fn patched(&self, patch: &[u8]) {
        let Some(audit) = self.ctx.audit.as_ref().filter(|it| it.level() >= Level::Request) else {
            return;
        };
        let Ok(patch) = serde_json::from_slice(patch) else { return };
        let mut text = Vec::new();
        schema::encode_untyped(&patch, &mut text);
        let text = String::from_utf8_lossy(&text);
        let value = format!("{{{},\"patch\":{text},\"patchType\":\"JSONPatch\"}}", self.who());
        audit.annotate(&self.key("patch"), value);
    }

    /// It could not be asked, and that was not to matter.
    pub(super) fn failed_open(&self) {
        let key = self.key(&format!("failed-open.{}", self.phase));
        self.ctx.annotate(&key, || self.hook.name.as_str());
    }

    fn key(&self, what: &str) -> String {
        format!("{what}.webhook.admission.k8s.io/round_{}_index_{}", self.round, self.at)
    }

    fn who(&self) -> String {
        let (configuration, name) = (quoted(&self.hook.configuration), quoted(&self.hook.name));
        format!("\"configuration\":{configuration},\"webhook\":{name}")
    }
}
