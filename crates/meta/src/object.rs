//! The immutable object: a header for those who select, bytes for those who read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ObjectKey;

/// A version of the whole store, as clients see it: an opaque decimal that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceVersion(pub u64);

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of `metadata.ownerReferences[]` that machinery needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// API version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether this owner is the managing controller.
    #[serde(default)]
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this object.
    #[serde(default)]
    pub block_owner_deletion: bool,
}

/// The parsed metadata that selection, garbage collection and caches need.
///
/// Labels are sorted by key. `fields` holds the kind's selectable fields other than
/// `metadata.name` and `metadata.namespace`; it is filled by the server and empty on objects that
/// came over a connection.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid, as a string: clients may not assume more.
    pub uid: String,
    /// Version of this object.
    pub resource_version: ResourceVersion,
    /// `metadata.generation`, 0 when absent.
    pub generation: i64,
    /// Labels, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `metadata.deletionTimestamp` as printed, when the object is being deleted.
    pub deletion_timestamp: Option<Box<str>>,
    /// Finalizers in their order.
    pub finalizers: Box<[Box<str>]>,
    /// Owners in their order.
    pub owner_references: Box<[OwnerReference]>,
    /// Selectable fields: path and value.
    pub fields: Box<[(&'static str, Box<str>)]>,
}

impl Header {
    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), self.name.clone())
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// The header of an object that is parsed already, without selectable fields; `None` when its
    /// metadata has the wrong shape.
    pub fn of(object: &Value) -> Option<Self> {
        let metadata = object.get("metadata")?;
        let text = |field: &str| metadata.get(field).and_then(Value::as_str);
        let owned = |field: &str| text(field).unwrap_or_default().to_owned();
        let labels = metadata.get("labels").and_then(Value::as_object);
        let labels: Option<Vec<_>> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())))
            .collect();
        let finalizers = metadata.get("finalizers").and_then(Value::as_array);
        let finalizers: Option<Vec<Box<str>>> =
            finalizers.into_iter().flatten().map(|name| Some(name.as_str()?.into())).collect();
        let owner_references = match metadata.get("ownerReferences") {
            Some(owners) => Vec::<OwnerReference>::deserialize(owners).ok()?,
            None => Vec::new(),
        };
        Some(Self {
            namespace: owned("namespace"),
            name: owned("name"),
            uid: owned("uid"),
            resource_version: ResourceVersion(0),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or_default(),
            // A map of serde_json is sorted.
            labels: labels?.into(),
            deletion_timestamp: text("deletionTimestamp").map(Into::into),
            finalizers: finalizers?.into(),
            owner_references: owner_references.into(),
            fields: Box::default(),
        })
    }

    /// The owner that controls this object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

/// One version of one API object. Shared behind [`Arc`] and never changed.
#[derive(Clone, Debug)]
pub struct Object {
    header: Header,
    json: Bytes,
}

impl Object {
    /// An object whose header the caller made from the same JSON.
    pub fn new(header: Header, json: Bytes) -> Self {
        Self { header, json }
    }

    /// Parses the metadata out of an object's JSON.
    ///
    /// # Errors
    /// When the bytes are not a JSON object, or its metadata has the wrong shape.
    pub fn from_json(json: Bytes) -> Result<Self, MalformedObject> {
        let outer: Outer = read_json(&json)?;
        Ok(Self { header: outer.metadata.into_header()?, json })
    }

    /// The parsed metadata.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Canonical JSON with the resource version in it.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// A typed view, made anew at every call; keep a projection of it, not the view.
    ///
    /// # Errors
    /// When the JSON does not fit the type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, MalformedObject> {
        Ok(read_json(&self.json)?)
    }
}

/// Reads JSON. Whether all of it is UTF-8 is asked once, which takes a small part of the time that
/// asking for each string takes.
///
/// # Errors
/// When the bytes are not JSON or do not fit the type.
pub fn read_json<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let text = str::from_utf8(json).map_err(serde::de::Error::custom)?;
    serde_json::from_str(text)
}

/// What a watch delivers.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object is new, or began to match the selector.
    Added(Arc<Object>),
    /// The object changed.
    Modified(Arc<Object>),
    /// The object is gone, or no longer matches; its last state.
    Deleted(Arc<Object>),
    /// Everything up to this version has been delivered.
    Bookmark {
        /// The version that has been reached.
        resource_version: ResourceVersion,
        /// Whether this ends the initial events asked for with `sendInitialEvents`.
        initial_events_end: bool,
    },
}

/// The bytes are not an API object.
#[derive(Debug, thiserror::Error)]
pub enum MalformedObject {
    /// Not JSON, or not of the expected shape.
    #[error("object is not of the expected shape")]
    Json(#[from] serde_json::Error),
    /// `metadata.resourceVersion` is not a decimal number.
    #[error("resource version {0:?} is not a number")]
    ResourceVersion(String),
}

#[derive(Deserialize)]
struct Outer {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>>,
    deletion_timestamp: Option<Box<str>>,
    finalizers: Option<Vec<Box<str>>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl Metadata {
    fn into_header(self) -> Result<Header, MalformedObject> {
        let resource_version = match self.resource_version.as_deref() {
            None | Some("") => 0,
            Some(text) => {
                text.parse().map_err(|_| MalformedObject::ResourceVersion(text.to_owned()))?
            }
        };
        Ok(Header {
            namespace: self.namespace.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            uid: self.uid.unwrap_or_default(),
            resource_version: ResourceVersion(resource_version),
            generation: self.generation.unwrap_or_default(),
            labels: self.labels.unwrap_or_default().into_iter().collect(),
            deletion_timestamp: self.deletion_timestamp,
            finalizers: self.finalizers.unwrap_or_default().into(),
            owner_references: self.owner_references.unwrap_or_default().into(),
            fields: Box::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_parsed_from_json() {
        let object = Object::from_json(Bytes::from_static(
            br#"{"kind":"Pod","metadata":{"name":"a","namespace":"n","resourceVersion":"7",
                "labels":{"z":"1","a":"2"},"ownerReferences":[{"apiVersion":"apps/v1",
                "kind":"ReplicaSet","name":"r","uid":"u","controller":true}]}}"#,
        ))
        .unwrap();
        assert_eq!(object.header().key().to_string(), "n/a");
        assert_eq!(object.header().resource_version, ResourceVersion(7));
        assert_eq!(object.header().label("a"), Some("2"));
        assert_eq!(object.header().label("b"), None);
        assert_eq!(object.header().controller().unwrap().name, "r");
    }

    #[test]
    fn what_is_no_text_is_no_json() {
        assert_eq!(read_json::<Vec<String>>(b"[\"\xc3\xbc\"]").unwrap(), ["\u{fc}"]);
        let error = read_json::<Vec<String>>(b"[\"\xff\"]").unwrap_err();
        assert!(error.to_string().contains("invalid utf-8"), "{error}");
    }

    #[test]
    fn a_parsed_object_has_the_same_header() {
        let json = br#"{"metadata":{"name":"a","namespace":"n","uid":"u","generation":3,
            "labels":{"z":"1","a":"2"},"deletionTimestamp":"2026-01-01T00:00:00Z",
            "finalizers":["x/y"],"ownerReferences":[{"apiVersion":"apps/v1",
            "kind":"ReplicaSet","name":"r","uid":"u","controller":true}]}}"#;
        let parsed = Object::from_json(Bytes::from_static(json)).unwrap();
        let value: Value = serde_json::from_slice(json).unwrap();
        let header = Header::of(&value).unwrap();
        assert_eq!(format!("{header:?}"), format!("{:?}", parsed.header()));
    }

    #[test]
    fn resource_version_must_be_a_number() {
        let json = Bytes::from_static(br#"{"metadata":{"resourceVersion":"x"}}"#);
        assert!(matches!(Object::from_json(json), Err(MalformedObject::ResourceVersion(_))));
    }
}
