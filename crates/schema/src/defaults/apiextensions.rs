//! `apiextensions.k8s.io` and `apiregistration.k8s.io`.

use serde_json::{Map, Value};

use super::{Logic, Rule, fill, object, text};

pub(super) const RULES: &[Rule] = &[
    ("apiextensions/v1.CustomResourceDefinitionSpec", "conversion", "{\"strategy\":\"None\"}"),
    ("apiextensions/v1.ServiceReference", "port", "443"),
    ("apiregistration/v1.ServiceReference", "port", "443"),
];

pub(super) const LOGIC: &[Logic] = &[
    ("apiextensions/v1.CustomResourceDefinition", definition),
    ("apiextensions/v1.CustomResourceDefinitionNames", names),
];

fn names(names: &mut Map<String, Value>) {
    let kind = text(names, "kind").to_owned();
    if kind.is_empty() {
        return;
    }
    fill(names, "singular", kind.to_lowercase());
    fill(names, "listKind", format!("{kind}List"));
}

fn definition(definition: &mut Map<String, Value>) {
    // The names the user asked for; those in the status are what was accepted.
    let stored = definition
        .get("status")
        .and_then(|status| status.get("storedVersions"))
        .and_then(Value::as_array)
        .is_some_and(|versions| !versions.is_empty());
    let version = definition
        .get("spec")
        .and_then(|spec| spec.get("versions"))
        .and_then(Value::as_array)
        .and_then(|versions| versions.iter().find(|version| version["storage"] == true))
        .and_then(|version| version.get("name"))
        .cloned();
    if let (false, Some(version)) = (stored, version) {
        object(definition, "status")
            .insert("storedVersions".to_owned(), Value::Array(vec![version]));
    }
}
