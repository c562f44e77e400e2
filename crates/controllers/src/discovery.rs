//! What the server serves: for controllers that work on every resource.

use api::Typed;
use client::{Client, ClientError};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};
use meta::{GroupVersion, GroupVersionResource};

/// One resource in its preferred version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Discovered {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Discovered {
    /// Where it is served.
    pub(crate) fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.group, &*self.version, &*self.resource)
    }

    /// Whether it has all of these verbs.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|has| has == verb))
    }
}

/// The resources that could be discovered, and the groups that could not.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) resources: Vec<Discovered>,
    /// Group version and why.
    pub(crate) failures: Vec<(String, String)>,
    /// Group versions that the list of groups calls by something that is none, and by what.
    pub(crate) unparsed: Vec<(GroupVersion, String)>,
}

impl Discovery {
    /// The first resource of these, if there is one, whose group version is none: what it is
    /// called.
    pub(crate) fn unparsed(&self, is_wanted: impl Fn(&Discovered) -> bool) -> Option<&str> {
        let has = |served: &GroupVersion| {
            self.resources.iter().any(|resource| {
                (&resource.group, &resource.version) == (&served.group, &served.version)
                    && is_wanted(resource)
            })
        };
        let first = self.unparsed.iter().find(|(served, _)| has(served));
        first.map(|(_, text)| text.as_str())
    }
}

/// Asks the server.
///
/// # Errors
/// When not even the list of groups can be read. A group that fails is told in the result.
pub(crate) async fn discover(client: &Client) -> Result<Discovery, ClientError> {
    let mut discovery = Discovery::default();
    add(client, "/api/v1", &GroupVersion::new("", "v1"), &mut discovery).await;
    let groups: APIGroupList = get(client, "/apis").await?;
    for group in groups.groups {
        let preferred = group.preferred_version.as_ref().map(|v| v.version.clone());
        let mut versions = group.versions;
        // A resource that the preferred version lacks is taken from the next one that has it.
        versions.sort_by_key(|served| Some(&served.version) != preferred.as_ref());
        for served in versions {
            let path = format!("/apis/{}/{}", group.name, served.version);
            let group_version = GroupVersion::new(&*group.name, served.version);
            if served.group_version.matches('/').count() > 1 {
                discovery.unparsed.push((group_version.clone(), served.group_version));
            }
            add(client, &path, &group_version, &mut discovery).await;
        }
    }
    Ok(discovery)
}

async fn add(client: &Client, path: &str, served: &GroupVersion, discovery: &mut Discovery) {
    let list: APIResourceList = match get(client, path).await {
        Ok(list) => list,
        Err(error) => {
            discovery.failures.push((served.to_string(), error.to_string()));
            return;
        }
    };
    for resource in list.resources {
        // Subresources are no objects of their own.
        let known =
            |other: &Discovered| other.group == served.group && other.resource == resource.name;
        if resource.name.contains('/') || discovery.resources.iter().any(known) {
            continue;
        }
        discovery.resources.push(Discovered {
            group: served.group.clone(),
            version: served.version.clone(),
            resource: resource.name,
            kind: resource.kind,
            namespaced: resource.namespaced,
            verbs: resource.verbs,
        });
    }
}

async fn get<T: Typed>(client: &Client, path: &str) -> Result<T, ClientError> {
    let body = client.request(Method::GET, path, "", bytes::Bytes::new()).await?;
    T::from_json(&body).map_err(ClientError::decode)
}
