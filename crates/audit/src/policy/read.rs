//! Reading and checking a policy file.
//!
//! Upstream: `apiserver/pkg/audit/policy/reader.go` and `apiserver/pkg/apis/audit/validation`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use meta::GroupVersion;
use schema::{Field, FieldValidation, Kind, Type, TypeRef};
use serde_json::Value;

use super::Policy;
use crate::event::{Level, Stage};

const GROUP: &str = "audit.k8s.io";
/// Where upstream's messages say that kinds are registered.
const SCHEME: &str = "k8s.io/apiserver/pkg/audit/scheme.go:30";
/// More than anybody has rules for; the file is read into memory.
const FILE_BYTES: u64 = 16 << 20;

/// Why there is no policy. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("failed to read file path {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in it is no policy.
    #[error("{why}: from file {path}", path = path.display())]
    Refused {
        /// What is wrong.
        why: String,
        /// Which.
        path: PathBuf,
    },
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// When it cannot be read, or is no policy.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::Read { path: path.to_owned(), source };
        let refused = |why| PolicyError::Refused { why, path: path.to_owned() };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > FILE_BYTES {
            return Err(refused(format!("the policy is larger than {FILE_BYTES} bytes")));
        }
        let text = std::fs::read(path).map_err(failed)?;
        Self::parse(&text).map_err(refused)
    }

    /// Reads a policy, YAML or JSON.
    ///
    /// # Errors
    /// Upstream's text for what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let decoded = decode(text)?;
        let findings = check(&decoded.value);
        match findings.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("[{}]", many.join(", "))),
        }
        let mut policy: Self =
            serde_json::from_value(decoded.value).map_err(|e| format!("failed decoding: {e}"))?;
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        policy.warnings = decoded.warnings;
        Ok(policy)
    }
}

/// Decodes a policy of the version that there is.
fn decode(text: &[u8]) -> Result<schema::Decoded, String> {
    let failed = |why: &dyn std::fmt::Display| format!("failed decoding: {why}");
    let (value, _) = schema::yaml_to_value(text).map_err(|error| failed(&error))?;
    let word = |field: &str| value[field].as_str().unwrap_or_default();
    let kind = if word("kind").is_empty() { "Policy" } else { word("kind") };
    if word("apiVersion").is_empty() {
        return Err(format!(
            "unknown group version field {GROUP}/__internal, Kind={kind} in policy"
        ));
    }
    let version = GroupVersion::parse(word("apiVersion")).ok_or_else(|| {
        failed(&format!("unexpected GroupVersion string: {}", word("apiVersion")))
    })?;
    if (version.group.as_str(), version.version.as_str(), kind) != (GROUP, "v1", "Policy") {
        return Err(failed(&format!(
            "no kind {kind:?} is registered for version {:?} in scheme {SCHEME:?}",
            version.to_string()
        )));
    }
    schema::decode_yaml(&POLICY, text, FieldValidation::Warn).map_err(|error| failed(&error))
}

static POLICY: LazyLock<Type> = LazyLock::new(|| {
    let strings = || Kind::List(Box::new(Kind::String));
    let of = |ty: Type| Kind::Struct(TypeRef::Owned(Arc::new(ty)));
    let list = |ty: Type| Kind::List(Box::new(of(ty)));
    let field = |name: &'static str, kind: Kind, go_type: &'static str| Field {
        go_type: go_type.into(),
        ..Field::new(name, kind)
    };
    let resources = Type::new(
        "audit/v1.GroupResources",
        vec![
            field("group", Kind::String, "string"),
            field("resources", strings(), "[]string"),
            field("resourceNames", strings(), "[]string"),
        ],
    );
    let rule = Type::new(
        "audit/v1.PolicyRule",
        vec![
            field("level", Kind::String, "v1.Level"),
            field("users", strings(), "[]string"),
            field("userGroups", strings(), "[]string"),
            field("verbs", strings(), "[]string"),
            field("resources", list(resources), "[]v1.GroupResources"),
            field("namespaces", strings(), "[]string"),
            field("nonResourceURLs", strings(), "[]string"),
            field("omitStages", strings(), "[]v1.Stage"),
            field("omitManagedFields", Kind::Bool, "bool"),
        ],
    );
    Type::new(
        "audit/v1.Policy",
        vec![
            field("kind", Kind::String, "string"),
            field("apiVersion", Kind::String, "string"),
            field("metadata", Kind::Json, "v1.ObjectMeta"),
            field("rules", list(rule), "[]v1.PolicyRule"),
            field("omitStages", strings(), "[]v1.Stage"),
            field("omitManagedFields", Kind::Bool, "bool"),
        ],
    )
});

/// What is wrong with a policy whose fields have the right types.
fn check(policy: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    check_stages(&policy["omitStages"], "omitStages", &mut findings);
    for (at, rule) in list(&policy["rules"]).enumerate() {
        check_rule(rule, &format!("rules[{at}]"), &mut findings);
    }
    findings
}

fn check_rule(rule: &Value, path: &str, out: &mut Vec<String>) {
    match rule["level"].as_str().unwrap_or_default() {
        "" => out.push(format!("{path}.level: Required value")),
        level if Level::ALL.iter().any(|known| known.as_str() == level) => {}
        level => {
            let known = Level::ALL.map(|known| format!("{:?}", known.as_str())).join(", ");
            out.push(format!(
                "{path}.level: Unsupported value: {level:?}: supported values: {known}"
            ));
        }
    }
    for (at, url) in list(&rule["nonResourceURLs"]).enumerate() {
        let url = url.as_str().unwrap_or_default();
        let mut wrong = |why: &str| {
            out.push(format!("{path}.nonResourceURLs[{at}]: Invalid value: {url:?}: {why}"));
        };
        if url == "*" {
            continue;
        }
        if !url.starts_with('/') {
            wrong("non-resource URL rules must begin with a '/' character");
        }
        if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
            wrong("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    check_resources(&rule["resources"], path, out);
    check_stages(&rule["omitStages"], &format!("{path}.omitStages"), out);
    let has = |field: &str| list(&rule[field]).next().is_some();
    if has("nonResourceURLs") && (has("resources") || has("namespaces")) {
        out.push(format!(
            "{path}.nonResourceURLs: Invalid value: {}: rules cannot apply to both regular \
             resources and non-resource URLs",
            rule["nonResourceURLs"]
        ));
    }
}

fn check_resources(resources: &Value, path: &str, out: &mut Vec<String>) {
    for resource in list(resources) {
        let group = resource["group"].as_str().unwrap_or_default();
        if !matches!(group, "" | "*") {
            let wrong = meta::names::dns1123_subdomain(group);
            if !wrong.is_empty() {
                out.push(format!(
                    "{path}.resources.group: Invalid value: {group:?}: {}",
                    wrong.join(",")
                ));
            }
        }
        if list(&resource["resourceNames"]).next().is_some()
            && list(&resource["resources"]).next().is_none()
        {
            out.push(format!(
                "{path}.resources.resourceNames: Invalid value: {}: using resourceNames requires \
                 at least one resource",
                resource["resourceNames"]
            ));
        }
    }
}

fn check_stages(stages: &Value, path: &str, out: &mut Vec<String>) {
    for (at, stage) in list(stages).enumerate() {
        let stage = stage.as_str().unwrap_or_default();
        if !Stage::ALL.iter().any(|known| known.as_str() == stage) {
            let known = Stage::ALL.map(Stage::as_str).join(",");
            out.push(format!("{path}[{at}]: Invalid value: {stage:?}: allowed stages are {known}"));
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
