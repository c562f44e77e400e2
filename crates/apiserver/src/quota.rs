//! Resource quota: what a new object uses is charged before it is written.
//!
//! Writes of one namespace that has a quota go one after the other from the check to the store, so
//! that two of them cannot both take the last of it. The controller repairs what failed writes
//! leave charged.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use meta::{Object, Quantity, Status};
use serde_json::{Value, json};
use store::{Expect, Outcome};
use tokio::sync::OwnedMutexGuard;

use crate::errors;
use crate::render;
use crate::server::Server;
use crate::write;

/// Attempts to charge against a controller that writes too.
const ATTEMPTS: usize = 5;

/// One lock per namespace that has quotas.
#[derive(Default)]
pub(crate) struct Quotas {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Held from the check until the object is written.
pub(crate) struct Charge {
    _lock: Option<OwnedMutexGuard<()>>,
}

type Usage = BTreeMap<String, Quantity>;

impl Server {
    /// Checks the quotas of a namespace and charges what the write adds.
    pub(crate) async fn charge_quota(
        &self,
        request: &admission::Request<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Charge, Status> {
        let free = Charge { _lock: None };
        if request.namespace.is_empty() || !request.subresource.is_empty() {
            return Ok(free);
        }
        let added = usage(request, object);
        let had = old.map(|old| usage(request, old)).unwrap_or_default();
        let delta: Usage = added
            .into_iter()
            .map(|(name, quantity)| {
                let had = had.get(&name).cloned().unwrap_or_default();
                (name, quantity - had)
            })
            .filter(|(_, quantity)| quantity.signum() > 0)
            .collect();
        if delta.is_empty() {
            return Ok(free);
        }
        let quotas = admission::View::list(self, "", "resourcequotas", request.namespace);
        if quotas.is_empty() {
            return Ok(free);
        }
        let lock = self.quotas.lock(request.namespace).lock_owned().await;
        for quota in quotas {
            self.charge(request, &quota, &delta, object).await?;
        }
        Ok(Charge { _lock: Some(lock) })
    }

    async fn charge(
        &self,
        request: &admission::Request<'_>,
        quota: &Arc<Object>,
        delta: &Usage,
        object: &Value,
    ) -> Result<(), Status> {
        let Some(storage) = self.resources.storage("", "resourcequotas") else { return Ok(()) };
        let key = storage.store_key(request.namespace, &quota.header().name);
        for _ in 0..ATTEMPTS {
            let found = self.store.get(&key).await.map_err(|error| errors::from_store(&error))?;
            let Some(found) = found else { return Ok(()) };
            let mut stored = write::stored(storage, &found)?;
            if !in_scope(&stored, request, object) {
                return Ok(());
            }
            if !check(request, &stored, delta, object)? || request.is_dry_run {
                return Ok(());
            }
            for (name, quantity) in delta {
                if stored["spec"]["hard"].get(name).is_some() {
                    let used = quantity_of(&stored["status"]["used"][name]) + *quantity;
                    stored["status"]["used"][name] = json!(used.to_string());
                }
            }
            crate::strategy::remove(&mut stored["metadata"], "resourceVersion");
            let value = render::encode(storage.ty, &stored);
            let expect = Expect::ModRevision(found.mod_revision);
            let write = write::stamped(key.clone(), Some(&value), expect);
            let outcome =
                self.store.write(write).await.map_err(|error| errors::from_store(&error))?;
            if matches!(outcome, Outcome::Committed(_)) {
                return Ok(());
            }
        }
        let name = &quota.header().name;
        Err(errors::modified(&storage.resource, name))
    }
}

impl Quotas {
    fn lock(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks nobody holds are of no use; this keeps the map as small as the work under way.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(namespace.to_owned()).or_default().clone()
    }
}

/// Resource, requested, used, limit.
type Exceeded<'a> = (&'a str, String, String, String);

/// Whether the quota constrains anything in the delta; an error when it would be exceeded.
fn check(
    request: &admission::Request<'_>,
    quota: &Value,
    delta: &Usage,
    object: &Value,
) -> Result<bool, Status> {
    let name = write::text(quota, "/metadata/name");
    let Some(hard) = quota.pointer("/spec/hard").and_then(Value::as_object) else {
        return Ok(false);
    };
    if request.resource.resource == "pods" {
        let missing: Vec<&str> = hard
            .keys()
            .map(String::as_str)
            .filter(|name| is_compute(name) && !sets(object, name))
            .collect();
        if !missing.is_empty() {
            let why = format!("failed quota: {name}: must specify {}", missing.join(","));
            return Err(errors::forbidden(request.resource, request.name, &why));
        }
    }
    let mut exceeded: Vec<Exceeded<'_>> = Vec::new();
    let mut is_constrained = false;
    for (resource, requested) in delta {
        let Some(limit) = hard.get(resource) else { continue };
        is_constrained = true;
        let used = quantity_of(&quota["status"]["used"][resource]);
        let limit = quantity_of(limit);
        if used + *requested > limit {
            exceeded.push((resource, requested.to_string(), used.to_string(), limit.to_string()));
        }
    }
    if exceeded.is_empty() {
        return Ok(is_constrained);
    }
    let join = |pick: fn(&Exceeded<'_>) -> String| {
        exceeded.iter().map(|row| format!("{}={}", row.0, pick(row))).collect::<Vec<_>>().join(",")
    };
    let why = format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        join(|row| row.1.clone()),
        join(|row| row.2.clone()),
        join(|row| row.3.clone())
    );
    Err(errors::forbidden(request.resource, request.name, &why))
}

fn is_compute(name: &str) -> bool {
    matches!(
        name,
        "cpu" | "memory" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory"
    )
}

/// Whether every container says how much it wants.
fn sets(pod: &Value, name: &str) -> bool {
    let (side, resource) = name.split_once('.').unwrap_or(("requests", name));
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .all(|container| container["resources"][side].get(resource).is_some())
}

/// Quotas with scopes count only some pods.
fn in_scope(quota: &Value, request: &admission::Request<'_>, object: &Value) -> bool {
    let scopes = quota.pointer("/spec/scopes").and_then(Value::as_array);
    let is_pod = request.resource.resource == "pods";
    let terminating = object.pointer("/spec/activeDeadlineSeconds").is_some();
    let best_effort = object.pointer("/status/qosClass").is_some_and(|class| class == "BestEffort");
    let matches = |scope: &str, values: Option<&Value>, operator: &str| match scope {
        "Terminating" => is_pod && terminating,
        "NotTerminating" => is_pod && !terminating,
        "BestEffort" => is_pod && best_effort,
        "NotBestEffort" => is_pod && !best_effort,
        "PriorityClass" => {
            let class = write::text(object, "/spec/priorityClassName");
            let listed = values
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|value| *value == class.as_str()));
            is_pod
                && match operator {
                    "In" => listed,
                    "NotIn" => !listed,
                    "DoesNotExist" => class.is_empty(),
                    _ => !class.is_empty(),
                }
        }
        _ => false,
    };
    let plain = scopes
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .all(|scope| matches(scope, None, "Exists"));
    let expressions = quota.pointer("/spec/scopeSelector/matchExpressions");
    let selected = expressions.and_then(Value::as_array).into_iter().flatten().all(|expression| {
        let scope = expression["scopeName"].as_str().unwrap_or_default();
        let operator = expression["operator"].as_str().unwrap_or("Exists");
        matches(scope, expression.get("values"), operator)
    });
    plain && selected
}

fn quantity_of(value: &Value) -> Quantity {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// What an object uses, under every name a quota may have for it.
fn usage(request: &admission::Request<'_>, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let one = || Quantity::new(1, meta::QuantityFormat::DecimalSi);
    let (group, resource) = (&request.resource.group, &request.resource.resource);
    let counted = if group.is_empty() {
        format!("count/{resource}")
    } else {
        format!("count/{resource}.{group}")
    };
    usage.insert(counted, one());
    let core = [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
    ];
    let is_finished =
        matches!(write::text(object, "/status/phase").as_str(), "Succeeded" | "Failed");
    if group.is_empty() && core.contains(&resource.as_str()) && !(resource == "pods" && is_finished)
    {
        usage.insert(resource.clone(), one());
    }
    match (group.as_str(), resource.as_str()) {
        ("", "pods") if !is_finished => pod_usage(object, &mut usage),
        ("", "services") => service_usage(object, &mut usage),
        ("", "persistentvolumeclaims") => claim_usage(object, &mut usage),
        _ => {}
    }
    usage
}

fn pod_usage(pod: &Value, usage: &mut Usage) {
    let total = |side: &str| -> Usage {
        let mut sums = Usage::new();
        let list = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
        for container in list("containers") {
            for (name, value) in container["resources"][side].as_object().into_iter().flatten() {
                let sum = sums.remove(name).unwrap_or_default();
                sums.insert(name.clone(), sum + quantity_of(value));
            }
        }
        for container in list("initContainers") {
            let keeps_running = container["restartPolicy"] == "Always";
            for (name, value) in container["resources"][side].as_object().into_iter().flatten() {
                let sum = sums.remove(name).unwrap_or_default();
                let own = quantity_of(value);
                sums.insert(name.clone(), if keeps_running { sum + own } else { sum.max(own) });
            }
        }
        sums
    };
    for (name, quantity) in total("requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(name.clone(), quantity);
        }
        usage.insert(format!("requests.{name}"), quantity);
    }
    for (name, quantity) in total("limits") {
        usage.insert(format!("limits.{name}"), quantity);
    }
}

fn service_usage(service: &Value, usage: &mut Usage) {
    let count = |n: usize| {
        Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), meta::QuantityFormat::DecimalSi)
    };
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    match service.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP") {
        "NodePort" => {
            usage.insert("services.nodeports".to_owned(), count(ports));
        }
        "LoadBalancer" => {
            usage.insert("services.loadbalancers".to_owned(), count(1));
            if service["spec"]["allocateLoadBalancerNodePorts"] != json!(false) {
                usage.insert("services.nodeports".to_owned(), count(ports));
            }
        }
        _ => {}
    }
}

fn claim_usage(claim: &Value, usage: &mut Usage) {
    let storage = quantity_of(&claim["spec"]["resources"]["requests"]["storage"]);
    let one = Quantity::new(1, meta::QuantityFormat::DecimalSi);
    usage.insert("requests.storage".to_owned(), storage);
    if let Some(class) =
        claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty())
    {
        let suffix = "storageclass.storage.k8s.io";
        usage.insert(format!("{class}.{suffix}/requests.storage"), storage);
        usage.insert(format!("{class}.{suffix}/persistentvolumeclaims"), one);
    }
}
