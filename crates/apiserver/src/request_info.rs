//! What a request is about, from its method and path.
//!
//! Upstream: `apiserver/pkg/endpoints/request/requestinfo.go`.

use http::Method;

use crate::query::{Query, unescape};

/// The parsed request line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// The path without query.
    pub(crate) path: String,
    /// `get`, `list`, `watch`, `create`, … or the method in lower case.
    pub(crate) verb: String,
    /// Whether this is about a resource.
    pub(crate) is_resource: bool,
    /// Group, empty for core.
    pub(crate) group: String,
    /// Version.
    pub(crate) version: String,
    /// Namespace, or empty.
    pub(crate) namespace: String,
    /// Plural resource.
    pub(crate) resource: String,
    /// Subresource, or empty.
    pub(crate) subresource: String,
    /// Name, or empty.
    pub(crate) name: String,
    /// What follows the subresource, for proxies.
    pub(crate) rest: String,
    /// What the field selector of a list or watch requires of fields.
    pub(crate) fields: Vec<(String, String)>,
}

/// Subresources of `namespaces` itself; anything else after the name is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, path and query.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self {
            path: path.to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            ..Self::default()
        };
        let decoded: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(unescape).collect();
        let mut parts = decoded.iter().map(String::as_str);
        match parts.next() {
            Some("api") => {}
            Some("apis") => match parts.next() {
                Some(group) => info.group = group.to_owned(),
                None => return info,
            },
            _ => return info,
        }
        let Some(version) = parts.next() else {
            info.group.clear();
            return info;
        };
        info.version = version.to_owned();
        let mut rest: Vec<&str> = parts.collect();
        if rest.is_empty() {
            info.group.clear();
            info.version.clear();
            return info;
        }
        info.is_resource = true;
        info.verb = verb_of(method).to_owned();
        if rest[0] == "watch" && rest.len() > 1 {
            info.verb = "watch".to_owned();
            rest.remove(0);
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            info.namespace = rest[1].to_owned();
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2]) {
                rest.drain(..2);
            }
        }
        let at = |index: usize| rest.get(index).map(|&part| part.to_owned()).unwrap_or_default();
        (info.resource, info.name, info.subresource) = (at(0), at(1), at(2));
        if rest.len() > 3 {
            info.rest = raw_rest(path, decoded.len() - rest.len() + 3);
        }
        info.refine_verb(method, query);
        info
    }

    /// What authorization is asked.
    pub(crate) fn attributes(&self) -> authz::Attributes {
        authz::Attributes {
            verb: self.verb.clone(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            is_resource: self.is_resource,
            fields: self.fields.clone(),
        }
    }

    fn refine_verb(&mut self, method: &Method, query: &Query) {
        if !self.name.is_empty() {
            if self.verb == "get" && query.flag("watch") && self.subresource.is_empty() {
                self.verb = "watch".to_owned();
            }
            return;
        }
        if *method == Method::DELETE {
            self.verb = "deletecollection".to_owned();
        } else if self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
            && let Some(selector) = query.get("fieldSelector")
        {
            self.fields = authz::required_fields(selector);
            // A list of one name asks for that name, so that rules with names apply.
            if let Some((_, name)) = self.fields.iter().find(|(key, _)| key == "metadata.name") {
                self.name.clone_from(name);
            }
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The undecoded path behind `skip` parts, with its leading slash and a trailing one if there is.
fn raw_rest(path: &str, skip: usize) -> String {
    let mut at = 0;
    for _ in 0..skip {
        at += path[at..].find(|c| c != '/').unwrap_or(0);
        at += path[at..].find('/').unwrap_or(path.len() - at);
    }
    path[at..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query))
    }

    fn check(method: &str, target: &str, expected: &str) {
        let i = parse(method, target);
        let found = format!(
            "{} {}/{} ns={} {}/{}/{}{}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource, i.rest
        );
        assert_eq!(found, expected, "{target}");
    }

    #[test]
    fn paths_are_taken_apart() {
        check("GET", "/api/v1/pods", "list /v1 ns= pods//");
        check("GET", "/api/v1/namespaces/a/pods/b", "get /v1 ns=a pods/b/");
        check(
            "POST",
            "/apis/apps/v1/namespaces/a/deployments",
            "create apps/v1 ns=a deployments//",
        );
        check("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces/a/");
        check("PUT", "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/a/finalize");
        check("GET", "/api/v1/namespaces", "list /v1 ns= namespaces//");
        check("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods//");
        check("GET", "/api/v1/pods?watch=true", "watch /v1 ns= pods//");
        check("GET", "/api/v1/pods?watch=0", "list /v1 ns= pods//");
        check("DELETE", "/api/v1/namespaces/a/pods", "deletecollection /v1 ns=a pods//");
        check("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list /v1 ns= pods/x/");
        check("GET", "/api/v1/nodes/n/proxy/logs/a%20b/", "get /v1 ns= nodes/n/proxy/logs/a%20b/");
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in ["/", "/api", "/api/v1", "/apis/", "/apis/apps", "/apis/apps/v1", "/healthz"] {
            assert!(!parse("GET", path).is_resource, "{path}");
        }
    }
}
