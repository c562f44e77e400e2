//! What nodes may and may not write, in upstream's words.

use serde_json::json;

use super::*;
use crate::testing::{Attempt, Cluster, attempt};

const PLUGIN: NodeRestriction =
    NodeRestriction { restricts_audiences: true, allows_insecure_requests: false };

fn cluster() -> Cluster {
    let volumes = json!([
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}},
        {"name": "k", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
    ]);
    Cluster::default()
        .with("nodes", &[json!({"metadata": {"name": "n", "uid": "node-uid"}})])
        .with(
            "pods",
            &[
                json!({"metadata": {"name": "mine", "namespace": "ns", "uid": "pod-uid"},
                    "spec": {"nodeName": "n", "volumes": volumes}}),
                json!({"metadata": {"name": "theirs", "namespace": "ns", "uid": "other-uid"},
                    "spec": {"nodeName": "m"}}),
            ],
        )
        .with(
            "persistentvolumeclaims",
            &[json!({"metadata": {"name": "claim", "namespace": "ns"},
                "spec": {"volumeName": "pv"}})],
        )
        .with(
            "persistentvolumes",
            &[json!({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "d.io"}}})],
        )
        .with(
            "csidrivers",
            &[json!({"metadata": {"name": "d.io"},
                "spec": {"tokenRequests": [{"audience": "csi"}]}})],
        )
}

fn node(group: &str, resource: &str, operation: Operation) -> Attempt {
    attempt(group, resource, operation).by("system:node:n", GROUP)
}

/// What the plugin says; empty when it admits the write.
fn says(write: &Attempt, object: Value, old: Value) -> String {
    let mut new = object;
    let outcome = match old.is_null() {
        true => write.admit(&PLUGIN, &mut new, None, &cluster()),
        false => write.admit(&PLUGIN, &mut new, Some(&old), &cluster()),
    };
    let message = outcome.err().unwrap_or_default();
    message.split_once("is forbidden: ").map_or(message.clone(), |(_, why)| why.to_owned())
}

fn mirror() -> Value {
    json!({"metadata": {"name": "x", "annotations": {"kubernetes.io/config.mirror": ""},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n",
                "uid": "node-uid", "controller": true}]},
        "spec": {"nodeName": "n", "containers": [{"name": "c"}]}})
}

fn mirror_with(pointer: &str, field: &str, value: Value) -> Value {
    let mut pod = mirror();
    pod.pointer_mut(pointer).unwrap()[field] = value;
    pod
}

#[test]
fn others_are_not_restricted() {
    let object = || json!({"metadata": {"name": "x"}});
    let user = attempt("", "nodes", Operation::Update);
    assert_eq!(says(&user, object(), object()), "");
    let without_group = attempt("", "nodes", Operation::Update).by("system:node:n", "others");
    assert_eq!(says(&without_group, object(), object()), "");
    let nameless = attempt("", "nodes", Operation::Update).by("system:node:", GROUP);
    assert_eq!(
        says(&nameless, object(), object()),
        "could not determine node from user \"system:node:\""
    );
}

#[test]
fn a_node_creates_only_mirror_pods_that_refer_to_nothing() {
    let create = node("", "pods", Operation::Create);
    assert_eq!(says(&create, mirror(), Value::Null), "");
    let refers = |what: &str| format!("node \"n\" can not create pods that reference {what}");
    let cases = [
        (
            mirror_with("/metadata", "annotations", json!({})),
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n\" can only \
             create mirror pods"
                .to_owned(),
        ),
        (
            mirror_with("/spec", "nodeName", json!("m")),
            "node \"n\" can only create pods with spec.nodeName set to itself".to_owned(),
        ),
        (
            mirror_with("/metadata", "ownerReferences", json!([])),
            "node \"n\" can only create pods with an owner reference set to itself".to_owned(),
        ),
        (
            mirror_with("/metadata", "ownerReferences", json!([{}, {}])),
            "node \"n\" can only create pods with a single owner reference set to itself"
                .to_owned(),
        ),
        (
            mirror_with("/metadata/ownerReferences/0", "name", json!("m")),
            "node \"n\" can only create pods with an owner reference set to itself".to_owned(),
        ),
        (
            mirror_with("/metadata/ownerReferences/0", "controller", json!(false)),
            "node \"n\" can only create pods with a controller owner reference set to itself"
                .to_owned(),
        ),
        (
            mirror_with("/metadata/ownerReferences/0", "blockOwnerDeletion", json!(true)),
            "node \"n\" must not set blockOwnerDeletion on an owner reference".to_owned(),
        ),
        (
            mirror_with("/metadata/ownerReferences/0", "uid", json!("u")),
            "node n UID mismatch: expected u got node-uid".to_owned(),
        ),
        (mirror_with("/spec", "serviceAccountName", json!("a")), refers("a service account")),
        (mirror_with("/spec", "imagePullSecrets", json!([{"name": "s"}])), refers("secrets")),
        (
            mirror_with("/spec/containers/0", "envFrom", json!([{"secretRef": {"name": "s"}}])),
            refers("secrets"),
        ),
        (mirror_with("/spec", "volumes", json!([{"name": "v", "secret": {}}])), refers("secrets")),
        (
            mirror_with(
                "/spec/containers/0",
                "env",
                json!([{"valueFrom":
                {"configMapKeyRef": {"name": "c"}}}]),
            ),
            refers("configmaps"),
        ),
        (
            mirror_with(
                "/spec",
                "volumes",
                json!([{"name": "v", "projected":
                {"sources": [{"configMap": {"name": "c"}}]}}]),
            ),
            refers("configmaps"),
        ),
        (
            mirror_with(
                "/spec",
                "volumes",
                json!([{"name": "v", "projected":
                {"sources": [{"clusterTrustBundle": {"name": "c"}}]}}]),
            ),
            refers("clustertrustbundles"),
        ),
        (
            mirror_with(
                "/spec",
                "volumes",
                json!([{"name": "v",
                "persistentVolumeClaim": {"claimName": "c"}}]),
            ),
            refers("persistentvolumeclaims"),
        ),
        (mirror_with("/spec", "resourceClaims", json!([{"name": "r"}])), refers("resourceclaims")),
    ];
    for (pod, expected) in cases {
        assert_eq!(says(&create, pod, Value::Null), expected);
    }
}

#[test]
fn a_node_reports_and_ends_only_its_own_pods() {
    let pod = |node: &str| json!({"metadata": {"name": "x"}, "spec": {"nodeName": node}});
    let status = node("", "pods", Operation::Update).of("status");
    assert_eq!(says(&status, pod("n"), pod("n")), "");
    assert_eq!(
        says(&status, pod("m"), pod("m")),
        "node \"n\" can only update pod status for pods with spec.nodeName set to itself"
    );
    let mut labelled = pod("n");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(
        says(&status, labelled, pod("n")),
        "node \"n\" cannot update labels through pod status"
    );
    let mut claimed = pod("n");
    claimed["status"] = json!({"resourceClaimStatuses": [{"name": "r"}]});
    assert_eq!(says(&status, claimed, pod("n")), "node \"n\" cannot update resource claim statues");
    let update = node("", "pods", Operation::Update);
    assert_eq!(
        says(&update, pod("n"), pod("n")),
        "unexpected operation \"UPDATE\", node \"n\" can only create and delete mirror pods"
    );
    let delete = node("", "pods", Operation::Delete);
    assert!(delete.validate(&PLUGIN, None, Some(&pod("n")), &cluster()).is_ok());
    let refusal = delete.validate(&PLUGIN, None, Some(&pod("m")), &cluster()).unwrap_err();
    assert!(
        refusal.ends_with("node \"n\" can only delete pods with spec.nodeName set to itself"),
        "{refusal}"
    );
    let exec = node("", "pods", Operation::Create).of("binding");
    assert_eq!(
        says(&exec, json!({}), Value::Null),
        "unexpected pod subresource \"binding\", only 'status' and 'eviction' are allowed"
    );
}

#[test]
fn a_node_evicts_only_its_own_pods() {
    let evict = |name| node("", "pods", Operation::Create).of("eviction").within("ns").named(name);
    assert_eq!(says(&evict("mine"), json!({}), Value::Null), "");
    assert_eq!(
        says(&evict("theirs"), json!({}), Value::Null),
        "node n can only evict pods with spec.nodeName set to itself"
    );
    assert_eq!(says(&evict("absent"), json!({}), Value::Null), "pods \"absent\" not found");
    assert_eq!(
        says(&evict(""), json!({"metadata": {"name": "theirs"}}), Value::Null),
        "node n can only evict pods with spec.nodeName set to itself"
    );
}

#[test]
fn a_node_labels_itself_only_with_what_is_its_own() {
    let with = |labels: Value| json!({"metadata": {"name": "n", "labels": labels}, "spec": {}});
    let create = node("", "nodes", Operation::Create).named("n");
    let update = node("", "nodes", Operation::Update).named("n");
    let own = json!({"kubernetes.io/hostname": "n", "x.node.kubernetes.io/a": "1",
        "topology.kubernetes.io/zone": "z", "example.com/any": "thing"});
    assert_eq!(says(&create, with(own.clone()), Value::Null), "");
    assert_eq!(says(&update, with(own), with(json!({}))), "");
    let foreign = json!({"node-restriction.kubernetes.io/a": "1", "foo.k8s.io/b": "2"});
    assert_eq!(
        says(&create, with(foreign.clone()), Value::Null),
        "node \"n\" is not allowed to set the following labels: foo.k8s.io/b, \
         node-restriction.kubernetes.io/a"
    );
    assert_eq!(
        says(&update, with(json!({})), with(foreign.clone())),
        "is not allowed to modify labels: foo.k8s.io/b, node-restriction.kubernetes.io/a"
    );
    assert_eq!(says(&update, with(foreign.clone()), with(foreign)), "");
}

#[test]
fn a_node_leaves_its_taints_and_other_nodes_alone() {
    let update = node("", "nodes", Operation::Update).named("n");
    let with = |spec: Value| json!({"metadata": {"name": "n"}, "spec": spec});
    assert_eq!(
        says(&update, with(json!({})), with(json!({"taints": [{"key": "k"}]}))),
        "node \"n\" is not allowed to modify taints"
    );
    let source = json!({"configSource": {"configMap": {}}});
    assert_eq!(
        says(&update, with(source.clone()), with(json!({}))),
        "node \"n\" is not allowed to update configSource to a new non-nil configSource"
    );
    assert_eq!(says(&update, with(json!({})), with(source.clone())), "");
    let create = node("", "nodes", Operation::Create).named("n");
    assert_eq!(
        says(&create, with(source), Value::Null),
        "node \"n\" is not allowed to create pods with a non-nil configSource"
    );
    let other = node("", "nodes", Operation::Update).named("m");
    assert_eq!(
        says(&other, with(json!({})), with(json!({}))),
        "node \"n\" is not allowed to modify node \"m\""
    );
}

#[test]
fn a_node_says_of_a_claim_only_how_large_its_volume_is() {
    let claim = |status: Value| json!({"metadata": {"name": "x"}, "spec": {}, "status": status});
    let status = node("", "persistentvolumeclaims", Operation::Update).of("status");
    let grown = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "conditions": [{}]});
    assert_eq!(says(&status, claim(grown), claim(json!({"phase": "Bound"}))), "");
    assert_eq!(
        says(&status, claim(json!({"phase": "Lost"})), claim(json!({"phase": "Bound"}))),
        "node \"n\" is not allowed to update fields other than status.quantity and \
         status.conditions"
    );
    let update = node("", "persistentvolumeclaims", Operation::Update);
    assert_eq!(says(&update, claim(json!({})), claim(json!({}))), "may only update PVC status");
}

#[test]
fn a_node_asks_only_for_tokens_that_its_pods_use() {
    let create = node("", "serviceaccounts", Operation::Create).of("token").within("ns");
    let token = |name: &str, uid: &str, audiences: Value| {
        json!({"spec": {"audiences": audiences, "boundObjectRef":
            {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}})
    };
    let ask = |token: Value| says(&create, token, Value::Null);
    for audiences in [json!([]), json!(["vault"]), json!(["csi"])] {
        assert_eq!(ask(token("mine", "pod-uid", audiences)), "");
    }
    assert_eq!(ask(json!({"spec": {}})), "node requested token not bound to a pod");
    assert_eq!(
        ask(token("mine", "", json!([]))),
        "node requested token with a pod binding without a uid"
    );
    assert_eq!(
        ask(token("mine", "u", json!([]))),
        "the UID in the bound object reference (u) does not match the UID in record. The object \
         might have been deleted and then recreated"
    );
    assert_eq!(
        ask(token("theirs", "other-uid", json!([]))),
        "node requested token bound to a pod scheduled on a different node"
    );
    assert_eq!(
        ask(token("mine", "pod-uid", json!(["a", "b"]))),
        "node may only request 0 or 1 audiences"
    );
    assert_eq!(
        ask(token("mine", "pod-uid", json!(["bank"]))),
        "audience \"bank\" not found in pod spec volume, system:node:n is not authorized to \
         request tokens for this audience"
    );
    let allowed = cluster().allowing(&["request-serviceaccounts-token-audience bank x"]);
    let mut bank = token("mine", "pod-uid", json!(["bank"]));
    assert_eq!(create.admit(&PLUGIN, &mut bank, None, &allowed), Ok(()));
}

#[test]
fn leases_storage_and_devices_of_other_nodes_are_not_touched() {
    let lease = node("coordination.k8s.io", "leases", Operation::Create);
    let named = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(
        says(&lease, named("n"), Value::Null),
        "can only access leases in the \"kube-node-lease\" system namespace"
    );
    let lease = node("coordination.k8s.io", "leases", Operation::Create).within(LEASES);
    assert_eq!(says(&lease, named("n"), Value::Null), "");
    assert_eq!(
        says(&lease, named("m"), Value::Null),
        "can only access node lease with the same name as the requesting node"
    );
    let csi = node("storage.k8s.io", "csinodes", Operation::Update).named("m");
    assert_eq!(
        says(&csi, named("m"), named("m")),
        "can only access CSINode with the same name as the requesting node"
    );
    let slice = node("resource.k8s.io", "resourceslices", Operation::Create);
    assert_eq!(says(&slice, json!({"spec": {"nodeName": "n"}}), Value::Null), "");
    assert_eq!(
        says(&slice, json!({"spec": {"nodeName": "m"}}), Value::Null),
        "can only create ResourceSlice with the same NodeName as the requesting node"
    );
}

#[test]
fn a_node_asks_for_certificates_in_its_own_name() {
    let create = node("certificates.k8s.io", "certificatesigningrequests", Operation::Create);
    let request = |name: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"spec": {"signerName": signer, "request": STANDARD.encode(pem)}})
    };
    assert_eq!(says(&create, request("system:node:n", SIGNERS[0]), Value::Null), "");
    assert_eq!(
        says(&create, request("system:node:m", SIGNERS[1]), Value::Null),
        "can only create a node CSR with CN=system:node:n"
    );
    assert_eq!(says(&create, request("anybody", "x.io/s"), Value::Null), "");
}

#[test]
fn a_node_asks_for_certificates_of_its_own_pods() {
    let create =
        node("certificates.k8s.io", "podcertificaterequests", Operation::Create).within("ns");
    let request = |node: &str, pod: &str, uid: &str, account: &str| {
        json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"nodeName": node,
            "podName": pod, "podUID": uid, "serviceAccountName": account}})
    };
    let asks = |object: Value| says(&create, object, Value::Null);
    assert_eq!(asks(request("n", "mine", "pod-uid", "default")), "");
    assert!(asks(request("m", "mine", "pod-uid", "default")).contains("not the requesting node"));
    assert!(asks(request("n", "mine", "other", "default")).contains("differs from running pod"));
    assert!(asks(request("n", "theirs", "other-uid", "default")).contains("is not scheduled on"));
    assert!(asks(request("n", "mine", "pod-uid", "admin")).contains("is not the pod's"));
    let update =
        node("certificates.k8s.io", "podcertificaterequests", Operation::Update).within("ns");
    let own = request("n", "mine", "pod-uid", "default");
    assert!(!says(&update, own.clone(), own).is_empty());
}
