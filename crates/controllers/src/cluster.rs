//! The informers that all controllers share: one watch and one cache per resource.

use client::{Client, Informer, InformerConfig, ListOptions, Lister};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ServiceAccount};
use serde::de::DeserializeOwned;
use stdx::shutdown::Shutdown;

/// Name of the ConfigMap that carries the root CA to pods.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";

/// One lister per resource.
pub(crate) struct Informers {
    pub(crate) namespaces: Lister<Namespace>,
    pub(crate) nodes: Lister<Node>,
    /// Only those that are called `default`.
    pub(crate) default_service_accounts: Lister<()>,
    /// Only those that are called [`ROOT_CA`]; their data.
    pub(crate) root_cas: Lister<ConfigMap>,
}

impl Informers {
    /// Starts all of them.
    pub(crate) fn spawn(client: &Client, clock: &SharedClock, shutdown: &Shutdown) -> Self {
        let start = Start { client, clock, shutdown };
        Self {
            namespaces: start.whole::<Namespace>(ListOptions::all()),
            nodes: start.whole::<Node>(ListOptions::all()),
            default_service_accounts: Informer::spawn(
                client,
                clock,
                selected::<ServiceAccount>(ListOptions::fields("metadata.name=default")),
                shutdown,
                |_| Ok(()),
            ),
            root_cas: start
                .whole::<ConfigMap>(ListOptions::fields(format!("metadata.name={ROOT_CA}"))),
        }
    }
}

struct Start<'a> {
    client: &'a Client,
    clock: &'a SharedClock,
    shutdown: &'a Shutdown,
}

impl Start<'_> {
    /// Kinds of which there are few, or of which most fields are read, are kept as they are.
    fn whole<K>(&self, options: ListOptions) -> Lister<K>
    where
        K: k8s_openapi::Resource + DeserializeOwned + Send + Sync + 'static,
    {
        let config = selected::<K>(options);
        Informer::spawn(self.client, self.clock, config, self.shutdown, |o| o.decode())
    }
}

fn selected<K: k8s_openapi::Resource>(options: ListOptions) -> InformerConfig {
    InformerConfig { options, ..InformerConfig::all::<K>() }
}
