//! Connections to pods, services and nodes, of which webhooks are asked as well.

use std::collections::BTreeSet;

use admission::Operation;
use meta::{GroupVersionKind, GroupVersionResource, Status};
use serde_json::{Map, Value, json};

use super::policy::{self, Invoked};
use super::{Attributes, Round, ask_validating};
use crate::context::RequestContext;
use crate::errors;
use crate::query::Query;

/// What a connection is made with in place of what its client wants.
pub(crate) struct Changed {
    pub(crate) query: Query,
    /// The path behind a proxy.
    pub(crate) path: String,
}

/// Asks about exec, attach, portforward and proxy. Whoever mutates may change what is asked for.
pub(crate) async fn connect(ctx: &RequestContext) -> Result<Option<Changed>, Status> {
    let info = &ctx.info;
    // Logs are read, not connected to.
    if info.subresource == "log" || ctx.server.webhooks.is_empty() {
        return Ok(None);
    }
    let wanted = options(ctx);
    let kind = wanted["kind"].as_str().unwrap_or_default();
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
    let mut options = wanted.clone();
    mutate(ctx, &attributes, &mut options).await?;
    ask_validating(ctx, &attributes, Some(&options), None).await?;
    if options == wanted {
        return Ok(None);
    }
    let path = options["path"].as_str().unwrap_or_default().to_owned();
    Ok(Some(Changed { query: query(&options), path }))
}

async fn mutate(
    ctx: &RequestContext,
    attributes: &Attributes<'_>,
    options: &mut Value,
) -> Result<(), Status> {
    let webhooks = &ctx.server.webhooks;
    let (policies, mut invoked) = (&webhooks.mutating_policies, Invoked::new());
    policy::mutate(ctx, policies, attributes, options, None, (None, &mut invoked)).await?;
    let hooks = webhooks.mutating.hooks();
    let all: BTreeSet<usize> = (0..hooks.len()).collect();
    let mut round = Round { ctx, attributes, old: None, asked: BTreeSet::new(), number: 0 };
    let (_, again) = round.run(&hooks, &all, options).await?;
    round.run(&hooks, &again, options).await?;
    Ok(())
}

/// The options that somebody made of others: what they know, of the types that they have.
pub(super) fn checked(kind: &GroupVersionKind, options: Value) -> Result<Value, Status> {
    let Value::Object(options) = options else {
        return Err(errors::internal("options of a connection must be an object"));
    };
    let mut out = Map::new();
    for (name, value) in options {
        let fits = match name.as_str() {
            "stdin" | "stdout" | "stderr" | "tty" => value.is_boolean(),
            "container" | "path" | "kind" | "apiVersion" => value.is_string(),
            "command" => is_list(&value, Value::is_string),
            "ports" => is_list(&value, Value::is_i64),
            _ => continue,
        };
        if !fits && !value.is_null() {
            return Err(errors::internal(format!("{}.{name} is of a wrong type", kind.kind)));
        }
        // What is false or empty is not said.
        if !value.is_null() && value != false && value != "" {
            out.insert(name, value);
        }
    }
    Ok(Value::Object(out))
}

fn is_list(value: &Value, is_item: fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(is_item))
}

/// Options as a query.
fn query(options: &Value) -> Query {
    let mut pairs = Vec::new();
    for (name, value) in options.as_object().into_iter().flatten() {
        let mut put = |value: &Value| match value {
            Value::String(text) => pairs.push((name.clone(), text.clone())),
            other => pairs.push((name.clone(), other.to_string())),
        };
        match (name.as_str(), value) {
            ("kind" | "apiVersion" | "path", _) => {}
            (_, Value::Array(items)) => items.iter().for_each(put),
            (_, value) => put(value),
        }
    }
    Query::of(pairs)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_options_become_a_query() {
        let kind = GroupVersionKind::new("", "v1", "PodExecOptions");
        let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": false,
            "stdout": true, "container": "c", "command": ["ls", "a b"], "other": 1});
        let checked = checked(&kind, options).unwrap();
        assert!(checked.get("other").is_none() && checked.get("stdin").is_none());
        let query = query(&checked);
        assert!(query.flag("stdout") && !query.flag("stdin"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "a b"]);
        assert_eq!(query.get("kind"), None);
    }

    #[test]
    fn options_of_wrong_types_are_refused() {
        let kind = GroupVersionKind::new("", "v1", "PodExecOptions");
        assert!(checked(&kind, json!({"stdin": "yes"})).is_err());
        assert!(checked(&kind, json!({"command": [1]})).is_err());
        assert!(checked(&kind, json!("x")).is_err());
    }
}
