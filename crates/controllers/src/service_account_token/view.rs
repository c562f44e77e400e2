//! What is kept of service accounts and of the Secrets with their tokens. No token is.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use meta::ResourceVersion;

use super::{ACCOUNT_NAME, ACCOUNT_UID, CA, NAMESPACE, TOKEN};

/// The type of Secrets with tokens.
pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";

/// Label with the day on which a token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Label with the day since which a token is invalid.
pub(crate) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// A service account.
#[derive(Debug)]
pub(crate) struct AccountView {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The Secrets it names.
    pub(crate) secrets: Vec<String>,
}

impl AccountView {
    pub(crate) fn new(account: ServiceAccount) -> Self {
        let secrets = account.secrets.into_iter().flatten();
        Self {
            name: account.metadata.name.unwrap_or_default(),
            uid: account.metadata.uid.unwrap_or_default(),
            secrets: secrets.filter_map(|reference| reference.name).collect(),
        }
    }
}

/// A Secret with a token, or one that should have one.
#[derive(Debug)]
pub(crate) struct SecretView {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) version: ResourceVersion,
    pub(crate) created: Option<Timestamp>,
    pub(crate) is_deleted: bool,
    /// The day on which the token was last used, as its label says.
    pub(crate) last_used: Option<String>,
    /// The day since which it is invalid, as its label says.
    pub(crate) invalid_since: Option<String>,
    pub(crate) uid: String,
    /// The account it is for.
    pub(crate) account: String,
    /// The account's uid, once it has a token.
    pub(crate) account_uid: String,
    has_token: bool,
    has_namespace: bool,
    ca: Vec<u8>,
}

impl SecretView {
    /// Nothing, if there are no tokens in Secrets of this type.
    pub(crate) fn of(secret: &Secret) -> Option<Self> {
        if secret.type_.as_deref() != Some(TYPE) {
            return None;
        }
        let meta = &secret.metadata;
        let data = |key: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            value.map(|value| value.0.clone()).unwrap_or_default()
        };
        let label = |key: &str| meta.labels.as_ref().and_then(|all| all.get(key)).cloned();
        let version =
            meta.resource_version.as_ref().and_then(|text| text.parse().ok().map(ResourceVersion));
        Some(Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            version: version.unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            is_deleted: meta.deletion_timestamp.is_some(),
            last_used: label(LAST_USED),
            invalid_since: label(INVALID_SINCE),
            uid: meta.uid.clone().unwrap_or_default(),
            account: annotation(meta, ACCOUNT_NAME),
            account_uid: annotation(meta, ACCOUNT_UID),
            has_token: !data(TOKEN).is_empty(),
            has_namespace: !data(NAMESPACE).is_empty(),
            ca: data(CA),
        })
    }

    /// Whether something should be in it that is not.
    pub(crate) fn lacks(&self, root_ca: &[u8]) -> bool {
        !self.has_token || !self.has_namespace || (!root_ca.is_empty() && self.ca != root_ca)
    }
}

fn annotation(meta: &ObjectMeta, key: &str) -> String {
    meta.annotations.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default()
}
