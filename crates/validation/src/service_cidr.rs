//! ServiceCIDRs and IPAddresses: the ranges that services have addresses of, and who has which.

use meta::names;

use crate::FieldError;
use crate::address::{canonical_cidr, is_ipv4_range, one_of_each_family};
use crate::node::{Findings, Node};

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    ranges(&object.get("spec").get("cidrs"), out);
}

fn ranges(ranges: &Node<'_>, out: &mut Findings) {
    if ranges.len() == 0 {
        out.push(FieldError::required(&ranges.path, "at least one CIDR required"));
        return;
    }
    if ranges.len() > 2 {
        out.push(ranges.invalid("may only hold up to 2 values"));
        return;
    }
    ranges.items().for_each(|range| canonical_cidr(&range, out));
    let families = ranges.items().map(|range| is_ipv4_range(range.text()));
    if ranges.len() == 2 && !one_of_each_family(families) {
        out.push(ranges.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
             2001:db8::/64",
        ));
    }
}

/// A second family may come later; what is there stays.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (now, before) = (new.get("spec").get("cidrs"), old.get("spec").get("cidrs"));
    if before.len() == 1 && now.len() == 2 {
        ranges(&now, out);
        let (first, had) = (now.items().next(), before.items().next());
        if let (Some(first), Some(had)) = (first, had) {
            first.immutable(&had, out);
        }
    } else {
        now.immutable(&before, out);
    }
}

pub(crate) fn ip_address(object: &Node<'_>, out: &mut Findings) {
    let parent = object.get("spec").get("parentRef");
    if !parent.is_set() {
        out.push(FieldError::required(&parent.path, ""));
        return;
    }
    let part = |field: &'static str, required: bool, out: &mut Findings| {
        let part = parent.get(field);
        if required {
            part.require(out);
        }
        if !part.text().is_empty() {
            part.invalid_each(names::path_segment(part.text()), out);
        }
    };
    if !parent.get("group").text().is_empty() {
        parent.get("group").subdomain(out);
    }
    part("resource", true, out);
    part("name", true, out);
    part("namespace", false, out);
}

pub(crate) fn ip_address_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let parent = |object: &Node<'_>| object.get("spec").get("parentRef").value.clone();
    if parent(new) != parent(old) {
        let finding = new.get("spec").get("parentRef").invalid("field is immutable");
        out.push(finding.shown_as("networking/v1.ParentReference"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::{check, check_update, object};

    const GROUP: &str = "networking.k8s.io";

    fn cidrs(cidrs: Value) -> Value {
        object(json!({"cidrs": cidrs}))
    }

    #[test]
    fn ranges_are_canonical_and_of_different_families() {
        let two = "spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: may specify no more \
                   than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        check(GROUP, "ServiceCIDR", cidrs(json!(["10.0.0.0/8", "11.0.0.0/8"])), &[two]);
        check(
            GROUP,
            "ServiceCIDR",
            cidrs(json!(["fd00:0::/64", "10.0.0.1/8"])),
            &[
                "spec.cidrs[0]: Invalid value: \"fd00:0::/64\": must be in canonical form \
                 (\"fd00::/64\")",
                "spec.cidrs[1]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the \
                 prefix length",
            ],
        );
        check(
            GROUP,
            "ServiceCIDR",
            cidrs(json!([])),
            &["spec.cidrs: Required value: at least one CIDR required"],
        );
    }

    #[test]
    fn a_second_family_may_be_added() {
        let one = cidrs(json!(["10.0.0.0/8"]));
        let two = cidrs(json!(["10.0.0.0/8", "fd00::/64"]));
        check_update(GROUP, "ServiceCIDR", "", (&two, &one), &[]);
        check_update(
            GROUP,
            "ServiceCIDR",
            "",
            (&one, &two),
            &["spec.cidrs: Invalid value: [\"10.0.0.0/8\"]: field is immutable"],
        );
    }

    #[test]
    fn an_address_belongs_to_somebody() {
        let with = |spec: Value| json!({"metadata": {"name": "010.0.0.1"}, "spec": spec});
        check(
            GROUP,
            "IPAddress",
            with(json!({"parentRef": {"resource": "a/b"}})),
            &[
                "metadata.name: Invalid value: \"010.0.0.1\": must not have leading 0s",
                "spec.parentRef.resource: Invalid value: \"a/b\": may not contain '/'",
                "spec.parentRef.name: Required value",
            ],
        );
    }
}
