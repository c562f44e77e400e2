//! APIServices: groups that another server serves.
//!
//! Upstream: `kube-aggregator/pkg/apis/apiregistration/validation`.

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

const MAX_GROUP_PRIORITY: i64 = 20_000;
const MAX_VERSION_PRIORITY: i64 = 1_000;

/// The name is made of what it serves.
pub(crate) fn name(object: &Node<'_>, name: &str) -> Vec<String> {
    let wrong = names::path_segment(name);
    if !wrong.is_empty() {
        return wrong;
    }
    let spec = object.get("spec");
    let required = format!("{}.{}", spec.get("version").text(), spec.get("group").text());
    if name == required {
        return Vec::new();
    }
    vec![format!("must be `spec.version+\".\"+spec.group`: {required:?}")]
}

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    if group.text().is_empty() && version.text() != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        out.push(FieldError::required(&group.path, detail));
    }
    if !group.text().is_empty() {
        group.subdomain(out);
    }
    version.invalid_each(names::dns1035_label(version.text()), out);
    for (field, max) in
        [("groupPriorityMinimum", MAX_GROUP_PRIORITY), ("versionPriority", MAX_VERSION_PRIORITY)]
    {
        let priority = spec.get(field);
        if !(1..=max).contains(&priority.int()) {
            let detail = format!("must be positive and less than {max}");
            out.push(priority.invalid_int(detail));
        }
    }
    service(&spec, out);
}

fn service(spec: &Node<'_>, out: &mut Findings) {
    let (service, bundle) = (spec.get("service"), spec.get("caBundle"));
    let skip = spec.get("insecureSkipTLSVerify");
    let has_bundle = !bundle.text().is_empty();
    if !service.is_set() {
        if has_bundle {
            let size = bundle.text().trim_end_matches('=').len() * 3 / 4;
            let detail = "local APIServices may not have a caBundle";
            out.push(FieldError::invalid(&bundle.path, format!("{size} bytes"), detail));
        }
        if skip.is_true() {
            out.push(skip.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    }
    service.get("namespace").require(out);
    service.get("name").require(out);
    let port = service.get("port");
    if port.is_set() && !(1..=65535).contains(&port.int()) {
        out.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
    }
    if skip.is_true() && has_bundle {
        out.push(skip.invalid("may not be true if caBundle is present"));
    }
}

/// The status of what another server says about itself.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    for condition in object.get("status").get("conditions").items() {
        condition.get("status").one_of(&["False", "True", "Unknown"], out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::check;

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "v1.a.b"}, "spec": spec})
    }

    #[test]
    fn the_name_is_version_and_group() {
        let spec = json!({"version": "v2", "group": "a.b", "groupPriorityMinimum": 0,
            "versionPriority": 1001, "insecureSkipTLSVerify": true});
        check(
            "apiregistration.k8s.io",
            "APIService",
            service(spec),
            &[
                "metadata.name: Invalid value: \"v1.a.b\": must be \
                 `spec.version+\".\"+spec.group`: \"v2.a.b\"",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have \
                 insecureSkipTLSVerify",
            ],
        );
    }

    #[test]
    fn a_service_is_named_in_full() {
        let spec = json!({"version": "v1", "group": "a.b", "groupPriorityMinimum": 1,
            "versionPriority": 1, "insecureSkipTLSVerify": true, "caBundle": "YQ==",
            "service": {"port": 0}});
        check(
            "apiregistration.k8s.io",
            "APIService",
            service(spec),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and \
                 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is \
                 present",
            ],
        );
    }
}
