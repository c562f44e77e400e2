//! DeviceTaintRules, and requests for the status of pools.

use super::slice::taint;
use super::{driver, pool_name};
use crate::FieldError;
use crate::declared::{LONG_NAME, optional, within};
use crate::metadata;
use crate::node::{Findings, Node};

/// Upstream's `DeviceTaintRuleStatusMaxConditions`.
const MAX_CONDITIONS: usize = 8;
const MAX_POOL_CONDITIONS: usize = 10;
const MAX_POOLS: usize = 1000;
const MAX_PROBLEM: usize = 256;

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let selector = spec.get("deviceSelector");
    if selector.get("driver").is_set() {
        driver(&selector.get("driver"), out);
    }
    if selector.get("pool").is_set() {
        pool_name(&selector.get("pool"), out);
    }
    if selector.get("device").is_set() {
        selector.get("device").label(out);
    }
    taint(&spec.get("taint"), out);
}

pub(crate) fn status(new: &Node<'_>, out: &mut Findings) {
    let conditions = new.get("status").get("conditions");
    conditions.at_most(MAX_CONDITIONS, out);
    metadata::conditions(&conditions, out);
}

pub(crate) fn pool_request(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    driver(&spec.get("driver"), out);
    if spec.get("poolName").is_set() {
        pool_name(&spec.get("poolName"), out);
    }
    within(&spec.get("limit"), 1, 1000, out);
}

/// The answer is given once.
pub(crate) fn pool_status(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (status, before) = (new.get("status"), old.get("status"));
    if before.is_set() {
        status.immutable(&before, out);
        return;
    }
    if !status.is_set() {
        return;
    }
    let conditions = status.get("conditions");
    metadata::conditions(&conditions, out);
    let count = status.get("poolCount");
    if count.is_set() {
        within(&count, 0, i64::from(i32::MAX), out);
    } else {
        out.push(FieldError::required(&count.path, ""));
    }
    let pools = status.get("pools");
    pools.at_most(MAX_POOLS, out);
    pools.items().for_each(|item| pool(&item, out));
    conditions.at_most(MAX_POOL_CONDITIONS, out);
}

fn pool(pool: &Node<'_>, out: &mut Findings) {
    driver(&pool.get("driver"), out);
    pool_name(&pool.get("poolName"), out);
    within(&pool.get("generation"), 0, i64::MAX, out);
    within(&pool.get("resourceSliceCount"), 1, i64::from(i32::MAX), out);
    for count in ["totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"] {
        within(&pool.get(count), 0, i64::from(i32::MAX), out);
    }
    optional(&pool.get("nodeName"), LONG_NAME, out);
    pool.get("validationError").no_longer_than(MAX_PROBLEM, out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::{check, check_update};

    #[test]
    fn a_rule_taints_with_an_effect() {
        let rule = |taint| json!({"metadata": {"name": "r"}, "spec": {"taint": taint}});
        check(
            "resource.k8s.io",
            "DeviceTaintRule",
            rule(json!({"key": "a/b", "effect": "NoExecute"})),
            &[],
        );
        check(
            "resource.k8s.io",
            "DeviceTaintRule",
            rule(json!({"key": "a/b"})),
            &["spec.taint.effect: Required value"],
        );
        check(
            "resource.k8s.io",
            "DeviceTaintRule",
            rule(json!({"key": "a/b", "effect": "X"})),
            &["spec.taint.effect: Unsupported value: \"X\": supported values: \"NoExecute\", \
               \"NoSchedule\", \"None\""],
        );
    }

    #[test]
    fn a_request_is_answered_once() {
        let request = |status| json!({"metadata": {"name": "r"}, "spec": {"driver": "d.io"}, "status": status});
        let kind = "ResourcePoolStatusRequest";
        check_update(
            "resource.k8s.io",
            kind,
            "status",
            (&request(json!({"poolCount": 0})), &request(json!(null))),
            &[],
        );
        check_update(
            "resource.k8s.io",
            kind,
            "status",
            (&request(json!({"poolCount": 1})), &request(json!({"poolCount": 0}))),
            &["status: Invalid value: {\"poolCount\":1}: field is immutable"],
        );
    }
}
