//! What expressions see of a request, gathered when the first one asks.

use std::time::Duration;

use cel::{Authorizer, Check, Decision};
use meta::Status;
use serde_json::{Map, Value, json};

use super::Attributes;
use super::matching::Matched;
use super::review;
use crate::context::RequestContext;

/// What expressions see of a request.
pub(super) struct Seen<'a> {
    pub(super) object: Option<Value>,
    old: Option<Value>,
    request: Value,
    namespace: Option<Value>,
    authorizer: Asked<'a>,
    resource: Check,
    is_late: Box<dyn Fn() -> bool + Send + Sync + 'a>,
}

/// How long the expressions of a policy or webhook may take. What they cost is limited, too, but what
/// a step takes differs.
const PATIENCE: Duration = Duration::from_secs(5);

impl<'a> Seen<'a> {
    /// Objects are shown in the version that matched.
    pub(super) async fn new(
        ctx: &'a RequestContext,
        attributes: &Attributes<'_>,
        matched: &Matched,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Self, Status> {
        let shown = async |object: Option<&Value>| -> Result<Option<Value>, Status> {
            let Some(object) = object else { return Ok(None) };
            let presented = matched.present(ctx, object).await?;
            Ok(Some(review::shown(attributes, matched, &presented)))
        };
        let (object, old) = (shown(object).await?, shown(old).await?);
        let clock = &ctx.server.clock;
        let begun = clock.monotonic();
        Ok(Self {
            object,
            old,
            request: Value::Object(review::facts(ctx, attributes, matched)),
            namespace: namespace(ctx, attributes),
            authorizer: Asked { ctx },
            resource: Check {
                group: attributes.gvr.group.clone(),
                resource: attributes.gvr.resource.clone(),
                subresource: attributes.subresource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: attributes.name.to_owned(),
                ..Check::default()
            },
            is_late: Box::new(move || clock.monotonic().duration_since(begun) > PATIENCE),
        })
    }

    pub(super) fn input<'s>(&'s self, params: Option<&'s Value>) -> policy::Input<'s> {
        policy::Input {
            object: self.object.as_ref(),
            old_object: self.old.as_ref(),
            request: &self.request,
            namespace: self.namespace.as_ref(),
            params,
            authorizer: &self.authorizer,
            resource: &self.resource,
            interrupted: Some(&*self.is_late),
        }
    }
}

/// The namespace of the object, of which expressions see certain fields alone.
fn namespace(ctx: &RequestContext, attributes: &Attributes<'_>) -> Option<Value> {
    let is_namespace = attributes.gvk.group.is_empty() && attributes.gvk.kind == "Namespace";
    if attributes.namespace.is_empty() || is_namespace {
        return None;
    }
    let namespace = ctx.server.find("", "namespaces", "", attributes.namespace)?;
    let mut namespace: Value = serde_json::from_slice(namespace.json()).ok()?;
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        // The field has another name here, as upstream declares it.
        if let Some(uid) = metadata.remove("uid") {
            metadata.insert("UID".to_owned(), uid);
        }
        let unseen = ["managedFields", "ownerReferences", "selfLink"];
        metadata.retain(|name, _| !unseen.contains(&name.as_str()));
    }
    let parts = ["metadata", "spec", "status"];
    let parts = parts.map(|part| (part.to_owned(), namespace[part].take()));
    Some(Value::Object(parts.into_iter().collect::<Map<_, _>>()))
}

/// The server's authorizer, about the user of a request.
struct Asked<'a> {
    ctx: &'a RequestContext,
}

impl Authorizer for Asked<'_> {
    fn authorize(&self, check: &Check) -> Decision {
        let attributes = match &check.path {
            Some(path) => authz::Attributes::path(&check.verb, path),
            None => authz::Attributes {
                subresource: check.subresource.clone(),
                ..authz::Attributes::resource(
                    &check.verb,
                    &check.group,
                    &check.resource,
                    &check.namespace,
                    &check.name,
                )
                // Nobody here tells objects by their labels.
                .with_field_selector(check.field_selector.as_deref().unwrap_or_default())
            },
        };
        let authorizer = &self.ctx.server.authorizer;
        let found = match &check.service_account {
            None => authorizer.authorize(self.ctx.subject(), &attributes),
            Some((namespace, name)) => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                let groups = [
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ];
                let subject = authz::Subject { name: &user, groups: &groups };
                authorizer.authorize(subject, &attributes)
            }
        };
        Decision { allowed: found.is_allowed(), reason: found.reason().to_owned(), error: None }
    }
}

/// A group, version and kind as requests have them.
pub(super) fn kind(gvk: &meta::GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

/// A group, version and resource as requests have them.
pub(super) fn resource(gvr: &meta::GroupVersionResource) -> Value {
    json!({"group": gvr.group, "version": gvr.version, "resource": gvr.resource})
}
