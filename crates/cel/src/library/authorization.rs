//! The authorizer.
//!
//! Upstream: `apiserver/pkg/cel/library/authz.go`.

use std::sync::Arc;

use super::no_overload;
use crate::authorizer::{Authorization, Check};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        authorizer_path: <authorizer>.path(string) -> path_check
        authorizer_group: <authorizer>.group(string) -> group_check
        authorizer_serviceaccount: <authorizer>.serviceAccount(string, string) -> authorizer
        pathcheck_check: <path_check>.check(string) -> decision
        groupcheck_resource: <group_check>.resource(string) -> resource_check
        resourcecheck_subresource: <resource_check>.subresource(string) -> resource_check
        resourcecheck_namespace: <resource_check>.namespace(string) -> resource_check
        resourcecheck_name: <resource_check>.name(string) -> resource_check
        resourcecheck_fieldselector: <resource_check>.fieldSelector(string) -> resource_check
        resourcecheck_labelselector: <resource_check>.labelSelector(string) -> resource_check
        resourcecheck_check: <resource_check>.check(string) -> decision
        decision_errored: <decision>.errored() -> bool
        decision_error: <decision>.error() -> string
        decision_allowed: <decision>.allowed() -> bool
        decision_reason: <decision>.reason() -> string
    ",
    functions: &[
        ("path", path),
        ("group", group),
        ("serviceAccount", service_account),
        ("resource", resource),
        ("subresource", |args| refine(args, |check, text| check.subresource = text)),
        ("namespace", |args| refine(args, |check, text| check.namespace = text)),
        ("name", |args| refine(args, |check, text| check.name = text)),
        ("fieldSelector", |args| refine(args, |check, text| check.field_selector = Some(text))),
        ("labelSelector", |args| refine(args, |check, text| check.label_selector = Some(text))),
        ("check", check),
        ("errored", |args| Ok(Value::Bool(decision(args)?.error.is_some()))),
        ("error", |args| {
            let error = decision(args)?.error.clone().unwrap_or_default();
            Ok(Value::string(error))
        }),
        ("allowed", |args| Ok(Value::Bool(decision(args)?.allowed))),
        ("reason", |args| Ok(Value::string(decision(args)?.reason.as_str()))),
    ],
};

fn value<'a>(authorization: Authorization<'a>) -> Outcome<Value<'a>> {
    Ok(Value::Authorization(Arc::new(authorization)))
}

fn path<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Authorization(of), Value::String(path)] = args else { return no_overload() };
    let Authorization::Authorizer(authorizer, check) = &**of else { return no_overload() };
    if path.is_empty() {
        return Err(EvaluationError::failed("path must not be empty"));
    }
    let check = Check { path: Some(path.to_string()), ..check.clone() };
    value(Authorization::Path(*authorizer, check))
}

fn group<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Authorization(of), Value::String(group)] = args else { return no_overload() };
    let Authorization::Authorizer(authorizer, check) = &**of else { return no_overload() };
    let check = Check { group: group.to_string(), ..check.clone() };
    value(Authorization::Group(*authorizer, check))
}

fn service_account<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Authorization(of), Value::String(namespace), Value::String(name)] = args else {
        return no_overload();
    };
    let Authorization::Authorizer(authorizer, check) = &**of else { return no_overload() };
    if !meta::names::dns1123_subdomain(name).is_empty() {
        return Err(EvaluationError::failed("Invalid service account name"));
    }
    if !meta::names::dns1123_label(namespace).is_empty() {
        return Err(EvaluationError::failed("Invalid service account namespace"));
    }
    let account = Some((namespace.to_string(), name.to_string()));
    value(Authorization::Authorizer(
        *authorizer,
        Check { service_account: account, ..check.clone() },
    ))
}

fn resource<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Authorization(of), Value::String(resource)] = args else { return no_overload() };
    let Authorization::Group(authorizer, check) = &**of else { return no_overload() };
    let check = Check { resource: resource.to_string(), ..check.clone() };
    value(Authorization::Resource(*authorizer, check))
}

fn refine<'a>(args: &[Value<'a>], set: fn(&mut Check, String)) -> Outcome<Value<'a>> {
    let [Value::Authorization(of), Value::String(text)] = args else { return no_overload() };
    let Authorization::Resource(authorizer, check) = &**of else { return no_overload() };
    let mut check = check.clone();
    set(&mut check, text.to_string());
    value(Authorization::Resource(*authorizer, check))
}

fn check<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Authorization(of), Value::String(verb)] = args else { return no_overload() };
    let (Authorization::Path(authorizer, check) | Authorization::Resource(authorizer, check)) =
        &**of
    else {
        return no_overload();
    };
    let check = Check { verb: verb.to_string(), ..check.clone() };
    value(Authorization::Decision(authorizer.authorize(&check)))
}

fn decision<'v>(args: &'v [Value<'_>]) -> Outcome<&'v crate::authorizer::Decision> {
    match args {
        [Value::Authorization(of)] => match &**of {
            Authorization::Decision(decision) => Ok(decision),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}
