//! Groups of other servers in the discovery documents and the index of OpenAPI of this one.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use openapi::ForeignDocument;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::backend::{Backend, Endpoint};
use super::forward::identify;
use crate::discovery::is_built_in;
use crate::server::Server;
use connection::Body;

/// The longest description that is read.
const LONGEST: usize = 3 << 20;
/// The longest document of OpenAPI: this server's own has seven million bytes.
const DOCUMENT: usize = 16 << 20;
/// How long it may take to come; upstream's.
const PATIENCE: Duration = Duration::from_secs(60);
/// Resources of one version that are told of.
const RESOURCES: usize = 1000;
/// Priority of groups of custom resources; upstream's.
const CUSTOM: i64 = 1000;

/// What a server says of its API.
#[derive(Default)]
pub(super) struct Description {
    /// Entries of aggregated discovery.
    resources: Vec<Value>,
    /// The hash of its OpenAPI document.
    open_api: Option<String>,
    /// What of its OpenAPI v2 document is its own, and by what tag it knows that.
    v2: Option<Arc<ForeignDocument>>,
    v2_tag: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

impl Backend {
    /// Asks the server at one of its places what it serves.
    pub(super) async fn describe(
        &self,
        server: &Server,
        endpoint: &Endpoint,
    ) -> Result<(), Refused> {
        let asked = self.ask(server, endpoint, &self.path(), LONGEST, None).await?;
        let resources = serde_json::from_slice::<ResourceList>(&asked.body)
            .map_or_else(|_| Vec::new(), |list| self.entries(list.resources));
        self.description().resources = resources;
        Ok(())
    }

    /// Asks it for its documents on a task of its own, unless it is being asked already: whether it
    /// has any does not decide whether it is there.
    pub(super) fn document_later(self: &Arc<Self>, server: &Arc<Server>, endpoint: Endpoint) {
        let Ok(turn) = self.documenting.clone().try_lock_owned() else { return };
        let (backend, server) = (self.clone(), server.clone());
        drop(stdx::task::spawn("documents of an aggregated server", async move {
            tokio::select! {
                () = backend.document(&server, &endpoint) => {}
                () = server.clock.sleep(PATIENCE) => {}
                () = server.shutdown.begun() => {}
            }
            drop(turn);
        }));
    }

    /// What is not answered stays as it was.
    async fn document(&self, server: &Server, endpoint: &Endpoint) {
        if let Ok(index) = self.ask(server, endpoint, "/openapi/v3", LONGEST, None).await {
            self.description().open_api = self.hash_in(&index.body);
        }
        let tag = self.description().v2_tag.clone();
        let asked = self.ask(server, endpoint, "/openapi/v2", DOCUMENT, tag.as_ref()).await;
        let (v2, v2_tag) = match asked {
            Ok(asked) => {
                let (group, version) = (self.group.clone(), self.version.clone());
                // Large documents take long.
                let parsed = tokio::task::spawn_blocking(move || {
                    ForeignDocument::parse(&group, &version, &asked.body)
                });
                let Ok(Some(parsed)) = parsed.await else {
                    tracing::warn!(service = %self.name, "its OpenAPI v2 document is none");
                    return;
                };
                (Some(Arc::new(parsed)), asked.tag)
            }
            Err(Refused::Status(404)) => (None, None),
            // Also when it has not changed.
            Err(_) => return,
        };
        let mut description = self.description();
        (description.v2, description.v2_tag) = (v2, v2_tag);
    }

    fn hash_in(&self, index: &[u8]) -> Option<String> {
        let index: Value = serde_json::from_slice(index).ok()?;
        let entry = &index["paths"][self.path().trim_start_matches('/')];
        let (_, hash) = entry["serverRelativeURL"].as_str()?.split_once("hash=")?;
        Some(hash.split('&').next()?.to_owned())
    }

    /// Where the API is.
    pub(super) fn path(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    async fn ask(
        &self,
        server: &Server,
        endpoint: &Endpoint,
        path: &str,
        longest: usize,
        unless: Option<&HeaderValue>,
    ) -> Result<Asked, Refused> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| Refused::other("the path is none"))?;
        *request.headers_mut() = own_headers(&self.server_name());
        if let Some(tag) = unless {
            request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
        }
        let sent = self.send_to(server, endpoint, request).await;
        let response =
            sent.map_err(|error| Refused::Transport(telemetry::Chain(&error).to_string()))?;
        if !response.status().is_success() {
            return Err(Refused::Status(response.status().as_u16()));
        }
        let tag = response.headers().get(ETAG).cloned();
        let read = Limited::new(response.into_body(), longest).collect().await;
        let body = read.map_err(|error| Refused::Transport(error.to_string()))?.to_bytes();
        Ok(Asked { body, tag })
    }

    fn entries(&self, mut described: Vec<Described>) -> Vec<Value> {
        described.truncate(RESOURCES);
        let kind = |found: &Described| {
            let or_own = |text: &str, own: &str| {
                if text.is_empty() { own.to_owned() } else { text.to_owned() }
            };
            json!({"group": or_own(&found.group, &self.group), "kind": found.kind,
                "version": or_own(&found.version, &self.version)})
        };
        let (subresources, resources): (Vec<_>, Vec<_>) =
            described.into_iter().partition(|found| found.name.contains('/'));
        let entry = |found: &Described| {
            let mut entry = json!({
                "resource": found.name,
                "responseKind": kind(found),
                "scope": if found.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": found.singular_name,
                "verbs": found.verbs,
            });
            if !found.short_names.is_empty() {
                entry["shortNames"] = json!(found.short_names);
            }
            if !found.categories.is_empty() {
                entry["categories"] = json!(found.categories);
            }
            let own: Vec<Value> = subresources
                .iter()
                .filter_map(|sub| Some((sub.name.strip_prefix(&found.name)?, sub)))
                .filter_map(|(rest, sub)| Some((rest.strip_prefix('/')?, sub)))
                .map(|(name, sub)| {
                    json!({"subresource": name, "responseKind": kind(sub), "verbs": sub.verbs})
                })
                .collect();
            if !own.is_empty() {
                entry["subresources"] = json!(own);
            }
            entry
        };
        resources.iter().map(entry).collect()
    }
}

/// An answer, and the tag that stands for it.
struct Asked {
    body: bytes::Bytes,
    tag: Option<HeaderValue>,
}

/// Why a server did not describe its API.
pub(super) enum Refused {
    /// It answered with this code.
    Status(u16),
    /// It did not answer.
    Transport(String),
}

impl Refused {
    fn other(text: &str) -> Self {
        Self::Transport(text.to_owned())
    }
}

/// This server asks for itself.
fn own_headers(host: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let groups = ["system:masters".to_owned()];
    identify(&mut headers, ("system:kube-aggregator", ""), &groups, []);
    headers.insert("accept", HeaderValue::from_static("application/json"));
    if let Ok(host) = host.parse() {
        headers.insert(http::header::HOST, host);
    }
    headers
}

/// Adds groups and versions to a list of `APIGroup`.
pub(crate) fn add_groups(server: &Server, groups: &mut Vec<Value>) {
    for backend in in_order(server) {
        let version = json!({"groupVersion": format!("{}/{}", backend.group, backend.version),
            "version": backend.version});
        match groups.iter_mut().find(|group| group["name"] == *backend.group) {
            Some(group) => add_once(&mut group["versions"], version),
            None => groups.push(json!({"name": backend.group, "versions": [version],
                "preferredVersion": version})),
        }
    }
    sort(server, groups, |group| group["name"].as_str());
}

/// Adds groups and versions to a list of aggregated discovery.
pub(crate) fn add_aggregated(server: &Server, items: &mut Vec<Value>) {
    for backend in in_order(server) {
        let freshness = if backend.is_available { "Current" } else { "Stale" };
        let version = json!({"version": backend.version, "freshness": freshness,
            "resources": backend.description().resources});
        let is_own = |item: &&mut Value| item["metadata"]["name"] == *backend.group;
        match items.iter_mut().find(is_own) {
            Some(item) => add_once(&mut item["versions"], version),
            None => items.push(json!({"versions": [version],
                "metadata": {"name": backend.group, "creationTimestamp": null}})),
        }
    }
    sort(server, items, |item| item["metadata"]["name"].as_str());
}

/// Adds where the OpenAPI documents of other servers are.
pub(crate) fn add_documents(server: &Server, paths: &mut Map<String, Value>) {
    for backend in in_order(server) {
        let path = backend.path();
        if let Some(hash) = &backend.description().open_api {
            let url = format!("/openapi/v3{path}?hash={hash}");
            let entry = json!({ "serverRelativeURL": url });
            paths.insert(path.trim_start_matches('/').to_owned(), entry);
        }
    }
}

/// What of the OpenAPI v2 documents of other servers is their own, highest priority first.
pub(crate) fn foreign_documents(server: &Server) -> Vec<Arc<ForeignDocument>> {
    let in_order = in_order(server).into_iter();
    in_order.filter_map(|backend| backend.description().v2.clone()).collect()
}

fn add_once(versions: &mut Value, version: Value) {
    let Some(versions) = versions.as_array_mut() else { return };
    // Who is registered under a version answers for it, whoever else has it.
    versions.retain(|found| found["version"] != version["version"]);
    versions.push(version);
}

/// Higher priorities first.
fn in_order(server: &Server) -> Vec<Arc<Backend>> {
    let mut all = server.backends.all();
    all.retain(|backend| !backend.group.is_empty());
    all.sort_by_key(|backend| std::cmp::Reverse(backend.version_priority));
    all
}

/// Groups that are not built in come in the order of their priorities.
fn sort(server: &Server, groups: &mut [Value], name: fn(&Value) -> Option<&str>) {
    let backends = server.backends.all();
    if backends.is_empty() {
        return;
    }
    let own = groups.iter().take_while(|group| name(group).is_some_and(is_built_in)).count();
    groups[own..].sort_by_cached_key(|group| {
        let name = name(group).unwrap_or_default().to_owned();
        let of_group = backends.iter().filter(|backend| backend.group == name);
        let priority = of_group.map(|backend| backend.group_priority).max().unwrap_or(CUSTOM);
        (std::cmp::Reverse(priority), name)
    });
}
