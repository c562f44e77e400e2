//! The question and the answer: `AdmissionReview`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use meta::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Attributes;
use super::call;
use super::hook::Hook;
use super::matching::Matched;
use super::seen;
use crate::context::RequestContext;
use crate::render;
use crate::resources::Resource;

/// What a webhook that allows the request answers.
pub(super) struct Answer {
    /// A JSON patch.
    pub(super) patch: Option<Vec<u8>>,
}

/// Why a request does not go on.
pub(super) enum Failure {
    /// The webhook could not be asked, or its answer makes no sense.
    Call(String),
    /// It said no.
    Rejected(Box<Status>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Reply>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// Asks, and reads the answer.
pub(super) async fn ask(
    ctx: &RequestContext,
    hook: &Hook,
    attributes: &Attributes<'_>,
    matched: &Matched,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Answer, Failure> {
    let supported = |version: &&String| matches!(version.as_str(), "v1" | "v1beta1");
    let version = hook.review_versions.iter().find(supported).ok_or_else(|| {
        Failure::Call(format!(
            "could not find a supported version in the admission review versions {:?}",
            hook.review_versions
        ))
    })?;
    let uid = uuid::Uuid::new_v4().to_string();
    let api_version = format!("admission.k8s.io/{version}");
    let mut facts = facts(ctx, attributes, matched);
    facts.insert("uid".to_owned(), json!(uid));
    let text = |object: Option<&Value>| {
        object.map_or("null".into(), |object| text(attributes, matched, object))
    };
    let review = written(&api_version, &Value::Object(facts), &text(object), &text(old));
    let body = call::post(&ctx.server, hook, review.into()).await;
    let body = body.map_err(|why| Failure::Call(format!("failed to call webhook: {why}")))?;
    let review: Review = serde_json::from_slice(&body).map_err(|error| {
        Failure::Call(format!("failed to call webhook: couldn't decode the response: {error}"))
    })?;
    let reply = check(hook, &api_version, &uid, review)
        .map_err(|why| Failure::Call(format!("received invalid webhook response: {why}")))?;
    if let Some(audit) = &ctx.audit {
        for (key, value) in reply.audit_annotations.iter().flatten() {
            audit.annotate_checked(&format!("{}/{key}", hook.name), value);
        }
    }
    for warning in reply.warnings.iter().flatten() {
        ctx.warn(warning);
    }
    if !reply.allowed {
        return Err(Failure::Rejected(Box::new(rejection(&hook.name, reply.status.as_ref()))));
    }
    let patch = reply.patch.filter(|patch| hook.is_mutating && !patch.is_empty());
    let patch = patch.map(|patch| STANDARD.decode(patch)).transpose();
    let patch = patch.map_err(|error| {
        Failure::Call(format!("received invalid webhook response: response.patch: {error}"))
    })?;
    Ok(Answer { patch })
}

/// The question. Objects go into it as they are printed, without being read again.
fn written(api_version: &str, facts: &Value, object: &[u8], old: &[u8]) -> Vec<u8> {
    let facts = facts.to_string();
    let mut body = Vec::with_capacity(facts.len() + object.len() + old.len() + 256);
    body.extend_from_slice(br#"{"kind":"AdmissionReview","apiVersion":""#);
    body.extend_from_slice(api_version.as_bytes());
    body.extend_from_slice(br#"","request":"#);
    // Facts are never empty: a comma goes where their brace was.
    body.extend_from_slice(&facts.as_bytes()[..facts.len() - 1]);
    for (name, text) in [("object", object), ("oldObject", old)] {
        body.extend_from_slice(format!(",{name:?}:").as_bytes());
        body.extend_from_slice(text);
    }
    body.extend_from_slice(b"}}");
    body
}

/// Everything about a request but its objects.
pub(super) fn facts(
    ctx: &RequestContext,
    attributes: &Attributes<'_>,
    matched: &Matched,
) -> Map<String, Value> {
    let mut request = Map::new();
    let mut put = |key: &str, value: Value| drop(request.insert(key.to_owned(), value));
    put("kind", seen::kind(&matched.gvk));
    put("resource", seen::resource(&matched.gvr));
    put("requestKind", seen::kind(&attributes.gvk));
    put("requestResource", seen::resource(&attributes.gvr));
    if !attributes.subresource.is_empty() {
        put("subResource", json!(attributes.subresource));
        put("requestSubResource", json!(attributes.subresource));
    }
    if !attributes.name.is_empty() {
        put("name", json!(attributes.name));
    }
    if !attributes.namespace.is_empty() {
        put("namespace", json!(attributes.namespace));
    }
    put("operation", json!(attributes.operation.as_str()));
    put("userInfo", serde_json::to_value(&ctx.user).unwrap_or_default());
    put("dryRun", json!(attributes.is_dry_run));
    put("options", options(ctx, attributes));
    request
}

/// An object as clients of the version that matched see it.
pub(super) fn shown(attributes: &Attributes<'_>, matched: &Matched, object: &Value) -> Value {
    match attributes.resource {
        None => object.clone(),
        Some(resource) => printed(resource, matched, object),
    }
}

fn printed(resource: &Resource, matched: &Matched, object: &Value) -> Value {
    serde_json::from_slice(&encoded(resource, matched, object)).unwrap_or_default()
}

/// The same as text.
fn text(attributes: &Attributes<'_>, matched: &Matched, object: &Value) -> Bytes {
    match attributes.resource {
        None => object.to_string().into(),
        Some(resource) => encoded(resource, matched, object),
    }
}

fn encoded(resource: &Resource, matched: &Matched, object: &Value) -> Bytes {
    let seen = matched.resource.as_deref().unwrap_or(resource);
    render::encode(seen.ty, &matched.convert(resource, object))
}

/// The options of the operation, as far as the query tells them.
fn options(ctx: &RequestContext, attributes: &Attributes<'_>) -> Value {
    let kind = match (attributes.operation, ctx.info.verb.as_str()) {
        (admission::Operation::Connect, _) => return Value::Null,
        (admission::Operation::Create, _) => "CreateOptions",
        (admission::Operation::Update, "patch") => "PatchOptions",
        (admission::Operation::Update, _) => "UpdateOptions",
        (admission::Operation::Delete, _) => "DeleteOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if attributes.is_dry_run {
        options["dryRun"] = json!(["All"]);
    }
    for key in ["fieldManager", "fieldValidation"] {
        if let Some(value) = ctx.query.non_empty(key) {
            options[key] = json!(value);
        }
    }
    options
}

fn check(hook: &Hook, api_version: &str, uid: &str, review: Review) -> Result<Reply, String> {
    let reply = review.response.ok_or_else(|| "webhook response was absent".to_owned())?;
    let patch = reply.patch.as_deref().unwrap_or_default();
    if api_version.ends_with("/v1") {
        if reply.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", reply.uid));
        }
        if review.kind != "AdmissionReview" || review.api_version != api_version {
            return Err(format!(
                "expected webhook response of {api_version}, Kind=AdmissionReview, got {}, \
                 Kind={}",
                review.api_version, review.kind
            ));
        }
        match reply.patch_type.as_deref() {
            _ if !hook.is_mutating => {}
            None if !patch.is_empty() => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            Some(_) if patch.is_empty() => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            Some(other) if other != "JSONPatch" => {
                return Err(format!("webhook returned invalid response.patchType of {other:?}"));
            }
            _ => {}
        }
    }
    Ok(reply)
}

/// The webhook's own status, with its name before the message.
fn rejection(name: &str, given: Option<&Value>) -> Status {
    let parsed = given.filter(|status| !status.is_null()).cloned();
    let parsed: Option<Status> = parsed.and_then(|status| serde_json::from_value(status).ok());
    let mut status = Status::failure(meta::Reason::BadRequest, "");
    status.reason = String::new();
    if let Some(parsed) = parsed {
        status.metadata = parsed.metadata;
        status.message = parsed.message;
        status.reason = parsed.reason;
        status.details = parsed.details;
        status.code = parsed.code.max(400);
        if !matches!(parsed.status.as_str(), "" | "Success") {
            status.status = parsed.status;
        }
    }
    let denied = format!("admission webhook {name:?} denied the request");
    status.message = match (status.message.as_str(), status.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_go_into_the_question_as_they_are_printed() {
        let body = written("admission.k8s.io/v1", &json!({"uid": "u"}), br#"{"a":1}"#, b"null");
        let review: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            review,
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request":
                {"uid": "u", "object": {"a": 1}, "oldObject": null}})
        );
    }

    #[test]
    fn a_rejection_has_the_code_and_reason_of_the_webhook() {
        let status = rejection(
            "w.x.y",
            Some(&json!({"message": "no", "code": 403,
            "reason": "Forbidden"})),
        );
        assert_eq!(status.message, "admission webhook \"w.x.y\" denied the request: no");
        assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
        let status = rejection("w", Some(&json!({"code": 200, "status": "Success"})));
        assert_eq!((status.code, status.status.as_str()), (400, "Failure"));
        let status = rejection("w", None);
        assert_eq!(
            status.message,
            "admission webhook \"w\" denied the request without explanation"
        );
    }
}
