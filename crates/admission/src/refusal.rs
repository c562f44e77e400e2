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
