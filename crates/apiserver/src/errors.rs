//! Failures in upstream's words.

use meta::{Cause, GroupResource, Reason, Status, StatusDetails};

fn details(resource: &GroupResource, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.resource.clone(),
        ..StatusDetails::default()
    }
}

/// 404 for an object.
pub(crate) fn not_found(resource: &GroupResource, name: &str) -> Status {
    Status::failure(Reason::NotFound, format!("{resource} {name:?} not found"))
        .with_details(details(resource, name))
}

/// 404 for a path or a resource that nobody serves.
pub(crate) fn no_such_resource() -> Status {
    Status::failure(Reason::NotFound, "the server could not find the requested resource")
        .with_details(StatusDetails::default())
}

/// 409 on create.
pub(crate) fn already_exists(resource: &GroupResource, name: &str) -> Status {
    Status::failure(Reason::AlreadyExists, format!("{resource} {name:?} already exists"))
        .with_details(details(resource, name))
}

/// 409 with a reason of its own.
pub(crate) fn conflict(resource: &GroupResource, name: &str, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
    Status::failure(Reason::Conflict, message).with_details(details(resource, name))
}

/// 409 on an update of an old version.
pub(crate) fn modified(resource: &GroupResource, name: &str) -> Status {
    conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try \
         again",
    )
}

/// 400.
pub(crate) fn bad_request(message: impl Into<String>) -> Status {
    Status::failure(Reason::BadRequest, message)
}

/// 403 on one object, other than by authorization.
pub(crate) fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Status {
    let message = if name.is_empty() {
        format!("{resource} is forbidden: {why}")
    } else {
        format!("{resource} {name:?} is forbidden: {why}")
    };
    Status::failure(Reason::Forbidden, message).with_details(details(resource, name))
}

/// 500 with upstream's prefix.
pub(crate) fn internal(message: impl std::fmt::Display) -> Status {
    let text = message.to_string();
    let cause = Cause { message: text.clone(), ..Cause::default() };
    let details = StatusDetails { causes: vec![cause], ..StatusDetails::default() };
    Status::failure(Reason::InternalError, format!("Internal error occurred: {text}"))
        .with_details(details)
}

/// 500 without a reason: what upstream makes of an error that is not a `Status`.
pub(crate) fn unexpected(message: impl Into<String>) -> Status {
    Status { reason: String::new(), ..Status::failure(Reason::InternalError, message) }
}

/// 405.
pub(crate) fn method_not_allowed(resource: &GroupResource, verb: &str) -> Status {
    let message =
        format!("{verb} is not supported on resources of kind {:?}", resource.to_string());
    let details = StatusDetails {
        group: resource.group.clone(),
        kind: resource.resource.clone(),
        ..StatusDetails::default()
    };
    Status::failure(Reason::MethodNotAllowed, message).with_details(details)
}

/// 422 with its findings.
pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
    let qualified = if group.is_empty() || kind.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    };
    let mut list: Vec<String> = Vec::with_capacity(causes.len());
    for cause in &causes {
        let text = match cause.field.as_str() {
            "" => cause.message.clone(),
            field => format!("{field}: {}", cause.message),
        };
        // Findings may be listed twice, but are told once.
        if !list.contains(&text) {
            list.push(text);
        }
    }
    let text = match list.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let details = StatusDetails {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        causes,
        ..StatusDetails::default()
    };
    Status::failure(Reason::Invalid, format!("{qualified} {name:?} is invalid: {text}"))
        .with_details(details)
}

/// 422 with one finding, named by resource as the storage layer names it.
pub(crate) fn invalid_object(
    resource: &GroupResource,
    name: &str,
    field: &str,
    message: &str,
) -> Status {
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: message.to_owned(),
        field: field.to_owned(),
    };
    invalid(&resource.group, &resource.resource, name, vec![cause])
}

/// 410 with upstream's words for a revision that is too old.
pub(crate) fn too_old(requested: u64, oldest: u64) -> Status {
    Status::failure(Reason::Expired, format!("too old resource version: {requested} ({oldest})"))
}

/// What upstream passes on from etcd.
const TOO_LARGE: &str = "etcdserver: request is too large";

/// Whether the store found an object too large.
pub(crate) fn is_too_large(status: &Status) -> bool {
    status.message == TOO_LARGE
}

/// What a failure of the store means to a client.
pub(crate) fn from_store(error: &store::StoreError) -> Status {
    match error {
        store::StoreError::TooLarge { .. } => unexpected(TOO_LARGE),
        store::StoreError::Compacted { .. } => {
            Status::failure(Reason::Expired, "The provided resource version is too old.")
        }
        _ => Status::failure(Reason::ServiceUnavailable, error.to_string()),
    }
}
