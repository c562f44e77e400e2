//! Ingresses and their classes.

use std::net::IpAddr;

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Longest name of a controller.
const MAX_CONTROLLER: usize = 250;

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    let annotation = "kubernetes.io/ingress.class";
    let (annotations, class) =
        (object.get("metadata").get("annotations"), object.get("spec").get("ingressClassName"));
    if let Some(old) = annotations.value.get(annotation).and_then(|value| value.as_str())
        && class.is_set()
        && class.text() != old
    {
        let path = crate::Path::new_in(&crate::Path::new("annotations"), annotation);
        let detail = "must match `ingressClassName` when both are specified";
        out.push(FieldError::invalid(&path, old, detail));
    }
    validate(object, out);
}

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.len() == 0 && !default.is_set() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        out.push(FieldError::invalid(&spec.path, spec.value.clone(), detail));
    }
    if default.is_set() {
        backend(&default, out);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.text().is_empty() {
            if host.text().parse::<IpAddr>().is_ok() {
                out.push(host.invalid("must be a DNS name, not an IP address"));
            }
            host_name(&host, out);
        }
        let http = rule.get("http");
        if http.is_set() && http.get("paths").len() == 0 {
            out.push(FieldError::required(&http.get("paths").path, ""));
        }
        for path in http.get("paths").items() {
            http_path(&path, out);
        }
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            host_name(&host, out);
        }
        let secret = tls.get("secretName");
        if !secret.text().is_empty() {
            secret.invalid_each(names::dns1123_subdomain(secret.text()), out);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.invalid_each(names::dns1123_subdomain(class.text()), out);
    }
}

fn host_name(host: &Node<'_>, out: &mut Findings) {
    let text = host.text();
    let wrong = if text.contains('*') {
        names::wildcard_dns1123_subdomain(text)
    } else {
        names::dns1123_subdomain(text)
    };
    host.invalid_each(wrong, out);
}

fn http_path(at: &Node<'_>, out: &mut Findings) {
    const REFUSED: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    let (kind, path) = (at.get("pathType"), at.get("path"));
    match kind.text() {
        "" => out.push(FieldError::required(&kind.path, "pathType must be specified")),
        "Exact" | "Prefix" => {
            let text = path.text();
            if !text.starts_with('/') {
                out.push(FieldError::invalid(&path.path, text, "must be an absolute path"));
            }
            for refused in REFUSED.iter().filter(|refused| text.contains(*refused)) {
                out.push(path.invalid(format!("must not contain '{refused}'")));
            }
            for refused in ["/..", "/."].iter().filter(|refused| text.ends_with(*refused)) {
                out.push(path.invalid(format!("cannot end with '{refused}'")));
            }
        }
        "ImplementationSpecific" => {
            if !path.text().is_empty() && !path.text().starts_with('/') {
                out.push(path.invalid("must be an absolute path"));
            }
        }
        _ => kind.one_of(&["Exact", "ImplementationSpecific", "Prefix"], out),
    }
    backend(&at.get("backend"), out);
}

fn backend(backend: &Node<'_>, out: &mut Findings) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => out.push(FieldError::invalid(
            &backend.path,
            "",
            "cannot set both resource and service backends",
        )),
        (true, false) => typed_reference(&resource, out),
        (false, false) => out.push(FieldError::invalid(
            &backend.path,
            "",
            "resource or service backend is required",
        )),
        (false, true) => {
            let name = service.get("name");
            if name.require(out) {
                name.invalid_each(names::dns1123_label(name.text()), out);
            }
            let port = service.get("port");
            let (name, number) = (port.get("name"), port.get("number"));
            match (name.text().is_empty(), number.int()) {
                (true, 0) => {
                    let detail = "port name or number is required";
                    out.push(FieldError::required(&backend.path, detail));
                }
                (true, _) => number.port_number(out),
                (false, 0) => name.invalid_each(names::port_name(name.text()), out),
                (false, _) => {
                    let detail = "cannot set both port name & port number";
                    out.push(FieldError::invalid(&backend.path, "", detail));
                }
            }
        }
    }
}

/// An object of any group by kind and name.
fn typed_reference(reference: &Node<'_>, out: &mut Findings) {
    let group = reference.get("apiGroup");
    if group.is_set() {
        group.invalid_each(names::dns1123_subdomain(group.text()), out);
    }
    for field in ["kind", "name"] {
        let part = reference.get(field);
        if part.require(out) {
            part.invalid_each(names::path_segment(part.text()), out);
        }
    }
}

pub(crate) fn class(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let controller = spec.get("controller");
    controller.no_longer_than(MAX_CONTROLLER, out);
    crate::metadata::domain_prefixed_path(&controller, out);
    let parameters = spec.get("parameters");
    if !parameters.is_set() {
        return;
    }
    typed_reference(&parameters, out);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    scope.require_one_of(&["Cluster", "Namespace"], out);
    match scope.text() {
        "Namespace" if namespace.text().is_empty() => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            out.push(FieldError::required(&namespace.path, detail));
        }
        "Namespace" => namespace.invalid_each(names::dns1123_label(namespace.text()), out),
        "Cluster" if namespace.is_set() => {
            out.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        _ => {}
    }
}

/// Where an ingress can be reached.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    for entry in object.get("status").get("loadBalancer").get("ingress").items() {
        let (ip, host) = (entry.get("ip"), entry.get("hostname"));
        if !ip.text().is_empty() {
            crate::address::ip(&ip, out);
        }
        if !host.text().is_empty() {
            host.subdomain(out);
            if host.text().parse::<IpAddr>().is_ok() {
                out.push(host.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
}
