//! Rules that upstream declares with its types, in the words of its generated validation.
//!
//! Upstream: `apimachinery/pkg/api/validate`.

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Names that are wrong in these ways.
pub(crate) type Format = fn(&str) -> Vec<String>;

/// `k8s-long-name`.
pub(crate) const LONG_NAME: Format = names::dns1123_subdomain;
/// `k8s-short-name`.
pub(crate) const SHORT_NAME: Format = names::dns1123_label;
/// `k8s-path-segment-name`.
pub(crate) const PATH_SEGMENT: Format = names::path_segment;
/// `k8s-label-key`.
pub(crate) const LABEL_KEY: Format = names::qualified_name;

/// A text that must be there and have a format.
pub(crate) fn required(text: &Node<'_>, format: Format, out: &mut Findings) {
    if text.require(out) {
        text.invalid_each(format(text.text()), out);
    }
}

/// A text that may be absent.
pub(crate) fn optional(text: &Node<'_>, format: Format, out: &mut Findings) {
    if !text.text().is_empty() {
        text.invalid_each(format(text.text()), out);
    }
}

/// A number that, if it is set, is not out of bounds.
pub(crate) fn within(number: &Node<'_>, min: i64, max: i64, out: &mut Findings) {
    if !number.is_set() {
        return;
    }
    if number.int() < min {
        out.push(number.invalid(format!("must be greater than or equal to {min}")));
    }
    if number.int() > max {
        out.push(number.invalid(format!("must be less than or equal to {max}")));
    }
}

/// Exactly one of some members is set.
pub(crate) fn one_of(union: &Node<'_>, members: &[&'static str], out: &mut Findings) {
    let quoted = |names: Vec<&str>| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let set: Vec<&str> = members.iter().copied().filter(|name| union.get(name).is_set()).collect();
    match set.len() {
        0 => {
            let detail = format!("must specify one of: {}", quoted(members.to_vec()));
            out.push(FieldError::invalid(&union.path, "", detail));
        }
        1 => {}
        _ => {
            let detail = format!("must specify exactly one of: {}", quoted(members.to_vec()));
            out.push(FieldError::invalid(&union.path, format!("{{{}}}", quoted(set)), detail));
        }
    }
}

/// Items whose key no two of them share.
pub(crate) fn unique(list: &Node<'_>, key: &'static str, out: &mut Findings) {
    let mut seen = std::collections::BTreeSet::new();
    for item in list.items() {
        if !seen.insert(item.get(key).text()) {
            out.push(FieldError::duplicate(&item.path, item.value.clone()));
        }
    }
}
