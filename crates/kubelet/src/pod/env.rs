//! The environment of a container.

use std::collections::BTreeMap;

use api::Typed;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, FileKeySelector, Pod, Secret, Service,
};
use meta::{MalformedObject, Object};

use crate::pod::env_file;
use crate::pod::expansion::expand;
use crate::pod::fields::{self, Surroundings};
use crate::pod::spec;
use crate::pod::sub_path;
use crate::volume::Mounted;
use crate::volume::objects::Objects;

/// What is kept of a Service: what goes into environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceInfo {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Empty for one without an address.
    pub(crate) cluster_ip: String,
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: i32,
    pub(crate) protocol: String,
}

impl ServiceInfo {
    /// Reads a Service.
    pub(crate) fn project(object: &Object) -> Result<Self, MalformedObject> {
        let service = Service::of(object)?;
        let spec = service.spec.unwrap_or_default();
        let ip = spec.cluster_ip.filter(|ip| ip != "None").unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| ServicePort {
            name: port.name.unwrap_or_default(),
            port: port.port,
            protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
        });
        Ok(Self {
            name: object.header().name.clone(),
            namespace: object.header().namespace.clone(),
            cluster_ip: ip,
            ports: ports.collect(),
        })
    }
}

/// The variables that tell where Services are, upstream `envvars.FromServices`.
pub(crate) fn service_variables(
    services: &[ServiceInfo],
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let with_address =
        |service: &&ServiceInfo| !service.cluster_ip.is_empty() && !service.ports.is_empty();
    let is_master = |s: &ServiceInfo| s.namespace == "default" && s.name == "kubernetes";
    // A namespace's own service named kubernetes wins over the API server's.
    for service in services.iter().filter(with_address).filter(|s| is_master(s)) {
        add_service(service, &mut variables);
    }
    for service in services.iter().filter(with_address) {
        if links && service.namespace == namespace {
            add_service(service, &mut variables);
        }
    }
    variables
}

fn add_service(service: &ServiceInfo, variables: &mut BTreeMap<String, String>) {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(&service.name);
    let ip = &service.cluster_ip;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    variables.insert(format!("{name}_SERVICE_HOST"), ip.clone());
    for (index, port) in service.ports.iter().enumerate() {
        let number = port.port;
        let protocol = port.protocol.to_lowercase();
        let url = format!("{protocol}://{host}:{number}");
        if index == 0 {
            variables.insert(format!("{name}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{name}_PORT"), url.clone());
        }
        if !port.name.is_empty() {
            let key = format!("{name}_SERVICE_PORT_{}", upper(&port.name));
            variables.insert(key, number.to_string());
        }
        let prefix = format!("{name}_PORT_{number}_{}", port.protocol.to_uppercase());
        variables.insert(prefix.clone(), url);
        variables.insert(format!("{prefix}_PROTO"), protocol);
        variables.insert(format!("{prefix}_PORT"), number.to_string());
        variables.insert(format!("{prefix}_ADDR"), ip.clone());
    }
}

/// Where values come from.
pub(crate) struct EnvSources<'a> {
    pub(crate) config_maps: &'a Objects<ConfigMap>,
    pub(crate) secrets: &'a Objects<Secret>,
    pub(crate) services: &'a [ServiceInfo],
    pub(crate) around: &'a Surroundings<'a>,
    pub(crate) mounted: &'a Mounted,
}

impl EnvSources<'_> {
    /// The environment, in the order in which it was given; the error is the message of
    /// `CreateContainerConfigError`.
    pub(crate) async fn environment(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<Vec<(String, String)>, String> {
        let links = spec::spec(pod).enable_service_links.unwrap_or(true);
        let services = service_variables(self.services, spec::namespace(pod), links);
        let mut result = self.env_from(pod, container).await?;
        let mut known: BTreeMap<String, String> = result.iter().cloned().collect();
        for variable in container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) if !value.is_empty() => {
                    let lookup =
                        |name: &str| known.get(name).or_else(|| services.get(name)).cloned();
                    Some(expand(value, &lookup))
                }
                (_, Some(source)) => self.value_from(pod, container, source).await?,
                _ => Some(String::new()),
            };
            let Some(value) = value else { continue };
            known.insert(variable.name.clone(), value.clone());
            result.retain(|(name, _)| *name != variable.name);
            result.push((variable.name.clone(), value));
        }
        for (name, value) in services {
            if !known.contains_key(&name) {
                result.push((name, value));
            }
        }
        Ok(result)
    }

    async fn env_from(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<Vec<(String, String)>, String> {
        let mut result: BTreeMap<String, String> = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let mut add = |key: &str, value: String| {
                result.insert(format!("{prefix}{key}"), value);
            };
            if let Some(from) = &source.config_map_ref {
                match self.config_map(pod, &from.name).await? {
                    Some(object) => {
                        for (key, value) in object.data.iter().flatten() {
                            add(key, value.clone());
                        }
                    }
                    None if from.optional == Some(true) => {}
                    None => return Err(format!("configmap {:?} not found", from.name)),
                }
            } else if let Some(from) = &source.secret_ref {
                match self.secret(pod, &from.name).await? {
                    Some(object) => {
                        for (key, value) in object.data.iter().flatten() {
                            add(key, String::from_utf8_lossy(&value.0).into_owned());
                        }
                    }
                    None if from.optional == Some(true) => {}
                    None => return Err(format!("secret {:?} not found", from.name)),
                }
            }
        }
        Ok(result.into_iter().collect())
    }

    /// The value, or `None` for an optional one that is absent.
    async fn value_from(
        &self,
        pod: &Pod,
        container: &Container,
        source: &EnvVarSource,
    ) -> Result<Option<String>, String> {
        let namespace = spec::namespace(pod);
        if let Some(field) = &source.field_ref {
            return fields::field(pod, &field.field_path, self.around).map(Some);
        }
        if let Some(resource) = &source.resource_field_ref {
            return fields::resource(pod, Some(container), resource, self.around).map(Some);
        }
        if let Some(from) = &source.config_map_key_ref {
            let optional = from.optional == Some(true);
            let Some(object) = self.config_map(pod, &from.name).await? else {
                let missing = format!("configmap {:?} not found", from.name);
                return if optional { Ok(None) } else { Err(missing) };
            };
            let value = object.data.as_ref().and_then(|data| data.get(&from.key)).cloned();
            let missing =
                format!("couldn't find key {} in ConfigMap {namespace}/{}", from.key, from.name);
            return if value.is_some() || optional { Ok(value) } else { Err(missing) };
        }
        if let Some(from) = &source.secret_key_ref {
            let optional = from.optional == Some(true);
            let Some(object) = self.secret(pod, &from.name).await? else {
                let missing = format!("secret {:?} not found", from.name);
                return if optional { Ok(None) } else { Err(missing) };
            };
            let value = object.data.as_ref().and_then(|data| data.get(&from.key));
            let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
            let missing =
                format!("couldn't find key {} in Secret {namespace}/{}", from.key, from.name);
            return if value.is_some() || optional { Ok(value) } else { Err(missing) };
        }
        if let Some(from) = &source.file_key_ref {
            return self.file_key(from);
        }
        Err("environment variable source is not supported".to_owned())
    }

    /// A value of a file in a volume, which an earlier container of the pod wrote.
    fn file_key(&self, from: &FileKeySelector) -> Result<Option<String>, String> {
        let FileKeySelector { key, path, volume_name, .. } = from;
        let optional = from.optional == Some(true);
        let volume = self.mounted.paths.get(volume_name).ok_or_else(|| {
            format!("cannot find the volume {volume_name:?} referenced by FileKeyRef")
        })?;
        let open = match sub_path::open_existing(volume, path) {
            Ok(open) => open,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return if optional { Ok(None) } else { Err(format!("file {path:?} not found")) };
            }
            Err(_) => return Err("couldn't parse env file".to_owned()),
        };
        let found = env_file::read(&open, key).map_err(|why| {
            tracing::info!(volume = volume_name, path, why, "file of variables not read");
            "couldn't parse env file".to_owned()
        })?;
        match found.filter(|value| !value.is_empty()) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(format!("environment variable key {key:?} not found in file {path:?}")),
        }
    }

    async fn config_map(
        &self,
        pod: &Pod,
        name: &str,
    ) -> Result<Option<std::sync::Arc<ConfigMap>>, String> {
        let found = self.config_maps.get(spec::namespace(pod), name, spec::uid(pod)).await;
        found.map_err(|error| error.to_string())
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
    ) -> Result<Option<std::sync::Arc<Secret>>, String> {
        let found = self.secrets.get(spec::namespace(pod), name, spec::uid(pod)).await;
        found.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_by_variables() {
        let service = |namespace: &str, name: &str, ip: &str| ServiceInfo {
            name: name.into(),
            namespace: namespace.into(),
            cluster_ip: ip.into(),
            ports: vec![ServicePort { name: "http".into(), port: 80, protocol: "TCP".into() }],
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("n", "my-app", "10.96.0.5"),
            service("n", "headless", ""),
            service("other", "x", "10.96.0.6"),
        ];
        let variables = service_variables(&services, "n", true);
        let told = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(told("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert_eq!(told("MY_APP_SERVICE_PORT_HTTP"), Some("80"));
        assert_eq!(told("MY_APP_PORT_80_TCP"), Some("tcp://10.96.0.5:80"));
        assert_eq!(told("MY_APP_PORT_80_TCP_ADDR"), Some("10.96.0.5"));
        assert_eq!(variables.len(), 16, "{variables:?}");
        assert_eq!(service_variables(&services, "n", false).len(), 8);
    }
}
