//! Custom resources beside pods of the same size, without rules and with twenty.

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::{OBJECTS, Sum, TURNS};
use crate::bench::Figure;
use crate::bench::api::{Load, PODS, pod};
use crate::bench::server::{Server, connect, send};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How often a definition is looked for until it is served.
const TRIES: usize = 500;

pub(super) fn measure(server: &Server, in_flight: usize) -> anyhow::Result<Vec<Figure>> {
    let pid = server.pid();
    server.run(async move |kubeconfig| {
        let load = Load::prepare(&kubeconfig, pid, in_flight).await?;
        let client = connect(&kubeconfig)?;
        for (plural, kind, rules) in [("plains", "Plain", 0), ("ruleds", "Ruled", 20)] {
            let body = definition(plural, kind, rules).to_string();
            send(&client, Method::POST, DEFINITIONS, body.into()).await?;
        }
        let mut padding = 0;
        for (plural, kind) in [("plains", "Plain"), ("ruleds", "Ruled")] {
            let sizes = sizes(&load, plural, kind, padding).await?;
            padding = padding.max(sizes.0.saturating_sub(sizes.1));
        }
        let (mut pods, mut plains, mut ruleds) = (Sum::default(), Sum::default(), Sum::default());
        let (mut pod_lists, mut plain_lists) = (Sum::default(), Sum::default());
        for turn in 0..TURNS {
            let numbers = turn * OBJECTS..(turn + 1) * OBJECTS;
            pods.add(&load.create(numbers.clone()).await?);
            for (sum, plural, kind) in
                [(&mut plains, "plains", "Plain"), (&mut ruleds, "ruleds", "Ruled")]
            {
                let body = |n| Bytes::from(custom(kind, n, padding).to_string());
                let path = path(plural);
                let one = |n| load.send(n, Method::POST, path.clone(), body(n));
                sum.add(&load.each(numbers.clone(), one).await?);
            }
        }
        for _ in 0..TURNS {
            pod_lists.add(&load.list_of(PODS).await?);
            plain_lists.add(&load.list_of(&path("plains")).await?);
        }
        Ok(vec![
            compared("create of a custom resource, beside a pod of its size", &plains, &pods),
            compared("list of 2000 custom resources, beside pods", &plain_lists, &pod_lists),
            Figure::new(
                "API: 20 CEL rules on a custom resource of 3 KB",
                format!("{:.0} µs of CPU more than none", (ruleds.ms() - plains.ms()) * 1e3),
            ),
        ])
    })
}

fn compared(work: &str, custom: &Sum, built_in: &Sum) -> Figure {
    let (custom, built_in) = (custom.ms(), built_in.ms());
    let ratio = custom / built_in;
    Figure::new(
        format!("API: {work}"),
        format!("{custom:.3} and {built_in:.3} ms of CPU each, {ratio:.2}×"),
    )
}

/// Bytes of a stored pod and of a stored custom resource, as soon as that is served.
async fn sizes(
    load: &Load,
    plural: &str,
    kind: &str,
    padding: usize,
) -> anyhow::Result<(usize, usize)> {
    // Beyond the numbers that are measured.
    let n = TURNS * OBJECTS + 1;
    let client = load.client();
    let body = custom(kind, n, padding).to_string();
    for _ in 0..TRIES {
        let body = Bytes::from(body.clone());
        if let Ok(made) = send(client, Method::POST, &path(plural), body).await {
            let pod = match send(client, Method::POST, PODS, pod(n).to_string().into()).await {
                Err(error) if error.is_already_exists() => {
                    send(client, Method::GET, &format!("{PODS}/pod-{n}"), Bytes::new()).await?
                }
                made => made?,
            };
            return Ok((pod.len(), made.len()));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    None.context("the custom resource is not served")
}

fn path(plural: &str) -> String {
    format!("/apis/bench.example.com/v1/namespaces/bench/{plural}")
}

/// What a pod of the load says, as a custom resource.
fn custom(kind: &str, n: usize, padding: usize) -> Value {
    let mut object = pod(n);
    object["apiVersion"] = json!("bench.example.com/v1");
    object["kind"] = json!(kind);
    object["spec"]["padding"] = json!("x".repeat(padding));
    object
}

fn definition(plural: &str, kind: &str, rules: usize) -> Value {
    let text = json!({"type": "string", "maxLength": 253});
    let number = json!({"type": "integer"});
    let list = |items: Value| json!({"type": "array", "maxItems": 16, "items": items});
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let amounts = || object(json!({"cpu": text, "memory": text}));
    let probe = object(json!({"httpGet": object(json!({"path": text, "port": number}))}));
    let container = object(json!({
        "name": text, "image": text, "livenessProbe": probe,
        "env": list(object(json!({"name": text, "value": text}))),
        "ports": list(object(json!({"name": text, "containerPort": number}))),
        "resources": object(json!({"requests": amounts(), "limits": amounts()})),
        "volumeMounts": list(object(json!({"name": text, "mountPath": text}))),
    }));
    let toleration = object(json!({"key": text, "operator": text, "value": text, "effect": text}));
    let mut spec = object(json!({
        "schedulerName": text, "automountServiceAccountToken": {"type": "boolean"},
        "padding": {"type": "string"}, "containers": list(container),
        "volumes": list(object(json!({"name": text, "emptyDir": object(json!({}))}))),
        "tolerations": list(toleration),
    }));
    if rules > 0 {
        let rules: Vec<Value> =
            (0..rules).map(|n| json!({"rule": rule(n), "message": format!("rule {n}")})).collect();
        spec["x-kubernetes-validations"] = json!(rules);
    }
    let schema = json!({"openAPIV3Schema": object(json!({"spec": spec}))});
    json!({"metadata": {"name": format!("{plural}.bench.example.com")}, "spec": {
        "group": "bench.example.com", "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

/// Rules of the kinds that operators write.
fn rule(n: usize) -> String {
    match n % 5 {
        0 => format!("self.containers.all(c, c.name.size() < {})", 60 + n),
        1 => format!("self.containers.all(c, c.env.all(e, e.value != 'forbidden-{n}'))"),
        2 => format!("self.schedulerName != 'scheduler-{n}'"),
        3 => format!("!has(self.tolerations) || self.tolerations.exists(t, t.key != 'k{n}')"),
        _ => {
            format!("self.containers.all(c, c.image.startsWith('bench') && c.image.size() < {n}0)")
        }
    }
}
