//! The status of a pod.

use std::net::IpAddr;

use meta::names;

use crate::address;
use crate::node::{Findings, Node};

/// Conditions whose types need no check.
const KNOWN: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

pub(crate) fn validate(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let (status, old_status) = (new.get("status"), old.get("status"));
    if spec.get("nodeName").value != before.get("nodeName").value {
        out.push(status.get("nodeName").forbidden("may not be changed directly"));
    }
    let nominated = status.get("nominatedNodeName");
    if !nominated.text().is_empty() {
        nominated.invalid_each(names::dns1123_subdomain(nominated.text()), out);
        let is_changed = nominated.text() != old_status.get("nominatedNodeName").text();
        if is_changed && !spec.get("nodeName").text().is_empty() {
            let detail = "may not be set on pods that are already bound to a node";
            out.push(nominated.forbidden(detail));
        }
    }
    for condition in status.get("conditions").items() {
        let kind = condition.get("type").under(condition.path.child("Type"));
        if !KNOWN.contains(&kind.text()) {
            kind.invalid_each(names::qualified_name(kind.text()), out);
        }
    }
    addresses(&status.get("podIPs"), out);
    addresses(&status.get("hostIPs"), out);
    let (host, first) = (status.get("hostIP"), status.get("hostIPs").items().next());
    if let Some(first) = first
        && first.get("ip").text() != host.text()
    {
        out.push(first.get("ip").invalid("must be equal to `hostIP`"));
    }
    let class = old_status.get("qosClass");
    if class.is_set() {
        status.get("qosClass").immutable(&class, out);
    }
}

/// At most one address of each family.
fn addresses(list: &Node<'_>, out: &mut Findings) {
    let (mut four, mut six) = (0, 0);
    for item in list.items() {
        address::ip(&item.get("ip").under(item.path.clone()), out);
        match item.get("ip").text().parse() {
            Ok(IpAddr::V4(_)) => four += 1,
            Ok(IpAddr::V6(_)) => six += 1,
            Err(_) => {}
        }
    }
    if list.len() > 1 && (list.len() > 2 || four > 1 || six > 1) {
        out.push(list.invalid("may specify no more than one IP for each IP family"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::check_update;

    #[test]
    fn a_pod_is_nominated_until_it_is_bound() {
        let pod = |node: &str, nominated: &str| {
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": node},
                "status": {"nominatedNodeName": nominated}})
        };
        let forbidden = "status.nominatedNodeName: Forbidden: may not be set on pods that are \
                         already bound to a node";
        for (node, to, from, expected) in [
            ("", "a", "", &[][..]),
            ("n", "a", "a", &[]),
            ("n", "", "a", &[]),
            ("n", "b", "a", &[forbidden]),
        ] {
            check_update("", "Pod", "status", (&pod(node, to), &pod(node, from)), expected);
        }
    }
}
