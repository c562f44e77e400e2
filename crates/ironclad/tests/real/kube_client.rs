//! The Rust client: a watcher, server-side apply with conflicts, status and scale.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use serde_json::json;

use crate::harness::Harness;

/// Runs `work` on the cluster's host with a client of the administrator.
fn with_client<F>(harness: &Harness, work: impl FnOnce(Client) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let path = harness.cluster.kubeconfig();
    harness.cluster.host().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let file = Kubeconfig::read_from(path).unwrap();
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options).await.unwrap();
            work(Client::try_from(config).unwrap()).await;
        });
    });
}

#[test]
fn the_rust_client_applies_and_watches() {
    let harness = Harness::start();
    with_client(&harness, |client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let config = watcher::Config::default().fields("metadata.name=applied");
        let mut changes = watcher(maps.clone(), config.streaming_lists()).applied_objects().boxed();

        let apply = |manager: &str| PatchParams::apply(manager);
        let wanted = |value: &str| {
            Patch::Apply(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "applied" }, "data": { "key": value },
            }))
        };
        let made = maps.patch("applied", &apply("one"), &wanted("a")).await.unwrap();
        let managers = made.metadata.managed_fields.unwrap();
        assert_eq!(managers[0].manager.as_deref(), Some("one"));
        assert_eq!(managers[0].operation.as_deref(), Some("Apply"));
        let seen = changes.try_next().await.unwrap().unwrap();
        assert_eq!(seen.data.unwrap()["key"], "a");

        let refused = maps.patch("applied", &apply("two"), &wanted("b")).await.unwrap_err();
        let kube::Error::Api(status) = refused else { panic!("{refused}") };
        assert_eq!(status.code, 409);
        assert!(status.message.contains("conflict with \"one\": .data.key"), "{}", status.message);
        maps.patch("applied", &apply("two").force(), &wanted("b")).await.unwrap();
        let seen = changes.try_next().await.unwrap().unwrap();
        assert_eq!(seen.data.unwrap()["key"], "b");

        // Who applies without a field gives it up.
        let empty = Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "applied" },
        }));
        let left = maps.patch("applied", &apply("two"), &empty).await.unwrap();
        assert!(left.data.unwrap_or_default().is_empty());
        maps.delete("applied", &DeleteParams::default()).await.unwrap();
    });
}

#[test]
fn the_rust_client_scales() {
    let harness = Harness::start();
    with_client(&harness, |client| async move {
        let deployments: Api<Deployment> = Api::namespaced(client, "default");
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
            "spec": {
                "replicas": 0, "selector": { "matchLabels": { "app": "d" } },
                "template": {
                    "metadata": { "labels": { "app": "d" } },
                    "spec": { "containers": [{ "name": "c", "image": "none:1" }] },
                },
            },
        });
        let apply = PatchParams::apply("rust");
        deployments.patch("d", &apply, &Patch::Apply(&deployment)).await.unwrap();
        let change = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
        let scaled = deployments.patch_scale("d", &PatchParams::default(), &change).await.unwrap();
        assert_eq!(scaled.spec.unwrap().replicas, Some(2));
        let found = deployments.get("d").await.unwrap();
        assert_eq!(found.spec.unwrap().replicas, Some(2));
        deployments.delete("d", &DeleteParams::background()).await.unwrap();
    });
}
