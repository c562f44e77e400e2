//! Reviews: questions about identity and permission, answered at once and not kept.

use authn::UserInfo;
use authz::{Attributes, Subject};
use http::{Response, StatusCode};
use meta::Status;
use serde_json::{Value, json};

use crate::body::Body;
use crate::context::{RequestContext, WriteRequest};
use crate::decode;
use crate::errors;
use crate::negotiate::{Form, Shape, form};
use crate::render;
use crate::resources::Resource;

pub(super) fn create(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    ctx.is_dry_run()?;
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    let decoded =
        decode::body(&ctx.headers, &request.body, &resource.gvk, resource.ty, validation)?;
    decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
    let mut review = decoded.value;
    check_metadata_namespace(ctx, &review)?;
    match resource.definition.name {
        "tokenreviews" => {
            if review.pointer("/spec/token").is_none() {
                let message = "token is required for TokenReview in authentication";
                return Err(errors::bad_request(message));
            }
            token_review(ctx, &mut review);
        }
        "selfsubjectreviews" => {
            let now = meta::time::rfc3339(ctx.server.clock.now());
            review["metadata"] = json!({ "creationTimestamp": now });
            review["status"] = json!({ "userInfo": ctx.user });
        }
        "selfsubjectrulesreviews" => rules_review(ctx, &mut review),
        "selfsubjectaccessreviews" => {
            let subject = ctx.subject();
            access_review(ctx, &mut review, subject, resource)?;
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let name = review["spec"]["user"].as_str().unwrap_or_default().to_owned();
            let groups: Vec<String> = review["spec"]["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|group| group.as_str().map(str::to_owned))
                .collect();
            check_subject(&review, &name, &groups, resource)?;
            check_namespace(ctx, &review, resource)?;
            let subject = Subject { name: &name, groups: &groups };
            access_review(ctx, &mut review, subject, resource)?;
        }
        _ => return Err(errors::no_such_resource()),
    }
    Ok(render::value(StatusCode::CREATED, &resource.gvk, &review, form))
}

fn token_review(ctx: &RequestContext, review: &mut Value) {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let wanted: Vec<String> = review["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let authenticator = &ctx.server.authenticator;
    let audiences = if wanted.is_empty() { authenticator.audiences().to_vec() } else { wanted };
    let now = ctx.server.clock.now().as_second();
    review["status"] = match authenticator.token(token, &audiences, now) {
        Ok((user, shared)) if !shared.is_empty() => {
            json!({"authenticated": true, "user": user, "audiences": shared})
        }
        Ok(_) | Err(authn::TokenError::NotOurs) => {
            json!({"user": {}, "error": "invalid bearer token"})
        }
        Err(error) => {
            json!({"user": {}, "error": format!("[invalid bearer token, {error}]")})
        }
    };
}

fn invalid(resource: &Resource, field: &str, reason: &str, message: String) -> Status {
    let cause = meta::Cause { reason: reason.to_owned(), message, field: field.to_owned() };
    // Upstream leaves the kind out here.
    let mut status = errors::invalid(&resource.gvk.group, "", "", vec![cause]);
    status.message = format!(".{}{}", resource.gvk.group, status.message);
    status
}

fn check_subject(
    review: &Value,
    name: &str,
    groups: &[String],
    resource: &Resource,
) -> Result<(), Status> {
    if name.is_empty() && groups.is_empty() {
        let message = "Invalid value: \"\": at least one of user or group must be specified";
        return Err(invalid(resource, "spec.user", "FieldValueInvalid", message.to_owned()));
    }
    check_attributes(review, resource)
}

fn check_attributes(review: &Value, resource: &Resource) -> Result<(), Status> {
    let spec = &review["spec"];
    let has = |field: &str| spec.get(field).is_some();
    let message = match (has("resourceAttributes"), has("nonResourceAttributes")) {
        (true, true) => "cannot be specified in combination with resourceAttributes",
        (false, false) => {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        }
        _ => return Ok(()),
    };
    let (field, value) = if has("resourceAttributes") {
        let attributes = &spec["nonResourceAttributes"];
        let shown = format!("{{\"Path\":{},\"Verb\":{}}}", attributes["path"], attributes["verb"]);
        ("spec.nonResourceAttributes", shown)
    } else {
        ("spec.resourceAttributes", "null".to_owned())
    };
    let message = format!("Invalid value: {value}: {message}");
    Err(invalid(resource, field, "FieldValueInvalid", message))
}

fn check_metadata_namespace(ctx: &RequestContext, review: &Value) -> Result<(), Status> {
    let own = review.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    if own.is_empty() || ctx.info.namespace.is_empty() || own == ctx.info.namespace {
        return Ok(());
    }
    Err(errors::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// A local review asks about the namespace it is made in.
fn check_namespace(
    ctx: &RequestContext,
    review: &Value,
    resource: &Resource,
) -> Result<(), Status> {
    if resource.definition.name != "localsubjectaccessreviews" {
        return Ok(());
    }
    let asked = review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str);
    let asked = asked.unwrap_or_default();
    if asked == ctx.info.namespace {
        return Ok(());
    }
    let message = format!("Invalid value: {asked:?}: must match metadata.namespace");
    let field = "spec.resourceAttributes.namespace";
    Err(invalid(resource, field, "FieldValueInvalid", message))
}

fn access_review(
    ctx: &RequestContext,
    review: &mut Value,
    subject: Subject<'_>,
    resource: &Resource,
) -> Result<(), Status> {
    check_attributes(review, resource)?;
    let attributes = attributes(&review["spec"]);
    let decision = ctx.server.authorizer.authorize(subject, &attributes);
    let mut status = json!({});
    if decision.is_allowed() {
        status["allowed"] = json!(true);
    }
    if !decision.reason().is_empty() {
        status["reason"] = json!(decision.reason());
    }
    review["status"] = status;
    Ok(())
}

fn attributes(spec: &Value) -> Attributes {
    let of =
        |section: &str, field: &str| spec[section][field].as_str().unwrap_or_default().to_owned();
    if spec.get("nonResourceAttributes").is_some() {
        let section = "nonResourceAttributes";
        return Attributes::path(&of(section, "verb"), &of(section, "path"));
    }
    let field = |name: &str| of("resourceAttributes", name);
    Attributes {
        verb: field("verb"),
        group: field("group"),
        version: field("version"),
        resource: field("resource"),
        subresource: field("subresource"),
        namespace: field("namespace"),
        name: field("name"),
        path: String::new(),
        is_resource: true,
    }
}

fn rules_review(ctx: &RequestContext, review: &mut Value) {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    let index = ctx.server.authorizer.rules();
    let mut resource_rules = Vec::new();
    let mut other_rules = Vec::new();
    if ctx.user.is_in(UserInfo::MASTERS) {
        resource_rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        other_rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for (_, rule) in index.rules_for(ctx.subject(), &namespace) {
        if rule.non_resource_urls.is_empty() {
            resource_rules.push(json!(rule));
        } else {
            other_rules.push(json!(rule));
        }
    }
    review["status"] = json!({"resourceRules": resource_rules, "nonResourceRules": other_rules,
        "incomplete": false});
}

/// Upstream's deprecated view of its neighbours: here the store alone.
pub(super) fn component_statuses(ctx: &RequestContext, resource: &Resource) -> Response<Body> {
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object]).unwrap_or(Form::JSON);
    let status = |name: &str| {
        json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]})
    };
    if ctx.info.verb == "get" {
        if ctx.info.name != "etcd-0" {
            // Upstream's storage of these names itself in the singular.
            let group = resource.definition.group.to_owned();
            let name = meta::GroupResource { group, resource: "componentstatus".to_owned() };
            let missing = errors::not_found(&name, &ctx.info.name);
            return render::status(&missing, form);
        }
        return render::value(StatusCode::OK, &resource.gvk, &status("etcd-0"), form);
    }
    let gvk = meta::GroupVersionKind::new("", "v1", "ComponentStatusList");
    let list = json!({"kind": gvk.kind, "apiVersion": "v1", "metadata": {},
        "items": [status("etcd-0")]});
    render::value(StatusCode::OK, &gvk, &list, form)
}
