//! Which nodes a pod's volumes leave it.

use serde_json::{Value, json};

use meta::LabelSelector;

use super::*;

/// Two nodes, a class whose claims wait and are provisioned, and one without a provisioner.
fn snapshot(claims: &[Value], volumes: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b"] {
        let labels = [("kubernetes.io/hostname".to_owned(), name.to_owned())].into_iter().collect();
        let node = NodeInfo { name: name.to_owned(), labels, ..NodeInfo::default() };
        snapshot.set_node(&node);
    }
    for (name, provisioner) in [("make", "example.com/p"), ("find", volumes::NO_PROVISIONER)] {
        let class = json!({ "metadata": { "name": name }, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer" });
        let class = Arc::new(serde_json::from_value(class).unwrap());
        snapshot.volumes.classes.insert(name.to_owned(), class);
    }
    for claim in claims {
        let claim: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
        snapshot.volumes.claims.insert(key_of(&claim), Arc::new(claim));
    }
    for volume in volumes {
        let name = volume["metadata"]["name"].as_str().unwrap().to_owned();
        let volume = Arc::new(serde_json::from_value(volume.clone()).unwrap());
        snapshot.volumes.volumes.insert(name, volume);
    }
    snapshot
}

fn claim(name: &str, class: &str, volume: &str) -> Value {
    let mut claim = json!({ "metadata": { "name": name, "namespace": "n", "uid": name },
        "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } } } });
    if !volume.is_empty() {
        claim["spec"]["volumeName"] = volume.into();
        claim["metadata"]["annotations"] = json!({ volumes::BIND_COMPLETED: "yes" });
    }
    claim
}

fn volume(name: &str, class: &str, node: &str) -> Value {
    json!({ "metadata": { "name": name }, "status": { "phase": "Available" }, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "capacity": { "storage": "1Gi" },
        "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
            { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } } } })
}

fn pod(claims: &[&str]) -> PodInfo {
    let volumes: Vec<_> = claims
        .iter()
        .map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }))
        .collect();
    let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "p" },
        "spec": { "containers": [], "volumes": volumes } });
    PodInfo::new(&serde_json::from_value(pod).unwrap())
}

/// What each of the nodes says: volumes and claims of the plan, or why not.
fn told(pod: &PodInfo, snapshot: &Snapshot) -> [String; 2] {
    ["a", "b"].map(|node| {
        let mut state = CycleState::default();
        if let Err(rejection) = VolumeBinding.pre_filter(&mut state, pod, snapshot) {
            return rejection.reasons.join(", ");
        }
        let info = snapshot.node(node).unwrap();
        if let Err(rejection) = VolumeBinding.filter(&state, pod, info, snapshot) {
            return rejection.reasons.join(", ");
        }
        let plan = plan(pod, snapshot, node);
        let matched = plan.matched.iter().map(|(_, one)| one.metadata.name.clone());
        let made = plan.provision.iter().map(|one| one.metadata.name.clone());
        let names: Vec<_> = matched.chain(made).map(Option::unwrap).collect();
        format!("ok {}", names.join(" "))
    })
}

fn both(text: &str) -> [String; 2] {
    [text.to_owned(), text.to_owned()]
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let snapshot = snapshot(&[claim("c", "find", "v")], &[volume("v", "find", "b")]);
    assert_eq!(told(&pod(&["c"]), &snapshot), [NODE_CONFLICT, "ok "].map(str::to_owned));
    assert_eq!(told(&pod(&[]), &snapshot), both("ok "));
}

#[test]
fn a_claim_that_waits_is_matched_or_provisioned() {
    let claims = [claim("c", "find", ""), claim("d", "make", "")];
    let snapshot = snapshot(&claims, &[volume("v", "find", "b"), volume("w", "make", "b")]);
    assert_eq!(told(&pod(&["c"]), &snapshot), [BIND_CONFLICT, "ok v"].map(str::to_owned));
    assert_eq!(told(&pod(&["d"]), &snapshot), ["ok d", "ok w"].map(str::to_owned));
}

#[test]
fn two_claims_do_not_get_one_volume() {
    let claims = [claim("c", "find", ""), claim("d", "find", "")];
    let one = snapshot(&claims, &[volume("v", "find", "b")]);
    assert_eq!(told(&pod(&["c", "d"]), &one), both(BIND_CONFLICT));
    let two = snapshot(&claims, &[volume("v", "find", "b"), volume("w", "find", "b")]);
    assert_eq!(told(&pod(&["c", "d"]), &two)[1], "ok v w");
}

#[test]
fn what_was_given_away_is_not_free_until_it_is_given_back() {
    let claims = [claim("c", "find", ""), claim("d", "find", "")];
    let mut snapshot = snapshot(&claims, &[volume("v", "find", "b")]);
    let given = plan(&pod(&["c"]), &snapshot, "b");
    snapshot.volumes.assume(&given, "b");
    assert_eq!(told(&pod(&["d"]), &snapshot), both(BIND_CONFLICT));
    assert_eq!(told(&pod(&["c"]), &snapshot)[1], "ok v");
    snapshot.volumes.forget(&given);
    assert_eq!(told(&pod(&["d"]), &snapshot)[1], "ok v");
}

#[test]
fn a_claim_stays_on_the_node_that_was_chosen_for_it() {
    let mut chosen = claim("c", "make", "");
    chosen["metadata"]["annotations"] = json!({ volumes::SELECTED_NODE: "b" });
    let snapshot = snapshot(&[chosen], &[]);
    assert_eq!(told(&pod(&["c"]), &snapshot), [BIND_CONFLICT, "ok c"].map(str::to_owned));
}

#[test]
fn a_class_may_leave_nodes_out() {
    let mut snapshot = snapshot(&[claim("c", "make", "")], &[]);
    let class = Arc::make_mut(snapshot.volumes.classes.get_mut("make").unwrap());
    class.allowed_topologies = serde_json::from_value(json!([{ "matchLabelExpressions": [
        { "key": "kubernetes.io/hostname", "values": ["a"] }] }]))
    .unwrap();
    assert_eq!(told(&pod(&["c"]), &snapshot), ["ok c", BIND_CONFLICT].map(str::to_owned));
}

#[test]
fn claims_that_cannot_be_mounted_reject_every_node() {
    let unbound = snapshot(&[claim("c", "", "")], &[]);
    let text = "pod has unbound immediate PersistentVolumeClaims";
    assert_eq!(told(&pod(&["c"]), &unbound), both(text));
    let text = "persistentvolumeclaim \"x\" not found";
    assert_eq!(told(&pod(&["x"]), &unbound), both(text));
    let gone = snapshot(&[claim("c", "find", "v")], &[]);
    assert_eq!(told(&pod(&["c"]), &gone), both(VOLUME_GONE));
    let mut lost = claim("c", "find", "v");
    lost["status"] = json!({ "phase": "Lost" });
    let text = "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"";
    assert_eq!(told(&pod(&["c"]), &snapshot(&[lost], &[])), both(text));
    let mut ending = claim("c", "find", "v");
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let text = "persistentvolumeclaim \"c\" is being deleted";
    assert_eq!(told(&pod(&["c"]), &snapshot(&[ending], &[])), both(text));
}

#[test]
fn an_ephemeral_claim_has_to_be_the_pods_own() {
    let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "p" },
        "spec": { "containers": [], "volumes": [{ "name": "e", "ephemeral": {} }] } });
    let pod = PodInfo::new(&serde_json::from_value(pod).unwrap());
    let text =
        "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-e\"";
    assert_eq!(told(&pod, &snapshot(&[], &[])), both(text));
    let mut claim = claim("p-e", "make", "");
    let text = "PVC n/p-e was not created for pod n/p (pod is not owner)";
    assert_eq!(told(&pod, &snapshot(std::slice::from_ref(&claim), &[])), both(text));
    claim["metadata"]["ownerReferences"] = json!([
        { "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true }]);
    assert_eq!(told(&pod, &snapshot(&[claim], &[])), both("ok p-e"));
}

#[test]
fn a_volume_is_made_where_its_driver_has_room() {
    let mut snapshot = snapshot(&[claim("c", "make", "")], &[]);
    let driver = json!({ "metadata": { "name": "example.com/p" },
        "spec": { "storageCapacity": true } });
    let driver = Arc::new(serde_json::from_value(driver).unwrap());
    snapshot.volumes.drivers.insert("example.com/p".to_owned(), driver);
    assert_eq!(told(&pod(&["c"]), &snapshot), both(NO_SPACE));
    for (node, size) in [("a", "1Gi"), ("b", "1023Mi")] {
        let capacity = Capacity {
            class: "make".to_owned(),
            nodes: LabelSelector::from_labels([("kubernetes.io/hostname", node)]),
            size: size.parse().ok(),
        };
        snapshot.volumes.capacities.insert(ObjectKey::new("n", node), capacity);
    }
    assert_eq!(told(&pod(&["c"]), &snapshot), ["ok c", NO_SPACE].map(str::to_owned));
    snapshot.volumes.drivers.clear();
    assert_eq!(told(&pod(&["c"]), &snapshot), both("ok c"));
}
