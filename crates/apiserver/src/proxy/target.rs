//! Where a proxied request goes.

use meta::{GroupResource, Reason, Status};
use rand::RngExt;
use serde_json::Value;

use crate::context::RequestContext;
use crate::errors;
use crate::query::{Query, escape};
use crate::server::Server;
use crate::write::text;

/// Upstream's default port of a kubelet.
const KUBELET_PORT: u16 = 10_250;

/// How the target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    /// TLS with the server's own client certificate.
    Kubelet,
}

/// An address and what to ask there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path_and_query: String,
}

impl Target {
    /// Host and port, as a `Host` header has them.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The target of a request.
pub(super) fn find(ctx: &RequestContext) -> Result<Target, Status> {
    match (ctx.info.resource.as_str(), ctx.info.subresource.as_str()) {
        ("nodes", _) => node_proxy(ctx),
        ("services", _) => service_proxy(ctx),
        (_, "proxy") => pod_proxy(ctx),
        (_, subresource) => kubelet_of_pod(ctx, subresource),
    }
}

fn object(ctx: &RequestContext, resource: &str, name: &str) -> Result<Value, Status> {
    let namespace = if resource == "nodes" { "" } else { ctx.info.namespace.as_str() };
    let of = GroupResource { group: String::new(), resource: resource.to_owned() };
    let found = ctx.server.find("", resource, namespace, name);
    found.ok_or_else(|| errors::not_found(&of, name))?.decode().map_err(errors::internal)
}

/// The path behind the proxy, with the client's own query.
fn rest(ctx: &RequestContext) -> String {
    let path = if ctx.info.rest.is_empty() { "/" } else { ctx.info.rest.as_str() };
    with_query(path.to_owned(), ctx.query.pairs())
}

fn with_query(path: String, pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return path;
    }
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    format!("{path}?{}", pairs.join("&"))
}

/// Address and port of a node's kubelet.
fn kubelet(ctx: &RequestContext, node: &str) -> Result<(String, u16), Status> {
    let node_object = object(ctx, "nodes", node)?;
    let addresses = node_object.pointer("/status/addresses").and_then(Value::as_array);
    let of_type = |wanted: &str| {
        let found = addresses?.iter().find(|address| address["type"] == wanted)?;
        found["address"].as_str().map(str::to_owned)
    };
    let address = of_type("InternalIP")
        .or_else(|| of_type("Hostname"))
        .or_else(|| of_type("InternalDNS"))
        .or_else(|| of_type("ExternalIP"));
    let address = address.ok_or_else(|| {
        errors::internal(format!(
            "no preferred addresses found for node {node:?}; known addresses: []"
        ))
    })?;
    let port = node_object
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0);
    Ok((address, port.unwrap_or(KUBELET_PORT)))
}

fn node_proxy(ctx: &RequestContext) -> Result<Target, Status> {
    let (scheme, name, port) = split(&ctx.info.name)?;
    let (host, kubelet_port) = kubelet(ctx, name)?;
    let own: Option<u16> = match port {
        "" => None,
        port => Some(port.parse().map_err(|_| bad_name(&ctx.info.name))?),
    };
    let is_kubelet = own.is_none_or(|port| port == kubelet_port);
    let scheme = match scheme {
        "https" if !is_kubelet => Scheme::Https,
        "" | "https" if is_kubelet => Scheme::Kubelet,
        _ => Scheme::Http,
    };
    let port = own.unwrap_or(kubelet_port);
    Ok(Target { scheme, host, port, path_and_query: rest(ctx) })
}

fn pod_proxy(ctx: &RequestContext) -> Result<Target, Status> {
    let (scheme, name, port) = split(&ctx.info.name)?;
    let pod = object(ctx, "pods", name)?;
    let host = text(&pod, "/status/podIP");
    if host.is_empty() {
        let message = format!("address not allowed: pod {name:?} has no IP yet");
        return Err(Status::failure(Reason::ServiceUnavailable, message));
    }
    let port = match port {
        "" => first_port(&pod),
        named => named.parse().ok().or_else(|| named_port(&pod, named)),
    };
    let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Target { scheme, host, port, path_and_query: rest(ctx) })
}

fn ports(pod: &Value) -> impl Iterator<Item = &Value> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers.flat_map(|container| container["ports"].as_array().into_iter().flatten())
}

fn number(port: &Value) -> Option<u16> {
    u16::try_from(port.as_u64()?).ok()
}

fn first_port(pod: &Value) -> Option<u16> {
    ports(pod).next().and_then(|port| number(&port["containerPort"]))
}

fn named_port(pod: &Value, name: &str) -> Option<u16> {
    ports(pod).find(|port| port["name"] == name).and_then(|port| number(&port["containerPort"]))
}

/// One of the service's ready endpoints.
fn service_proxy(ctx: &RequestContext) -> Result<Target, Status> {
    let (scheme, name, wanted) = split(&ctx.info.name)?;
    let service = object(ctx, "services", name)?;
    let service_ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let found = if wanted.is_empty() && service_ports.len() == 1 {
        service_ports.first()
    } else {
        service_ports.iter().find(|port| {
            port["name"] == wanted
                || (!wanted.is_empty()
                    && port["port"].as_u64().map(|p| p.to_string()).as_deref() == Some(wanted))
        })
    };
    let unavailable = || {
        let message = format!("no endpoints available for service {:?}", ctx.info.name);
        Status::failure(Reason::ServiceUnavailable, message)
    };
    let port_name = match found {
        Some(port) => port["name"].as_str().unwrap_or_default().to_owned(),
        None => {
            let message = format!("no service port {wanted:?} found for service {name:?}");
            return Err(Status::failure(Reason::ServiceUnavailable, message));
        }
    };
    let found = ready_endpoint(&ctx.server, &ctx.info.namespace, name, &port_name);
    let (host, port) = found.ok_or_else(unavailable)?;
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Target { scheme, host, port, path_and_query: rest(ctx) })
}

/// Any ready endpoint of a service's port.
pub(crate) fn ready_endpoint(
    server: &Server,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Option<(String, u16)> {
    let candidates = endpoints(server, namespace, service, port_name);
    if candidates.is_empty() {
        return None;
    }
    let at = rand::rng().random_range(0..candidates.len());
    candidates.into_iter().nth(at)
}

fn endpoints(
    server: &Server,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Vec<(String, u16)> {
    let slices = admission::View::list(server, "discovery.k8s.io", "endpointslices", namespace);
    let mut found = Vec::new();
    for slice in slices {
        if slice.header().label("kubernetes.io/service-name") != Some(service) {
            continue;
        }
        let Ok(slice) = slice.decode::<Value>() else { continue };
        let ports = slice["ports"].as_array().into_iter().flatten();
        let mut named = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let Some(port) = named.next().and_then(|port| number(&port["port"])) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let is_ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
            if let (true, Some(address)) = (is_ready, endpoint["addresses"][0].as_str()) {
                found.push((address.to_owned(), port));
            }
        }
    }
    found
}

/// log, exec, attach and portforward go to the kubelet of the pod's node.
fn kubelet_of_pod(ctx: &RequestContext, subresource: &str) -> Result<Target, Status> {
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let pod = object(ctx, "pods", name)?;
    let node = text(&pod, "/spec/nodeName");
    let container = match subresource {
        "portforward" => String::new(),
        _ => container(&pod, &ctx.query, name)?,
    };
    if node.is_empty() {
        return Err(errors::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let (host, port) = kubelet(ctx, &node)?;
    let path_and_query = match subresource {
        "portforward" => {
            let ports = ctx.query.pairs().iter().filter(|(key, _)| key == "ports");
            let pairs: Vec<_> = ports.map(|(_, v)| ("port".to_owned(), v.clone())).collect();
            with_query(format!("/portForward/{namespace}/{name}"), &pairs)
        }
        "log" => with_query(
            format!("/containerLogs/{namespace}/{name}/{container}"),
            &keep(&ctx.query, &LOG_OPTIONS),
        ),
        _ => with_query(
            format!("/{subresource}/{namespace}/{name}/{container}"),
            &streams(&ctx.query),
        ),
    };
    Ok(Target { scheme: Scheme::Kubelet, host, port, path_and_query })
}

const LOG_OPTIONS: [&str; 8] = [
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
];

fn keep(query: &Query, names: &[&str]) -> Vec<(String, String)> {
    query.pairs().iter().filter(|(key, _)| names.contains(&key.as_str())).cloned().collect()
}

/// The kubelet's names of the streams.
fn streams(query: &Query) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (from, to) in
        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
    {
        if query.flag(from) {
            pairs.push((to.to_owned(), "1".to_owned()));
        }
    }
    pairs.extend(query.all("command").map(|word| ("command".to_owned(), word.to_owned())));
    pairs
}

/// The container asked for, or the only one, or the annotated default.
fn container(pod: &Value, query: &Query, name: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let choices = |main: &[String]| {
        let mut text = format!("choose one of: [{}]", main.join(" "));
        if !init.is_empty() {
            text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        text
    };
    if let Some(wanted) = query.non_empty("container") {
        let is_known =
            [&main, &init, &ephemeral].iter().any(|list| list.iter().any(|c| c == wanted));
        if is_known {
            return Ok(wanted.to_owned());
        }
        return Err(errors::bad_request(format!("container {wanted} is not valid for pod {name}")));
    }
    let default = &pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"];
    if let Some(default) = default.as_str().filter(|default| main.iter().any(|c| c == default)) {
        return Ok(default.to_owned());
    }
    match main.as_slice() {
        [one] => Ok(one.clone()),
        many => Err(errors::bad_request(format!(
            "a container name must be specified for pod {name}, {}",
            choices(many)
        ))),
    }
}

/// `scheme:name:port`, `name:port` or `name`.
fn split(name: &str) -> Result<(&str, &str, &str), Status> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        [scheme @ ("http" | "https" | ""), name, port] => Ok((scheme, name, port)),
        _ => Err(bad_name(name)),
    }
}

fn bad_name(name: &str) -> Status {
    errors::bad_request(format!("invalid request {name:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_may_have_scheme_and_port() {
        assert_eq!(split("a").unwrap(), ("", "a", ""));
        assert_eq!(split("a:80").unwrap(), ("", "a", "80"));
        assert_eq!(split("https:a:web").unwrap(), ("https", "a", "web"));
        assert!(split("ftp:a:1").is_err());
    }

    #[test]
    fn the_container_is_found_or_asked_for() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let find = |query: &str| container(&pod, &Query::parse(query), "p");
        assert_eq!(find("container=b").unwrap(), "b");
        assert_eq!(
            find("").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(find("container=x").unwrap_err().message, "container x is not valid for pod p");
    }
}
