//! Which objects a list or a watch is about.

use meta::{FieldSelector, Header, LabelSelector};

use super::Interest;

/// Namespace, labels and fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Only this namespace; all when empty.
    pub namespace: String,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Keys are those of the storage version.
    pub fields: FieldSelector,
}

impl Selection {
    /// Everything in a namespace, or everywhere.
    pub fn all(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            labels: LabelSelector::everything(),
            fields: FieldSelector::everything(),
        }
    }

    /// Whether it is not narrowed by labels or fields.
    pub fn is_plain(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is meant.
    pub fn matches(&self, header: &Header) -> bool {
        (self.namespace.is_empty() || self.namespace == header.namespace)
            && (self.labels.is_empty() || self.labels.matches_header(header))
            && (self.fields.is_empty() || self.fields.matches(|path| Some(field(header, path))))
    }

    /// The narrowest interest that covers the selection.
    pub fn interest(&self) -> Interest {
        if let Some(name) = self.fields.exact("metadata.name") {
            let namespace = match self.fields.exact("metadata.namespace") {
                Some(namespace) => namespace,
                None => &self.namespace,
            };
            if !namespace.is_empty() {
                return Interest::Key(format!("{namespace}/{name}"));
            }
        }
        if let Some(node) = self.fields.exact("spec.nodeName").filter(|node| !node.is_empty()) {
            return Interest::Node(node.to_owned());
        }
        if self.namespace.is_empty() {
            return Interest::All;
        }
        Interest::Namespace(self.namespace.clone())
    }
}

fn field<'a>(header: &'a Header, path: &str) -> &'a str {
    match path {
        "metadata.name" => &header.name,
        "metadata.namespace" => &header.namespace,
        _ => header.fields.iter().find(|(found, _)| *found == path).map_or("", |(_, value)| value),
    }
}
