//! The audit policy: rules in order, of which the first that matches says what is recorded.
//!
//! Upstream: `apiserver/pkg/audit/policy`.

mod read;
#[cfg(test)]
mod tests;

pub use read::PolicyError;

use serde::Deserialize;

use crate::event::{Level, Stage, Stages};

/// `audit.k8s.io/v1 Policy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    /// What is odd about the file.
    #[serde(skip)]
    warnings: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What the policy is asked about a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Name of the user, before impersonation.
    pub user: &'a str,
    /// Groups of the user.
    pub groups: &'a [String],
    /// `get`, `list`, …, or the method in lower case.
    pub verb: &'a str,
    /// The path.
    pub path: &'a str,
    /// Whether the request is about a resource; what follows is empty otherwise.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Plural resource.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// What the policy says about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// How much is recorded.
    pub level: Level,
    /// At which stages nothing is.
    pub omit_stages: Stages,
    /// Whether managed fields are left out of objects.
    pub omits_managed_fields: bool,
}

impl Policy {
    /// What to record of a request: nothing, when no rule is about it.
    pub fn evaluate(&self, asked: &Asked<'_>) -> Decision {
        let omit_stages: Stages = self.omit_stages.iter().copied().collect();
        match self.rules.iter().find(|rule| rule.matches(asked)) {
            Some(rule) => Decision {
                level: rule.level,
                omit_stages: omit_stages.union(rule.omit_stages.iter().copied().collect()),
                omits_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            },
            None => Decision {
                level: Level::None,
                omit_stages,
                omits_managed_fields: self.omit_managed_fields,
            },
        }
    }

    /// Unknown and repeated fields of the file, which are passed over.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Rule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        if !fits(&self.users, asked.user) || !fits(&self.verbs, asked.verb) {
            return false;
        }
        let is_member = || asked.groups.iter().any(|group| self.user_groups.contains(group));
        if !self.user_groups.is_empty() && !is_member() {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.matches_resource(asked);
        }
        if !self.non_resource_urls.is_empty() {
            let fits = |pattern: &String| matches_path(pattern, asked.path);
            return !asked.is_resource && self.non_resource_urls.iter().any(fits);
        }
        true
    }

    fn matches_resource(&self, asked: &Asked<'_>) -> bool {
        asked.is_resource
            && fits(&self.namespaces, asked.namespace)
            && (self.resources.is_empty() || self.resources.iter().any(|it| it.matches(asked)))
    }
}

impl GroupResources {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        if self.group != asked.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        fits(&self.resource_names, asked.name)
            && self.resources.iter().any(|pattern| matches_resource(pattern, asked))
    }
}

/// Whether a list names something; an empty one names everything.
fn fits(list: &[String], wanted: &str) -> bool {
    list.is_empty() || list.iter().any(|found| found == wanted)
}

fn matches_path(pattern: &str, path: &str) -> bool {
    if pattern == "*" || pattern == path {
        return true;
    }
    pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

/// `*`, `pods`, `pods/log`, `pods/*`, `*/scale`.
fn matches_resource(pattern: &str, asked: &Asked<'_>) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => pattern == asked.resource && asked.subresource.is_empty(),
        // Unlike what its form suggests, this is about the resource itself, too.
        Some((resource, "*")) => resource == asked.resource,
        Some(("*", subresource)) => {
            !asked.subresource.is_empty() && subresource == asked.subresource
        }
        Some((resource, subresource)) => {
            resource == asked.resource && subresource == asked.subresource
        }
    }
}
