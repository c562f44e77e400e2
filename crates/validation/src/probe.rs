//! Probes and lifecycle handlers.

use crate::FieldError;
use crate::node::{Findings, Node};

/// The probes and hooks of a container.
pub(crate) fn of_container(container: &Node<'_>, grace_secs: i64, out: &mut Findings) {
    let lifecycle = container.get("lifecycle");
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(&hook, grace_secs, out);
        }
    }
    let liveness = container.get("livenessProbe");
    probe(&liveness, grace_secs, out);
    must_succeed_once(&liveness, out);
    let readiness = container.get("readinessProbe");
    probe(&readiness, grace_secs, out);
    if readiness.get("terminationGracePeriodSeconds").is_set() {
        out.push(
            readiness
                .get("terminationGracePeriodSeconds")
                .invalid("must not be set for readinessProbes"),
        );
    }
    let startup = container.get("startupProbe");
    probe(&startup, grace_secs, out);
    must_succeed_once(&startup, out);
}

fn must_succeed_once(probe: &Node<'_>, out: &mut Findings) {
    let threshold = probe.get("successThreshold");
    if probe.is_set() && threshold.int() != 1 {
        out.push(FieldError::invalid(&threshold.path, threshold.int(), "must be 1"));
    }
}

fn probe(probe: &Node<'_>, grace_secs: i64, out: &mut Findings) {
    if !probe.is_set() {
        return;
    }
    handler(probe, grace_secs, out);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.get(field).non_negative(out);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.is_set() && grace.int() <= 0 {
        out.push(grace.invalid("must be greater than 0"));
    }
}

/// Exactly one way to ask.
fn handler(handler: &Node<'_>, grace_secs: i64, out: &mut Findings) {
    let mut handlers = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let at = handler.get(kind);
        if !at.is_set() {
            continue;
        }
        handlers += 1;
        if handlers > 1 {
            out.push(at.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        match kind {
            "exec" if at.get("command").len() == 0 => {
                out.push(FieldError::required(&at.get("command").path, ""));
            }
            "httpGet" => http_get(&at, out),
            "tcpSocket" => at.get("port").port_or_name(out),
            "grpc" => at.get("port").port_number(out),
            "sleep" => {
                let seconds = at.get("seconds").int();
                if seconds < 0 || seconds > grace_secs {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds \
                         ({grace_secs})"
                    );
                    out.push(FieldError::invalid(&at.path, seconds, detail));
                }
            }
            _ => {}
        }
    }
    if handlers == 0 {
        out.push(FieldError::required(&handler.path, "must specify a handler type"));
    }
}

fn http_get(action: &Node<'_>, out: &mut Findings) {
    action.get("path").require(out);
    action.get("port").port_or_name(out);
    action.get("scheme").one_of(&["HTTP", "HTTPS"], out);
    for header in action.get("httpHeaders").items() {
        let name = header.get("name");
        let text = name.text();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || !text.bytes().all(valid) {
            let detail = meta::names::regex_error(
                "a valid HTTP header must consist of alphanumeric characters or '-'",
                "[-A-Za-z0-9]+",
                &["X-Header-Name"],
            );
            // Upstream reports at the list.
            let path = action.get("httpHeaders").path;
            out.push(FieldError::invalid(&path, text, detail));
        }
    }
}
