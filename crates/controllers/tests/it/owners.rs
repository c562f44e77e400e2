//! What the garbage collector makes of owners that it has not seen, and of custom ones.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{Running, namespace};

const MAPS: &str = "/api/v1/namespaces/n/configmaps";
const WIDGETS: &str = "/apis/example.io/v1/namespaces/n/widgets";

fn owned(api: &MemoryApi, name: &str, owners: &[&Value]) {
    api.create(MAPS, json!({ "metadata": { "name": name, "ownerReferences": owners } }));
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &Value) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
        "blockOwnerDeletion": true })
}

fn widget(api: &MemoryApi, name: &str) -> Value {
    let widget = json!({ "apiVersion": "example.io/v1", "kind": "Widget",
        "metadata": { "name": name }, "spec": {} });
    let uid = api.create(WIDGETS, widget)["metadata"]["uid"].clone();
    reference("example.io/v1", "Widget", name, &uid)
}

fn exists(api: &MemoryApi, map: &str) -> bool {
    api.get(&format!("{MAPS}/{map}")).is_some()
}

#[tokio::test]
async fn what_belongs_to_nobody_that_ever_was_goes() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let never = reference("v1", "ConfigMap", "never", &json!("never"));
    // Another object of the name is not the owner.
    api.create(MAPS, json!({ "metadata": { "name": "renewed", "uid": "second" } }));
    let former = reference("v1", "ConfigMap", "renewed", &json!("first"));
    let there = reference("v1", "ConfigMap", "renewed", &json!("second"));
    owned(api, "of-nobody", &[&never]);
    owned(api, "of-a-former", &[&former]);
    owned(api, "of-one-and-nobody", &[&never, &there]);
    api.eventually("the first two are gone", |api| {
        !exists(api, "of-nobody") && !exists(api, "of-a-former")
    })
    .await;
    api.eventually("the third forgets who is not there", |api| {
        let map = api.get(&format!("{MAPS}/of-one-and-nobody")).unwrap();
        let owners = map["metadata"]["ownerReferences"].as_array().unwrap().clone();
        owners.len() == 1 && owners[0]["uid"] == "second"
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_a_kind_that_nobody_knows_stays() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    owned(api, "strange", &[&reference("other.io/v1", "Gadget", "g", &json!("g"))]);
    owned(api, "of-nobody", &[&reference("v1", "ConfigMap", "never", &json!("never"))]);
    api.eventually("others go", |api| !exists(api, "of-nobody")).await;
    assert!(exists(api, "strange"));
}

#[tokio::test]
async fn custom_objects_own_as_others_do() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let (first, second) = (widget(api, "first"), widget(api, "second"));
    owned(api, "of-first", &[&first]);
    owned(api, "of-both", &[&first, &second]);
    owned(api, "of-second", &[&second]);
    api.delete(&format!("{WIDGETS}/first"));
    api.eventually("its own is gone", |api| !exists(api, "of-first")).await;
    assert!(exists(api, "of-both") && exists(api, "of-second"));
    // In the foreground it waits for what it owns.
    let held = json!({ "metadata": { "finalizers": ["test/held"] } });
    api.patch(&format!("{MAPS}/of-second"), &held);
    let options = client::DeleteOptions {
        propagation: Some(client::Propagation::Foreground),
        ..client::DeleteOptions::default()
    };
    let path =
        client::ResourcePath::new(meta::GroupVersionResource::new("example.io", "v1", "widgets"));
    let widgets = api.client().dynamic::<Value>(path, "n");
    widgets.delete("second", &options).await.unwrap();
    api.eventually("what is not held goes", |api| !exists(api, "of-both")).await;
    assert!(api.get(&format!("{WIDGETS}/second")).is_some(), "it waits");
    let free = json!({ "metadata": { "finalizers": [] } });
    api.patch(&format!("{MAPS}/of-second"), &free);
    api.eventually("it goes last", |api| {
        api.get(&format!("{WIDGETS}/second")).is_none() && !exists(api, "of-second")
    })
    .await;
}
