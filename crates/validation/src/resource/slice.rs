//! ResourceSlices: the devices that a driver offers.

use meta::names;
use serde_json::Value;

use super::{driver, effect, pool_name, qualified_name, set};
use crate::node::{Findings, Node};
use crate::scheduling::node_selector;
use crate::{FieldError, resource::policy};

/// Most devices of a slice, and with taints or counters.
const MAX_DEVICES: usize = 128;
const MAX_COUNTING_DEVICES: usize = 64;
/// Most counter sets of a slice, and counters of a set.
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
/// Most attributes and capacities of a device together.
const MAX_PROPERTIES: usize = 32;
const MAX_TAINTS: usize = 16;
/// Longest text or version of an attribute.
const MAX_ATTRIBUTE: usize = 64;
const MAX_CONDITIONS: usize = 4;

const WHERE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                     `perDeviceNodeSelection` is required";
const DEVICE_WHERE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required \
                            when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    driver(&spec.get("driver"), out);
    let pool = spec.get("pool");
    pool_name(&pool.get("name"), out);
    let (count, generation) = (pool.get("resourceSliceCount"), pool.get("generation"));
    if count.int() <= 0 {
        out.push(count.invalid_int("must be greater than zero"));
    }
    if generation.int() < 0 {
        out.push(generation.invalid_int("must be greater than or equal to zero"));
    }
    place(&spec, out);
    let (devices, counters) = (spec.get("devices"), spec.get("sharedCounters"));
    if devices.len() > 0 && counters.len() > 0 {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        out.push(FieldError::invalid(&spec.path, "", detail));
    }
    let counts = |device: Node<'_>| {
        device.get("taints").len() > 0 || device.get("consumesCounters").len() > 0
    };
    let max = if devices.items().any(counts) { MAX_COUNTING_DEVICES } else { MAX_DEVICES };
    let per_device = spec.get("perDeviceNodeSelection").is_true();
    set(
        &devices,
        max,
        |item| item.get("name").text(),
        out,
        |item, out| {
            device(item, per_device, out);
        },
    );
    set(
        &counters,
        MAX_COUNTER_SETS,
        |item| item.get("name").text(),
        out,
        |item, out| {
            item.get("name").require_label(out);
            counter_map(&item.get("counters"), out);
        },
    );
}

/// What of a slice may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    spec.get("driver").immutable_text(&before.get("driver"), out);
    spec.get("pool").get("name").immutable_text(&before.get("pool").get("name"), out);
    spec.get("nodeName").immutable(&before.get("nodeName"), out);
}

fn place(spec: &Node<'_>, out: &mut Findings) {
    let mut set = Vec::new();
    let name = spec.get("nodeName");
    if name.is_set() {
        if name.text().is_empty() {
            out.push(name.invalid("must be either unset or set to a non-empty string"));
        } else {
            set.push("`nodeName`");
            name.subdomain(out);
        }
    }
    one_node_selector(&spec.get("nodeSelector"), &mut set, out);
    true_or_unset(&spec.get("allNodes"), "`allNodes`", &mut set, out);
    let per_device = spec.get("perDeviceNodeSelection");
    true_or_unset(&per_device, "`perDeviceNodeSelection`", &mut set, out);
    match set.len() {
        0 => out.push(FieldError::required(&spec.path, WHERE)),
        1 => {}
        _ => {
            let value = format!("{{{}}}", set.join(", "));
            let detail = format!("{WHERE}, but multiple fields are set");
            out.push(FieldError::invalid(&spec.path, value, detail));
        }
    }
}

fn one_node_selector(selector: &Node<'_>, set: &mut Vec<&'static str>, out: &mut Findings) {
    if !selector.is_set() {
        return;
    }
    set.push("`nodeSelector`");
    node_selector(selector, out);
    let terms = selector.get("nodeSelectorTerms");
    if terms.len() != 1 {
        let finding = terms.invalid("must have exactly one node selector term");
        out.push(finding.shown_as("core/v1.NodeSelectorTerm"));
    }
}

fn true_or_unset(
    flag: &Node<'_>,
    name: &'static str,
    set: &mut Vec<&'static str>,
    out: &mut Findings,
) {
    if flag.is_true() {
        set.push(name);
    } else if flag.is_set() {
        out.push(flag.invalid("must be either unset or set to true"));
    }
}

fn device(device: &Node<'_>, per_device: bool, out: &mut Findings) {
    device.get("name").label(out);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    for (name, value) in attributes.entries() {
        let key = Value::from(name);
        qualified_name(&Node { value: &key, path: value.path.clone() }, out);
        attribute(&value, out);
    }
    let shared = device.get("allowMultipleAllocations").is_true();
    for (name, value) in capacity.entries() {
        let key = Value::from(name);
        qualified_name(&Node { value: &key, path: value.path.clone() }, out);
        policy::capacity(&value, shared, out);
    }
    let total = attributes.len() + capacity.len();
    if total > MAX_PROPERTIES {
        let detail = format!(
            "the total number of attributes and capacities must not exceed {MAX_PROPERTIES}"
        );
        out.push(FieldError::invalid(&device.path, total, detail));
    }
    let taints = device.get("taints");
    taints.at_most(MAX_TAINTS, out);
    taints.items().for_each(|item| taint(&item, out));
    set(
        &device.get("consumesCounters"),
        MAX_COUNTERS,
        |item| item.get("counterSet").text(),
        out,
        |item, out| {
            item.get("counterSet").require_label(out);
            counter_map(&item.get("counters"), out);
        },
    );
    device_place(device, per_device, out);
    binding_conditions(device, out);
}

fn device_place(device: &Node<'_>, per_device: bool, out: &mut Findings) {
    let mut set = Vec::new();
    let name = device.get("nodeName");
    if name.is_set() {
        set.push("`nodeName`");
        if name.text().is_empty() {
            out.push(name.invalid("must not be empty"));
        } else {
            name.subdomain(out);
        }
    }
    one_node_selector(&device.get("nodeSelector"), &mut set, out);
    true_or_unset(&device.get("allNodes"), "`allNodes`", &mut set, out);
    let value = format!("{{{}}}", set.join(", "));
    match (per_device, set.len()) {
        (true, 0) => out.push(FieldError::required(&device.path, DEVICE_WHERE)),
        (true, 1) | (false, 0) => {}
        (true, _) => out.push(FieldError::invalid(&device.path, value, DEVICE_WHERE)),
        (false, _) => out.push(FieldError::invalid(
            &device.path,
            Value::Null,
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if \
             `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        )),
    }
}

fn binding_conditions(device: &Node<'_>, out: &mut Findings) {
    let (good, bad) = (device.get("bindingConditions"), device.get("bindingFailureConditions"));
    for list in [&good, &bad] {
        set(
            list,
            MAX_CONDITIONS,
            |item| item.text(),
            out,
            |item, out| {
                item.invalid_each(names::qualified_name(item.text()), out);
            },
        );
    }
    for item in bad.items() {
        if good.items().any(|other| other.text() == item.text()) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            out.push(item.invalid_text(detail));
        }
    }
    if good.len() == 0 && bad.len() > 0 {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        out.push(good.invalid(detail));
    }
    if bad.len() == 0 && good.len() > 0 {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        out.push(bad.invalid(detail));
    }
}

fn attribute(attribute: &Node<'_>, out: &mut Findings) {
    let mut values = 0;
    for field in ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"] {
        let value = attribute.get(field);
        if !value.is_set() {
            continue;
        }
        values += 1;
        if field.ends_with('s') && value.len() == 0 {
            out.push(value.invalid("must not be empty if specified"));
        }
        match field {
            "string" => value.no_longer_than(MAX_ATTRIBUTE, out),
            "version" => version(&value, out),
            "strings" => value.items().for_each(|item| item.no_longer_than(MAX_ATTRIBUTE, out)),
            "versions" => value.items().for_each(|item| version(&item, out)),
            _ => {}
        }
    }
    let detail = "exactly one value must be specified";
    match values {
        0 => out.push(FieldError::invalid(&attribute.path, "", detail)),
        1 => {}
        _ => out.push(attribute.invalid(detail).shown_as("resource/v1.DeviceAttribute")),
    }
}

fn version(version: &Node<'_>, out: &mut Findings) {
    if !is_semantic_version(version.text()) {
        out.push(version.invalid_text("must be a string compatible with semver.org spec 2.0.0"));
    }
    version.no_longer_than(MAX_ATTRIBUTE, out);
}

/// Three numbers, then what came before a release, then what was built.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(a, b)| (a, Some(b)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| {
            pre.split('.').all(|part| is_word(part) && (!all_digits(part) || is_number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(is_word))
}

/// The taint of a device.
pub(super) fn taint(taint: &Node<'_>, out: &mut Findings) {
    let (key, value) = (taint.get("key"), taint.get("value"));
    key.invalid_each(names::qualified_name(key.text()), out);
    if !value.text().is_empty() {
        value.invalid_each(names::label_value(value.text()), out);
    }
    if taint.get("effect").require(out) {
        effect(&taint.get("effect"), out);
    }
}

fn counter_map(counters: &Node<'_>, out: &mut Findings) {
    if counters.len() == 0 {
        out.push(FieldError::required(&counters.path, ""));
    }
    counters.at_most(MAX_COUNTERS, out);
    for (name, _) in counters.entries() {
        let wrong = names::dns1123_label(name);
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&counters.path, name, text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for text in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3-0a+b.01", "10.20.30+meta"] {
            assert!(is_semantic_version(text), "{text}");
        }
        for text in ["", "1", "1.2", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "v1.2.3", "1.2.3.4"]
        {
            assert!(!is_semantic_version(text), "{text}");
        }
    }
}
