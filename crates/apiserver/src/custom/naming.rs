//! Names of custom resources: each may be used once in a group.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/status/naming_controller.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// The accepted names of all definitions.
#[derive(Debug, Default)]
pub(super) struct Taken {
    groups: BTreeMap<String, Names>,
    /// The group and the accepted names of each definition.
    owners: BTreeMap<String, (String, Value)>,
}

/// Names of a group, each with the definition that has it.
#[derive(Debug, Default)]
struct Names {
    /// Plurals, singulars and short names.
    resources: BTreeSet<(String, String)>,
    /// Kinds of objects and lists.
    kinds: BTreeSet<(String, String)>,
}

impl Taken {
    /// Takes down the accepted names of a definition, in place of those it had.
    pub(super) fn put(&mut self, owner: &str, group: &str, accepted: &Value) {
        if self.owners.get(owner).is_some_and(|(_, known)| known == accepted) {
            return;
        }
        self.remove(owner);
        let names = self.groups.entry(group.to_owned()).or_default();
        let pair = |name: &str| (name.to_owned(), owner.to_owned());
        names.resources.extend(resources(accepted).map(pair));
        names.kinds.extend(kinds(accepted).map(pair));
        self.owners.insert(owner.to_owned(), (group.to_owned(), accepted.clone()));
    }

    /// Its names are free.
    pub(super) fn remove(&mut self, owner: &str) {
        let Some((group, accepted)) = self.owners.remove(owner) else { return };
        let Some(names) = self.groups.get_mut(&group) else { return };
        let pair = |name: &str| (name.to_owned(), owner.to_owned());
        for name in resources(&accepted) {
            names.resources.remove(&pair(name));
        }
        for name in kinds(&accepted) {
            names.kinds.remove(&pair(name));
        }
        if names.resources.is_empty() && names.kinds.is_empty() {
            self.groups.remove(&group);
        }
    }

    /// What others of its group have, for a definition.
    pub(super) fn by_others<'a>(&'a self, owner: &'a str, group: &str) -> ByOthers<'a> {
        ByOthers { names: self.groups.get(group), owner }
    }
}

fn resources(names: &Value) -> impl Iterator<Item = &str> {
    let fields = ["plural", "singular"].into_iter().filter_map(|field| names[field].as_str());
    fields.filter(|name| !name.is_empty()).chain(list(names, "shortNames"))
}

fn kinds(names: &Value) -> impl Iterator<Item = &str> {
    let fields = ["kind", "listKind"].into_iter().filter_map(|field| names[field].as_str());
    fields.filter(|name| !name.is_empty())
}

/// The names that other definitions of a group have.
#[derive(Clone, Copy)]
pub(super) struct ByOthers<'a> {
    names: Option<&'a Names>,
    owner: &'a str,
}

impl ByOthers<'_> {
    fn has_resource(&self, name: &str) -> bool {
        self.names.is_some_and(|names| self.is_in(&names.resources, name))
    }

    fn has_kind(&self, name: &str) -> bool {
        self.names.is_some_and(|names| self.is_in(&names.kinds, name))
    }

    fn is_in(&self, names: &BTreeSet<(String, String)>, name: &str) -> bool {
        let from = (name.to_owned(), String::new());
        names.range(from..).take_while(|(known, _)| known == name).any(|(_, of)| of != self.owner)
    }
}

fn list<'a>(names: &'a Value, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    names[field].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What becomes of the names that are wanted: those that are accepted, and why not all are.
pub(super) fn accept(
    wanted: &Value,
    accepted: &Value,
    taken: ByOthers<'_>,
) -> (Value, Option<(&'static str, String)>) {
    let mut names = if accepted.is_object() { accepted.clone() } else { json!({}) };
    let mut conflict = None;
    let mut one =
        |field: &str, reason: &'static str, is_used: &dyn Fn(&str) -> bool, names: &mut Value| {
            let text = |names: &Value| names[field].as_str().unwrap_or_default().to_owned();
            let (name, had) = (text(wanted), text(accepted));
            if name != had && is_used(&name) {
                conflict = Some((reason, format!("{name:?} is already in use")));
            } else if name.is_empty() {
                crate::strategy::remove(names, field);
            } else {
                names[field] = json!(name);
            }
        };
    let (has_resource, has_kind) =
        (|name: &str| taken.has_resource(name), |name: &str| taken.has_kind(name));
    one("plural", "PluralConflict", &has_resource, &mut names);
    one("singular", "SingularConflict", &has_resource, &mut names);
    let mut short_conflict = None;
    if wanted["shortNames"] != accepted["shortNames"] {
        let had: BTreeSet<&str> = list(accepted, "shortNames").collect();
        let clashes: Vec<String> = list(wanted, "shortNames")
            .filter(|name| !had.contains(name) && taken.has_resource(name))
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
    one("kind", "KindConflict", &has_kind, &mut names);
    one("listKind", "ListKindConflict", &has_kind, &mut names);
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
        taken.put("others", "g", &other);
        taken.put("own", "g", &json!({"plural": "foos"}));
        taken.put("elsewhere", "h", &json!({"plural": "foos", "kind": "Foo"}));
        let wanted = json!({"plural": "foos", "singular": "foo", "kind": "Foo",
            "listKind": "FooList", "shortNames": ["f", "g"]});
        let (names, conflict) = accept(&wanted, &json!({}), taken.by_others("own", "g"));
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

    #[test]
    fn names_are_free_when_their_definition_has_gone() {
        let mut taken = Taken::default();
        taken.put("a", "g", &json!({"plural": "foos", "kind": "Foo"}));
        assert!(taken.by_others("b", "g").has_kind("Foo"));
        taken.put("a", "g", &json!({"plural": "foos", "kind": "Bar"}));
        assert!(!taken.by_others("b", "g").has_kind("Foo"));
        assert!(taken.by_others("b", "g").has_resource("foos"));
        taken.remove("a");
        assert!(!taken.by_others("b", "g").has_resource("foos"));
        assert!(taken.groups.is_empty());
    }
}
