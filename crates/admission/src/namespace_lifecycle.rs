//! NamespaceLifecycle: nothing is made in namespaces that are absent or going away.
//!
//! Upstream: `apiserver/pkg/admission/plugin/namespace/lifecycle`.

use meta::{Cause, GroupResource, Reason, Status, StatusDetails};
use serde_json::Value;

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(crate) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        check(request, view)
    }

    fn validate(
        &self,
        request: &Request<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        check(request, view)
    }
}

fn check(request: &Request<'_>, view: &dyn View) -> Result<(), Status> {
    if request.operation == Operation::Delete
        && request.is_for("", "namespaces")
        && IMMORTAL.contains(&request.name)
    {
        return Err(forbidden(request, "this namespace may not be deleted"));
    }
    let is_exempt = request.namespace.is_empty()
        || request.is_for("", "namespaces")
        || request.operation != Operation::Create
        // Whoever asks what is allowed may ask about anything.
        || request.resource.resource == "localsubjectaccessreviews";
    if is_exempt {
        return Ok(());
    }
    let Some(namespace) = view.get("", "namespaces", "", request.namespace) else {
        return Err(missing(request.namespace));
    };
    if namespace.header().deletion_timestamp.is_none() {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {} because it is being terminated",
        request.namespace
    );
    let mut status = forbidden(request, &why);
    if let Some(details) = status.details.as_mut() {
        details.causes = vec![Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {} is being terminated", request.namespace),
            field: "metadata.namespace".to_owned(),
        }];
    }
    Err(status)
}

fn missing(namespace: &str) -> Status {
    let resource = GroupResource { group: String::new(), resource: "namespaces".to_owned() };
    let details = StatusDetails {
        name: namespace.to_owned(),
        kind: resource.resource.clone(),
        ..StatusDetails::default()
    };
    Status::failure(Reason::NotFound, format!("{resource} {namespace:?} not found"))
        .with_details(details)
}
