//! The status of a ResourceClaim: its allocation, who uses it, how its devices are.

use std::collections::BTreeSet;

use super::claim::{reference, request_names};
use super::{MAX_ENTRIES, configuration, driver, json_object, pool_name, set};
use crate::FieldError;
use crate::metadata::conditions;
use crate::node::{Findings, Node};
use crate::scheduling::node_selector;

/// Most users of one claim.
const MAX_RESERVED_FOR: usize = 256;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 * 1024;
const MAX_IPS: usize = 16;

pub(crate) fn validate(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (status, before) = (new.get("status"), old.get("status"));
    let users = status.get("reservedFor");
    set(
        &users,
        MAX_RESERVED_FOR,
        |user| user.get("uid").text(),
        out,
        |user, out| {
            for field in ["resource", "name", "uid"] {
                user.get(field).require(out);
            }
        },
    );
    let allocation = status.get("allocation");
    devices(&status.get("devices"), &allocation, out);
    if users.len() > 0 {
        if !allocation.is_set() {
            let detail = "may not be specified when `allocated` is not set";
            out.push(users.forbidden(detail));
        } else if old.get("metadata").get("deletionTimestamp").is_set() {
            let had: BTreeSet<&str> =
                before.get("reservedFor").items().map(|user| user.get("uid").text()).collect();
            if users.items().any(|user| !had.contains(user.get("uid").text())) {
                out.push(users.forbidden(
                    "new entries may not be added while `deallocationRequested` or \
                     `deletionTimestamp` are set",
                ));
            }
        }
    }
    let old_allocation = before.get("allocation");
    if allocation.is_set() && old_allocation.is_set() {
        allocation.immutable_as("resource/v1.AllocationResult", &old_allocation, out);
    } else if allocation.is_set() {
        let requests = new.get("spec").get("devices").get("requests");
        allocation_result(&allocation, &request_names(&requests), out);
    }
}

fn allocation_result(result: &Node<'_>, known: &BTreeSet<String>, out: &mut Findings) {
    let devices = result.get("devices");
    let results = devices.get("results");
    results.at_most(MAX_ENTRIES, out);
    for item in results.items() {
        reference(&item.get("request"), known, out);
        driver(&item.get("driver"), out);
        pool_name(&item.get("pool"), out);
        item.get("device").label(out);
    }
    let configs = devices.get("config");
    // Those of the class and those of the claim.
    configs.at_most(2 * MAX_ENTRIES, out);
    for config in configs.items() {
        config.get("source").require_one_of(&["FromClaim", "FromClass"], out);
        set(
            &config.get("requests"),
            MAX_ENTRIES,
            |item| item.text(),
            out,
            |item, out| {
                reference(item, known, out);
            },
        );
        configuration(&config, out);
    }
    if result.get("nodeSelector").is_set() {
        node_selector(&result.get("nodeSelector"), out);
    }
}

fn devices(devices: &Node<'_>, allocation: &Node<'_>, out: &mut Findings) {
    let key = |item: &Node<'_>| {
        let part = |field: &'static str| item.get(field).text().to_owned();
        format!("{}/{}/{}", part("driver"), part("pool"), part("device"))
    };
    let allocated: BTreeSet<String> =
        allocation.get("devices").get("results").items().map(|item| key(&item)).collect();
    let mut seen = BTreeSet::new();
    for device in devices.items() {
        driver(&device.get("driver"), out);
        pool_name(&device.get("pool"), out);
        device.get("device").label(out);
        let this = key(&device);
        if !allocated.contains(&this) {
            let detail = "must be an allocated device in the claim";
            out.push(FieldError::invalid(&device.path, this.clone(), detail));
        }
        if !seen.insert(this.clone()) {
            out.push(FieldError::duplicate(&device.path, this));
        }
        device.get("conditions").at_most(MAX_CONDITIONS, out);
        conditions(&device.get("conditions"), out);
        if device.get("data").is_set() {
            json_object(&device.get("data"), MAX_DATA, out);
        }
        let network = device.get("networkData");
        network.get("interfaceName").no_longer_than(256, out);
        network.get("hardwareAddress").no_longer_than(128, out);
        set(
            &network.get("ips"),
            MAX_IPS,
            |item| item.text(),
            out,
            |item, out| {
                crate::address::cidr(item, out);
            },
        );
    }
}
