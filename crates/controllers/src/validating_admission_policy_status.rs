//! Says in the status of admission policies what in their expressions does not fit the kinds that
//! they are about.
//!
//! Upstream: `pkg/controller/validatingadmissionpolicystatus`.

mod check;

use bytes::Bytes;
use cel::Declaration;
use client::{Client, ClientError, Outcome};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use meta::{GroupVersion, GroupVersionKind, ObjectKey};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Context;
use check::{Checked, Policy, Rule};

/// The manager of the fields, as upstream has it.
const MANAGER: &str = "validatingadmissionpolicy-status";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// Most kinds that a policy is compared with.
const MAX_KINDS: usize = 10;

/// What the controller reads of a policy.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PolicyView {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Policy,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    generation: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
}

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let queue = ctx.queue("validatingadmissionpolicy-status-controller");
    let client = ctx.client("validatingadmissionpolicy-status-controller");
    let policies = &ctx.informers.validating_policies;
    policies.synced().await;
    policies.on_change({
        let queue = queue.clone();
        move |key, _| queue.add(key.clone())
    });
    let shutdown = ctx.shutdown.clone();
    let sync = move |key: ObjectKey| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move {
            let Some(policy) = ctx.informers.validating_policies.get(&key) else {
                return Ok(Outcome::Done);
            };
            if policy.metadata.generation <= policy.status.observed_generation {
                return Ok(Outcome::Done);
            }
            let checked = resolve(&client, &policy.spec).await;
            write(&client, &key.name, policy.metadata.generation, &checked.warnings(&policy.spec))
                .await
        }
    };
    queue.run(shutdown, sync).await;
}

async fn write(
    client: &Client,
    name: &str,
    generation: i64,
    warnings: &[Value],
) -> Result<Outcome, ClientError> {
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = json!(warnings);
    }
    let body = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "status": {"observedGeneration": generation, "typeChecking": checking},
    });
    let path = format!("{POLICIES}/{name}/status?fieldManager={MANAGER}&force=true");
    let body = Bytes::from(body.to_string());
    match client.request(Method::PATCH, &path, "application/apply-patch+yaml", body).await {
        Ok(_) => Ok(Outcome::Done),
        // Gone in the meantime.
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

/// The kinds that a policy is about, and its parameters, as far as they are known.
async fn resolve(client: &Client, policy: &Policy) -> Checked {
    let mut kinds: Vec<GroupVersionKind> = Vec::new();
    for rule in &policy.match_constraints.resource_rules {
        for (group, version, resource) in rule.resources() {
            if kinds.len() < MAX_KINDS
                && let Some(kind) = kind_of(client, &group, &version, &resource).await
                && !kinds.contains(&kind)
            {
                kinds.push(kind);
            }
        }
    }
    kinds.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    let mut checked = Checked::default();
    for kind in kinds {
        if let Some(declaration) = declaration(client, &kind).await {
            checked.kinds.push((kind, declaration));
        }
    }
    if let Some(kind) = &policy.param_kind
        && let Some(version) = GroupVersion::parse(&kind.api_version)
    {
        let kind = GroupVersionKind::new(version.group, version.version, kind.kind.as_str());
        checked.params = declaration(client, &kind).await;
    }
    checked
}

impl Rule {
    /// Every resource that is named in full; wildcards name none.
    fn resources(&self) -> Vec<(String, String, String)> {
        let is_wild = |words: &[String]| words.iter().any(|word| word.contains('*'));
        if is_wild(&self.api_groups) || is_wild(&self.api_versions) {
            return Vec::new();
        }
        let sorted = |words: &[String]| {
            let mut words = words.to_vec();
            words.sort();
            words
        };
        let mut resources = sorted(&self.resources);
        resources.retain(|resource| !resource.contains(['*', '/']));
        let mut out = Vec::new();
        for group in sorted(&self.api_groups) {
            for version in sorted(&self.api_versions) {
                for resource in &resources {
                    out.push((group.clone(), version.clone(), resource.clone()));
                }
            }
        }
        out
    }
}

/// The kind of a resource, from the tables or from the server.
async fn kind_of(
    client: &Client,
    group: &str,
    version: &str,
    resource: &str,
) -> Option<GroupVersionKind> {
    if let Some(found) = schema::registry().resource(group, version, resource) {
        return Some(GroupVersionKind::new(group, version, &*found.kind));
    }
    if group.is_empty() {
        return None;
    }
    let path = format!("/apis/{group}/{version}");
    let body = client.request(Method::GET, &path, "", Bytes::new()).await.ok()?;
    let list: APIResourceList = api::Typed::from_json(&body).ok()?;
    let found = list.resources.into_iter().find(|found| found.name == resource)?;
    Some(GroupVersionKind::new(group, version, found.kind.as_str()))
}

/// What is known of a kind, from the tables or from the server's documents.
async fn declaration(client: &Client, kind: &GroupVersionKind) -> Option<Declaration> {
    if let Some(table) = schema::registry().kind(kind) {
        return Some(Declaration::from_table(table));
    }
    let path = format!("/openapi/v3/apis/{}/{}", kind.group, kind.version);
    let body = client.request(Method::GET, &path, "", Bytes::new()).await.ok()?;
    let document: Value = serde_json::from_slice(&body).ok()?;
    check::custom(&document, kind)
}
