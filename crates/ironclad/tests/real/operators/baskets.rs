//! An operator with the crate `kube`: its kind is derived from Rust types in two versions.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::crd::merge_crds;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, Config, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::hooks::{Hooks, LARGEST};
use crate::harness::Harness;

/// Objects that are reconciled.
const MANY: usize = 1000;
const IN_FLIGHT: usize = 16;
const PATIENCE: Duration = Duration::from_secs(180);
const MANAGER: &str = "basket-operator";

#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(
    group = "shop.example.com",
    version = "v1",
    kind = "Basket",
    namespaced,
    status = "BasketStatus",
    shortname = "bk",
    printcolumn = r#"{"name":"Size","type":"integer","jsonPath":".spec.size"}"#
)]
struct BasketSpec {
    size: i64,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
struct BasketStatus {
    filled: bool,
}

mod v2 {
    use super::{BasketStatus, CustomResource, Deserialize, JsonSchema, Serialize};

    #[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, Serialize)]
    #[kube(
        group = "shop.example.com",
        version = "v2",
        kind = "Basket",
        namespaced,
        status = "BasketStatus",
        shortname = "bk"
    )]
    pub(super) struct BasketSpec {
        pub(super) capacity: i64,
    }
}

async fn connect(path: &std::path::Path) -> Client {
    let file = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Makes the ConfigMap of a basket, and says so in its status; its finalizer is the operator's.
async fn reconcile(basket: Arc<Basket>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let baskets: Api<Basket> = Api::namespaced((*client).clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), "default");
    let apply = PatchParams::apply(MANAGER).force();
    let kept = finalizer(&baskets, "shop.example.com/operator", basket, |event| async {
        let Event::Apply(basket) = event else {
            return Ok::<_, kube::Error>(Action::await_change());
        };
        let name = basket.name_any();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("basket-{name}"),
                "ownerReferences": [basket.controller_owner_ref(&()).unwrap()]},
            "data": {"size": basket.spec.size.to_string()},
        });
        maps.patch(&format!("basket-{name}"), &apply, &Patch::Apply(map)).await?;
        let status = Patch::Merge(json!({ "status": { "filled": true } }));
        baskets.patch_status(&name, &PatchParams::default(), &status).await?;
        Ok(Action::await_change())
    })
    .await;
    match kept {
        Ok(action) => Ok(action),
        // Somebody else was faster; the next change comes soon.
        Err(_) => Ok(Action::requeue(Duration::from_millis(200))),
    }
}

async fn operate(client: Client) {
    let baskets: Api<Basket> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let again = |_: Arc<Basket>, _: &kube::Error, _: Arc<Client>| {
        Action::requeue(Duration::from_millis(500))
    };
    Controller::new(baskets, watcher::Config::default())
        .owns(maps, watcher::Config::default())
        .run(reconcile, again, Arc::new(client))
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn install(client: &Client, hooks: &Hooks) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let merged = merge_crds(vec![Basket::crd(), v2::Basket::crd()], "v1").unwrap();
    let mut merged = serde_json::to_value(merged).unwrap();
    merged["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": hooks.client_config("convert")}});
    let merged = serde_json::from_value(merged).unwrap();
    let made = definitions.create(&PostParams::default(), &merged).await.unwrap();
    let established = conditions::is_crd_established();
    await_condition(definitions, &made.name_any(), established).await.unwrap();
    let hook = |name: &str, path: &str| {
        json!({"metadata": {"name": name}, "webhooks": [{
            "name": format!("{name}.shop.example.com"), "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": hooks.client_config(path),
            "rules": [{"apiGroups": ["shop.example.com"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["baskets"]}]}]})
    };
    let mutating: MutatingWebhookConfiguration =
        serde_json::from_value(hook("default", "default")).unwrap();
    let validating: ValidatingWebhookConfiguration =
        serde_json::from_value(hook("check", "check")).unwrap();
    let params = PostParams::default();
    Api::all(client.clone()).create(&params, &mutating).await.unwrap();
    Api::all(client.clone()).create(&params, &validating).await.unwrap();
}

/// Baskets of odd numbers are made in the second version.
async fn fill(client: &Client, numbers: std::ops::Range<usize>) {
    let old: Api<Basket> = Api::namespaced(client.clone(), "default");
    let new: Api<v2::Basket> = Api::namespaced(client.clone(), "default");
    let (old, new, params) = (&old, &new, &PostParams::default());
    let make = |n: usize| async move {
        let (name, size) = (format!("b{n}"), i64::try_from(n % 100).unwrap());
        if n.is_multiple_of(2) {
            old.create(params, &Basket::new(&name, BasketSpec { size })).await.unwrap();
        } else {
            let spec = v2::BasketSpec { capacity: size };
            new.create(params, &v2::Basket::new(&name, spec)).await.unwrap();
        }
    };
    futures::stream::iter(numbers.map(make)).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await;
}

async fn until_filled(client: &Client, count: usize) {
    let baskets: Api<Basket> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let mut seen = String::new();
    let all = async {
        loop {
            let list = baskets.list(&ListParams::default()).await.unwrap();
            let is_filled = |basket: &&Basket| basket.status.as_ref().is_some_and(|it| it.filled);
            let filled = list.iter().filter(is_filled).count();
            let own = maps.list(&ListParams::default()).await.unwrap().items;
            let own = own.iter().filter(|map| map.name_any().starts_with("basket-")).count();
            if list.items.len() == count && filled == count && own == count {
                return list;
            }
            seen = format!("{filled} of {} are filled, with {own} maps", list.items.len());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let list = tokio::time::timeout(PATIENCE, all).await;
    let list = list.unwrap_or_else(|_| panic!("{count} baskets are wanted; {seen}"));
    assert!(list.iter().all(|basket| basket.labels().get("seen").is_some_and(|it| it == "yes")));
}

/// Waits until the operator watches again: it follows a change.
///
/// `kube` 5.0 does not reconcile what it sees first in a list made because a watch had expired: it
/// looks these objects up before the list is in its store. So nothing new may be made before.
async fn until_watching(client: &Client) {
    let baskets: Api<Basket> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let name = format!("b{}", MANY - 1);
    let followed = async {
        // A change that was made too early is not followed either.
        for size in 100.. {
            let change = Patch::Merge(json!({"spec": {"size": size}}));
            baskets.patch(&name, &PatchParams::default(), &change).await.unwrap();
            for _ in 0..20 {
                let map = maps.get(&format!("basket-{name}")).await.unwrap();
                if map.data.unwrap_or_default()["size"] == size.to_string() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.expect("the operator follows changes");
}

/// Runs `work` on the cluster's host.
fn on_host<F: Future<Output = ()>>(
    harness: &Harness,
    work: impl FnOnce(std::path::PathBuf) -> F + Send + 'static,
) {
    let path = harness.cluster.kubeconfig();
    harness.cluster.host().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(path));
    });
}

#[test]
fn an_operator_in_rust_survives_the_api_server() {
    let mut harness = Harness::start();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let path = harness.cluster.kubeconfig();
    // Webhooks and operator are a process of their own in all but name: they outlive the server. A
    // thread stays on the host of the thread that made it.
    let operator = harness.cluster.host().run(move || {
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = connect(&path).await;
                let hooks = Hooks::start().await;
                install(&client, &hooks).await;
                tokio::select! {
                    () = operate(client) => panic!("the operator ended"),
                    _ = stopped => {}
                }
            });
        })
    });
    on_host(&harness, |path| async move {
        let client = connect(&path).await;
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        let installed = async {
            while hooks.get_opt("check").await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, installed).await.expect("the operator installs itself");
        fill(&client, 0..MANY).await;
        until_filled(&client, MANY).await;
        let baskets: Api<Basket> = Api::namespaced(client.clone(), "default");
        let huge = Basket::new("huge", BasketSpec { size: LARGEST + 1 });
        let refused = baskets.create(&PostParams::default(), &huge).await.unwrap_err();
        let kube::Error::Api(status) = refused else { panic!("{refused}") };
        assert!(status.message.contains("a basket holds 1000, not 1001"), "{}", status.message);
        let second: Api<v2::Basket> = Api::namespaced(client, "default");
        assert_eq!(second.get("b42").await.unwrap().spec.capacity, 42);
    });
    // The watch of baskets cannot go on where it was: there is something newer.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "newer"}});
    harness.create("configmaps", &map);
    harness.cluster.kill().unwrap();
    harness.cluster.up().unwrap();
    on_host(&harness, |path| async move {
        let client = connect(&path).await;
        until_filled(&client, MANY).await;
        until_watching(&client).await;
        fill(&client, MANY..MANY + 10).await;
        let baskets: Api<Basket> = Api::namespaced(client.clone(), "default");
        for n in 0..100 {
            baskets.delete(&format!("b{n}"), &DeleteParams::default()).await.unwrap();
        }
        until_filled(&client, MANY + 10 - 100).await;
    });
    stop.send(()).unwrap();
    operator.join().unwrap();
}
