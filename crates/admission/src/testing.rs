//! A cluster of a few objects, and writes in a line each.

use std::collections::BTreeMap;
use std::sync::Arc;

use meta::{GroupResource, GroupVersionKind, Object};
use serde_json::Value;

use crate::chain::Plugin;
use crate::request::{Operation, Request, View};

/// Objects by resource, and what may be done: verb, resource and name.
#[derive(Default)]
pub(crate) struct Cluster {
    objects: BTreeMap<&'static str, Vec<Arc<Object>>>,
    allowed: Vec<String>,
}

impl Cluster {
    pub(crate) fn with(mut self, resource: &'static str, objects: &[Value]) -> Self {
        let objects = objects.iter().map(|object| {
            let object = Object::from_json(object.to_string().into_bytes().into());
            Arc::new(object.expect("an object of the test"))
        });
        self.objects.entry(resource).or_default().extend(objects);
        self
    }

    pub(crate) fn allowing(mut self, allowed: &[&str]) -> Self {
        self.allowed.extend(allowed.iter().map(|&text| text.to_owned()));
        self
    }
}

impl View for Cluster {
    fn get(&self, _: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let is_it = |object: &&Arc<Object>| {
            object.header().name == name && object.header().namespace == namespace
        };
        self.objects.get(resource)?.iter().find(is_it).cloned()
    }

    fn list(&self, _: &str, resource: &str, _: &str) -> Vec<Arc<Object>> {
        self.objects.get(resource).cloned().unwrap_or_default()
    }

    fn may(&self, _: authz::Subject<'_>, asked: &authz::Attributes) -> bool {
        let text = format!("{} {} {}", asked.verb, asked.resource, asked.name);
        self.allowed.contains(&text)
    }
}

/// A write by a user `u` to an object `x`.
pub(crate) struct Attempt {
    resource: GroupResource,
    operation: Operation,
    subresource: &'static str,
    namespace: &'static str,
    user: &'static str,
    groups: Vec<String>,
    name: &'static str,
}

pub(crate) fn attempt(group: &str, resource: &str, operation: Operation) -> Attempt {
    Attempt {
        resource: GroupResource { group: group.to_owned(), resource: resource.to_owned() },
        operation,
        subresource: "",
        namespace: "",
        user: "u",
        groups: Vec::new(),
        name: "x",
    }
}

impl Attempt {
    pub(crate) fn of(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    pub(crate) fn within(self, namespace: &'static str) -> Self {
        Self { namespace, ..self }
    }

    pub(crate) fn by(self, user: &'static str, group: &str) -> Self {
        Self { user, groups: vec![group.to_owned()], ..self }
    }

    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub(crate) fn admit(
        &self,
        plugin: &dyn Plugin,
        object: &mut Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), String> {
        self.with(|request| plugin.admit(request, object, old, view))
    }

    pub(crate) fn validate(
        &self,
        plugin: &dyn Plugin,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), String> {
        self.with(|request| plugin.validate(request, object, old, view))
    }

    fn with(
        &self,
        check: impl FnOnce(&Request<'_>) -> Result<(), meta::Status>,
    ) -> Result<(), String> {
        let gvk = GroupVersionKind::new(self.resource.group.as_str(), "v1", "Thing");
        let request = Request {
            operation: self.operation,
            gvk: &gvk,
            resource: &self.resource,
            subresource: self.subresource,
            namespace: self.namespace,
            name: self.name,
            user: authz::Subject { name: self.user, groups: &self.groups },
            is_dry_run: false,
        };
        check(&request).map_err(|status| status.message)
    }
}
