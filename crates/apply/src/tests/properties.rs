//! Properties of random configurations of random tables.

use std::collections::BTreeMap;

use proptest::prelude::*;
use schema::{Field, Kind, ListType, Type, TypeRef};
use serde_json::{Map, Value, json};

use super::World;

/// A random table: what a value of it may be.
#[derive(Clone, Debug)]
enum Model {
    Scalar,
    AtomicList,
    Set,
    /// Items with a key `k` and these members.
    Keyed(BTreeMap<String, Model>),
    Map,
    AtomicMap,
    Struct(BTreeMap<String, Model>),
}

fn models() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        3 => Just(Model::Scalar),
        1 => Just(Model::AtomicList),
        1 => Just(Model::Set),
        1 => Just(Model::Map),
        1 => Just(Model::AtomicMap),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let members = prop::collection::btree_map("[a-d]", inner, 1..4);
        prop_oneof![members.clone().prop_map(Model::Struct), members.prop_map(Model::Keyed),]
    })
}

fn roots() -> impl Strategy<Value = BTreeMap<String, Model>> {
    prop::collection::btree_map("[a-d]", models(), 1..5)
}

impl Model {
    fn field(&self, name: &str) -> Field {
        let strings = || Kind::List(Box::new(Kind::String));
        let texts = || Kind::Map(Box::new(Kind::String));
        let plain = |kind| Field::new(name.to_owned(), kind);
        match self {
            Self::Scalar => plain(Kind::Int64),
            Self::AtomicList => plain(strings()),
            Self::Set => Field { list_type: Some(ListType::Set), ..plain(strings()) },
            Self::Map => plain(texts()),
            Self::AtomicMap => Field { atomic: true, ..plain(texts()) },
            Self::Struct(members) => plain(nested(table(members, None))),
            Self::Keyed(members) => Field {
                list_type: Some(ListType::Map(vec!["k".into()])),
                ..plain(Kind::List(Box::new(nested(table(members, Some("k"))))))
            },
        }
    }

    fn values(&self) -> BoxedStrategy<Value> {
        let texts = || prop::collection::btree_set("[a-c]", 1..4);
        match self {
            Self::Scalar => (1..3_i64).prop_map(Value::from).boxed(),
            Self::AtomicList => prop::collection::vec("[a-b]", 1..3).prop_map(Value::from).boxed(),
            Self::Set => {
                let shuffled = texts().prop_map(Vec::from_iter).prop_shuffle();
                shuffled.prop_map(Value::from).boxed()
            }
            Self::Map | Self::AtomicMap => prop::collection::btree_map("[a-c]", "[x-y]", 1..3)
                .prop_map(|map| json!(map))
                .boxed(),
            Self::Struct(members) => objects(members).prop_filter("not empty", not_empty).boxed(),
            Self::Keyed(members) => {
                let items = prop::collection::btree_map("[p-r]", objects(members), 1..3);
                let listed = items.prop_map(|items| {
                    let with_key = |(key, mut item): (String, Value)| {
                        item["k"] = json!(key);
                        item
                    };
                    items.into_iter().map(with_key).collect::<Vec<Value>>()
                });
                listed.prop_shuffle().prop_map(Value::from).boxed()
            }
        }
    }
}

fn nested(ty: Type) -> Kind {
    Kind::Struct(TypeRef::Owned(ty.into()))
}

fn table(members: &BTreeMap<String, Model>, key: Option<&str>) -> Type {
    let mut fields: Vec<Field> = members.iter().map(|(name, model)| model.field(name)).collect();
    fields.extend(key.map(|key| Field::new(key.to_owned(), Kind::String)));
    Type::new("Random", fields)
}

fn not_empty(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty())
}

/// Objects with some of the members.
fn objects(members: &BTreeMap<String, Model>) -> BoxedStrategy<Value> {
    let member = |(name, model): (&String, &Model)| {
        let name = name.clone();
        prop::option::of(model.values()).prop_map(move |value| (name.clone(), value))
    };
    let members: Vec<_> = members.iter().map(member).collect();
    members
        .prop_map(|members| {
            let given = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
            Value::Object(given.collect::<Map<String, Value>>())
        })
        .boxed()
}

fn cases() -> impl Strategy<Value = (BTreeMap<String, Model>, Value, Value)> {
    roots().prop_flat_map(|root| {
        let (a, b) = (objects(&root), objects(&root));
        (Just(root), a, b)
    })
}

/// What is owned as one value, by path.
fn leaves(model: &Model, value: &Value, path: String, out: &mut BTreeMap<String, Value>) {
    match (model, value) {
        (Model::Struct(members), Value::Object(map)) => {
            for (name, value) in map {
                leaves(&members[name], value, format!("{path}.{name}"), out);
            }
        }
        (Model::Map, Value::Object(map)) => {
            out.extend(map.iter().map(|(key, value)| (format!("{path}.{key}"), value.clone())));
        }
        (Model::Set, Value::Array(items)) => {
            out.extend(items.iter().map(|item| (format!("{path}[{item}]"), item.clone())));
        }
        (Model::Keyed(members), Value::Array(items)) => {
            for item in items {
                let path = format!("{path}[{}]", item["k"]);
                for (name, value) in item.as_object().unwrap() {
                    match members.get(name) {
                        Some(model) => leaves(model, value, format!("{path}.{name}"), out),
                        None => drop(out.insert(format!("{path}.{name}"), value.clone())),
                    }
                }
            }
        }
        _ => drop(out.insert(path, value.clone())),
    }
}

fn all_leaves(root: &BTreeMap<String, Model>, value: &Value) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    leaves(&Model::Struct(root.clone()), value, String::new(), &mut out);
    out
}

fn world(root: &BTreeMap<String, Model>) -> World {
    World::new(table(root, None))
}

/// Without what is null or has nothing in it, as decoding drops it.
fn plain(value: &Value) -> Value {
    let has = |value: &Value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(members.filter(|(_, value)| has(value)).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing_more((root, a, b) in cases()) {
        let mut world = world(&root);
        world.apply("b", &b, true).unwrap();
        world.apply("a", &a, true).unwrap();
        let state = world.state();
        prop_assert_eq!(world.apply("a", &a, false), Ok(false));
        prop_assert_eq!(world.state(), state);
    }

    #[test]
    fn applying_nothing_leaves_no_field((root, a, b) in cases()) {
        let mut world = world(&root);
        world.apply("a", &a, false).unwrap();
        world.apply("a", &json!({}), false).unwrap();
        let (object, owners) = world.state();
        prop_assert_eq!(plain(&object), json!({}));
        prop_assert_eq!(owners, json!({}));
        // What another one applies stays.
        world.apply("b", &b, false).unwrap();
        world.apply("a", &a, true).unwrap();
        world.apply("a", &json!({}), false).unwrap();
        let kept = all_leaves(&root, &plain(&world.state().0));
        let both = all_leaves(&root, &a);
        for (path, value) in all_leaves(&root, &b) {
            if both.get(&path).is_none_or(|other| *other == value) {
                prop_assert_eq!(kept.get(&path), Some(&value), "{}", path);
            }
        }
    }

    #[test]
    fn appliers_of_disjoint_fields_never_conflict((root, a, b) in cases()) {
        let theirs: Map<String, Value> = b
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| a.get(name.as_str()).is_none())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut world = world(&root);
        world.apply("a", &a, false).unwrap();
        prop_assert!(world.apply("b", &Value::Object(theirs), false).is_ok());
        prop_assert_eq!(world.apply("a", &a, false), Ok(false));
    }

    #[test]
    fn only_what_another_one_owns_with_another_value_is_a_conflict((root, a, b) in cases()) {
        let mut world = world(&root);
        world.apply("a", &a, false).unwrap();
        let ours = all_leaves(&root, &a);
        let expected: Vec<String> = all_leaves(&root, &b)
            .into_iter()
            .filter(|(path, value)| ours.get(path).is_some_and(|own| own != value))
            .map(|(path, _)| path)
            .collect();
        match world.apply("b", &b, false) {
            Ok(_) => prop_assert_eq!(expected, Vec::<String>::new()),
            Err(found) => prop_assert_eq!(found.len(), expected.len(), "{:?} {:?}", found, expected),
        }
    }

    #[test]
    fn the_result_has_all_that_was_applied((root, a, b) in cases()) {
        let mut world = world(&root);
        world.update("u", b);
        world.apply("a", &a, true).unwrap();
        let found = all_leaves(&root, &plain(&world.state().0));
        for (path, value) in all_leaves(&root, &a) {
            prop_assert_eq!(found.get(&path), Some(&value), "{}", path);
        }
    }

    #[test]
    fn the_creator_owns_what_differs_from_nothing((root, a, _) in cases()) {
        let ty = table(&root, None);
        let except = crate::FieldSet::of(&[&["a", "b"], &["c"]]);
        let found = crate::created::fields_of_new(crate::shape::Shape::of(&ty), &a, &except);
        let expected = crate::compare(&ty, None, Some(&a)).added.recursive_difference(&except);
        let expected = Some(expected.to_fields_v1()).filter(|text| text != "{}");
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_differs_leads_from_one_object_to_the_other((root, a, b) in cases()) {
        let ty = table(&root, None);
        let found = crate::compare(&ty, Some(&a), Some(&b));
        prop_assert_eq!(found.is_empty(), all_leaves(&root, &a) == all_leaves(&root, &b));
        let back = crate::compare(&ty, Some(&b), Some(&a));
        prop_assert_eq!(found.added, back.removed);
        prop_assert_eq!(found.removed, back.added);
        prop_assert_eq!(found.modified, back.modified);
    }
}
