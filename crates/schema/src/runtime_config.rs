//! Which versions of the API are served: `--runtime-config`.
//!
//! Upstream: `apiserver/pkg/server/resourceconfig` and `server/options/api_enablement.go`.

use std::collections::{BTreeMap, BTreeSet};

/// Whether a version belongs to a stage.
type IsOf = fn(&str) -> bool;

/// Stages that can be switched as a whole, in the order in which they apply.
const STAGES: [(&str, IsOf); 4] = [
    ("api/all", |_| true),
    ("api/ga", |version| stage(version) == Stage::Ga),
    ("api/beta", |version| stage(version) == Stage::Beta),
    ("api/alpha", |version| stage(version) == Stage::Alpha),
];

/// Which versions and resources are served. The default: those that are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    said: BTreeMap<String, String>,
    /// Feature gates that are open; a resource that needs another is not served.
    gates: BTreeSet<String>,
}

/// Why a configuration is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeConfigError {
    /// Nothing would be left.
    #[error("invalid key with only api/all=false")]
    NothingLeft,
    /// A key that names nothing.
    #[error("runtime-config invalid key {0}")]
    Key(String),
    /// Groups that nobody knows.
    #[error("unknown api groups {0}")]
    UnknownGroups(String),
    /// A version that its group has not.
    #[error("group version {0} that has not been registered")]
    UnknownVersion(String),
    /// A stage is neither true nor false.
    #[error("invalid value {0}={1}")]
    StageValue(String, String),
    /// A version or resource is neither true nor false.
    #[error("invalid value of {0}: {1}, err: strconv.ParseBool: parsing {1:?}: invalid syntax")]
    Value(String, String),
    /// Resources are written in lower case.
    #[error(
        "invalid key {0}: group/version/resource and resource is always lowercase plural, not {1:?}"
    )]
    Capitals(String, String),
}

#[derive(PartialEq, Eq)]
enum Stage {
    Ga,
    Beta,
    Alpha,
}

/// What is known of groups and versions.
pub(crate) trait Known {
    fn is_group(&self, group: &str) -> bool;
    fn is_version(&self, group: &str, version: &str) -> bool;
}

impl RuntimeConfig {
    /// Reads pairs such as `api/beta=true`; each text may have several, between commas.
    /// `is_open` tells of a feature gate whether it is open.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn parse<T: AsRef<str>>(
        texts: &[T],
        is_open: impl Fn(&str) -> bool,
    ) -> Result<Self, RuntimeConfigError> {
        let mut said = BTreeMap::new();
        let pairs = texts.iter().flat_map(|text| text.as_ref().split(','));
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            said.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        check(&said, &crate::registry::Vocabulary)?;
        let gates = crate::discovery::gates().filter(|gate| is_open(gate)).map(str::to_owned);
        Ok(Self { said, gates: gates.collect() })
    }

    /// Whether a resource needs a feature gate to be served.
    pub fn listens_to(gate: &str) -> bool {
        crate::discovery::gates().any(|known| known == gate)
    }

    /// Whether a resource is served that may need a feature gate.
    pub(crate) fn serves(
        &self,
        group: &str,
        version: &str,
        resource: &str,
        gate: Option<&str>,
    ) -> bool {
        if gate.is_some_and(|gate| !self.gates.contains(gate)) {
            return false;
        }
        let of_resource = self.said.get(&format!("{group}/{version}/{resource}"));
        let of_version = self.said.get(&format!("{group}/{version}"));
        if let Some(value) = of_resource.or(of_version) {
            return is_true(value).unwrap_or(false);
        }
        let stages = STAGES.iter().filter(|(_, is_of)| is_of(version));
        let said = stages.filter_map(|(key, _)| self.said.get(*key)).next_back();
        said.map_or(stage(version) == Stage::Ga, |value| value == "true")
    }
}

fn check(said: &BTreeMap<String, String>, known: &dyn Known) -> Result<(), RuntimeConfigError> {
    let is_stage = |key: &str| STAGES.iter().any(|(stage, _)| *stage == key);
    if said.len() == 1 && said.get("api/all").is_some_and(|value| value == "false") {
        return Err(RuntimeConfigError::NothingLeft);
    }
    let mut keys = Vec::new();
    for (key, value) in said.iter().filter(|(key, _)| !is_stage(key)) {
        let parts: Vec<&str> = key.split('/').collect();
        match parts[..] {
            [group, version] => keys.push((key, value, group, version, "")),
            [group, version, resource] => keys.push((key, value, group, version, resource)),
            _ => return Err(RuntimeConfigError::Key(key.clone())),
        }
    }
    let unknown: Vec<&str> =
        keys.iter().map(|key| key.2).filter(|group| !known.is_group(group)).collect();
    if !unknown.is_empty() {
        return Err(RuntimeConfigError::UnknownGroups(unknown.join(",")));
    }
    for (key, value) in said.iter().filter(|(key, _)| is_stage(key)) {
        if !matches!(value.as_str(), "true" | "false") {
            return Err(RuntimeConfigError::StageValue(key.clone(), value.clone()));
        }
    }
    for (key, value, group, version, resource) in keys {
        let group_version = format!("{group}/{version}");
        if !known.is_version(group, version) {
            return Err(RuntimeConfigError::UnknownVersion(group_version));
        }
        if is_true(value).is_none() {
            return Err(RuntimeConfigError::Value(key.clone(), value.clone()));
        }
        if resource.to_lowercase() != resource {
            return Err(RuntimeConfigError::Capitals(key.clone(), resource.to_owned()));
        }
    }
    Ok(())
}

/// An empty value means that the key is wanted.
fn is_true(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn stage(version: &str) -> Stage {
    if version.contains("alpha") {
        Stage::Alpha
    } else if version.contains("beta") {
        Stage::Beta
    } else {
        Stage::Ga
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        RuntimeConfig::parse(&[text], |_| true).unwrap_err().to_string()
    }

    fn serves(text: &str, resource: &str) -> bool {
        let config = RuntimeConfig::parse(&[text], |gate| gate == "ClusterTrustBundle").unwrap();
        let parts: Vec<&str> = resource.split('/').collect();
        let gate = crate::discovery::gate_of(parts[0], parts[1], parts[2]);
        config.serves(parts[0], parts[1], parts[2], gate)
    }

    #[test]
    fn stable_versions_are_served_and_others_on_demand() {
        assert!(serves("", "apps/v1/deployments"));
        assert!(!serves("", "networking.k8s.io/v1beta1/servicecidrs"));
        assert!(serves("api/beta=true", "networking.k8s.io/v1beta1/servicecidrs"));
        assert!(serves("networking.k8s.io/v1beta1", "networking.k8s.io/v1beta1/servicecidrs"));
        assert!(!serves("api/alpha=true", "networking.k8s.io/v1beta1/servicecidrs"));
    }

    #[test]
    fn what_is_said_of_less_outranks_what_is_said_of_more() {
        let text = "api/all=true,api/beta=false,networking.k8s.io/v1beta1=true,\
                    networking.k8s.io/v1beta1/ipaddresses=false";
        assert!(serves(text, "networking.k8s.io/v1beta1/servicecidrs"));
        assert!(!serves(text, "networking.k8s.io/v1beta1/ipaddresses"));
        assert!(!serves(text, "storage.k8s.io/v1beta1/volumeattributesclasses"));
        assert!(serves(text, "certificates.k8s.io/v1alpha1/clustertrustbundles"));
        assert!(!serves("api/ga=false", "apps/v1/deployments"));
    }

    #[test]
    fn a_resource_may_need_a_feature_gate() {
        assert!(serves("api/beta=true", "certificates.k8s.io/v1beta1/clustertrustbundles"));
        assert!(!serves("api/beta=true", "coordination.k8s.io/v1beta1/leasecandidates"));
    }

    #[test]
    fn mistakes_are_told_in_upstreams_words() {
        assert_eq!(refusal("api/all=false"), "invalid key with only api/all=false");
        assert_eq!(refusal("v1=true"), "runtime-config invalid key v1");
        assert_eq!(refusal("foo/v1=true,bar/v2=true"), "unknown api groups bar,foo");
        assert_eq!(refusal("apps/v7=true"), "group version apps/v7 that has not been registered");
        assert_eq!(refusal("api/beta=yes"), "invalid value api/beta=yes");
        assert_eq!(
            refusal("apps/v1=maybe"),
            "invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing \"maybe\": invalid \
             syntax"
        );
        assert_eq!(
            refusal("apps/v1/Deployments=true"),
            "invalid key apps/v1/Deployments: group/version/resource and resource is always \
             lowercase plural, not \"Deployments\""
        );
        // Known of old and served by nobody.
        assert!(RuntimeConfig::parse(&["apps/v1beta1=true"], |_| true).is_ok());
    }
}
