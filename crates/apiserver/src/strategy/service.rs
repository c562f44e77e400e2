//! Services: cluster IPs and node ports are allocated here.
//!
//! Upstream: `registry/core/service/storage/alloc.go`.

use std::net::IpAddr;

use meta::{Cause, Status};
use serde_json::{Value, json};

use super::{Strategy, WriteContext, keep_old, remove};
use crate::errors;
use crate::service_addresses::{AllocationError, NODE_PORTS, ServiceAddresses};

pub(super) struct Services;

impl Strategy for Services {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        align_addresses(object, None);
        prepare(&ctx.server.services, object, None)
    }

    fn prepare_update(
        &self,
        ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        keep_old(object, old, "status");
        patch_from_old(object, old);
        align_addresses(object, Some(old));
        drop_fields_of_former_type(object, old);
        prepare(&ctx.server.services, object, Some(old))
    }

    fn abandon(&self, ctx: &WriteContext<'_>, object: &Value, old: Option<&Value>) {
        ctx.server.services.release(object, old);
    }

    fn written(&self, ctx: &WriteContext<'_>, object: &Value, old: Option<&Value>) {
        if let Some(old) = old {
            ctx.server.services.release(old, Some(object));
        }
    }

    fn deleted(&self, ctx: &WriteContext<'_>, object: &Value) {
        ctx.server.services.release(object, None);
    }
}

fn service_type(service: &Value) -> &str {
    service.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP")
}

/// What only the former type has, and what the client left as it was, goes with that type.
///
/// Upstream: `dropTypeDependentFields`.
fn drop_fields_of_former_type(object: &mut Value, old: &Value) {
    let (now, before) = (service_type(object).to_owned(), service_type(old));
    let mut drop_if = |is_lost: bool, field: &str| {
        if is_lost && object["spec"].get(field) == old["spec"].get(field) {
            remove(&mut object["spec"], field);
        }
    };
    drop_if(before == "ExternalName" && now != "ExternalName", "externalName");
    let was_balancer = before == "LoadBalancer" && now != "LoadBalancer";
    drop_if(was_balancer, "allocateLoadBalancerNodePorts");
    drop_if(was_balancer, "loadBalancerClass");
    let reachable = |kind: &str, service: &Value| {
        matches!(kind, "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP"
                && service["spec"]["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty()))
    };
    let is_hidden = reachable(before, old) && !reachable(&now, object);
    if is_hidden
        && object["spec"].get("externalTrafficPolicy") == old["spec"].get("externalTrafficPolicy")
    {
        remove(&mut object["spec"], "externalTrafficPolicy");
    }
}

/// The first address stands alone for older clients. Whichever of the two forms changed is what
/// the client means.
///
/// Upstream: `NormalizeClusterIPs`.
fn align_addresses(object: &mut Value, old: Option<&Value>) {
    let spec = &mut object["spec"];
    let one = spec.get("clusterIP").cloned();
    let Some(old) = old.map(|old| &old["spec"]) else {
        if let (Some(one), None) = (one, spec.get("clusterIPs")) {
            spec["clusterIPs"] = json!([one]);
        }
        return;
    };
    if spec.get("clusterIPs") != old.get("clusterIPs") || one.as_ref() == old.get("clusterIP") {
        return;
    }
    match one {
        None => drop(remove(spec, "clusterIPs")),
        Some(one) => match spec.get_mut("clusterIPs").and_then(|list| list.get_mut(0)) {
            Some(first) => *first = one,
            None => spec["clusterIPs"] = json!([one]),
        },
    }
}

/// Clients that PUT without the allocated values keep them.
fn patch_from_old(object: &mut Value, old: &Value) {
    let is_same_sort =
        (service_type(object) == "ExternalName") == (service_type(old) == "ExternalName");
    if !is_same_sort {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if object["spec"].get(field).is_none()
            && let Some(value) = old["spec"].get(field)
        {
            object["spec"][field] = value.clone();
        }
    }
    if !uses_node_ports(object) {
        return;
    }
    if needs_health_check(object)
        && object["spec"].get("healthCheckNodePort").is_none()
        && let Some(port) = old["spec"].get("healthCheckNodePort")
    {
        object["spec"]["healthCheckNodePort"] = port.clone();
    }
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let is_same =
            |found: &&Value| found["port"] == port["port"] && found["protocol"] == port["protocol"];
        if port.get("nodePort").is_none()
            && let Some(number) = old_ports.iter().find(is_same).and_then(|p| p.get("nodePort"))
        {
            port["nodePort"] = number.clone();
        }
    }
}

fn prepare(
    addresses: &ServiceAddresses,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let prepared = prepare_addresses(addresses, object, old)
        .and_then(|()| prepare_ports(addresses, object, old));
    if prepared.is_err() {
        addresses.release(object, old);
    }
    prepared
}

fn prepare_addresses(
    addresses: &ServiceAddresses,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if service_type(object) == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            // Addresses of another type's past go; others are for validation to refuse.
            if old.is_some() || field.starts_with("ip") {
                remove(&mut object["spec"], field);
            }
        }
        return Ok(());
    }
    let family = if addresses.is_ipv4() { "IPv4" } else { "IPv6" };
    let first = object.pointer("/spec/clusterIPs/0").cloned();
    let spec = &mut object["spec"];
    if spec.get("clusterIP").is_none()
        && let Some(first) = first
    {
        spec["clusterIP"] = first;
    }
    let wanted = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    let had = old.and_then(|old| old.pointer("/spec/clusterIP")).and_then(Value::as_str);
    match wanted.as_str() {
        "None" => {}
        "" => {
            let address = addresses
                .allocate()
                .map_err(|_| errors::internal("failed to allocate a serviceIP: range is full"))?;
            spec["clusterIP"] = json!(address.to_string());
        }
        text if had == Some(text) => {}
        text => {
            // What is not an address is for validation to refuse.
            if let Ok(address) = text.parse::<IpAddr>()
                && let Err(error) = addresses.reserve(address)
            {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                remove(&mut object["spec"], "clusterIP");
                remove(&mut object["spec"], "clusterIPs");
                return Err(address_refused(&name, text, error));
            }
        }
    }
    let spec = &mut object["spec"];
    if spec.get("clusterIPs").is_none() {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    let has_selector = spec["selector"].as_object().is_some_and(|map| !map.is_empty());
    let says = spec.get("ipFamilies").is_some() || spec.get("ipFamilyPolicy").is_some();
    if wanted == "None" && !has_selector && !says {
        // Whoever makes the endpoints decides; upstream allows both families.
        spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
        spec["ipFamilyPolicy"] = json!("RequireDualStack");
    }
    if spec.get("ipFamilies").is_none() {
        spec["ipFamilies"] = json!([family]);
    }
    if spec.get("ipFamilyPolicy").is_none() {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
    Ok(())
}

fn uses_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != json!(false),
        _ => false,
    }
}

fn needs_health_check(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn prepare_ports(
    addresses: &ServiceAddresses,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let had: Vec<u64> = old
        .and_then(|old| old["spec"]["ports"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|port| port["nodePort"].as_u64())
        .collect();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let allocates = uses_node_ports(object);
    let may_have = matches!(service_type(object), "NodePort" | "LoadBalancer");
    // One node port may serve a port number in several protocols.
    let mut taken: Vec<(Value, u64)> = Vec::new();
    let mut ports = object["spec"]["ports"].take();
    let mut refused = None;
    for (index, port) in ports.as_array_mut().into_iter().flatten().enumerate() {
        let number = port["nodePort"].as_u64().unwrap_or_default();
        if number != 0 {
            if !may_have {
                // A former type's port goes; validation refuses it on create.
                if old.is_some() && had.contains(&number) {
                    remove(port, "nodePort");
                }
                continue;
            }
            let is_shared = had.contains(&number)
                || taken.iter().any(|(of, n)| *n == number && *of == port["port"]);
            if !is_shared && let Err(error) = reserve_port(addresses, number) {
                refused = Some(port_refused(&name, index, number, error));
                remove(port, "nodePort");
                break;
            }
        } else if allocates {
            let shared = taken.iter().find(|(of, _)| *of == port["port"]).map(|(_, n)| *n);
            let number = match shared {
                Some(number) => number,
                None => match addresses.allocate_port() {
                    Ok(number) => u64::from(number),
                    Err(_) => {
                        refused =
                            Some(errors::internal("failed to allocate a nodePort: range is full"));
                        break;
                    }
                },
            };
            port["nodePort"] = json!(number);
        }
        if let Some(number) = port["nodePort"].as_u64() {
            taken.push((port["port"].clone(), number));
        }
    }
    if !ports.is_null() {
        object["spec"]["ports"] = ports;
    } else {
        remove(&mut object["spec"], "ports");
    }
    match refused {
        Some(status) => Err(status),
        None => prepare_health_check(addresses, object, old, &name),
    }
}

fn prepare_health_check(
    addresses: &ServiceAddresses,
    object: &mut Value,
    old: Option<&Value>,
    name: &str,
) -> Result<(), Status> {
    if !needs_health_check(object) {
        if old.is_some() {
            remove(&mut object["spec"], "healthCheckNodePort");
        }
        return Ok(());
    }
    let had = old.and_then(|old| old["spec"]["healthCheckNodePort"].as_u64());
    match object["spec"]["healthCheckNodePort"].as_u64() {
        None | Some(0) => {
            let port = addresses.allocate_port().map_err(|_| {
                errors::internal("failed to allocate a HealthCheck NodePort: range is full")
            })?;
            object["spec"]["healthCheckNodePort"] = json!(port);
        }
        Some(port) if had == Some(port) => {}
        Some(port) => {
            if reserve_port(addresses, port).is_err() {
                remove(&mut object["spec"], "healthCheckNodePort");
                return Err(errors::internal(format!(
                    "failed to allocate requested HealthCheck NodePort {port}: provided port is \
                     already allocated (service {name})"
                )));
            }
        }
    }
    Ok(())
}

fn reserve_port(addresses: &ServiceAddresses, port: u64) -> Result<(), AllocationError> {
    let port = u16::try_from(port).map_err(|_| AllocationError::OutOfRange)?;
    addresses.reserve_port(port)
}

fn address_refused(name: &str, address: &str, error: AllocationError) -> Status {
    let why = match error {
        AllocationError::OutOfRange => "the provided network does not match the current range",
        AllocationError::Taken | AllocationError::Full => "provided IP is already allocated",
    };
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: [{address:?}]: failed to allocate IP {address}: {why}"),
        field: "spec.clusterIPs".to_owned(),
    };
    errors::invalid("", "Service", name, vec![cause])
}

fn port_refused(name: &str, index: usize, port: u64, error: AllocationError) -> Status {
    let why = match error {
        AllocationError::OutOfRange => format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            NODE_PORTS.start(),
            NODE_PORTS.end()
        ),
        AllocationError::Taken | AllocationError::Full => {
            "provided port is already allocated".to_owned()
        }
    };
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {port}: {why}"),
        field: format!("spec.ports[{index}].nodePort"),
    };
    errors::invalid("", "Service", name, vec![cause])
}
