//! What a client is told when it may not.

use meta::{Reason, Status, StatusDetails};

use crate::attributes::Attributes;

/// The message: `pods is forbidden: User "x" cannot list resource "pods" in API group "" …`.
pub fn forbidden(user: &str, attributes: &Attributes, reason: &str) -> String {
    let what = describe(user, attributes);
    let what = if reason.is_empty() { what } else { format!("{what}: {reason}") };
    if !attributes.is_resource {
        return format!("forbidden: {what}");
    }
    let resource = if attributes.group.is_empty() {
        attributes.resource.clone()
    } else {
        format!("{}.{}", attributes.resource, attributes.group)
    };
    if attributes.name.is_empty() {
        format!("{resource} is forbidden: {what}")
    } else {
        format!("{resource} {:?} is forbidden: {what}", attributes.name)
    }
}

/// The whole answer.
pub fn forbidden_status(user: &str, attributes: &Attributes, reason: &str) -> Status {
    let details = StatusDetails {
        name: attributes.name.clone(),
        group: attributes.group.clone(),
        kind: attributes.resource.clone(),
        ..StatusDetails::default()
    };
    Status::failure(Reason::Forbidden, forbidden(user, attributes, reason)).with_details(details)
}

fn describe(user: &str, attributes: &Attributes) -> String {
    if !attributes.is_resource {
        return format!("User {user:?} cannot {} path {:?}", attributes.verb, attributes.path);
    }
    let scope = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", attributes.namespace)
    };
    format!(
        "User {user:?} cannot {} resource {:?} in API group {:?} {scope}",
        attributes.verb,
        attributes.full_resource(),
        attributes.group,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let list = Attributes::resource("list", "", "pods", "default", "");
        assert_eq!(
            forbidden("x", &list, ""),
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the \
             namespace \"default\""
        );
        let get = Attributes::resource("get", "apps", "deployments/scale", "", "web");
        assert_eq!(
            forbidden("x", &get, "because"),
            "deployments.apps \"web\" is forbidden: User \"x\" cannot get resource \
             \"deployments/scale\" in API group \"apps\" at the cluster scope: because"
        );
        let path = Attributes::path("get", "/metrics");
        assert_eq!(forbidden("x", &path, ""), "forbidden: User \"x\" cannot get path \"/metrics\"");
    }
}
