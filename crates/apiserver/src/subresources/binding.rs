//! Binding a pod to a node.
//!
//! Upstream: `registry/core/pod/storage/storage.go`, `assignPod`.

use http::{Response, StatusCode};
use meta::{GroupResource, GroupVersionKind, Status};
use serde_json::{Value, json};

use crate::context::WriteRequest;
use crate::decode;
use crate::errors;
use crate::negotiate::{Shape, form};
use crate::render;
use crate::resources::Resource;
use crate::write::{self, Creates, Part, Update};
use connection::Body;

/// POST `pods/NAME/binding`.
pub(super) async fn of_pod(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let mut binding = decoded(request)?;
    let name = request.ctx.info.name.clone();
    let given = write::text(&binding, "/metadata/name");
    if !given.is_empty() && given != name {
        return Err(errors::bad_request("name in URL does not match name in Binding object"));
    }
    let is_dry_run = request.ctx.is_dry_run()?;
    super::admit_created(request.ctx, resource, &name, is_dry_run, &mut binding)?;
    bind(request, resource, &name, &binding).await
}

/// POST `bindings`, which names the pod in the body.
pub(super) async fn legacy(
    request: &WriteRequest<'_>,
    _resource: &Resource,
) -> Result<Response<Body>, Status> {
    let binding = decoded(request)?;
    let name = write::text(&binding, "/metadata/name");
    let pods = request.ctx.server.resources.get("", "v1", "pods");
    let pods = pods.ok_or_else(errors::no_such_resource)?.clone();
    bind(request, &pods, &name, &binding).await
}

fn decoded(request: &WriteRequest<'_>) -> Result<Value, Status> {
    let ctx = request.ctx;
    let gvk = GroupVersionKind::new("", "v1", "Binding");
    let Some(ty) = schema::registry().kind(&gvk) else {
        return Err(errors::internal("no table for Binding"));
    };
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    Ok(decode::body(ctx, &request.body, &gvk, ty, validation)?.value)
}

async fn bind(
    request: &WriteRequest<'_>,
    pods: &Resource,
    name: &str,
    binding: &Value,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    check_target(binding)?;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let node = write::text(binding, "/target/name");
    let update = Update {
        namespace: &ctx.info.namespace,
        name,
        part: Part::Exact,
        is_dry_run: ctx.is_dry_run()?,
        creates: Creates::Never,
        manager: None,
    };
    let now = meta::time::rfc3339(ctx.server.clock.now());
    let change = |old: Option<&Value>| {
        let old = old.ok_or_else(|| errors::not_found(&pods.group_resource(), name))?;
        assign(old, binding, name, &node, &now)
    };
    write::update(ctx, pods, &update, &change).await?;
    let mut status = Status::success();
    status.code = 201;
    let gvk = GroupVersionKind::new("", "v1", "Status");
    let text = serde_json::to_value(&status).map_err(errors::internal)?;
    Ok(render::value(StatusCode::CREATED, &gvk, &text, form))
}

fn check_target(binding: &Value) -> Result<(), Status> {
    let kind = write::text(binding, "/target/kind");
    let mut findings = Vec::new();
    if !matches!(kind.as_str(), "" | "Node") {
        findings.push(format!(
            "target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""
        ));
    }
    if write::text(binding, "/target/name").is_empty() {
        findings.push("target.name: Required value".to_owned());
    }
    match findings.as_slice() {
        [] => Ok(()),
        [one] => Err(errors::unexpected(one.clone())),
        many => Err(errors::unexpected(format!("[{}]", many.join(", ")))),
    }
}

fn assign(
    old: &Value,
    binding: &Value,
    name: &str,
    node: &str,
    now: &str,
) -> Result<Value, Status> {
    let resource = GroupResource { group: String::new(), resource: "pods/binding".to_owned() };
    let refuse = |why: String| Err(errors::conflict(&resource, name, &why));
    if old.pointer("/metadata/deletionTimestamp").is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = write::text(old, "/spec/nodeName");
    if !assigned.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {assigned:?}"));
    }
    let gates = old.pointer("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = old.clone();
    if let Some(uid) = binding.pointer("/metadata/uid") {
        new["metadata"]["uid"] = uid.clone();
    }
    match binding.pointer("/metadata/resourceVersion") {
        Some(version) => new["metadata"]["resourceVersion"] = version.clone(),
        None => drop(crate::strategy::remove(&mut new["metadata"], "resourceVersion")),
    }
    new["spec"]["nodeName"] = json!(node);
    for field in ["annotations", "labels"] {
        let given = binding["metadata"][field].as_object().into_iter().flatten();
        for (key, value) in given {
            new["metadata"][field][key] = value.clone();
        }
    }
    set_scheduled(&mut new, now);
    Ok(new)
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now});
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => {
            list.retain(|found| found["type"] != "PodScheduled");
            list.push(condition);
        }
        None => *conditions = Value::Array(vec![condition]),
    }
}
