//! The plugins in their order.

use features::Features;
use meta::Status;
use serde_json::Value;

use crate::request::{Request, View};
use crate::{
    certificate_permission, certificate_subject, claim_resize, declared_features,
    default_toleration_seconds, ingress_class, limit_ranger, namespace_lifecycle, node_restriction,
    pod_security, pod_topology_labels, priority, runtime_class, service_account, storage_class,
    storage_protection, taint_nodes, trust_bundle,
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

    /// What is recorded about a write in the audit log, be it refused or not: keys and values.
    fn audit_annotations(
        &self,
        _request: &Request<'_>,
        _object: &Value,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// The plugins that are on by default.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// The plugins as feature gates want them.
    pub fn new(features: &Features) -> Self {
        let node_restriction = node_restriction::NodeRestriction {
            restricts_audiences: features.is_enabled("ServiceAccountNodeAudienceRestriction"),
            allows_insecure_requests: features
                .is_enabled("AllowInsecureKubeletCertificateSigningRequests"),
        };
        let topology_labels = pod_topology_labels::PodTopologyLabels {
            is_enabled: features.is_enabled("PodTopologyLabelsAdmission"),
        };
        Self {
            plugins: vec![
                Box::new(namespace_lifecycle::NamespaceLifecycle),
                Box::new(limit_ranger::LimitRanger),
                Box::new(service_account::ServiceAccount),
                Box::new(node_restriction),
                Box::new(taint_nodes::TaintNodesByCondition),
                Box::new(pod_security::PodSecurity),
                Box::new(priority::Priority),
                Box::new(default_toleration_seconds::DefaultTolerationSeconds),
                Box::new(storage_class::DefaultStorageClass),
                Box::new(storage_protection::StorageObjectInUseProtection),
                Box::new(claim_resize::PersistentVolumeClaimResize),
                Box::new(runtime_class::RuntimeClass),
                Box::new(certificate_permission::CertificateApproval),
                Box::new(certificate_permission::CertificateSigning),
                Box::new(trust_bundle::ClusterTrustBundleAttest),
                Box::new(certificate_subject::CertificateSubjectRestriction),
                Box::new(ingress_class::DefaultIngressClass),
                Box::new(topology_labels),
                Box::new(declared_features::NodeDeclaredFeatureValidator),
            ],
        }
    }

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

    /// What the plugins have to say for the audit log.
    pub fn audit_annotations(
        &self,
        request: &Request<'_>,
        object: &Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Vec<(&'static str, String)> {
        let plugins = self.plugins.iter();
        plugins.flat_map(|plugin| plugin.audit_annotations(request, object, old, view)).collect()
    }

    /// Names of the plugins, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }
}
