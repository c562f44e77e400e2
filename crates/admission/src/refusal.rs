//! The refusals of plugins.

use meta::{Reason, Status, StatusDetails};

use crate::request::Request;

/// 403 about the object of the request.
pub(crate) fn forbidden(request: &Request<'_>, why: &str) -> Status {
    let resource = request.resource;
    let name = request.name;
    let message = if name.is_empty() {
        format!("{resource} is forbidden: {why}")
    } else {
        format!("{resource} {name:?} is forbidden: {why}")
    };
    let details = StatusDetails {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.resource.clone(),
        ..StatusDetails::default()
    };
    Status::failure(Reason::Forbidden, message).with_details(details)
}

/// 404 about an object of the core group that the request refers to.
pub(crate) fn not_found(resource: &str, name: &str) -> Status {
    let details = StatusDetails {
        name: name.to_owned(),
        kind: resource.to_owned(),
        ..StatusDetails::default()
    };
    Status::failure(Reason::NotFound, format!("{resource} {name:?} not found"))
        .with_details(details)
}

/// What upstream makes of an error of its own before it goes into a refusal.
pub(crate) fn internal_text(why: &str) -> String {
    format!("Internal error occurred: {why}")
}
