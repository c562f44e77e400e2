//! Role-based access control: rules, bindings, and the escalation check.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attributes::{Attributes, Subject};
use crate::authorizer::Decision;

/// A rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths; a trailing `*` stands for anything.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// The role a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// Group of the role.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Name of the role.
    pub name: String,
}

/// To whom a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BindingSubject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace of a service account.
    pub namespace: String,
}

/// A role binding or cluster role binding.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Namespace, empty for cluster role bindings.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What it grants.
    pub role: RoleRef,
    /// To whom.
    pub subjects: Vec<BindingSubject>,
}

/// Roles and bindings, arranged by subject.
#[derive(Debug, Default)]
pub struct RuleIndex {
    /// By namespace (empty for cluster roles) and name.
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    users: HashMap<String, Vec<Arc<Binding>>>,
    groups: HashMap<String, Vec<Arc<Binding>>>,
}

impl RuleIndex {
    /// An index of roles (namespace, name, rules) and bindings.
    pub fn new(
        roles: impl IntoIterator<Item = (String, String, Arc<[PolicyRule]>)>,
        bindings: impl IntoIterator<Item = Arc<Binding>>,
    ) -> Self {
        let roles = roles.into_iter().map(|(ns, name, rules)| ((ns, name), rules)).collect();
        let mut index = Self { roles, ..Self::default() };
        for binding in bindings {
            for subject in &binding.subjects {
                let (map, key) = match subject.kind.as_str() {
                    "User" => (&mut index.users, subject.name.clone()),
                    "Group" => (&mut index.groups, subject.name.clone()),
                    "ServiceAccount" => {
                        let own = &binding.namespace;
                        let of = &subject.namespace;
                        let namespace = if of.is_empty() { own } else { of };
                        let user = format!("system:serviceaccount:{namespace}:{}", subject.name);
                        (&mut index.users, user)
                    }
                    _ => continue,
                };
                map.entry(key).or_default().push(binding.clone());
            }
        }
        index
    }

    /// The rules of a role.
    pub fn role(&self, namespace: &str, role: &RoleRef) -> Option<&Arc<[PolicyRule]>> {
        let namespace = if role.kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(&(namespace.to_owned(), role.name.clone()))
    }

    /// Every rule that applies to the subject in a namespace, or cluster-wide when it is empty,
    /// with the binding that grants it.
    pub fn rules_for<'a>(
        &'a self,
        subject: Subject<'a>,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Binding, &'a PolicyRule)> {
        let of_user = self.users.get(subject.name).into_iter();
        let of_groups = subject.groups.iter().filter_map(|group| self.groups.get(group));
        of_user
            .chain(of_groups)
            .flatten()
            .filter(move |binding| binding.namespace.is_empty() || binding.namespace == namespace)
            .filter_map(|binding| Some((&**binding, self.role(&binding.namespace, &binding.role)?)))
            .flat_map(|(binding, rules)| rules.iter().map(move |rule| (binding, rule)))
    }
}

/// Where the rules in force come from. Must be quick: it is asked for every request.
pub trait RuleSource: Send + Sync + 'static {
    /// The rules as they are now.
    fn rules(&self) -> Arc<RuleIndex>;
}

pub(crate) fn authorize(
    index: &RuleIndex,
    subject: Subject<'_>,
    attributes: &Attributes,
) -> Decision {
    let granted =
        index.rules_for(subject, &attributes.namespace).find(|(_, rule)| allows(rule, attributes));
    match granted {
        Some((binding, _)) => Decision::Allow(allowed_by(binding, subject)),
        None => Decision::NoOpinion(String::new()),
    }
}

/// Whether one rule allows what is asked.
fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    if !has(&rule.verbs, &attributes.verb) {
        return false;
    }
    if !attributes.is_resource {
        return rule.non_resource_urls.iter().any(|url| path_matches(url, &attributes.path));
    }
    has(&rule.api_groups, &attributes.group)
        && resource_matches(&rule.resources, attributes)
        && (rule.resource_names.is_empty() || rule.resource_names.contains(&attributes.name))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|found| found == "*" || found == wanted)
}

fn resource_matches(resources: &[String], attributes: &Attributes) -> bool {
    resources.iter().any(|resource| match resource.split_once('/') {
        None => {
            resource == "*"
                || (attributes.subresource.is_empty() && *resource == attributes.resource)
        }
        Some((of, subresource)) => {
            subresource == attributes.subresource && (of == "*" || of == attributes.resource)
        }
    })
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn allowed_by(binding: &Binding, subject: Subject<'_>) -> String {
    let kind = if binding.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let name = if binding.namespace.is_empty() {
        binding.name.clone()
    } else {
        format!("{}/{}", binding.name, binding.namespace)
    };
    let to = binding.subjects.iter().find(|to| match to.kind.as_str() {
        "User" => to.name == subject.name,
        "Group" => subject.is_in(&to.name),
        _ => subject.name.ends_with(&format!(":{}", to.name)),
    });
    let to = to.map_or(String::new(), |to| match to.kind.as_str() {
        "ServiceAccount" => format!("{} \"{}/{}\"", to.kind, to.name, to.namespace),
        _ => format!("{} {:?}", to.kind, to.name),
    });
    format!(
        "RBAC: allowed by {kind} {name:?} of {} {:?} to {to}",
        binding.role.kind, binding.role.name
    )
}

/// The part of `wanted` that `owned` does not grant, one atomic rule each.
pub fn escalated(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(break_down).filter(|atom| !covers(owned, atom)).collect()
}

/// Rules that differ in their verbs alone, as one: the form in which people read them.
pub fn compacted(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let is_simple = rule.api_groups.len() == 1
            && rule.resources.len() == 1
            && rule.resource_names.len() <= 1
            && rule.non_resource_urls.is_empty();
        let same = out.iter_mut().find(|other| {
            is_simple
                && other.non_resource_urls.is_empty()
                && (&other.api_groups, &other.resources, &other.resource_names)
                    == (&rule.api_groups, &rule.resources, &rule.resource_names)
        });
        match same {
            Some(other) => other.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

/// Whether one of the rules grants all of an atomic rule.
pub fn covers(owned: &[PolicyRule], atom: &PolicyRule) -> bool {
    owned.iter().any(|rule| {
        let all = |have: &[String], want: &[String]| {
            have.iter().any(|h| h == "*") || want.iter().all(|w| have.contains(w))
        };
        let resources = atom.resources.iter().all(|wanted| {
            rule.resources.iter().any(|have| {
                have == "*"
                    || have == wanted
                    || wanted.split_once('/').is_some_and(|(_, sub)| {
                        have.strip_prefix("*/").is_some_and(|have| have == sub)
                    })
            })
        });
        let names = rule.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|name| rule.resource_names.contains(name)));
        let urls = atom.non_resource_urls.iter().all(|wanted| {
            rule.non_resource_urls.iter().any(|have| have == wanted || path_matches(have, wanted))
        });
        let is_same_sort = atom.non_resource_urls.is_empty() == rule.non_resource_urls.is_empty();
        all(&rule.verbs, &atom.verbs)
            && all(&rule.api_groups, &atom.api_groups)
            && resources
            && names
            && urls
            && (is_same_sort || atom.non_resource_urls.is_empty())
    })
}

/// A rule as rules of one verb, group, resource and name each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut atoms = Vec::new();
    let one = |value: &String| vec![value.clone()];
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let plain = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(plain);
                } else {
                    atoms.extend(
                        rule.resource_names
                            .iter()
                            .map(|name| PolicyRule { resource_names: one(name), ..plain.clone() }),
                    );
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        atoms.extend(rule.verbs.iter().map(|verb| PolicyRule {
            verbs: one(verb),
            non_resource_urls: one(url),
            ..PolicyRule::default()
        }));
    }
    atoms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
        let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        PolicyRule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            ..PolicyRule::default()
        }
    }

    fn index() -> RuleIndex {
        let view: Arc<[PolicyRule]> = [rule(&["get", "list"], &[""], &["pods", "*/status"])].into();
        let subject =
            BindingSubject { kind: "User".into(), name: "jane".into(), namespace: String::new() };
        let binding = Binding {
            namespace: "ns".into(),
            name: "b".into(),
            role: RoleRef {
                api_group: String::new(),
                kind: "ClusterRole".into(),
                name: "view".into(),
            },
            subjects: vec![subject],
        };
        RuleIndex::new([(String::new(), "view".into(), view)], [Arc::new(binding)])
    }

    #[test]
    fn a_role_binding_grants_in_its_namespace_only() {
        let index = index();
        let jane = Subject { name: "jane", groups: &[] };
        let may = |verb: &str, resource: &str, namespace: &str| {
            let attributes = Attributes::resource(verb, "", resource, namespace, "x");
            authorize(&index, jane, &attributes).is_allowed()
        };
        assert!(may("get", "pods", "ns"));
        assert!(may("get", "nodes/status", "ns"));
        assert!(!may("get", "pods/log", "ns"));
        assert!(!may("get", "pods", "other"));
        assert!(!may("get", "pods", ""));
        assert!(!may("delete", "pods", "ns"));
    }

    #[test]
    fn the_reason_names_the_binding() {
        let attributes = Attributes::resource("get", "", "pods", "ns", "x");
        let decision = authorize(&index(), Subject { name: "jane", groups: &[] }, &attributes);
        assert_eq!(
            decision.reason(),
            "RBAC: allowed by RoleBinding \"b/ns\" of ClusterRole \"view\" to User \"jane\""
        );
    }

    #[test]
    fn escalation_is_what_is_not_covered() {
        let owned = [rule(&["get", "list"], &["*"], &["pods"])];
        assert!(escalated(&owned, &[rule(&["get"], &[""], &["pods"])]).is_empty());
        let extra = escalated(&owned, &[rule(&["get", "delete"], &[""], &["pods"])]);
        assert_eq!(extra, [rule(&["delete"], &[""], &["pods"])]);
        let mut named = rule(&["get"], &[""], &["pods"]);
        named.resource_names = vec!["a".into()];
        assert!(escalated(&owned, std::slice::from_ref(&named)).is_empty());
        assert!(!escalated(&[named], &owned).is_empty());
    }

    #[test]
    fn paths_may_end_in_a_star() {
        let rule = PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/healthz/*".into(), "/version".into()],
            ..PolicyRule::default()
        };
        assert!(allows(&rule, &Attributes::path("get", "/healthz/ping")));
        assert!(allows(&rule, &Attributes::path("get", "/version")));
        assert!(!allows(&rule, &Attributes::path("get", "/versions")));
    }
    #[test]
    fn rules_that_differ_in_verbs_are_read_as_one() {
        let mut url = rule(&["get"], &[], &[]);
        url.non_resource_urls = vec!["/x".to_owned()];
        let apart = vec![
            rule(&["get"], &[""], &["pods"]),
            url.clone(),
            rule(&["get"], &[""], &["nodes"]),
            rule(&["list"], &[""], &["pods"]),
            url.clone(),
        ];
        let expected = [
            rule(&["get", "list"], &[""], &["pods"]),
            url.clone(),
            rule(&["get"], &[""], &["nodes"]),
            url,
        ];
        assert_eq!(compacted(apart), expected);
    }
}
