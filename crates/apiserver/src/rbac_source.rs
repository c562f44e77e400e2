//! Roles and bindings of the caches, compiled for authorization and kept until they change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use authz::{Binding, BindingSubject, PolicyRule, RoleRef, RuleIndex, RuleSource, Subject};
use meta::{GroupResource, Object, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::errors;
use crate::resources::{Resources, Storage};
use crate::server::Server;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Compiles the rules when one of the four resources has changed.
pub(crate) struct RbacSource {
    resources: Arc<Resources>,
    current: ArcSwap<(Versions, Arc<RuleIndex>)>,
    parsed: Mutex<Parsed>,
}

/// The newest revision of roles, cluster roles, role bindings and cluster role bindings.
type Versions = [u64; 4];

/// By namespace and name: the version that was parsed, and what came out.
type ByVersion<T> = HashMap<(String, String), (u64, T)>;

/// What has been parsed, by object version: only what changed is parsed again.
#[derive(Default)]
struct Parsed {
    roles: ByVersion<Arc<[PolicyRule]>>,
    bindings: ByVersion<Arc<Binding>>,
}

#[derive(Default, Deserialize)]
struct RoleView {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingView {
    role_ref: RoleRef,
    subjects: Option<Vec<BindingSubject>>,
}

impl RbacSource {
    pub(crate) fn new(resources: Arc<Resources>) -> Self {
        let empty = ([u64::MAX; 4], Arc::new(RuleIndex::default()));
        Self { resources, current: ArcSwap::from_pointee(empty), parsed: Mutex::default() }
    }

    fn storages(&self) -> [Option<&Arc<Storage>>; 4] {
        ["roles", "clusterroles", "rolebindings", "clusterrolebindings"]
            .map(|resource| self.resources.storage(GROUP, resource))
    }
}

impl RuleSource for RbacSource {
    fn rules(&self) -> Arc<RuleIndex> {
        let storages = self.storages();
        let versions = storages.map(|storage| storage.map_or(0, |storage| storage.cache.newest()));
        let current = self.current.load();
        if current.0 == versions {
            return current.1.clone();
        }
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = |of: Option<&Arc<Storage>>| -> Vec<Arc<Object>> {
            of.map_or_else(Vec::new, |s| s.cache.snapshot(0).map.values().cloned().collect())
        };
        let [roles, cluster_roles, bindings, cluster_bindings] = storages;
        let roles = [objects(roles), objects(cluster_roles)].concat();
        let bindings = [objects(bindings), objects(cluster_bindings)].concat();
        let index = Arc::new(RuleIndex::new(
            parse_roles(&mut parsed, &roles),
            parse_bindings(&mut parsed, &bindings),
        ));
        self.current.store(Arc::new((versions, index.clone())));
        index
    }
}

fn parse_roles(
    parsed: &mut Parsed,
    roles: &[Arc<Object>],
) -> Vec<(String, String, Arc<[PolicyRule]>)> {
    let mut known = HashMap::with_capacity(roles.len());
    for role in roles {
        let header = role.header();
        let key = (header.namespace.clone(), header.name.clone());
        let version = header.resource_version.0;
        let rules = match parsed.roles.get(&key) {
            Some((kept, rules)) if *kept == version => rules.clone(),
            _ => role.decode::<RoleView>().unwrap_or_default().rules.unwrap_or_default().into(),
        };
        known.insert(key, (version, rules));
    }
    parsed.roles = known;
    let roles = parsed.roles.iter();
    roles.map(|((ns, name), (_, rules))| (ns.clone(), name.clone(), rules.clone())).collect()
}

fn parse_bindings(parsed: &mut Parsed, bindings: &[Arc<Object>]) -> Vec<Arc<Binding>> {
    let mut known = HashMap::with_capacity(bindings.len());
    for object in bindings {
        let header = object.header();
        let key = (header.namespace.clone(), header.name.clone());
        let version = header.resource_version.0;
        let binding = match parsed.bindings.get(&key) {
            Some((kept, binding)) if *kept == version => binding.clone(),
            _ => {
                let view = object.decode::<BindingView>().unwrap_or_default();
                Arc::new(Binding {
                    namespace: header.namespace.clone(),
                    name: header.name.clone(),
                    role: view.role_ref,
                    subjects: view.subjects.unwrap_or_default(),
                })
            }
        };
        known.insert(key, (version, binding));
    }
    parsed.bindings = known;
    parsed.bindings.values().map(|(_, binding)| binding.clone()).collect()
}

impl Server {
    /// Refuses roles and bindings that would give more than the writer has.
    ///
    /// Upstream: `registry/rbac/*/policybased`.
    pub(crate) fn check_escalation(
        &self,
        subject: Subject<'_>,
        resource: &GroupResource,
        namespace: &str,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if resource.group != GROUP || subject.is_in("system:masters") {
            return Ok(());
        }
        let is_binding = resource.resource.ends_with("bindings");
        let field = if is_binding { "roleRef" } else { "rules" };
        let unchanged = old.is_some_and(|old| {
            old.get(field) == object.get(field) && old.get("subjects") == object.get("subjects")
        });
        if unchanged {
            return Ok(());
        }
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let index = self.authorizer.rules();
        let (verb, of, target) = if is_binding {
            let role: RoleRef =
                serde_json::from_value(object["roleRef"].clone()).unwrap_or_default();
            let of = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
            ("bind", of, role.name)
        } else {
            ("escalate", resource.resource.as_str(), name.to_owned())
        };
        let asked = authz::Attributes::resource(verb, GROUP, of, namespace, &target);
        if self.authorizer.authorize(subject, &asked).is_allowed() {
            return Ok(());
        }
        let wanted = if is_binding {
            let role: RoleRef =
                serde_json::from_value(object["roleRef"].clone()).unwrap_or_default();
            let rules = index.role(namespace, &role);
            rules.ok_or_else(|| errors::not_found(resource, &role.name))?.to_vec()
        } else {
            serde_json::from_value(object["rules"].clone()).unwrap_or_default()
        };
        let owned: Vec<PolicyRule> =
            index.rules_for(subject, namespace).map(|(_, rule)| rule.clone()).collect();
        let extra = authz::escalated(&owned, &wanted);
        if extra.is_empty() {
            return Ok(());
        }
        Err(errors::forbidden(resource, name, &escalation_text(subject, extra)))
    }
}

fn escalation_text(subject: Subject<'_>, extra: Vec<PolicyRule>) -> String {
    let list = |values: &[String]| {
        values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" ")
    };
    let mut rules: Vec<String> = authz::compacted(extra)
        .iter()
        .map(|rule| {
            let mut parts = Vec::new();
            for (name, values) in [
                ("APIGroups", &rule.api_groups),
                ("Resources", &rule.resources),
                ("NonResourceURLs", &rule.non_resource_urls),
                ("ResourceNames", &rule.resource_names),
                ("Verbs", &rule.verbs),
            ] {
                if !values.is_empty() {
                    parts.push(format!("{name}:[{}]", list(values)));
                }
            }
            format!("{{{}}}", parts.join(", "))
        })
        .collect();
    rules.sort();
    format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        subject.name,
        list(subject.groups),
        rules.join("\n")
    )
}
