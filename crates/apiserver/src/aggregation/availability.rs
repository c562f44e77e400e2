//! Whether the APIs of `APIService` objects answer, written into their conditions.
//!
//! Upstream: `kube-aggregator/pkg/controllers/status`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_ok};
use http::Method;
use meta::Status;
use serde_json::{Value, json};

use super::backend::{Backend, Endpoint};
use super::discovery::Refused;
use super::{GROUP, PATH, RESOURCE};
use crate::bootstrap;
use crate::handle::Handle;
use crate::query::escape;
use crate::server::Server;

/// How long a server may take to describe its API; upstream's.
const CHECK: Duration = Duration::from_secs(5);

/// What Go's client says then.
const SLOW: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
/// How many of its places are asked; one that answers is enough. Upstream's.
const ATTEMPTS: usize = 5;

/// What a condition says beside its type.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    is_available: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn not(reason: &'static str, message: String) -> Self {
        Self { is_available: false, reason, message }
    }
}

/// Looks at every `APIService` once and writes what has changed.
pub(super) async fn keep(handle: &Handle) -> Result<(), Status> {
    let server = &handle.server;
    // All at once: one that does not answer is not to be waited for by the others.
    let backends = server.backends.all();
    let checks = backends.iter().map(|it| async { (it.name.clone(), check(server, it).await) });
    let mut verdicts: HashMap<String, Verdict> = join_all(checks).await.into_iter().collect();
    for object in admission::View::list(&**server, GROUP, RESOURCE, "") {
        let Ok(mut found) = object.decode::<Value>() else { continue };
        let verdict = match verdicts.remove(&object.header().name) {
            Some(verdict) => verdict,
            // It came while others were looked at, and is looked at next.
            None if !found["spec"]["service"].is_null() => continue,
            None => Verdict {
                is_available: true,
                reason: "Local",
                message: "Local APIServices are always available".to_owned(),
            },
        };
        let now = meta::time::rfc3339(server.clock.now());
        if set(&mut found, &verdict, &now) {
            let path = format!("{PATH}/{}/status", escape(&object.header().name));
            match bootstrap::send(handle, Method::PUT, &path, &found).await {
                // Somebody else has written it, and it is looked at again.
                Err(status) if status.is(meta::Reason::Conflict) => {}
                Err(status) if status.is(meta::Reason::NotFound) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// Puts the condition into the object; whether that changed anything.
fn set(object: &mut Value, verdict: &Verdict, now: &str) -> bool {
    let status = if verdict.is_available { "True" } else { "False" };
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return false };
    let found = conditions.iter_mut().find(|found| found["type"] == "Available");
    let Some(found) = found else {
        conditions.push(json!({"type": "Available", "status": status, "reason": verdict.reason,
            "message": verdict.message, "lastTransitionTime": now}));
        return true;
    };
    let is_same = found["status"] == status
        && found["reason"] == verdict.reason
        && found["message"] == verdict.message.as_str();
    if found["status"] != status {
        found["lastTransitionTime"] = json!(now);
    }
    found["status"] = json!(status);
    found["reason"] = json!(verdict.reason);
    found["message"] = json!(verdict.message);
    !is_same
}

async fn check(server: &Arc<Server>, backend: &Arc<Backend>) -> Verdict {
    if let Some(verdict) = check_service(server, backend) {
        return verdict;
    }
    let endpoints: Result<BTreeSet<Endpoint>, String> =
        (0..ATTEMPTS).map(|_| backend.endpoint(server)).collect();
    let endpoints = match endpoints {
        Ok(endpoints) => endpoints,
        Err(why) => return Verdict::not("FailedDiscoveryCheck", why),
    };
    let attempts = endpoints.iter().map(|endpoint| Box::pin(attempt(server, backend, endpoint)));
    match select_ok(attempts).await {
        Ok((endpoint, _)) => {
            backend.document_later(server, endpoint.clone());
            Verdict {
                is_available: true,
                reason: "Passed",
                message: "all checks passed".to_owned(),
            }
        }
        Err(why) => Verdict::not("FailedDiscoveryCheck", why),
    }
}

/// Asks at one place, which is named when that fails.
async fn attempt<'a>(
    server: &Server,
    backend: &Backend,
    endpoint: &'a Endpoint,
) -> Result<&'a Endpoint, String> {
    let (host, port) = endpoint;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let url = format!("https://{host}:{port}{}", backend.path());
    let asked = tokio::select! {
        asked = backend.describe(server, endpoint) => asked,
        () = server.clock.sleep(CHECK) => Err(Refused::Transport(SLOW.to_owned())),
    };
    asked.map(|()| endpoint).map_err(|refused| {
        let why = match refused {
            Refused::Status(code) => format!("bad status from {url}: {code}"),
            Refused::Transport(why) => format!("Get {url:?}: {why}"),
        };
        format!("failing or missing response from {url}: {why}")
    })
}

/// What is wrong with the service, if anything.
fn check_service(server: &Server, backend: &Backend) -> Option<Verdict> {
    let (name, namespace, port) = (&backend.service, &backend.namespace, backend.port);
    let Some(service) = server.find("", "services", namespace, name) else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Verdict::not("ServiceNotFound", message));
    };
    let service: Value = service.decode().ok()?;
    if service["spec"]["type"] != "ClusterIP" {
        return None;
    }
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.find(|found| found["port"] == port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Verdict::not("ServicePortError", message));
    };
    let port_name = found["name"].as_str().unwrap_or_default();
    let slices = admission::View::list(server, "discovery.k8s.io", "endpointslices", namespace);
    let is_own = |slice: &meta::Object| {
        slice.header().label("kubernetes.io/service-name") == Some(name.as_str())
    };
    let slices: Vec<Value> =
        slices.iter().filter(|it| is_own(it)).filter_map(|it| it.decode().ok()).collect();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::not("EndpointsNotFound", message));
    }
    if slices.iter().any(|slice| is_ready(slice, port_name)) {
        return None;
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name \
         {port_name:?}"
    );
    Some(Verdict::not("MissingEndpoints", message))
}

fn is_ready(slice: &Value, port_name: &str) -> bool {
    let list = |field: &str| slice[field].as_array().into_iter().flatten();
    list("endpoints").any(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
        && list("ports").any(|port| {
            port["name"].as_str().unwrap_or_default() == port_name && port["port"].is_number()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_changes() {
        let mut object = json!({});
        let good = Verdict { is_available: true, reason: "Passed", message: "m".to_owned() };
        assert!(set(&mut object, &good, "t1"));
        assert!(!set(&mut object, &good, "t2"));
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "t1");
        assert!(set(&mut object, &Verdict::not("ServiceNotFound", "n".to_owned()), "t3"));
        let condition = &object["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "t3");
        assert_eq!((&condition["status"], &condition["message"]), (&json!("False"), &json!("n")));
    }

    #[test]
    fn endpoints_count_with_the_port_of_the_service() {
        let slice = json!({"endpoints": [{"conditions": {}}], "ports": [{"name": "a", "port": 1}]});
        assert!(is_ready(&slice, "a"));
        assert!(!is_ready(&slice, "b"));
        let gone = json!({"endpoints": [{"conditions": {"ready": false}}],
            "ports": [{"name": "a", "port": 1}]});
        assert!(!is_ready(&gone, "a"));
    }
}
