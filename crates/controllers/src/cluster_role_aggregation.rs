//! Fills ClusterRoles that are made of others with the rules of these.
//!
//! Upstream: `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use client::{Client, ClientError, Outcome, ResourcePath};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use meta::ObjectKey;
use serde_json::{Value, json};

use crate::context::Context;
use crate::reconcile::reconcile;
use crate::selection::{key_of, selector};

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("clusterrole-aggregation-controller");
    let queue = ctx.queue("ClusterRoleAggregator");
    let informers = ctx.informers.clone();
    informers.cluster_roles.synced().await;
    let (changed, all) = (queue.clone(), informers.clone());
    informers.cluster_roles.on_change(move |_, _| {
        let roles = all.cluster_roles.list();
        for role in roles.iter().filter(|role| role.aggregation_rule.is_some()) {
            changed.add(key_of(&role.metadata));
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move { sync(&ctx, &client, &key).await }
    })
    .await;
}

async fn sync(ctx: &Context, client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let roles = &ctx.informers.cluster_roles;
    let Some(role) = roles.get(key).filter(|role| role.aggregation_rule.is_some()) else {
        return Ok(Outcome::Done);
    };
    let rules = aggregated(&role, roles.list());
    if rules == role.rules.clone().unwrap_or_default() {
        return Ok(Outcome::Done);
    }
    let change = json!({ "rules": rules, "metadata": { "uid": role.metadata.uid,
        "resourceVersion": role.metadata.resource_version } });
    let api = client.dynamic::<Value>(ResourcePath::of::<ClusterRole>(), "");
    match api.merge_update(&key.name, "", &change).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// The rules of all roles that any selector selects, each once: by selector, then by name.
fn aggregated(role: &ClusterRole, mut all: Vec<Arc<ClusterRole>>) -> Vec<PolicyRule> {
    all.retain(|other| other.metadata.name != role.metadata.name);
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let wanted = role.aggregation_rule.as_ref();
    let selectors = wanted.and_then(|rule| rule.cluster_role_selectors.as_deref());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for wanted in selectors.unwrap_or_default() {
        let selector = selector(Some(wanted));
        for other in &all {
            let labels = other.metadata.labels.as_ref();
            if !selector.matches(|key| labels?.get(key).map(String::as_str)) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: &str, verbs: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<_> =
            verbs.iter().map(|verb| json!({ "verbs": [verb], "resources": ["pods"] })).collect();
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "labels": { "to": label } }, "rules": rules }))
            .unwrap(),
        )
    }

    #[test]
    fn rules_come_by_selector_and_name_and_once() {
        let whole: ClusterRole = serde_json::from_value(json!({
            "metadata": { "name": "admin", "labels": { "to": "view" } },
            "aggregationRule": { "clusterRoleSelectors": [
                { "matchLabels": { "to": "edit" } }, { "matchLabels": { "to": "view" } }] },
            "rules": [{ "verbs": ["itself"] }] }))
        .unwrap();
        let all = vec![
            Arc::new(whole.clone()),
            role("b", "view", &["list", "get"]),
            role("a", "view", &["get"]),
            role("z", "edit", &["create"]),
            role("other", "none", &["delete"]),
        ];
        let rules = aggregated(&whole, all);
        let verbs: Vec<_> = rules.iter().map(|rule| rule.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["create", "get", "list"]);
    }
}
