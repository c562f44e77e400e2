//! Whether a webhook is to be asked.
//!
//! Upstream: `admission/plugin/webhook/predicates`.

use std::borrow::Cow;
use std::sync::Arc;

use admission::Operation;
use meta::{GroupResource, GroupVersionKind, GroupVersionResource, LabelSelector, Status};
use serde_json::Value;

use super::Attributes;
use super::hook::{Hook, Rule};
use super::seen::Seen;
use crate::context::RequestContext;
use crate::custom;
use crate::errors;
use crate::resources::Resource;

/// What a webhook or policy is about.
#[derive(Debug)]
pub(super) struct Criteria {
    pub(super) rules: Vec<Rule>,
    /// What it is not about after all.
    pub(super) excluded: Vec<Rule>,
    pub(super) namespaces: LabelSelector,
    pub(super) objects: LabelSelector,
    /// Whether other versions of a resource are something else.
    pub(super) is_exact: bool,
}

impl Criteria {
    /// Selectors as objects have them.
    pub(super) fn new(
        rules: Vec<Rule>,
        excluded: Vec<Rule>,
        namespaces: Option<&Value>,
        objects: Option<&Value>,
        match_policy: &str,
    ) -> Self {
        // What cannot be read selects nothing; validation lets no such selector in.
        let selector = |object: Option<&Value>| match object {
            None => LabelSelector::everything(),
            Some(object) => LabelSelector::from_object(Some(object))
                .unwrap_or_else(|_| LabelSelector::nothing()),
        };
        let (namespaces, objects) = (selector(namespaces), selector(objects));
        Self { rules, excluded, namespaces, objects, is_exact: match_policy == "Exact" }
    }
}

/// As what a webhook is asked.
pub(super) struct Matched {
    pub(super) gvk: GroupVersionKind,
    pub(super) gvr: GroupVersionResource,
    /// Another version of the resource, when the rules name that one.
    pub(super) resource: Option<Arc<Resource>>,
}

impl Matched {
    /// A working form of the request's version in the one that the webhook is told.
    pub(super) fn convert(&self, from: &Resource, object: &Value) -> Value {
        match &self.resource {
            None => object.clone(),
            Some(seen) => between(from, seen, object.clone()),
        }
    }

    /// The way back.
    pub(super) fn convert_back(&self, to: &Resource, object: Value) -> Value {
        match &self.resource {
            None => object,
            Some(seen) => between(seen, to, object),
        }
    }

    /// Whether only the webhook of a definition knows the way to the version that matched:
    /// [`Matched::convert`] leaves objects as they are then.
    pub(super) fn is_by_webhook(&self) -> bool {
        let custom = self.resource.as_ref().and_then(|seen| seen.custom.as_ref());
        custom.is_some_and(|version| version.kind.hook.is_some())
    }

    /// An object in the version that matched, when the definition's webhook is needed for that;
    /// otherwise [`Matched::convert`] makes it. It is asked once for all that want the same.
    pub(super) async fn present<'o>(
        &self,
        ctx: &RequestContext,
        object: &'o Value,
    ) -> Result<Cow<'o, Value>, Status> {
        let custom = self.resource.as_ref().and_then(|seen| seen.custom.as_ref());
        match custom.filter(|version| version.kind.hook.is_some()) {
            Some(version) => ctx.conversions.present(ctx, version, object).await.map(Cow::Owned),
            None => Ok(Cow::Borrowed(object)),
        }
    }
}

fn between(from: &Resource, to: &Resource, object: Value) -> Value {
    match &to.custom {
        None => to.served_from(from.to_storage(object)),
        Some(version) if version.kind.hook.is_some() => object,
        Some(version) => {
            let before = object.clone();
            custom::convert::by_name(&version.kind, &version.name, object).unwrap_or(before)
        }
    }
}

/// Compares a webhook with a request.
pub(super) async fn find(
    ctx: &RequestContext,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Matched>, Status> {
    let Some(matched) = select(ctx, &hook.criteria, attributes, object, old)? else {
        return Ok(None);
    };
    if hook.conditions.is_empty() {
        return Ok(Some(matched));
    }
    let seen = Seen::new(ctx, attributes, &matched, object, old).await?;
    match hook.conditions.hold(&seen.input(None)) {
        Ok(holds) => Ok(holds.then_some(matched)),
        Err(why) if hook.is_ignored_on_failure() => {
            tracing::warn!(%why, webhook = hook.name, "match conditions fail, it is not asked");
            Ok(None)
        }
        Err(why) => {
            let resource = attributes.gvr.group_resource();
            Err(errors::forbidden(&resource, attributes.name, &why))
        }
    }
}

/// Compares rules and selectors with a request.
pub(super) fn select(
    ctx: &RequestContext,
    criteria: &Criteria,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Matched>, Status> {
    let Some(matched) = by_rules(ctx, criteria, attributes) else { return Ok(None) };
    if !selects_namespace(ctx, &criteria.namespaces, attributes, object)?
        || !selects_object(&criteria.objects, attributes, object, old)
    {
        return Ok(None);
    }
    Ok(Some(matched))
}

fn by_rules(
    ctx: &RequestContext,
    criteria: &Criteria,
    attributes: &Attributes<'_>,
) -> Option<Matched> {
    let any = |rules: &[Rule], gvr: &GroupVersionResource| {
        rules.iter().any(|rule| matches(rule, gvr, attributes))
    };
    let fits = |gvr: &GroupVersionResource| any(&criteria.rules, gvr);
    if any(&criteria.excluded, &attributes.gvr) {
        return None;
    }
    if fits(&attributes.gvr) {
        let (gvk, gvr) = (attributes.gvk.clone(), attributes.gvr.clone());
        return Some(Matched { gvk, gvr, resource: None });
    }
    let storage = attributes.resource?.storage.as_ref()?;
    if criteria.is_exact {
        return None;
    }
    let other = {
        let versions = ctx.server.resources.versions(storage);
        versions.into_iter().find(|other| fits(&other.gvr()))?
    };
    Some(Matched { gvk: other.gvk.clone(), gvr: other.gvr(), resource: Some(other.clone()) })
}

fn matches(rule: &Rule, gvr: &GroupVersionResource, attributes: &Attributes<'_>) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
    let is_cluster_scoped = attributes.namespace.is_empty() || is_namespace(&attributes.gvr);
    let in_scope = match rule.scope.as_deref() {
        Some("Namespaced") => !is_cluster_scoped,
        Some("Cluster") => is_cluster_scoped,
        _ => true,
    };
    let names = &rule.resource_names;
    in_scope
        && (names.is_empty() || names.iter().any(|name| name == attributes.name))
        && has(&rule.operations, attributes.operation.as_str())
        && has(&rule.api_groups, &gvr.group)
        && has(&rule.api_versions, &gvr.version)
        && rule.resources.iter().any(|pattern| {
            let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
            (resource == "*" || resource == gvr.resource)
                && (sub == "*" || sub == attributes.subresource)
        })
}

fn is_namespace(gvr: &GroupVersionResource) -> bool {
    gvr.group.is_empty() && gvr.resource == "namespaces"
}

fn selects_namespace(
    ctx: &RequestContext,
    selector: &LabelSelector,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<bool, Status> {
    let is_namespace = is_namespace(&attributes.gvr);
    if selector.is_empty() || (attributes.namespace.is_empty() && !is_namespace) {
        return Ok(!selector.selects_nothing());
    }
    // The cache does not have the namespace as it will be.
    let is_written = matches!(attributes.operation, Operation::Create | Operation::Update);
    if let (true, true, Some(object)) = (is_namespace, is_written, object) {
        return Ok(selector.matches_value(&object["metadata"]["labels"]));
    }
    let name = if is_namespace { attributes.name } else { attributes.namespace };
    let missing = || {
        let resource = GroupResource { group: String::new(), resource: "namespaces".to_owned() };
        errors::not_found(&resource, name)
    };
    let namespace = ctx.server.find("", "namespaces", "", name).ok_or_else(missing)?;
    Ok(selector.matches_header(namespace.header()))
}

fn selects_object(
    selector: &LabelSelector,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> bool {
    if selector.is_empty() {
        return !selector.selects_nothing();
    }
    // Options of a connection have no labels.
    attributes.operation != Operation::Connect
        && [object, old]
            .into_iter()
            .flatten()
            .any(|object| selector.matches_value(&object["metadata"]["labels"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(gvr: GroupVersionResource, subresource: &str) -> Attributes<'_> {
        Attributes {
            gvk: GroupVersionKind::new("", "v1", "Pod"),
            gvr,
            subresource,
            operation: Operation::Create,
            namespace: "n",
            name: "x",
            is_dry_run: false,
            resource: None,
        }
    }

    fn fits(resource: &str, scope: &str, subresource: &str) -> bool {
        let words = |word: &str| vec![word.to_owned()];
        let rule = Rule {
            operations: words("CREATE"),
            api_groups: words(""),
            api_versions: words("*"),
            resources: words(resource),
            scope: Some(scope.to_owned()),
            resource_names: Vec::new(),
        };
        let pods = GroupVersionResource::new("", "v1", "pods");
        matches(&rule, &pods, &attributes(pods.clone(), subresource))
    }

    #[test]
    fn resources_and_subresources_match_by_name_or_star() {
        assert!(fits("pods", "*", "") && fits("*", "*", "") && fits("*/*", "*", ""));
        assert!(fits("pods/*", "*", "status") && fits("*/status", "*", "status"));
        assert!(!fits("pods", "*", "status") && !fits("*", "*", "status"));
        assert!(!fits("nodes", "*", "") && !fits("pods/exec", "*", "attach"));
    }

    #[test]
    fn scope_is_that_of_the_object() {
        assert!(fits("pods", "Namespaced", "") && !fits("pods", "Cluster", ""));
    }
}
