//! The question: may this subject do this to that.

use meta::{FieldOperator, FieldSelector};

/// Who asks. Borrowed from wherever the identity lives.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// User name.
    pub name: &'a str,
    /// Groups.
    pub groups: &'a [String],
}

impl Subject<'_> {
    /// Whether the subject is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }
}

/// What is asked. For requests that are not about resources only `verb` and `path` matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `create`, … or the HTTP method in lower case for other paths.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// The path, for requests that are not about resources.
    pub path: String,
    /// Whether this is about a resource.
    pub is_resource: bool,
    /// Fields that must have these values: what a field selector requires, as far as it is equality.
    /// A selector that cannot be read requires nothing.
    pub fields: Vec<(String, String)>,
}

impl Attributes {
    /// A question about a resource.
    pub fn resource(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: String::new(),
            is_resource: true,
            fields: Vec::new(),
        }
    }

    /// The same question about those alone that a field selector selects.
    pub fn with_field_selector(mut self, selector: &str) -> Self {
        self.fields = required_fields(selector);
        self
    }

    /// A question about a path.
    pub fn path(verb: &str, path: &str) -> Self {
        Self { verb: verb.to_owned(), path: path.to_owned(), ..Self::default() }
    }

    /// Whether those alone are meant of which a field has this value.
    pub fn requires_field(&self, field: &str, value: &str) -> bool {
        self.fields.iter().any(|(name, required)| name == field && required == value)
    }

    /// `resource` or `resource/subresource`.
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// The values that a field selector requires of fields; none when it cannot be read.
pub fn required_fields(selector: &str) -> Vec<(String, String)> {
    let parsed = FieldSelector::parse(selector).unwrap_or_default();
    let equal = parsed.requirements().iter().filter(|it| it.operator == FieldOperator::Equals);
    equal.map(|it| (it.key.clone(), it.value.clone())).collect()
}
