//! Kinds of storage: what is refused, and in which words.

use serde_json::{Value, json};

use crate::tests::{check, check_update, object};

const GROUP: &str = "storage.k8s.io";

fn with_fields(fields: Value) -> Value {
    let mut object = fields;
    object["metadata"] = json!({"name": "x", "namespace": "n", "resourceVersion": "1"});
    object
}

#[test]
fn an_attachment_has_one_source() {
    check(
        GROUP,
        "VolumeAttachment",
        object(json!({"attacher": "-", "nodeName": "n", "source": {}})),
        &[
            "spec.attacher: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of \
             lower case alphanumeric characters, '-' or '.', and must start and end with an \
             alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and \
             persistentVolumeName",
        ],
    );
    let with = |node: &str| {
        object(json!({"attacher": "a", "nodeName": node, "source": {"persistentVolumeName": "p"}}))
    };
    check_update(
        GROUP,
        "VolumeAttachment",
        "",
        (&with("a"), &with("b")),
        &["spec: Invalid value: {\"Attacher\":\"a\",\"Source\":{\"PersistentVolumeName\":\"p\",\
           \"InlineVolumeSpec\":null},\"NodeName\":\"a\"}: field is immutable"],
    );
}

#[test]
fn classes_of_attributes_do_not_change() {
    let with =
        |parameters: Value| with_fields(json!({"driverName": "d", "parameters": parameters}));
    check(
        GROUP,
        "VolumeAttributesClass",
        with(json!({})),
        &["parameters: Required value: must contain at least one key/value pair"],
    );
    check_update(
        GROUP,
        "VolumeAttributesClass",
        "",
        (&with(json!({"a": "b"})), &with(json!({"a": "c"}))),
        &["parameters: Forbidden: updates to parameters are forbidden."],
    );
}

#[test]
fn a_driver_says_what_it_needs() {
    let tokens = json!([{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]);
    check(
        GROUP,
        "CSIDriver",
        object(json!({"fsGroupPolicy": "X", "tokenRequests": tokens,
            "volumeLifecycleModes": ["Y"], "nodeAllocatableUpdatePeriodSeconds": 9})),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"X\": supported values: \"File\", \"None\", \
             \"ReadWriteOnceWithFSType\"",
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration \
             less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.volumeLifecycleModes: Unsupported value: \"Y\": supported values: \
             \"Persistent\", \"Ephemeral\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or \
             equal to 10 seconds",
        ],
    );
}

#[test]
fn drivers_of_a_node_differ_and_stay() {
    let with = |id: &str| object(json!({"drivers": [{"name": "d", "nodeID": id}]}));
    check(
        GROUP,
        "CSINode",
        object(json!({"drivers": [{"name": "d", "nodeID": "", "topologyKeys": ["z", "z"]},
            {"name": "d", "nodeID": "i"}]})),
        &[
            "spec.drivers[0].nodeID: Required value",
            "spec.drivers[0]: Duplicate value: \"z\"",
            "spec.drivers[1].name: Duplicate value: \"d\"",
        ],
    );
    check_update(
        GROUP,
        "CSINode",
        "",
        (&with("a"), &with("b")),
        &[
            "spec.drivers[0]: Invalid value: {\"Name\":\"d\",\"NodeID\":\"a\",\"TopologyKeys\":null,\
           \"Allocatable\":null}: field is immutable",
        ],
    );
}

#[test]
fn a_capacity_is_for_one_class_and_place() {
    let with = |class: &str, capacity: &str| {
        with_fields(json!({"storageClassName": class, "capacity": capacity}))
    };
    check(
        GROUP,
        "CSIStorageCapacity",
        with("c", "-1"),
        &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    check_update(
        GROUP,
        "CSIStorageCapacity",
        "",
        (&with("d", "1"), &with("c", "2")),
        &["storageClassName: Invalid value: \"d\": field is immutable"],
    );
}

#[test]
fn topologies_of_a_class_differ() {
    let term = json!({"matchLabelExpressions": [{"key": "z", "values": ["a", "a"]}]});
    check(
        GROUP,
        "StorageClass",
        with_fields(json!({"provisioner": "P!", "parameters": {"": "x"},
            "allowedTopologies": [term, term, {}]})),
        &[
            "provisioner: Invalid value: \"p!\": name part must consist of alphanumeric \
             characters, '-', '_' or '.', and must start and end with an alphanumeric character \
             (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "parameters: Invalid value: \"\": field can not be empty.",
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[1].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
            "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
            "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
            "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
        ],
    );
}
