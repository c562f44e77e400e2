//! A custom resource that is served: its definition, and schemas compiled when they are needed.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use custom::{Compiled, Definition, Malformed};
use meta::Object;
use serde_json::Value;

use crate::webhook::Hook;

/// The names under which the values of selectable fields stand in the headers of objects. The fields
/// of all versions together are numbered; more are not looked at.
const FIELDS: [&str; 32] = [
    "custom/0",
    "custom/1",
    "custom/2",
    "custom/3",
    "custom/4",
    "custom/5",
    "custom/6",
    "custom/7",
    "custom/8",
    "custom/9",
    "custom/10",
    "custom/11",
    "custom/12",
    "custom/13",
    "custom/14",
    "custom/15",
    "custom/16",
    "custom/17",
    "custom/18",
    "custom/19",
    "custom/20",
    "custom/21",
    "custom/22",
    "custom/23",
    "custom/24",
    "custom/25",
    "custom/26",
    "custom/27",
    "custom/28",
    "custom/29",
    "custom/30",
    "custom/31",
];

/// What all versions of a custom resource share.
pub(crate) struct CustomKind {
    /// The name of the definition.
    pub(crate) name: String,
    pub(crate) definition: Definition,
    /// Whom to ask for conversions.
    pub(crate) hook: Option<Hook>,
    /// The definition's text, from which schemas are compiled.
    object: Arc<Object>,
    compiled: Vec<OnceLock<Arc<Compiled>>>,
    selectable: Vec<String>,
    is_terminating: AtomicBool,
}

impl CustomKind {
    pub(crate) fn new(object: Arc<Object>, definition: Definition) -> Self {
        let mut selectable: Vec<String> = Vec::new();
        for field in definition.spec.versions.iter().flat_map(|v| &v.selectable_fields) {
            if selectable.len() < FIELDS.len() && !selectable.iter().any(|key| key == field.key()) {
                selectable.push(field.key().to_owned());
            }
        }
        let name = object.header().name.clone();
        let hook = definition.converter().map(|webhook| {
            let client = webhook.client_config.clone().unwrap_or_default();
            Hook::for_conversion(&name, client)
        });
        Self {
            hook,
            compiled: definition.spec.versions.iter().map(|_| OnceLock::new()).collect(),
            is_terminating: AtomicBool::new(definition.is("Terminating")),
            selectable,
            name,
            object,
            definition,
        }
    }

    /// Whether the definition goes, so that nothing may come.
    pub(crate) fn is_terminating(&self) -> bool {
        self.is_terminating.load(Ordering::Relaxed)
    }

    pub(crate) fn set_terminating(&self, is_terminating: bool) {
        self.is_terminating.store(is_terminating, Ordering::Relaxed);
    }

    /// The accepted names, under which it is served.
    pub(crate) fn names(&self) -> &custom::Names {
        &self.definition.status.accepted_names
    }

    /// A version by name, compiled.
    pub(crate) fn version(&self, name: &str) -> Option<&Arc<Compiled>> {
        let spec = &self.definition.spec;
        let at = spec.versions.iter().position(|version| version.name == name)?;
        Some(self.compiled[at].get_or_init(|| {
            let schema = self.schema(name);
            let preserves = spec.preserve_unknown_fields;
            let kind = &self.names().kind;
            let version = &spec.versions[at];
            Arc::new(Compiled::new(&spec.group, kind, version, schema.as_ref(), preserves))
        }))
    }

    /// The schema of a version as it is written.
    pub(crate) fn schema(&self, version: &str) -> Option<Value> {
        custom::schema_of(self.object.json(), version)
    }

    /// The version of an object of this kind, compiled; of other groups there is none.
    pub(crate) fn version_of(&self, object: &Value) -> Option<&Arc<Compiled>> {
        let text = object["apiVersion"].as_str()?;
        let (group, version) = text.split_once('/')?;
        if group == self.definition.spec.group { self.version(version) } else { None }
    }

    /// The text of a stored object brought into form, and its selectable fields.
    pub(crate) fn restored(&self, json: &bytes::Bytes) -> Option<(bytes::Bytes, Fields)> {
        let mut object: Value = serde_json::from_slice(json).ok()?;
        match self.version_of(&object) {
            Some(version) => version.restore(&mut object),
            // A version that was removed; nothing is known of it but its metadata.
            None => drop(custom::coerce(&mut object, None, Malformed::Dropped)),
        }
        let fields = self.fields(&object);
        Some((crate::render::encode(custom::wire(), &object), fields))
    }

    fn fields(&self, object: &Value) -> Fields {
        let keys = self.selectable.iter().zip(FIELDS);
        keys.map(|(key, name)| (name, field_text(object, key).into_owned().into())).collect()
    }

    /// The name in headers of a selectable field.
    pub(crate) fn field(&self, key: &str) -> Option<&'static str> {
        let at = self.selectable.iter().position(|selectable| selectable == key)?;
        FIELDS.get(at).copied()
    }
}

/// Selectable fields, as headers have them.
pub(crate) type Fields = Box<[(&'static str, Box<str>)]>;

/// The text of a field; empty when it is absent.
pub(crate) fn field_text<'a>(object: &'a Value, key: &str) -> Cow<'a, str> {
    match key.split('.').try_fold(object, |value, step| value.get(step)) {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

/// A custom resource in one version.
#[derive(Clone)]
pub(crate) struct CustomVersion {
    pub(crate) kind: Arc<CustomKind>,
    pub(crate) name: String,
    /// How the texts of its objects begin.
    pub(crate) head: String,
}

impl CustomVersion {
    /// Its schema and all that follows; an empty one when the version is gone, which it is not
    /// while it is served.
    pub(crate) fn compiled(&self) -> &Compiled {
        match self.kind.version(&self.name) {
            Some(compiled) => compiled,
            None => unreachable!("a served version is a version of its definition"),
        }
    }

    /// What the definition says of the version.
    pub(crate) fn definition(&self) -> Option<&custom::Version> {
        self.kind.definition.version(&self.name)
    }

    /// Whether the status is written apart.
    pub(crate) fn has_status(&self) -> bool {
        self.definition().is_some_and(custom::Version::has_status)
    }

    /// As it stands in objects.
    pub(crate) fn api_version(&self) -> String {
        format!("{}/{}", self.kind.definition.spec.group, self.name)
    }
}
