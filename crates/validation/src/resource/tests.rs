//! Device claims, classes and slices: what is refused, and in which words.

use serde_json::{Value, json};

use crate::tests::{check, check_update, object};

const GROUP: &str = "resource.k8s.io";

fn claim(devices: Value) -> Value {
    object(json!({"devices": devices}))
}

#[test]
fn a_claim_asks_in_one_way_for_devices_of_a_class() {
    let request = json!({"name": "A", "exactly": {"deviceClassName": "", "count": -1,
        "allocationMode": "ExactCount"}});
    let both = json!({"name": "b", "exactly": {"deviceClassName": "c", "allocationMode": "All"},
        "firstAvailable": [{"name": "x", "deviceClassName": "c", "allocationMode": "Some"}]});
    check(
        GROUP,
        "ResourceClaim",
        claim(json!({"requests": [request, both, {"name": "b"}]})),
        &[
            "spec.devices.requests[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must \
             consist of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
            "spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero",
            "spec.devices.requests[1].firstAvailable[0].allocationMode: Unsupported value: \
             \"Some\": supported values: \"All\", \"ExactCount\"",
            "spec.devices.requests[1]: Invalid value: null: exactly one of `exactly` or \
             `firstAvailable` is required, but multiple fields are set",
            "spec.devices.requests[2]: Required value: exactly one of `exactly` or \
             `firstAvailable` is required",
            "spec.devices.requests[2]: Duplicate value: \"b\"",
        ],
    );
}

#[test]
fn constraints_and_configuration_name_requests_of_the_claim() {
    let request = json!({"name": "r", "exactly": {"deviceClassName": "c", "count": 1}});
    let unknown = "must be the name of a request in the claim or the name of a request and a \
                   subrequest separated by '/'";
    check(
        GROUP,
        "ResourceClaim",
        claim(json!({
            "requests": [request],
            "constraints": [{"requests": ["r", "q", "r"], "matchAttribute": "numa"},
                {"matchAttribute": "a.b/c", "distinctAttribute": "a.b/c"}],
            "config": [{"requests": ["r/s/t"], "opaque": {"driver": "d", "parameters": [1]}}],
        })),
        &[
            &format!("spec.devices.constraints[0].requests[1]: Invalid value: \"q\": {unknown}"),
            "spec.devices.constraints[0].requests[2]: Duplicate value: \"r\"",
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully \
             qualified name must be a domain and a name separated by a slash",
            "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \
             \"distinctAttribute\" is required, but multiple fields are set",
            &format!("spec.devices.config[0].requests[0]: Invalid value: \"r/s/t\": {unknown}"),
            "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be \
             a valid JSON object",
        ],
    );
}

#[test]
fn a_claim_does_not_change() {
    let old = claim(json!({}));
    let new = claim(json!({"config": [{"requests": ["r"]}]}));
    check_update(
        GROUP,
        "ResourceClaim",
        "",
        (&new, &old),
        &["spec: Invalid value: {\"Devices\":{\"Requests\":null,\"Constraints\":null,\"Config\":\
           [{\"Requests\":[\"r\"],\"Opaque\":null}]}}: field is immutable"],
    );
}

#[test]
fn only_allocated_claims_are_reserved() {
    let user = json!({"resource": "pods", "name": "p", "uid": "u"});
    let with = |status: Value| {
        json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {},
        "status": status})
    };
    check_update(
        GROUP,
        "ResourceClaim",
        "status",
        (
            &with(json!({"reservedFor": [user, {"resource": "pods", "name": "q"}]})),
            &with(json!({})),
        ),
        &[
            "status.reservedFor[1].uid: Required value",
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        ],
    );
}

#[test]
fn a_class_names_an_extended_resource() {
    check(
        GROUP,
        "DeviceClass",
        object(json!({"extendedResourceName": "gpu", "selectors": [{}], "config": [{}]})),
        &[
            "spec.selectors[0].cel: Required value",
            "spec.config[0].opaque: Required value",
            "spec.extendedResourceName: Invalid value: \"gpu\": must be a valid extended resource \
             name",
        ],
    );
}

#[test]
fn a_slice_is_somewhere_and_its_devices_differ() {
    let pool = json!({"name": "p", "resourceSliceCount": 1, "generation": -1});
    let device = json!({"name": "d", "attributes": {"a": {"int": 1, "bool": true},
        "v": {"version": "x"}}});
    check(
        GROUP,
        "ResourceSlice",
        object(json!({"driver": "d.e", "pool": pool, "nodeName": "n", "allNodes": true,
            "devices": [device, {"name": "d", "nodeName": "m"}]})),
        &[
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, \
             `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields \
             are set",
            "spec.devices[0].attributes[a]: Invalid value: {\"IntValue\":1,\"BoolValue\":true,\
             \"StringValue\":null,\"VersionValue\":null,\"IntValues\":null,\"BoolValues\":null,\
             \"StringValues\":null,\"VersionValues\":null}: exactly one value must be specified",
            "spec.devices[0].attributes[v].version: Invalid value: \"x\": must be a string \
             compatible with semver.org spec 2.0.0",
            "spec.devices[1]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can \
             only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            "spec.devices[1]: Duplicate value: \"d\"",
        ],
    );
}

#[test]
fn requests_fit_the_capacity_of_a_device() {
    let policy = json!({"default": "5", "validRange": {"min": "2", "max": "20", "step": "2"}});
    let device = json!({"name": "d", "allowMultipleAllocations": true,
        "capacity": {"c": {"value": "10", "requestPolicy": policy}}});
    let pool = json!({"name": "p", "resourceSliceCount": 1, "generation": 1});
    let at = "spec.devices[0].capacity[c].requestPolicy.validRange";
    check(
        GROUP,
        "ResourceSlice",
        object(json!({"driver": "d", "pool": pool, "allNodes": true, "devices": [device]})),
        &[
            &format!("{at}.max: Invalid value: \"20\": max is larger than capacity value: 10"),
            &format!(
                "{at}.step: Invalid value: \"2\": value is not a multiple of a given step (2) from \
                 (2)"
            ),
        ],
    );
}
