//! The server's parts, and how requests see them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clock::SharedClock;
use meta::{GroupResource, Object};
use stdx::shutdown::Shutdown;
use store::Store;

use crate::aggregation::Backends;
use crate::config::Config;
use crate::legacy_tokens;
use crate::metrics::Metrics;
use crate::pump::Pump;
use crate::quota::Quotas;
use crate::rbac_source::RbacSource;
use crate::resources::Resources;
use crate::service_addresses::ServiceAddresses;
use crate::traffic::Traffic;
use crate::webhook::Webhooks;

/// Everything a request may need.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: SharedClock,
    pub(crate) resources: Arc<Resources>,
    pub(crate) pump: Pump,
    pub(crate) authenticator: authn::Authenticator,
    pub(crate) signer: authn::TokenSigner,
    pub(crate) authorizer: authz::Authorizer,
    pub(crate) admission: admission::Chain,
    pub(crate) services: ServiceAddresses,
    pub(crate) quotas: Quotas,
    pub(crate) webhooks: Webhooks,
    pub(crate) backends: Backends,
    pub(crate) metrics: Metrics,
    pub(crate) auditor: Option<Arc<audit::Auditor>>,
    pub(crate) documents: openapi::Documents,
    pub(crate) shutdown: Shutdown,
    pub(crate) traffic: Traffic,
    pub(crate) is_ready: AtomicBool,
    pub(crate) kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) no_resource: GroupResource,
}

impl Server {
    /// The name of no resource, for requests about none.
    pub(crate) fn no_resource(&self) -> &GroupResource {
        &self.no_resource
    }

    /// An object of the caches.
    pub(crate) fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        let storage = self.resources.any_storage(group, resource)?;
        storage.cache.get(&storage.cache_key(namespace, name))
    }
}

impl admission::View for Server {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.find(group, resource, namespace, name)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Some(storage) = self.resources.any_storage(group, resource) else {
            return Vec::new();
        };
        let snapshot = storage.cache.snapshot(0);
        if !storage.is_namespaced || namespace.is_empty() {
            return snapshot.map.values().cloned().collect();
        }
        let prefix = format!("{namespace}/");
        let from: Arc<str> = prefix.as_str().into();
        let within = snapshot.map.range(from..).take_while(|(key, _)| key.starts_with(&prefix));
        within.map(|(_, object)| object.clone()).collect()
    }

    fn may(&self, user: authz::Subject<'_>, asked: &authz::Attributes) -> bool {
        self.authorizer.authorize(user, asked).is_allowed()
    }
}

/// Living objects, for tokens bound to them.
pub(crate) struct Living(pub(crate) Arc<Resources>);

impl Living {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let storage = self.0.storage("", resource)?;
        storage.cache.get(&storage.cache_key(namespace, name))
    }

    fn uid(&self, resource: &str, namespace: &str, name: &str) -> Option<String> {
        Some(self.find(resource, namespace, name)?.header().uid.clone())
    }
}

impl authn::BoundObjects for Living {
    fn service_account_uid(&self, namespace: &str, name: &str) -> Option<String> {
        self.uid("serviceaccounts", namespace, name)
    }

    fn pod_uid(&self, namespace: &str, name: &str) -> Option<String> {
        self.uid("pods", namespace, name)
    }

    fn secret_uid(&self, namespace: &str, name: &str) -> Option<String> {
        self.uid("secrets", namespace, name)
    }

    fn node_uid(&self, name: &str) -> Option<String> {
        self.uid("nodes", "", name)
    }

    fn token_secret(&self, namespace: &str, name: &str) -> Option<authn::TokenSecret> {
        legacy_tokens::secret(&*self.find("secrets", namespace, name)?)
    }

    fn token_account(&self, namespace: &str, name: &str) -> Option<authn::TokenAccount> {
        legacy_tokens::account(&*self.find("serviceaccounts", namespace, name)?)
    }
}

impl authn::BootstrapSecrets for Living {
    fn secret(&self, name: &str) -> Option<authn::BootstrapSecret> {
        legacy_tokens::bootstrap(&*self.find("secrets", "kube-system", name)?)
    }
}

/// The authorizer over the caches.
pub(crate) fn authorizer(config: &Config, resources: &Arc<Resources>) -> authz::Authorizer {
    authz::Authorizer::new(
        config.authorization_mode.clone(),
        Arc::new(RbacSource::new(resources.clone())),
        Arc::new(crate::node_graph::PodReferences(resources.clone())),
    )
}
