//! One webhook of a configuration.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meta::Object;
use serde::Deserialize;
use serde_json::Value;

use super::kept::Kept;
use super::matching::Criteria;
use crate::tls;

/// How long a conversion may take; upstream's.
const CONVERSION_SECS: u64 = 30;

/// A webhook, ready to be matched and called.
#[derive(Debug)]
pub(crate) struct Hook {
    /// Name of the configuration it is in.
    pub(super) configuration: String,
    pub(super) name: String,
    pub(super) client: ClientConfig,
    pub(super) criteria: Criteria,
    /// Expressions say further when it is asked.
    pub(super) conditions: policy::Conditions,
    pub(super) timeout: Duration,
    pub(super) review_versions: Vec<String>,
    pub(super) is_mutating: bool,
    failure_policy: String,
    side_effects: String,
    reinvocation_policy: String,
    tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
    /// Its connections.
    pub(super) kept: Kept,
}

/// Where a webhook is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClientConfig {
    pub(super) url: Option<String>,
    pub(super) service: Option<ServiceReference>,
    ca_bundle: Option<String>,
}

/// A service in the cluster.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServiceReference {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) path: Option<String>,
    pub(super) port: Option<u16>,
}

/// What a webhook is asked about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub(super) operations: Vec<String>,
    pub(super) api_groups: Vec<String>,
    pub(super) api_versions: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) scope: Option<String>,
    /// Only rules of policies have these.
    pub(super) resource_names: Vec<String>,
}

impl Rule {
    pub(super) fn everything() -> Self {
        let any = || vec!["*".to_owned()];
        Self {
            operations: any(),
            api_groups: any(),
            api_versions: any(),
            resources: vec!["*/*".to_owned()],
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    webhooks: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    name: String,
    #[serde(default)]
    client_config: ClientConfig,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    match_policy: String,
    namespace_selector: Option<Value>,
    object_selector: Option<Value>,
    #[serde(default)]
    match_conditions: Vec<policy::Condition>,
    #[serde(default)]
    side_effects: String,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    admission_review_versions: Vec<String>,
    #[serde(default)]
    reinvocation_policy: String,
}

/// The webhooks of a configuration.
pub(super) fn compile(object: &Object) -> Vec<Hook> {
    match object.decode::<Configuration>() {
        Ok(configuration) => {
            let is_mutating = configuration.kind == "MutatingWebhookConfiguration";
            let hooks = configuration.webhooks.into_iter();
            let name = &object.header().name;
            hooks.map(|spec| Hook::new(name, spec, is_mutating)).collect()
        }
        Err(error) => {
            let name = &object.header().name;
            tracing::error!(%error, name, "a webhook configuration cannot be read, it is left out");
            Vec::new()
        }
    }
}

impl Hook {
    fn new(configuration: &str, spec: Spec, is_mutating: bool) -> Self {
        let criteria = Criteria::new(
            spec.rules,
            Vec::new(),
            spec.namespace_selector.as_ref(),
            spec.object_selector.as_ref(),
            &spec.match_policy,
        );
        Self {
            configuration: configuration.to_owned(),
            name: spec.name,
            client: spec.client_config,
            criteria,
            conditions: policy::Conditions::new(&spec.match_conditions, false),
            // Upstream's default.
            timeout: Duration::from_secs(spec.timeout_seconds.unwrap_or(10)),
            review_versions: spec.admission_review_versions,
            is_mutating,
            failure_policy: spec.failure_policy,
            side_effects: spec.side_effects,
            reinvocation_policy: spec.reinvocation_policy,
            tls: OnceLock::new(),
            kept: Kept::default(),
        }
    }

    /// Who converts the objects of a definition.
    pub(crate) fn for_conversion(definition: &str, client: Value) -> Self {
        let spec = Spec {
            name: format!("conversion_webhook_for_{definition}"),
            client_config: serde_json::from_value(client).unwrap_or_default(),
            rules: Vec::new(),
            failure_policy: String::new(),
            match_policy: String::new(),
            namespace_selector: None,
            object_selector: None,
            match_conditions: Vec::new(),
            side_effects: String::new(),
            timeout_seconds: Some(CONVERSION_SECS),
            admission_review_versions: Vec::new(),
            reinvocation_policy: String::new(),
        };
        Self::new(definition, spec, false)
    }

    pub(super) fn is_ignored_on_failure(&self) -> bool {
        self.failure_policy == "Ignore"
    }

    pub(super) fn is_reinvoked(&self) -> bool {
        self.reinvocation_policy == "IfNeeded"
    }

    pub(super) fn allows_dry_run(&self) -> bool {
        matches!(self.side_effects.as_str(), "None" | "NoneOnDryRun")
    }

    /// TLS that trusts the webhook's own authorities and nobody else.
    pub(super) fn tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        self.tls.get_or_init(|| tls::webhook_config(self.client.ca_bundle.as_deref())).clone()
    }
}
