//! What a request is about.

use meta::{FieldSelector, LabelSelector, Status};
use serde_json::Value;

/// A path, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

/// What is selected of a collection.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Target {
    /// Takes a path apart, without its query.
    pub(crate) fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => ("", "", [].as_slice()),
        };
        let mut namespace = "";
        // `namespaces/n` alone is the namespace itself, and so are its subresources.
        if let ["namespaces", of, below @ ..] = rest
            && below.first().is_some_and(|next| !["status", "finalize"].contains(next))
        {
            namespace = of;
            rest = below;
        }
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: part(0),
            namespace: namespace.to_owned(),
            name: part(1),
            subresource: part(2),
        }
    }

    /// The collection as keys name it: group and resource.
    pub(crate) fn collection(&self) -> String {
        format!("{}/{}", self.group, self.resource)
    }
}

impl Selection {
    /// Of a query string.
    pub(crate) fn parse(query: &str) -> Result<Self, Box<Status>> {
        let value = |key: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(k, _)| *k == key).map(|(_, v)| decode(v)).unwrap_or_default()
        };
        let wrong = |error: String| Box::new(Status::failure(meta::Reason::BadRequest, error));
        Ok(Self {
            labels: LabelSelector::parse(&value("labelSelector"))
                .map_err(|error| wrong(error.to_string()))?,
            fields: FieldSelector::parse(&value("fieldSelector"))
                .map_err(|error| wrong(error.to_string()))?,
        })
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let field = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            object.pointer(&pointer).and_then(Value::as_str).or(Some(""))
        };
        self.labels.matches_value(&object["metadata"]["labels"]) && self.fields.matches(field)
    }
}

/// Undoes percent encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
