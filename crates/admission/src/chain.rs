//! The plugins in their order.

use meta::Status;
use serde_json::Value;

use crate::request::{Request, View};
use crate::{
    certificate_subject, claim_resize, declared_features, default_toleration_seconds, limit_ranger,
    namespace_lifecycle, node_restriction, pod_security, priority, runtime_class, service_account,
    storage_class, storage_protection, taint_nodes,
};

/// One admission plugin.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// The answer to the client.
    fn admit(
        &self,
        _request: &Request<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object as it will be written. There is no object when it is deleted.
    ///
    /// # Errors
    /// The answer to the client.
    fn validate(
        &self,
        _request: &Request<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// What the client is told about an object that is written all the same.
    fn warnings(
        &self,
        _request: &Request<'_>,
        _object: &Value,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Vec<String> {
        Vec::new()
    }
}

/// The plugins that are on by default.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            plugins: vec![
                Box::new(namespace_lifecycle::NamespaceLifecycle),
                Box::new(limit_ranger::LimitRanger),
                Box::new(service_account::ServiceAccount),
                Box::new(node_restriction::NodeRestriction),
                Box::new(taint_nodes::TaintNodesByCondition),
                Box::new(pod_security::PodSecurity),
                Box::new(priority::Priority),
                Box::new(default_toleration_seconds::DefaultTolerationSeconds),
                Box::new(storage_class::DefaultStorageClass),
                Box::new(storage_protection::StorageObjectInUseProtection),
                Box::new(claim_resize::PersistentVolumeClaimResize),
                Box::new(runtime_class::RuntimeClass),
                Box::new(certificate_subject::CertificateSubjectRestriction),
                Box::new(declared_features::NodeDeclaredFeatureValidator),
            ],
        }
    }
}

impl Chain {
    /// Runs the mutating half.
    ///
    /// # Errors
    /// The first refusal.
    pub fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.admit(request, object, old, view))
    }

    /// Runs the validating half.
    ///
    /// # Errors
    /// The first refusal.
    pub fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(request, object, old, view))
    }

    /// What the plugins have to say about an object that none of them refuses.
    pub fn warnings(
        &self,
        request: &Request<'_>,
        object: &Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Vec<String> {
        let plugins = self.plugins.iter();
        plugins.flat_map(|plugin| plugin.warnings(request, object, old, view)).collect()
    }

    /// Names of the plugins, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }
}
