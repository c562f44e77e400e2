//! What a namespace that is being deleted says about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{ClientError, Outcome};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{FINALIZER_WAIT, LOOK_AGAIN, Left};
use crate::discovery::Discovered;

/// What one pass over the namespace found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Groups that could not be discovered, and why.
    discovery: Vec<(String, String)>,
    /// What a group version is called that cannot be parsed.
    unparsed: Option<String>,
    /// Deletions that failed, or did nothing.
    failures: Vec<String>,
    /// How many objects are left of each resource.
    remaining: BTreeMap<String, usize>,
    /// And with which finalizers.
    finalizers: BTreeMap<String, usize>,
    grace_secs: i64,
}

impl Findings {
    /// Nothing found yet but what discovery said.
    pub(super) fn new(discovery: Vec<(String, String)>, unparsed: Option<String>) -> Self {
        Self { discovery, unparsed, ..Self::default() }
    }

    pub(super) fn is_unparsed(&self) -> bool {
        self.unparsed.is_some()
    }

    pub(super) fn add(
        &mut self,
        namespace: &str,
        resource: &Discovered,
        left: Result<Left, ClientError>,
    ) {
        let left = match left {
            Ok(left) => left,
            Err(error) => return self.failures.push(error.to_string()),
        };
        if left.count == 0 {
            return;
        }
        let Discovered { group, version, resource: name, .. } = resource;
        *self.remaining.entry(format!("{name}.{group}")).or_insert(0) += left.count;
        let is_pods = group.is_empty() && name == "pods";
        // A grace period runs out by itself; so does, with luck, a finalizer, but what waits for
        // pods should be told why.
        if left.grace_secs == 0 && (left.finalizers.is_empty() || is_pods) {
            self.failures.push(format!(
                "unexpected items still remain in namespace: {namespace} for gvr: \
                 {group}/{version}, Resource={name}"
            ));
        }
        for (finalizer, count) in left.finalizers {
            *self.finalizers.entry(finalizer).or_insert(0) += count;
        }
        self.grace_secs = self.grace_secs.max(left.grace_secs);
    }

    pub(super) fn is_anything_left(&self) -> bool {
        !self.remaining.is_empty() || !self.failures.is_empty()
    }

    /// When to look again, `None` when the namespace is empty.
    pub(super) fn wait(&self) -> Option<Outcome> {
        if self.is_unparsed() {
            // Only what serves it can mend it.
            return Some(Outcome::RequeueAfter(FINALIZER_WAIT));
        }
        if !self.is_anything_left() && self.discovery.is_empty() {
            return None;
        }
        if self.grace_secs > 0 {
            // The event of the last pod comes earlier; half of the time is upstream's guess.
            let secs = u64::try_from(self.grace_secs / 2 + 1).unwrap_or(1);
            return Some(Outcome::RequeueAfter(Duration::from_secs(secs)));
        }
        if self.failures.is_empty() && !self.finalizers.is_empty() {
            // Finalizers of the garbage collector are gone in no time, others may take theirs.
            let ours = [api::finalizers::FOREGROUND_DELETION, api::finalizers::ORPHAN];
            let quick = self.finalizers.keys().all(|name| ours.contains(&name.as_str()));
            return Some(Outcome::RequeueAfter(if quick {
                LOOK_AGAIN
            } else {
                FINALIZER_WAIT / 10
            }));
        }
        Some(Outcome::RequeueAfter(LOOK_AGAIN))
    }
}

/// The conditions after a pass. One that has never been bad is not written until one is.
pub(super) fn update(
    before: &[NamespaceCondition],
    findings: &Findings,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let mut after = before.to_vec();
    for (kind, reason, message, bad) in [
        discovery(findings),
        parsing(findings),
        content(findings),
        remaining(findings),
        finalizers(findings),
    ] {
        let status = if bad { "True" } else { "False" };
        let present = after.iter().position(|condition| condition.type_ == kind);
        let condition = |transition| NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.clone()),
            last_transition_time: transition,
        };
        match present {
            None => after.push(condition(Some(Time(now)))),
            Some(at) => {
                let same = after[at].status == status;
                let kept = after[at].last_transition_time.clone().filter(|_| same);
                after[at] = condition(Some(kept.unwrap_or(Time(now))));
            }
        }
    }
    after
}

type Row = (&'static str, &'static str, String, bool);

fn discovery(findings: &Findings) -> Row {
    let kind = "NamespaceDeletionDiscoveryFailure";
    if findings.discovery.is_empty() {
        let text = "All resources successfully discovered".to_owned();
        return (kind, "ResourcesDiscovered", text, false);
    }
    let list: Vec<_> =
        findings.discovery.iter().map(|(group, why)| format!("{group}: {why}")).collect();
    let text = format!(
        "Discovery failed for some groups, {} failing: unable to retrieve the complete list of \
         server APIs: {}",
        list.len(),
        list.join(", ")
    );
    (kind, "DiscoveryFailed", text, true)
}

fn parsing(findings: &Findings) -> Row {
    let kind = "NamespaceDeletionGroupVersionParsingFailure";
    match &findings.unparsed {
        None => {
            let text = "All legacy kube types successfully parsed".to_owned();
            (kind, "ParsedGroupVersions", text, false)
        }
        Some(name) => {
            let text = format!("unexpected GroupVersion string: {name}");
            (kind, "GroupVersionParsingFailed", text, true)
        }
    }
}

fn content(findings: &Findings) -> Row {
    let kind = "NamespaceDeletionContentFailure";
    if findings.failures.is_empty() {
        let text = "All content successfully deleted, may be waiting on finalization".to_owned();
        return (kind, "ContentDeleted", text, false);
    }
    let mut failures = findings.failures.clone();
    failures.sort();
    let text = format!(
        "Failed to delete all resource types, {} remaining: {}",
        failures.len(),
        failures.join(", ")
    );
    (kind, "ContentDeletionFailed", text, true)
}

fn remaining(findings: &Findings) -> Row {
    let kind = "NamespaceContentRemaining";
    if findings.remaining.is_empty() {
        return (kind, "ContentRemoved", "All content successfully removed".to_owned(), false);
    }
    let list: Vec<_> = findings
        .remaining
        .iter()
        .map(|(resource, count)| format!("{resource} has {count} resource instances"))
        .collect();
    let text = format!("Some resources are remaining: {}", list.join(", "));
    (kind, "SomeResourcesRemain", text, true)
}

fn finalizers(findings: &Findings) -> Row {
    let kind = "NamespaceFinalizersRemaining";
    if findings.finalizers.is_empty() {
        let text = "All content-preserving finalizers finished".to_owned();
        return (kind, "ContentHasNoFinalizers", text, false);
    }
    let list: Vec<_> = findings
        .finalizers
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let text =
        format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
    (kind, "SomeFinalizersRemain", text, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Discovered {
        Discovered {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            kind: "Pod".to_owned(),
            namespaced: true,
            verbs: Vec::new(),
        }
    }

    fn status_of(findings: &Findings, kind: &str) -> (String, String) {
        let all = update(&[], findings, Timestamp::UNIX_EPOCH);
        let condition = all.into_iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status, condition.message.unwrap())
    }

    #[test]
    fn a_pod_with_a_finalizer_holds_everything_up() {
        let mut findings = Findings::default();
        let finalizers = BTreeMap::from([("e2e/x".to_owned(), 1)]);
        findings.add("ns", &pods(), Ok(Left { count: 1, finalizers, grace_secs: 0 }));
        assert_eq!(
            status_of(&findings, "NamespaceDeletionContentFailure"),
            (
                "True".to_owned(),
                "Failed to delete all resource types, 1 remaining: unexpected items still remain \
                 in namespace: ns for gvr: /v1, Resource=pods"
                    .to_owned()
            )
        );
        assert_eq!(
            status_of(&findings, "NamespaceContentRemaining").1,
            "Some resources are remaining: pods. has 1 resource instances"
        );
        assert_eq!(
            status_of(&findings, "NamespaceFinalizersRemaining").1,
            "Some content in the namespace has finalizers remaining: e2e/x in 1 resource instances"
        );
        assert!(findings.wait().is_some());
    }

    #[test]
    fn a_grace_period_is_waited_for() {
        let mut findings = Findings::default();
        let left = Left { count: 2, grace_secs: 30, ..Left::default() };
        findings.add("ns", &pods(), Ok(left));
        assert_eq!(status_of(&findings, "NamespaceDeletionContentFailure").0, "False");
        assert_eq!(findings.wait(), Some(Outcome::RequeueAfter(Duration::from_secs(16))));
    }

    #[test]
    fn an_empty_namespace_is_let_go() {
        assert_eq!(Findings::default().wait(), None);
    }

    #[test]
    fn every_reason_is_given_where_it_belongs() {
        let reasons = |findings: &Findings| {
            let all = update(&[], findings, Timestamp::UNIX_EPOCH);
            let said = all.into_iter().map(|one| (one.type_, one.status, one.reason.unwrap()));
            said.map(|(kind, status, reason)| format!("{kind}={status}:{reason}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            reasons(&Findings::default()),
            [
                "NamespaceDeletionDiscoveryFailure=False:ResourcesDiscovered",
                "NamespaceDeletionGroupVersionParsingFailure=False:ParsedGroupVersions",
                "NamespaceDeletionContentFailure=False:ContentDeleted",
                "NamespaceContentRemaining=False:ContentRemoved",
                "NamespaceFinalizersRemaining=False:ContentHasNoFinalizers",
            ]
        );
        let mut findings =
            Findings::new(vec![("example.io/v1".to_owned(), "gone".to_owned())], None);
        let finalizers = BTreeMap::from([("e2e/x".to_owned(), 1)]);
        findings.add("ns", &pods(), Ok(Left { count: 1, finalizers, grace_secs: 0 }));
        assert_eq!(
            reasons(&findings),
            [
                "NamespaceDeletionDiscoveryFailure=True:DiscoveryFailed",
                "NamespaceDeletionGroupVersionParsingFailure=False:ParsedGroupVersions",
                "NamespaceDeletionContentFailure=True:ContentDeletionFailed",
                "NamespaceContentRemaining=True:SomeResourcesRemain",
                "NamespaceFinalizersRemaining=True:SomeFinalizersRemain",
            ]
        );
    }
}
