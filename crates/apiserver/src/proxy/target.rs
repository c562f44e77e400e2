//! Where a proxied request goes.

use std::net::IpAddr;

use meta::{GroupResource, Reason, Status};
use rand::RngExt;
use serde_json::Value;

use crate::context::RequestContext;
use crate::errors;
use crate::query::{Query, escape};
use crate::server::Server;
use crate::webhook::Changed;
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

/// The target of a request, of which admission may have changed what is asked for.
pub(super) fn find(ctx: &RequestContext, changed: Option<&Changed>) -> Result<Target, Status> {
    let query = changed.map_or(&ctx.query, |changed| &changed.query);
    let path = changed.map_or(&ctx.info.rest, |changed| &changed.path);
    match (ctx.info.resource.as_str(), ctx.info.subresource.as_str()) {
        ("nodes", _) => node_proxy(ctx, path),
        ("services", _) => service_proxy(ctx, path),
        (_, "proxy") => pod_proxy(ctx, path),
        (_, subresource) => kubelet_of_pod(ctx, subresource, query),
    }
}

fn object(ctx: &RequestContext, resource: &str, name: &str) -> Result<Value, Status> {
    let namespace = if resource == "nodes" { "" } else { ctx.info.namespace.as_str() };
    let of = GroupResource { group: String::new(), resource: resource.to_owned() };
    let found = ctx.server.find("", resource, namespace, name);
    found.ok_or_else(|| errors::not_found(&of, name))?.decode().map_err(errors::internal)
}

/// The path behind the proxy, with the client's own query.
fn rest(ctx: &RequestContext, path: &str) -> String {
    let path = if path.is_empty() { "/" } else { path };
    match ctx.query.raw() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    }
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

fn node_proxy(ctx: &RequestContext, path: &str) -> Result<Target, Status> {
    let (scheme, name, port) = split("node", &ctx.info.name)?;
    let (host, kubelet_port) = kubelet(ctx, name)?;
    let own: Option<u16> = match port {
        "" => None,
        port => Some(port.parse().map_err(|_| bad_name("node", &ctx.info.name))?),
    };
    let is_kubelet = own.is_none_or(|port| port == kubelet_port);
    if !is_kubelet && host.parse().is_ok_and(|address| !is_global(address)) {
        return Err(not_allowed_address());
    }
    let scheme = match scheme {
        "https" if !is_kubelet => Scheme::Https,
        "" | "https" if is_kubelet => Scheme::Kubelet,
        _ => Scheme::Http,
    };
    let port = own.unwrap_or(kubelet_port);
    Ok(Target { scheme, host, port, path_and_query: rest(ctx, path) })
}

fn pod_proxy(ctx: &RequestContext, path: &str) -> Result<Target, Status> {
    let (scheme, name, port) = split("pod", &ctx.info.name)?;
    let pod = object(ctx, "pods", name)?;
    let host = text(&pod, "/status/podIP");
    if !host.parse().is_ok_and(is_global) {
        return Err(not_allowed_address());
    }
    let port = match port {
        "" => first_port(&pod),
        named => named.parse().ok().or_else(|| named_port(&pod, named)),
    };
    let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Target { scheme, host, port, path_and_query: rest(ctx, path) })
}

/// Go's `IsGlobalUnicast`: whoever can write an address must not reach this host's own services
/// through this server.
fn is_global(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_local && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

fn not_allowed_address() -> Status {
    errors::bad_request("address not allowed")
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

/// One of the service's ready endpoints that are pods.
fn service_proxy(ctx: &RequestContext, path: &str) -> Result<Target, Status> {
    let (scheme, name, wanted) = split("service", &ctx.info.name)?;
    let service = object(ctx, "services", name)?;
    // A number is one of the service's, whose name leads to those of the endpoints.
    let port_name = match wanted.parse::<u64>() {
        Err(_) => wanted.to_owned(),
        Ok(number) => {
            let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
            let found = ports.find(|port| port["port"].as_u64() == Some(number));
            let found = found.ok_or_else(|| {
                let message = format!("no service port {number} found for service {name:?}");
                Status::failure(Reason::ServiceUnavailable, message)
            })?;
            found["name"].as_str().unwrap_or_default().to_owned()
        }
    };
    let namespace = &ctx.info.namespace;
    let mut candidates = endpoints(&ctx.server, namespace, name, &port_name);
    candidates.retain(|endpoint| is_pod(&ctx.server, namespace, endpoint));
    let Some(endpoint) = any(candidates) else {
        let message = format!("no endpoints available for service {:?}", ctx.info.name);
        return Err(Status::failure(Reason::ServiceUnavailable, message));
    };
    let (host, port) = (endpoint.address, endpoint.port);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Target { scheme, host, port, path_and_query: rest(ctx, path) })
}

/// Whether an endpoint is where the pod is that it names. Endpoints are written by users too, who
/// must not send this server to other addresses.
fn is_pod(server: &Server, namespace: &str, endpoint: &Endpoint) -> bool {
    let Some(pod) = server.find("", "pods", namespace, &endpoint.pod) else { return false };
    let Ok(pod) = pod.decode::<Value>() else { return false };
    let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let mut all = ips.map(|ip| &ip["ip"]).chain([&pod["status"]["podIP"]]);
    all.any(|ip| ip.as_str() == Some(endpoint.address.as_str()))
        && endpoint.address.parse().is_ok_and(is_global)
}

/// Where a port of a service leads: to one of its ready endpoints, so that the server need not be on
/// the pod network's side of the service proxy.
///
/// # Errors
/// Upstream's words for why it leads nowhere.
pub(crate) fn service_endpoint(
    server: &Server,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<(String, u16), String> {
    let service = server.find("", "services", namespace, name);
    let service: Value = service
        .ok_or_else(|| format!("service {name:?} not found"))?
        .decode()
        .map_err(|error| error.to_string())?;
    if service["spec"]["type"] == "ExternalName" {
        let host = service["spec"]["externalName"].as_str().unwrap_or_default();
        return Ok((host.to_owned(), port));
    }
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.find(|found| found["port"] == port);
    let found =
        found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = found["name"].as_str().unwrap_or_default();
    ready_endpoint(server, namespace, name, port_name)
        .ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

/// Any ready endpoint of a service's port.
fn ready_endpoint(
    server: &Server,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Option<(String, u16)> {
    let found = any(endpoints(server, namespace, service, port_name))?;
    Some((found.address, found.port))
}

/// An address behind a service.
struct Endpoint {
    address: String,
    port: u16,
    /// The pod it is said to be; empty when it is said to be none.
    pod: String,
}

fn any(candidates: Vec<Endpoint>) -> Option<Endpoint> {
    if candidates.is_empty() {
        return None;
    }
    let at = rand::rng().random_range(0..candidates.len());
    candidates.into_iter().nth(at)
}

fn endpoints(server: &Server, namespace: &str, service: &str, port_name: &str) -> Vec<Endpoint> {
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
            let target = &endpoint["targetRef"];
            let pod = target["name"].as_str().filter(|_| target["kind"] == "Pod");
            if let (true, Some(address)) = (is_ready, endpoint["addresses"][0].as_str()) {
                let (address, pod) = (address.to_owned(), pod.unwrap_or_default().to_owned());
                found.push(Endpoint { address, port, pod });
            }
        }
    }
    found
}

/// log, exec, attach and portforward go to the kubelet of the pod's node.
fn kubelet_of_pod(
    ctx: &RequestContext,
    subresource: &str,
    query: &Query,
) -> Result<Target, Status> {
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let pod = object(ctx, "pods", name)?;
    let node = text(&pod, "/spec/nodeName");
    let container = match subresource {
        "portforward" => String::new(),
        _ => container(&pod, query, name)?,
    };
    if node.is_empty() {
        return Err(errors::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let (host, port) = kubelet(ctx, &node)?;
    let path_and_query = match subresource {
        "portforward" => {
            let ports = query.pairs().iter().filter(|(key, _)| key == "ports");
            let pairs: Vec<_> = ports.map(|(_, v)| ("port".to_owned(), v.clone())).collect();
            with_query(format!("/portForward/{namespace}/{name}"), &pairs)
        }
        "log" => with_query(
            format!("/containerLogs/{namespace}/{name}/{container}"),
            &keep(query, &LOG_OPTIONS),
        ),
        _ => with_query(format!("/{subresource}/{namespace}/{name}/{container}"), &streams(query)),
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
fn split<'a>(what: &str, name: &'a str) -> Result<(&'a str, &'a str, &'a str), Status> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [only] if !only.is_empty() => Ok(("", only, "")),
        [of, port] if !of.is_empty() => Ok(("", of, port)),
        [scheme @ ("http" | "https" | ""), of, port] if !of.is_empty() => Ok((scheme, of, port)),
        _ => Err(bad_name(what, name)),
    }
}

fn bad_name(what: &str, name: &str) -> Status {
    errors::bad_request(format!("invalid {what} request {name:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_may_have_scheme_and_port() {
        let split = |name| split("pod", name);
        assert_eq!(split("a").unwrap(), ("", "a", ""));
        assert_eq!(split("a:80").unwrap(), ("", "a", "80"));
        assert_eq!(split("https:a:web").unwrap(), ("https", "a", "web"));
        assert_eq!(split("ftp:a:1").unwrap_err().message, "invalid pod request \"ftp:a:1\"");
        assert!(split("").is_err() && split(":80").is_err() && split("a:b:c:d").is_err());
    }

    #[test]
    fn addresses_of_this_host_are_not_reached() {
        for local in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1"] {
            assert!(!is_global(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1"] {
            assert!(is_global(other.parse().unwrap()), "{other}");
        }
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
