//! Which nodes a selector takes: of pods' affinity and of volumes.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// Whether any term takes the node of this name and these labels.
pub fn takes<'a>(
    selector: &NodeSelector,
    name: &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> bool {
    selector.node_selector_terms.iter().any(|term| takes_term(term, name, &label))
}

/// Whether the node has what one term wants; an empty term takes none.
pub fn takes_term<'a>(
    term: &NodeSelectorTerm,
    name: &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|wanted| matches(wanted, label(&wanted.key)))
        && fields.iter().all(|wanted| wanted.key == "metadata.name" && matches(wanted, Some(name)))
}

fn matches(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|wanted| wanted == value);
    let compare = |holds: fn(i64, i64) -> bool| {
        let (Some(value), [bound]) = (value, values) else { return false };
        matches!((value.parse(), bound.parse()), (Ok(a), Ok(b)) if holds(a, b))
    };
    match wanted.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|value, bound| value > bound),
        "Lt" => compare(|value, bound| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> NodeSelector {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_of_the_terms_must_hold_whole() {
        let selector = selector(
            r#"{"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]},
                                      {"key": "size", "operator": "Gt", "values": ["3"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
            ]}"#,
        );
        let of = |size: &'static str| {
            move |key: &str| match key {
                "zone" => Some("a"),
                "size" => Some(size),
                _ => None,
            }
        };
        assert!(takes(&selector, "x", of("4")));
        assert!(!takes(&selector, "x", of("3")));
        assert!(takes(&selector, "n", of("3")));
    }

    #[test]
    fn an_empty_term_takes_no_node() {
        assert!(!takes(&selector(r#"{"nodeSelectorTerms": [{}]}"#), "n", |_| None));
    }
}
