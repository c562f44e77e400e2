//! Connections to pods, services and nodes, of which webhooks are asked as well.

use admission::Operation;
use meta::{GroupVersionKind, GroupVersionResource, Status};
use serde_json::{Value, json};

use super::{Attributes, ask_mutating, ask_validating};
use crate::context::RequestContext;

/// Asks about exec, attach, portforward and proxy.
pub(crate) async fn connect(ctx: &RequestContext) -> Result<(), Status> {
    let info = &ctx.info;
    // Logs are read, not connected to.
    if info.subresource == "log" || ctx.server.webhooks.is_empty() {
        return Ok(());
    }
    let options = options(ctx);
    let kind = options["kind"].as_str().unwrap_or_default();
    let attributes = Attributes {
        gvk: GroupVersionKind::new("", "v1", kind),
        gvr: GroupVersionResource::new("", "v1", info.resource.as_str()),
        subresource: &info.subresource,
        operation: Operation::Connect,
        namespace: &info.namespace,
        name: &info.name,
        is_dry_run: false,
        resource: None,
    };
    ask_mutating(ctx, &attributes, Some(&options), None).await?;
    ask_validating(ctx, &attributes, Some(&options), None).await
}

/// The query as an object.
fn options(ctx: &RequestContext) -> Value {
    let info = &ctx.info;
    let of = |kind: &str| json!({"kind": kind, "apiVersion": "v1"});
    match (info.resource.as_str(), info.subresource.as_str()) {
        (_, "portforward") => {
            let mut options = of("PodPortForwardOptions");
            let ports: Vec<i64> =
                ctx.query.all("ports").filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                options["ports"] = json!(ports);
            }
            options
        }
        (_, subresource @ ("exec" | "attach")) => {
            let is_exec = subresource == "exec";
            let mut options = of(if is_exec { "PodExecOptions" } else { "PodAttachOptions" });
            for stream in ["stdin", "stdout", "stderr", "tty"] {
                if ctx.query.flag(stream) {
                    options[stream] = json!(true);
                }
            }
            if let Some(container) = ctx.query.non_empty("container") {
                options["container"] = json!(container);
            }
            if is_exec {
                options["command"] = json!(ctx.query.all("command").collect::<Vec<_>>());
            }
            options
        }
        (resource, _) => {
            let mut options = of(match resource {
                "nodes" => "NodeProxyOptions",
                "services" => "ServiceProxyOptions",
                _ => "PodProxyOptions",
            });
            if !info.rest.is_empty() {
                options["path"] = json!(info.rest);
            }
            options
        }
    }
}
