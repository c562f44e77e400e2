//! Reading selectors, keys and owners of typed objects.

use api::Typed;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as wire;
use meta::{LabelSelector, ObjectKey};
use serde_json::Value;

/// The server admits only valid selectors; one that is not selects nothing.
pub(crate) fn selector(wire: Option<&wire::LabelSelector>) -> LabelSelector {
    let value = wire.and_then(|selector| selector.to_tree().ok());
    LabelSelector::from_object(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Namespace and name.
pub(crate) fn key_of(meta: &wire::ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// The owner that controls the object.
pub(crate) fn controller_of(meta: &wire::ObjectMeta) -> Option<&wire::OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A selector as text, as it is written on a command line.
pub(crate) fn printed(selector: Option<&wire::LabelSelector>) -> String {
    let tree = selector.and_then(|selector| selector.to_tree().ok()).unwrap_or(Value::Null);
    let labels = tree["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<_> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in tree["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

/// A selector as Go prints one with `%v`, for texts in which upstream does.
pub(crate) fn go(selector: Option<&wire::LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let requirements: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|one| {
            let values = one.values.as_deref().unwrap_or_default().join(" ");
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
                one.key, one.operator
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_are_printed_for_people_and_as_go_does() {
        let selector: wire::LabelSelector = serde_json::from_value(json!({
            "matchLabels": { "a": "b" },
            "matchExpressions": [{ "key": "k", "operator": "In", "values": ["x", "y"] },
                { "key": "e", "operator": "Exists" }] }))
        .unwrap();
        assert_eq!(printed(Some(&selector)), "a=b,k in (x,y),e");
        assert_eq!(
            go(Some(&selector)),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:\
             []LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},\
             LabelSelectorRequirement{Key:e,Operator:Exists,Values:[],},},}"
        );
        assert_eq!(go(None), "nil");
    }
}
