//! Workloads and pod groups of `scheduling.k8s.io`.
//!
//! Fields whose feature gate is closed were dropped before.
//!
//! Upstream: `pkg/apis/scheduling/validation`, and the rules declared with the types.

use std::collections::BTreeSet;

use crate::FieldError;
use crate::declared::{
    LABEL_KEY, LONG_NAME, PATH_SEGMENT, SHORT_NAME, one_of, optional, required, unique, within,
};
use crate::metadata;
use crate::node::{Findings, Node};

const MAX_TEMPLATES: usize = 8;
const MAX_CLAIMS: usize = 4;
/// The highest priority that users may give.
const MAX_PRIORITY: i64 = 1_000_000_000;

pub(crate) fn workload(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let controller = spec.get("controllerRef");
    if controller.is_set() {
        optional(&controller.get("apiGroup"), LONG_NAME, out);
        required(&controller.get("kind"), PATH_SEGMENT, out);
        required(&controller.get("name"), PATH_SEGMENT, out);
    }
    let templates = spec.get("podGroupTemplates");
    if templates.len() == 0 {
        out.push(FieldError::required(&templates.path, ""));
        return;
    }
    templates.at_most(MAX_TEMPLATES, out);
    unique(&templates, "name", out);
    for template in templates.items() {
        required(&template.get("name"), SHORT_NAME, out);
        group(&template, out);
    }
}

/// What a workload says is said once; the controller may be named later.
pub(crate) fn workload_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let (controller, had) = (spec.get("controllerRef"), before.get("controllerRef"));
    if had.is_set() {
        controller.immutable(&had, out);
    }
    spec.get("podGroupTemplates").immutable(&before.get("podGroupTemplates"), out);
    if out.is_empty() {
        workload(new, out);
    }
}

pub(crate) fn pod_group(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let template = spec.get("podGroupTemplateRef");
    if template.is_set() {
        one_of(&template, &["workload"], out);
        let workload = template.get("workload");
        if workload.is_set() {
            required(&workload.get("workloadName"), LONG_NAME, out);
            required(&workload.get("podGroupTemplateName"), SHORT_NAME, out);
        }
    }
    group(&spec, out);
}

pub(crate) fn pod_group_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    for field in [
        "podGroupTemplateRef",
        "schedulingPolicy",
        "schedulingConstraints",
        "resourceClaims",
        "disruptionMode",
        "priorityClassName",
        "priority",
    ] {
        spec.get(field).immutable(&before.get(field), out);
    }
}

pub(crate) fn pod_group_status(new: &Node<'_>, out: &mut Findings) {
    let status = new.get("status");
    metadata::conditions(&status.get("conditions"), out);
    let claims = new.get("spec").get("resourceClaims");
    let known: BTreeSet<&str> = claims.items().map(|claim| claim.get("name").text()).collect();
    let statuses = status.get("resourceClaimStatuses");
    for claim in statuses.items() {
        let name = claim.get("name");
        if !known.contains(name.text()) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            out.push(name.invalid_text(detail));
        }
    }
    statuses.at_most(MAX_CLAIMS, out);
    unique(&statuses, "name", out);
    statuses.items().for_each(|claim| optional(&claim.get("resourceClaimName"), LONG_NAME, out));
}

/// What a pod group and a template for one have in common.
fn group(spec: &Node<'_>, out: &mut Findings) {
    let policy = spec.get("schedulingPolicy");
    one_of(&policy, &["basic", "gang"], out);
    let gang = policy.get("gang");
    if gang.is_set() {
        let count = gang.get("minCount");
        if count.int() == 0 {
            out.push(FieldError::required(&count.path, ""));
        } else {
            within(&count, 1, i64::from(i32::MAX), out);
        }
    }
    let topology = spec.get("schedulingConstraints").get("topology");
    topology.at_most(1, out);
    topology.items().for_each(|constraint| required(&constraint.get("key"), LABEL_KEY, out));
    let claims = spec.get("resourceClaims");
    claims.at_most(MAX_CLAIMS, out);
    unique(&claims, "name", out);
    for claim in claims.items() {
        one_of(&claim, &["resourceClaimName", "resourceClaimTemplateName"], out);
        required(&claim.get("name"), SHORT_NAME, out);
        optional(&claim.get("resourceClaimName"), LONG_NAME, out);
        optional(&claim.get("resourceClaimTemplateName"), LONG_NAME, out);
    }
    spec.get("disruptionMode").one_of(&["Pod", "PodGroup"], out);
    optional(&spec.get("priorityClassName"), LONG_NAME, out);
    within(&spec.get("priority"), i64::from(i32::MIN), MAX_PRIORITY, out);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::{check, check_update};

    const GROUP: &str = "scheduling.k8s.io";

    fn named(spec: Value) -> Value {
        json!({"metadata": {"name": "x"}, "spec": spec})
    }

    #[test]
    fn a_workload_has_templates_with_one_policy_each() {
        check(
            GROUP,
            "Workload",
            named(json!({"podGroupTemplates": [
                {"name": "a", "schedulingPolicy": {"gang": {"minCount": 2}}}]})),
            &[],
        );
        check(GROUP, "Workload", named(json!({})), &["spec.podGroupTemplates: Required value"]);
        check(
            GROUP,
            "Workload",
            named(json!({"podGroupTemplates": [
                {"name": "a", "schedulingPolicy": {"gang": {"minCount": -1}}},
                {"name": "b", "schedulingPolicy": {}},
                {"name": "c", "schedulingPolicy": {"basic": {}, "gang": {"minCount": 1}}}]})),
            &[
                "spec.podGroupTemplates[0].schedulingPolicy.gang.minCount: Invalid value: -1: must \
                 be greater than or equal to 1",
                "spec.podGroupTemplates[1].schedulingPolicy: Invalid value: \"\": must specify one \
                 of: `basic`, `gang`",
                "spec.podGroupTemplates[2].schedulingPolicy: Invalid value: \"{`basic`, `gang`}\": \
                 must specify exactly one of: `basic`, `gang`",
            ],
        );
    }

    #[test]
    fn a_pod_group_stays_what_it_is() {
        let group = |count: i64| named(json!({"schedulingPolicy": {"gang": {"minCount": count}}}));
        check_update(
            GROUP,
            "PodGroup",
            "",
            (&group(2), &group(1)),
            &["spec.schedulingPolicy: Invalid value: {\"gang\":{\"minCount\":2}}: field is \
               immutable"],
        );
        let mut claimed = group(1);
        claimed["status"] = json!({"resourceClaimStatuses": [{"name": "nobody"}]});
        check_update(
            GROUP,
            "PodGroup",
            "status",
            (&claimed, &group(1)),
            &["status.resourceClaimStatuses[0].name: Invalid value: \"nobody\": must match the \
               name of an entry in `spec.resourceClaims`"],
        );
    }
}
