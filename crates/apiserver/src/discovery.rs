//! Discovery: groups, versions and resources, in the old form and the aggregated one.

use std::borrow::Cow;

use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderValue, Method, Response, StatusCode};
use meta::{GroupVersionKind, Status};
use schema::{Group, Resource, Version};
use serde_json::{Value, json};

use crate::aggregation;
use crate::chain::not_allowed;
use crate::context::RequestContext;
use crate::errors;
use crate::etag;
use crate::negotiate::{Encoding, Form, Shape, form};
use crate::non_resource::no_such_path;
use crate::render::value;
use connection::Body;

/// Answers the paths of discovery; `None` when the path is none of them.
pub(crate) fn serve(ctx: &RequestContext) -> Result<Option<Response<Body>>, Status> {
    let parts: Vec<&str> = ctx.info.path.split('/').filter(|part| !part.is_empty()).collect();
    let custom = ctx.server.resources.served().groups();
    let groups = all_groups(&custom);
    let groups: Vec<&Group> = groups.iter().map(|group| &**group).collect();
    let named = || groups.iter().copied().filter(|group| !group.name.is_empty());
    let (kind, document) = match parts.as_slice() {
        ["api"] => {
            if let Some(wanted) = Aggregated::wanted(ctx) {
                let core = groups.iter().copied().filter(|group| group.name.is_empty());
                return Ok(Some(aggregated(ctx, core, wanted)));
            }
            ("APIVersions", api_versions(ctx))
        }
        ["apis"] => {
            if let Some(wanted) = Aggregated::wanted(ctx) {
                return Ok(Some(aggregated(ctx, named(), wanted)));
            }
            let mut list: Vec<Value> = named().map(group).collect();
            aggregation::add_groups(&ctx.server, &mut list);
            ("APIGroupList", json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}))
        }
        ["api", version] => ("APIResourceList", resources(&groups, "", version)?),
        ["apis", name] => {
            let found = named().find(|group| group.name == *name);
            let mut list: Vec<Value> = found.map(group).into_iter().collect();
            aggregation::add_groups(&ctx.server, &mut list);
            match list.into_iter().find(|group| group["name"] == *name) {
                Some(mut group) => {
                    group["kind"] = json!("APIGroup");
                    group["apiVersion"] = json!("v1");
                    ("APIGroup", group)
                }
                None => return Ok(Some(no_such_path())),
            }
        }
        ["apis", name, version] => {
            let is_known = named().any(|group| {
                group.name == *name && group.versions.iter().any(|v| v.version == *version)
            });
            if !is_known && !is_built_in(name) {
                return Ok(Some(no_such_path()));
            }
            ("APIResourceList", resources(&groups, name, version)?)
        }
        _ => return Ok(None),
    };
    // The list of groups is answered whatever the method: upstream's aggregator has it from before
    // its router.
    if ctx.method != Method::GET && parts != ["apis"] {
        return Err(not_allowed());
    }
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let gvk = GroupVersionKind::new("meta.k8s.io", "v1", kind);
    Ok(Some(answer(&gvk, &document, form)))
}

/// Whether a group is one of this server's own.
pub(crate) fn is_built_in(group: &str) -> bool {
    schema::registry().groups().iter().any(|found| found.name == group)
}

/// The built-in groups and those of custom resources. Where a definition adds a version to a built-in
/// group, that comes first, as upstream's priorities have it; where it adds a resource to a built-in
/// version, only the built-in ones are told of, and served.
fn all_groups(custom: &[Group]) -> Vec<Cow<'_, Group>> {
    let own = schema::registry().groups().iter().map(|group| {
        let Some(added) = custom.iter().find(|found| found.name == group.name) else {
            return Cow::Borrowed(group);
        };
        let is_new = |version: &&Version| {
            group.versions.iter().all(|known| known.version != version.version)
        };
        let mut versions: Vec<Version> = added.versions.iter().filter(is_new).cloned().collect();
        if versions.is_empty() {
            return Cow::Borrowed(group);
        }
        let preferred_version = versions[0].version.clone();
        versions.extend(group.versions.iter().cloned());
        Cow::Owned(Group { versions, preferred_version, ..group.clone() })
    });
    let others = custom.iter().filter(|group| !is_built_in(&group.name));
    own.chain(others.map(Cow::Borrowed)).collect()
}

/// In protobuf the documents are of the core group, as upstream labels them.
fn answer(gvk: &GroupVersionKind, document: &Value, form: Form) -> Response<Body> {
    match form.encoding {
        Encoding::Protobuf => {
            let labelled = GroupVersionKind::new("", "v1", gvk.kind.clone());
            value(StatusCode::OK, &labelled, document, form)
        }
        _ => value(StatusCode::OK, gvk, document, form),
    }
}

fn api_versions(ctx: &RequestContext) -> Value {
    let port = ctx.server.config.bind.first().map_or(6443, std::net::SocketAddr::port);
    let address = std::net::SocketAddr::new(ctx.server.config.advertise_address, port);
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs":
        [{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}]})
}

fn group(group: &Group) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|v| version(&v.version)).collect();
    json!({"name": group.name, "versions": versions,
        "preferredVersion": version(&group.preferred_version)})
}

fn resources(groups: &[&Group], group: &str, version: &str) -> Result<Value, Status> {
    let found = groups
        .iter()
        .filter(|found| found.name == group)
        .flat_map(|found| &found.versions)
        .find(|found| found.version == version)
        .ok_or_else(errors::no_such_resource)?;
    let mut list: Vec<Value> = Vec::new();
    for resource in &found.resources {
        list.push(resource_entry(resource));
        list.extend(resource.subresources.iter().map(|sub| subresource_entry(resource, sub)));
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": list}))
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.name,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let is_kept = resource.verbs.contains(&"get") && resource.name != "componentstatuses";
    if is_kept && is_built_in(&resource.group) {
        entry["storageVersionHash"] = json!(storage_version_hash(resource));
    }
    entry
}

/// Eight bytes of a hash over group, version and kind in which upstream stores a resource.
fn storage_version_hash(resource: &Resource) -> String {
    use base64::Engine;
    use sha2::{Digest, Sha256};
    let (group, version) = stored_as(resource);
    let text = format!("{group}/{version}/{}", resource.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

/// Group and version in which upstream keeps a resource. That is not always ours: it keeps some
/// objects in a version that it no longer serves, so that the release before can still read them.
fn stored_as(resource: &Resource) -> (&str, &str) {
    match (&*resource.group, &*resource.name) {
        (
            "admissionregistration.k8s.io",
            "mutatingadmissionpolicies" | "mutatingadmissionpolicybindings",
        )
        | ("apiextensions.k8s.io", "customresourcedefinitions") => (&resource.group, "v1beta1"),
        (group, name) => match crate::conversion::find(group, &resource.version, name) {
            Some(conversion) => (conversion.stored_as.0, conversion.stored_as.1),
            None => (group, &resource.version),
        },
    }
}

fn subresource_entry(resource: &Resource, sub: &schema::Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.name, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind,
        "verbs": sub.verbs,
    });
    if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
        entry["group"] = json!(sub.group);
        entry["version"] = json!(sub.version);
        if sub.group.is_empty() {
            crate::strategy::remove(&mut entry, "group");
        }
    }
    entry
}

/// The aggregated form that a client prefers.
#[derive(Clone, Copy)]
struct Aggregated {
    version: &'static str,
    is_protobuf: bool,
}

impl Aggregated {
    /// What the client wants, when it wants an aggregated form before any other.
    fn wanted(ctx: &RequestContext) -> Option<Self> {
        let accept = ctx.headers.get(ACCEPT)?.to_str().ok()?;
        for clause in accept.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let is_protobuf = match parts.next()? {
                "application/json" => false,
                "application/vnd.kubernetes.protobuf" => true,
                _ => continue,
            };
            let parameters: Vec<&str> = parts.collect();
            let has = |wanted: &str| parameters.contains(&wanted);
            if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") {
                let known = ["v2", "v2beta1"];
                let version = known.into_iter().find(|version| has(&format!("v={version}")));
                match version {
                    Some(version) => return Some(Self { version, is_protobuf }),
                    None => continue,
                }
            }
            if !parameters.iter().any(|parameter| parameter.starts_with("as=")) {
                return None;
            }
        }
        None
    }

    fn content_type(self) -> &'static str {
        match (self.is_protobuf, self.version) {
            (false, "v2") => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            (false, _) => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
            (true, "v2") => {
                "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;\
                 as=APIGroupDiscoveryList"
            }
            (true, _) => {
                "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;\
                 as=APIGroupDiscoveryList"
            }
        }
    }
}

fn aggregated<'a>(
    ctx: &RequestContext,
    groups: impl Iterator<Item = &'a Group>,
    wanted: Aggregated,
) -> Response<Body> {
    let mut items: Vec<Value> = groups
        .map(|group| {
            let versions: Vec<Value> = group.versions.iter().map(aggregated_entry).collect();
            let metadata = if group.name.is_empty() {
                json!({})
            } else {
                json!({"name": group.name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    if ctx.info.path.starts_with("/apis") {
        aggregation::add_aggregated(&ctx.server, &mut items);
    }
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", wanted.version),
        "metadata": {},
        "items": items,
    });
    let bytes = if wanted.is_protobuf {
        let gvk =
            GroupVersionKind::new("apidiscovery.k8s.io", wanted.version, "APIGroupDiscoveryList");
        schema::encode_protobuf(&gvk, &list)
    } else {
        format!("{list}\n").into_bytes()
    };
    let hash = etag::strong(&bytes);
    let mut response = etag::answer(&ctx.headers, wanted.content_type(), bytes.into(), &hash);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn aggregated_entry(version: &Version) -> Value {
    let resources: Vec<Value> = version
        .resources
        .iter()
        .map(|resource| {
            let kind = |group: &str, version: &str, kind: &str| {
                // Upstream leaves the version of the core group out.
                let version = if group.is_empty() { "" } else { version };
                json!({"group": group, "version": version, "kind": kind})
            };
            let mut entry = json!({
                "resource": resource.name,
                "responseKind": kind(&resource.group, &resource.version, &resource.kind),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs,
            });
            if !resource.short_names.is_empty() {
                entry["shortNames"] = json!(resource.short_names);
            }
            if !resource.categories.is_empty() {
                entry["categories"] = json!(resource.categories);
            }
            let subresources: Vec<Value> = resource
                .subresources
                .iter()
                .map(|sub| {
                    json!({"subresource": sub.name, "verbs": sub.verbs,
                        "responseKind": kind(&sub.group, &sub.version, &sub.kind)})
                })
                .collect();
            if !subresources.is_empty() {
                entry["subresources"] = json!(subresources);
            }
            entry
        })
        .collect();
    json!({"version": version.version, "freshness": "Current", "resources": resources})
}
