//! Role bindings.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, list, name, text};

pub(super) fn row(resource: &str, binding: &Value, now: Timestamp) -> Option<Vec<Value>> {
    if !matches!(resource, "rolebindings" | "clusterrolebindings") {
        return None;
    }
    let role = format!("{}/{}", text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
    let subjects = |wanted: &str| {
        let found = list(binding, "/subjects").iter().filter(|subject| subject["kind"] == wanted);
        let names: Vec<String> = found
            .map(|subject| match wanted {
                "ServiceAccount" => {
                    format!("{}/{}", text(subject, "/namespace"), text(subject, "/name"))
                }
                _ => text(subject, "/name").to_owned(),
            })
            .collect();
        json!(names.join(", "))
    };
    Some(vec![
        name(binding),
        json!(role),
        age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ])
}
