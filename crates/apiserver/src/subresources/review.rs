//! Reviews: questions about identity and permission, answered at once and not kept.

use authn::UserInfo;
use authz::{Attributes, Subject};
use http::{Response, StatusCode};
use meta::Status;
use serde_json::{Value, json};

use crate::context::{RequestContext, WriteRequest};
use crate::decode;
use crate::errors;
use crate::negotiate::{Form, Shape, form};
use crate::options::WriteOptions;
use crate::ownership::{self, Target};
use crate::render;
use crate::resources::Resource;
use connection::Body;

pub(super) async fn create(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let options = WriteOptions::read(ctx)?;
    let decoded = decode::body(ctx, &request.body, &resource.gvk, resource.ty, options.validation)?;
    decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
    let mut review = decoded.value;
    check_metadata_namespace(ctx, &review)?;
    settle_metadata(ctx, &mut review, resource);
    ownership::record(ctx, Target::of(resource), &options.manager, None, &mut review);
    match &*resource.definition.name {
        "tokenreviews" => {
            if review.pointer("/spec/token").is_none() {
                let message = "token is required for TokenReview in authentication";
                return Err(errors::bad_request(message));
            }
            token_review(ctx, &mut review).await;
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
            let subject = Subject { name: &name, groups: &groups };
            access_review(ctx, &mut review, subject, resource)?;
        }
        _ => return Err(errors::no_such_resource()),
    }
    Ok(render::value(StatusCode::CREATED, &resource.gvk, &review, form))
}

async fn token_review(ctx: &RequestContext, review: &mut Value) {
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
    let mut used = None;
    let reviewed = authenticator.token(token, &audiences, now, &mut used);
    if let Some(used) = used {
        crate::legacy_tokens::label(&ctx.server, &used).await;
        ctx.note_legacy(&used);
    }
    review["status"] = match reviewed {
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

/// Everything that is wrong with a question. Upstream leaves the kind out here.
fn check_question(review: &Value, resource: &Resource) -> Result<(), Status> {
    let findings = validation::validate_create(&resource.gvk, review);
    if findings.is_empty() {
        return Ok(());
    }
    let causes = findings.iter().map(validation::FieldError::cause).collect();
    let mut status = errors::invalid(&resource.gvk.group, "", "", causes);
    status.message = format!(".{}{}", resource.gvk.group, status.message);
    Err(status)
}

/// The metadata of what is not stored: what the server decides is not up to the client, and nothing
/// decides it here.
fn settle_metadata(ctx: &RequestContext, review: &mut Value, resource: &Resource) {
    let Some(metadata) = review.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "namespace",
        "selfLink",
        "uid",
    ] {
        metadata.remove(field);
    }
    if resource.definition.namespaced {
        metadata.insert("namespace".to_owned(), json!(ctx.info.namespace));
    }
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

fn access_review(
    ctx: &RequestContext,
    review: &mut Value,
    subject: Subject<'_>,
    resource: &Resource,
) -> Result<(), Status> {
    check_question(review, resource)?;
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
        fields: fields(&spec["resourceAttributes"]["fieldSelector"]),
    }
}

/// What a field selector of a review requires of fields.
fn fields(selector: &Value) -> Vec<(String, String)> {
    if let Some(raw) = selector["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return authz::required_fields(raw);
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let equal = requirements.filter(|it| it["operator"] == "In");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // One of several values is no value that is required.
    let one = equal.filter_map(|it| match it["values"].as_array()?.as_slice() {
        [value] => Some((text(&it["key"]), text(value))),
        _ => None,
    });
    one.collect()
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
            let group = resource.definition.group.to_string();
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
