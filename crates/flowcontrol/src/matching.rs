//! Which schema a request belongs to.
//!
//! Upstream: `util/flowcontrol/rule.go`.

use crate::config::{Distinguisher, FlowSchema, PathRule, ResourceRule, Rule, Subject};

const ANY: &str = "*";
const ACCOUNT: &str = "system:serviceaccount:";

/// What matching looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The user's groups.
    pub groups: &'a [String],
    /// `get`, `list`, … or the method in lower case.
    pub verb: &'a str,
    /// Whether the request is about a resource.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Plural resource.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// The path, for requests about none.
    pub path: &'a str,
}

impl FlowSchema {
    /// Whether a request belongs here.
    pub(crate) fn matches(&self, digest: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(digest))
    }

    /// What tells the request's flow from others of the schema.
    pub(crate) fn distinguish<'a>(&self, digest: &Digest<'a>) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::ByUser => digest.user,
            Distinguisher::ByNamespace => digest.namespace,
        }
    }
}

impl Rule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.matches(digest))
            && if digest.is_resource {
                self.resources.iter().any(|rule| rule.matches(digest))
            } else {
                self.paths.iter().any(|rule| rule.matches(digest))
            }
    }
}

impl Subject {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        match self {
            Self::User(name) => name == ANY || name == digest.user,
            Self::Group(name) => name == ANY || digest.groups.contains(name),
            Self::ServiceAccount(namespace, name) => {
                let account = digest.user.strip_prefix(ACCOUNT);
                let account = account.and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(of, account)| {
                    of == namespace && (name == ANY || name == account)
                })
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        has(&self.verbs, digest.verb)
            && has(&self.groups, digest.group)
            && self.names(digest)
            && if digest.namespace.is_empty() {
                self.cluster_scope
            } else {
                has(&self.namespaces, digest.namespace)
            }
    }

    fn names(&self, digest: &Digest<'_>) -> bool {
        self.resources.iter().any(|name| {
            if name == ANY {
                return true;
            }
            match (name.split_once('/'), digest.subresource) {
                (None, sub) => sub.is_empty() && name == digest.resource,
                (Some((resource, of)), sub) => of == sub && resource == digest.resource,
            }
        })
    }
}

impl PathRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        has(&self.verbs, digest.verb)
            && self.paths.iter().any(|path| match path.strip_suffix(ANY) {
                Some(prefix) => digest.path.starts_with(prefix),
                None => path == digest.path,
            })
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|found| found == ANY || found == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(rule: serde_json::Value) -> FlowSchema {
        FlowSchema::read(&json!({"spec": {"rules": [rule]}}))
    }

    #[test]
    fn subjects_are_users_groups_and_accounts() {
        let of = |subject: serde_json::Value| {
            schema(json!({"subjects": [subject], "nonResourceRules":
                [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}))
        };
        let groups = ["g".to_owned()];
        let ask = |user| Digest { user, groups: &groups, path: "/x", ..Digest::default() };
        let user = of(json!({"kind": "User", "user": {"name": "u"}}));
        assert!(user.matches(&ask("u")) && !user.matches(&ask("v")));
        let group = of(json!({"kind": "Group", "group": {"name": "g"}}));
        assert!(group.matches(&ask("anybody")));
        let account = |name: &str| {
            of(json!({"kind": "ServiceAccount",
                "serviceAccount": {"namespace": "ns", "name": name}}))
        };
        assert!(account("*").matches(&ask("system:serviceaccount:ns:a")));
        assert!(account("a").matches(&ask("system:serviceaccount:ns:a")));
        assert!(!account("b").matches(&ask("system:serviceaccount:ns:a")));
        assert!(!account("*").matches(&ask("system:serviceaccount:other:a")));
    }

    #[test]
    fn resources_are_matched_with_scope_and_subresource() {
        let of = |resources: &[&str], cluster: bool| {
            schema(json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], "resourceRules":
                [{"verbs": ["get"], "apiGroups": [""], "resources": resources,
                  "namespaces": ["ns"], "clusterScope": cluster}]}))
        };
        let ask = |resource, subresource, namespace| Digest {
            verb: "get",
            is_resource: true,
            resource,
            subresource,
            namespace,
            ..Digest::default()
        };
        assert!(of(&["pods"], false).matches(&ask("pods", "", "ns")));
        assert!(!of(&["pods"], false).matches(&ask("pods", "status", "ns")));
        assert!(of(&["pods/status"], false).matches(&ask("pods", "status", "ns")));
        assert!(of(&["*"], false).matches(&ask("pods", "status", "ns")));
        assert!(!of(&["*"], false).matches(&ask("pods", "", "other")));
        assert!(!of(&["*"], false).matches(&ask("nodes", "", "")));
        assert!(of(&["*"], true).matches(&ask("nodes", "", "")));
    }
}
