//! Names of custom resources: each may be used once in a group.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/status/naming_controller.go`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The names that other definitions of a group have.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Plurals, singulars and short names.
    resources: BTreeSet<String>,
    /// Kinds of objects and lists.
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Adds the accepted names of another definition.
    pub(super) fn add(&mut self, names: &Value) {
        let text = |field: &str| names[field].as_str().filter(|name| !name.is_empty());
        let resources = [text("plural"), text("singular")].into_iter().flatten();
        self.resources.extend(resources.chain(list(names, "shortNames")).map(str::to_owned));
        let kinds = [text("kind"), text("listKind")].into_iter().flatten();
        self.kinds.extend(kinds.map(str::to_owned));
    }
}

fn list<'a>(names: &'a Value, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    names[field].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What becomes of the names that are wanted: those that are accepted, and why not all are.
pub(super) fn accept(
    wanted: &Value,
    accepted: &Value,
    taken: &Taken,
) -> (Value, Option<(&'static str, String)>) {
    let mut names = if accepted.is_object() { accepted.clone() } else { json!({}) };
    let mut conflict = None;
    let mut one =
        |field: &str, reason: &'static str, used: &BTreeSet<String>, names: &mut Value| {
            let text = |names: &Value| names[field].as_str().unwrap_or_default().to_owned();
            let (name, had) = (text(wanted), text(accepted));
            if name != had && used.contains(&name) {
                conflict = Some((reason, format!("{name:?} is already in use")));
            } else if name.is_empty() {
                crate::strategy::remove(names, field);
            } else {
                names[field] = json!(name);
            }
        };
    one("plural", "PluralConflict", &taken.resources, &mut names);
    one("singular", "SingularConflict", &taken.resources, &mut names);
    let mut short_conflict = None;
    if wanted["shortNames"] != accepted["shortNames"] {
        let had: BTreeSet<&str> = list(accepted, "shortNames").collect();
        let clashes: Vec<String> = list(wanted, "shortNames")
            .filter(|name| !had.contains(name) && taken.resources.contains(*name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        match clashes.as_slice() {
            [] => put(&mut names, "shortNames", &wanted["shortNames"]),
            [one] => short_conflict = Some(("ShortNamesConflict", one.clone())),
            many => {
                short_conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", "))));
            }
        }
    }
    one("kind", "KindConflict", &taken.kinds, &mut names);
    one("listKind", "ListKindConflict", &taken.kinds, &mut names);
    put(&mut names, "categories", &wanted["categories"]);
    // The last one is told, as upstream does it.
    let conflict = match conflict {
        Some((reason @ ("KindConflict" | "ListKindConflict"), message)) => Some((reason, message)),
        other => short_conflict.or(other),
    };
    (names, conflict)
}

fn put(names: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        crate::strategy::remove(names, field);
    } else {
        names[field] = value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(other: Value, expected: Option<(&'static str, &str)>) {
        let mut taken = Taken::default();
        taken.add(&other);
        let wanted = json!({"plural": "foos", "singular": "foo", "kind": "Foo",
            "listKind": "FooList", "shortNames": ["f", "g"]});
        let (names, conflict) = accept(&wanted, &json!({}), &taken);
        let conflict = conflict.as_ref().map(|(reason, message)| (*reason, message.as_str()));
        assert_eq!(conflict, expected);
        assert_eq!(names == wanted, expected.is_none());
    }

    #[test]
    fn names_are_used_once() {
        check(json!({"plural": "bars", "kind": "Bar"}), None);
        check(json!({"plural": "foos"}), Some(("PluralConflict", "\"foos\" is already in use")));
        check(
            json!({"shortNames": ["foo"]}),
            Some(("SingularConflict", "\"foo\" is already in use")),
        );
        check(json!({"plural": "g"}), Some(("ShortNamesConflict", "\"g\" is already in use")));
        check(json!({"listKind": "Foo"}), Some(("KindConflict", "\"Foo\" is already in use")));
    }
}
