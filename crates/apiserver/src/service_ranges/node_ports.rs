//! Compares the node ports of services with those that are taken.
//!
//! At start all ports of services are taken, also those that two of them have, as those of a
//! restored store may: who keeps such a port is told when the other one has given it back.
//!
//! Upstream: `registry/core/service/portallocator/controller/repair.go`.

use std::collections::{BTreeMap, BTreeSet};

use admission::View;
use serde_json::Value;

use crate::events::{EventRecorder, Finding, Regarding};
use crate::handle::Handle;
use crate::service_addresses::NODE_PORTS;
use crate::write;

const CONTROLLER: &str = "portallocator-repair-controller";
/// Passes in which a port without a service stays taken, as its service may be on its way:
/// upstream's number.
const PATIENCE: u8 = 2;

/// What is known from one pass to the next.
pub(super) struct NodePorts {
    recorder: EventRecorder,
    /// Ports that no service has, with the number of passes for which they stay taken.
    leaks: BTreeMap<u16, u8>,
}

impl Default for NodePorts {
    fn default() -> Self {
        Self { recorder: EventRecorder::new(CONTROLLER), leaks: BTreeMap::new() }
    }
}

impl NodePorts {
    /// Looks at all services.
    pub(super) async fn check(&mut self, handle: &Handle) {
        // Before the services: a port that is given back meanwhile is no leak.
        let taken = handle.server.services.taken_ports();
        let mut had = BTreeSet::new();
        for service in handle.server.list("", "services", "") {
            let Ok(service) = service.decode::<Value>() else { continue };
            for port in ports(&service) {
                self.check_port(handle, &service, port, &taken, &mut had).await;
            }
        }
        self.let_go(handle, &taken, &had);
    }

    async fn check_port(
        &mut self,
        handle: &Handle,
        service: &Value,
        port: u64,
        taken: &BTreeSet<u16>,
        had: &mut BTreeSet<u16>,
    ) {
        let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
        let valid = u16::try_from(port).ok().filter(|port| NODE_PORTS.contains(port));
        let Some(number) = valid else {
            let note = format!(
                "Port {port} is not within the port range {first}-{last}; please recreate service"
            );
            return self.tell(handle, service, "outOfRange", "PortOutOfRange", note).await;
        };
        if !had.insert(number) {
            let note =
                format!("Port {port} was assigned to multiple services; please recreate service");
            return self.tell(handle, service, "duplicate", "PortAlreadyAllocated", note).await;
        }
        // What is read from the cache may be over.
        if !taken.contains(&number)
            && still_has(handle, service, port).await
            && handle.server.services.reserve_port(number).is_ok()
        {
            let note = format!("Port {port} is not allocated; repairing");
            self.tell(handle, service, "repair", "PortNotAllocated", note).await;
        }
    }

    /// Gives back ports that no service has.
    fn let_go(&mut self, handle: &Handle, taken: &BTreeSet<u16>, had: &BTreeSet<u16>) {
        self.leaks.retain(|port, _| taken.contains(port) && !had.contains(port));
        for port in taken.difference(had) {
            let left = self.leaks.entry(*port).or_insert(PATIENCE);
            if *left > 0 {
                *left -= 1;
                continue;
            }
            self.leaks.remove(port);
            tracing::warn!(port, "a node port has leaked, and is given back");
            handle.server.metrics.node_port_errors.with_label_values(&["leak"]).inc();
            handle.server.services.vacate_port(*port);
        }
    }

    async fn tell(
        &mut self,
        handle: &Handle,
        service: &Value,
        kind: &str,
        reason: &str,
        note: String,
    ) {
        handle.server.metrics.node_port_errors.with_label_values(&[kind]).inc();
        let about = Regarding { api_version: "v1", kind: "Service", object: service };
        let found = Finding { reason: reason.to_owned(), action: "PortAllocation", note };
        self.recorder.warn(handle, &about, found).await;
    }
}

/// Whether a service has a port in the store, too.
async fn still_has(handle: &Handle, service: &Value, port: u64) -> bool {
    write::read_stored(&handle.server, "", "services", service)
        .await
        .is_some_and(|stored| ports(&stored).contains(&port))
}

/// The node ports of a service. One that serves several protocols is one.
fn ports(service: &Value) -> Vec<u64> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        let Some(number) = port["nodePort"].as_u64().filter(|number| *number != 0) else {
            continue;
        };
        let protocols = seen.entry(number).or_default();
        let is_first = protocols.is_empty();
        if !protocols.insert(port["protocol"].as_str().unwrap_or("TCP")) || is_first {
            found.push(number);
        }
    }
    let health = service["spec"]["healthCheckNodePort"].as_u64().filter(|number| *number != 0);
    let is_own = |port: &u64| seen.get(port).is_none_or(|protocols| protocols.contains("TCP"));
    found.extend(health.filter(is_own));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_of_several_protocols_is_one() {
        let check = |of_ports: &[(u64, &str)], health: u64, expected: &[u64]| {
            let of_ports: Vec<Value> = of_ports
                .iter()
                .map(|(port, protocol)| json!({"nodePort": port, "protocol": protocol}))
                .collect();
            let spec = json!({"ports": of_ports, "healthCheckNodePort": health});
            assert_eq!(ports(&json!({ "spec": spec })), expected);
        };
        check(&[(0, "TCP")], 0, &[]);
        check(&[(30_001, "TCP"), (30_001, "UDP")], 0, &[30_001]);
        check(&[(30_001, "TCP"), (30_001, "UDP"), (30_001, "TCP")], 0, &[30_001, 30_001]);
        check(&[(30_001, "UDP"), (30_002, "TCP")], 30_001, &[30_001, 30_002]);
        check(&[(30_001, "TCP")], 30_001, &[30_001, 30_001]);
        assert!(ports(&json!({})).is_empty());
    }
}
