//! What a definition says, without its schemas: those are compiled when they are needed.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json_path::JsonPath;
use crate::scale::Scale;

/// A custom resource definition.
#[derive(Clone, Debug, Deserialize)]
pub struct Definition {
    /// What is wanted.
    pub spec: Spec,
    /// What has come of it.
    #[serde(default)]
    pub status: DefinitionStatus,
}

/// The specification of a definition.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The group of the resource.
    pub group: String,
    /// What it is called.
    #[serde(default)]
    pub names: Names,
    /// `Namespaced` or `Cluster`.
    #[serde(default)]
    pub scope: String,
    /// Its versions.
    #[serde(default)]
    pub versions: Vec<Version>,
    /// How objects get from one version to another.
    #[serde(default)]
    pub conversion: Option<Conversion>,
    /// Whether nothing is pruned; old definitions have it.
    #[serde(default)]
    pub preserve_unknown_fields: bool,
}

/// What a resource and its objects are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    /// The name in paths.
    pub plural: String,
    /// The name of one.
    pub singular: String,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// The kind of its objects.
    pub kind: String,
    /// The kind of lists of them.
    pub list_kind: String,
    /// Groups of resources it is listed with.
    pub categories: Vec<String>,
}

/// A version of the resource.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// Whether clients can use it.
    #[serde(default)]
    pub served: bool,
    /// Whether objects are stored in it.
    #[serde(default)]
    pub storage: bool,
    /// Whether those who use it are warned.
    #[serde(default)]
    pub deprecated: bool,
    /// With what words.
    #[serde(default)]
    pub deprecation_warning: Option<String>,
    /// Its subresources.
    #[serde(default)]
    pub subresources: Subresources,
    /// The columns of its table.
    #[serde(default)]
    pub additional_printer_columns: Vec<Column>,
    /// What lists can be narrowed by.
    #[serde(default)]
    pub selectable_fields: Vec<SelectableField>,
}

/// The subresources of a version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subresources {
    /// There is a status apart.
    pub status: Option<Value>,
    /// It can be scaled.
    pub scale: Option<Scale>,
}

/// A column of a table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// The type of its cells.
    #[serde(rename = "type")]
    pub column_type: String,
    /// A hint for clients.
    pub format: String,
    /// What it means.
    pub description: String,
    /// 0 is always shown.
    pub priority: i32,
    /// Where its value is.
    pub json_path: String,
}

/// A field that lists can be narrowed by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectableField {
    /// Such as `.spec.color`.
    pub json_path: String,
}

impl SelectableField {
    /// As it is named in selectors.
    pub fn key(&self) -> &str {
        self.json_path.trim_start_matches('.')
    }

    /// The text of its value in an object; empty when it is absent.
    pub fn text(&self, object: &Value) -> String {
        let found = self.key().split('.').try_fold(object, |value, step| value.get(step));
        match found {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// How objects get from one version to another.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conversion {
    /// `None` or `Webhook`.
    pub strategy: String,
    /// Who is asked.
    pub webhook: Option<ConversionWebhook>,
}

/// Who converts objects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConversionWebhook {
    /// Where it is.
    pub client_config: Option<Value>,
    /// The reviews it understands, best first.
    pub conversion_review_versions: Vec<String>,
}

/// The status of a definition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionStatus {
    /// Its conditions.
    pub conditions: Option<Vec<Condition>>,
    /// The names it has.
    pub accepted_names: Names,
    /// Versions in which objects may be stored.
    pub stored_versions: Option<Vec<String>>,
}

/// A condition of a definition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Such as `Established`.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Definition {
    /// Reads a definition; its schemas are passed over.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Whether a condition is true.
    pub fn is(&self, condition: &str) -> bool {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.any(|found| found.condition_type == condition && found.status == "True")
    }

    /// Whether objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.spec.scope == "Namespaced"
    }

    /// The version in which objects are stored.
    pub fn stored(&self) -> Option<&Version> {
        self.spec.versions.iter().find(|version| version.storage)
    }

    /// A version by name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.spec.versions.iter().find(|version| version.name == name)
    }

    /// Who converts; `None` when versions differ only in name.
    pub fn converter(&self) -> Option<&ConversionWebhook> {
        let conversion = self.spec.conversion.as_ref()?;
        conversion.webhook.as_ref().filter(|_| conversion.strategy == "Webhook")
    }
}

impl Version {
    /// Whether there is a status apart.
    pub fn has_status(&self) -> bool {
        self.subresources.status.is_some()
    }

    /// What those who use a deprecated version are told.
    pub fn warning(&self, group: &str, kind: &str) -> Option<String> {
        if !self.deprecated {
            return None;
        }
        let said = self.deprecation_warning.clone();
        Some(said.unwrap_or_else(|| format!("{group}/{} {kind} is deprecated", self.name)))
    }
}

impl Column {
    /// The path of its value; `None` when it is no path.
    pub fn path(&self) -> Option<JsonPath> {
        JsonPath::parse(&self.json_path).ok()
    }
}

#[derive(Deserialize)]
struct WithSchemas<'a> {
    #[serde(borrow)]
    spec: SpecWithSchemas<'a>,
}

#[derive(Deserialize)]
struct SpecWithSchemas<'a> {
    #[serde(borrow, default)]
    versions: Vec<VersionWithSchema<'a>>,
}

#[derive(Deserialize)]
struct VersionWithSchema<'a> {
    name: String,
    #[serde(borrow, default)]
    schema: Option<Holder<'a>>,
}

#[derive(Deserialize)]
struct Holder<'a> {
    #[serde(borrow, rename = "openAPIV3Schema", default)]
    root: Option<&'a RawValue>,
}

/// The schema of a version in the text of a definition.
pub fn schema_of(json: &[u8], version: &str) -> Option<Value> {
    let read: WithSchemas<'_> = serde_json::from_slice(json).ok()?;
    let found = read.spec.versions.into_iter().find(|found| found.name == version)?;
    serde_json::from_str(found.schema?.root?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"metadata":{"name":"foos.a.b"},"spec":{"group":"a.b","scope":"Cluster",
        "names":{"plural":"foos","kind":"Foo"},"versions":[{"name":"v1","served":true,
        "storage":true,"deprecated":true,"schema":{"openAPIV3Schema":{"type":"object"}},
        "selectableFields":[{"jsonPath":".spec.a"}]}]},
        "status":{"conditions":[{"type":"Established","status":"True"}]}}"#;

    #[test]
    fn definitions_are_read_without_their_schemas() {
        let definition = Definition::parse(TEXT.as_bytes()).unwrap();
        assert!(definition.is("Established") && !definition.is_namespaced());
        let version = definition.stored().unwrap();
        assert_eq!(version.warning("a.b", "Foo").unwrap(), "a.b/v1 Foo is deprecated");
        let field = &version.selectable_fields[0];
        assert_eq!(field.key(), "spec.a");
        assert_eq!(field.text(&serde_json::json!({"spec": {"a": 5}})), "5");
        assert_eq!(schema_of(TEXT.as_bytes(), "v1"), Some(serde_json::json!({"type": "object"})));
    }
}
