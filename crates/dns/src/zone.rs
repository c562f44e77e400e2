//! What the names of the cluster stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use meta::ObjectKey;

/// A Service, as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Names lead to these addresses.
    Cluster {
        /// The virtual addresses.
        addresses: Vec<IpAddr>,
        /// Its ports.
        ports: Vec<Port>,
    },
    /// Names lead to the endpoints.
    Headless,
    /// The name is another one for a host elsewhere.
    External(String),
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its name; only ports with one have SRV records.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The number.
    pub number: u16,
}

/// The endpoints of one EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Name of the service, in the slice's namespace.
    pub service: String,
    /// Named ports.
    pub ports: Vec<Port>,
    /// Addresses with the first label of their names.
    pub endpoints: Vec<Endpoint>,
}

/// An address of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The pod's host name, or its address with dashes.
    pub label: String,
    /// The address.
    pub address: IpAddr,
}

impl Service {
    /// Reads a Service.
    pub fn read(service: &ApiService) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Some(Self::External(spec.external_name.clone()?));
        }
        let ips = match &spec.cluster_ips {
            Some(ips) => ips.as_slice(),
            None => spec.cluster_ip.as_slice(),
        };
        let addresses: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            return Some(Self::Headless);
        }
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            read_port(port.name.as_deref(), port.protocol.as_deref(), Some(port.port))
        });
        Some(Self::Cluster { addresses, ports: ports.collect() })
    }
}

impl Slice {
    /// Reads the endpoints that take connections; `None` when the slice belongs to no service or
    /// has no addresses but names.
    pub fn read(slice: &ApiSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(api::labels::SERVICE_NAME)?.clone();
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            read_port(port.name.as_deref(), port.protocol.as_deref(), port.port)
        });
        let mut endpoints = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            if ready == Some(false) {
                continue;
            }
            for address in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
                let label = endpoint.hostname.clone().filter(|name| !name.is_empty());
                let label = label.unwrap_or_else(|| dashed(address));
                endpoints.push(Endpoint { label, address });
            }
        }
        Some(Self { service, ports: ports.collect(), endpoints })
    }
}

fn read_port(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
    let name = name.filter(|name| !name.is_empty())?.to_owned();
    let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
    Some(Port { name, protocol, number: u16::try_from(number?).ok()? })
}

/// `10-42-0-7`, the label of an address.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// Reads [`dashed`] back.
pub(crate) fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// All names of the cluster. Told of changes by key; asked by [`crate::lookup`].
#[derive(Debug, Default)]
pub struct Zone {
    namespaces: BTreeSet<String>,
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, BTreeMap<String, Arc<Slice>>>,
    /// Services by cluster address.
    by_cluster_address: BTreeMap<IpAddr, ObjectKey>,
    /// Services and labels by endpoint address.
    by_endpoint: BTreeMap<IpAddr, BTreeSet<(ObjectKey, String)>>,
}

impl Zone {
    /// A namespace appears or goes.
    pub fn set_namespace(&mut self, name: &str, present: bool) {
        if present {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// A service is now this, or is gone.
    pub fn set_service(&mut self, key: &ObjectKey, service: Option<Service>) {
        if let Some(Service::Cluster { addresses, .. }) = self.services.get(key) {
            for address in addresses {
                self.by_cluster_address.remove(address);
            }
        }
        match service {
            None => {
                self.services.remove(key);
            }
            Some(service) => {
                if let Service::Cluster { addresses, .. } = &service {
                    for address in addresses {
                        self.by_cluster_address.insert(*address, key.clone());
                    }
                }
                self.services.insert(key.clone(), service);
            }
        }
    }

    /// A slice was `old` and is `new`.
    pub fn set_slice(
        &mut self,
        key: &ObjectKey,
        old: Option<&Arc<Slice>>,
        new: Option<&Arc<Slice>>,
    ) {
        let service = |slice: &Slice| ObjectKey::new(key.namespace.clone(), slice.service.clone());
        if let Some(old) = old {
            let service = service(old);
            if let Some(slices) = self.slices.get_mut(&service) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            for endpoint in &old.endpoints {
                if let Some(names) = self.by_endpoint.get_mut(&endpoint.address) {
                    names.remove(&(service.clone(), endpoint.label.clone()));
                    if names.is_empty() {
                        self.by_endpoint.remove(&endpoint.address);
                    }
                }
            }
        }
        if let Some(new) = new {
            let service = service(new);
            for endpoint in &new.endpoints {
                let names = self.by_endpoint.entry(endpoint.address).or_default();
                names.insert((service.clone(), endpoint.label.clone()));
            }
            let slices = self.slices.entry(service).or_default();
            slices.insert(key.name.clone(), Arc::clone(new));
        }
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&ObjectKey::new(namespace, name))
    }

    pub(crate) fn slices(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Slice> {
        let key = ObjectKey::new(namespace, name);
        self.slices.get(&key).into_iter().flat_map(|slices| slices.values().map(Arc::as_ref))
    }

    /// Names of an address, without the domain, in a fixed order.
    pub(crate) fn names_of(&self, address: IpAddr) -> Vec<String> {
        if let Some(key) = self.by_cluster_address.get(&address) {
            return vec![format!("{}.{}.svc", key.name, key.namespace)];
        }
        let names = self.by_endpoint.get(&address).into_iter().flatten();
        names
            .filter(|(key, _)| matches!(self.services.get(key), Some(Service::Headless)))
            .map(|(key, label)| format!("{label}.{}.{}.svc", key.name, key.namespace))
            .collect()
    }
}
