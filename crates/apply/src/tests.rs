//! What is applied, and who owns it afterwards: scenarios, and properties of random ones.

mod properties;

use schema::{Field, Kind, ListType, Type, TypeRef};
use serde_json::{Value, json};

use crate::{
    ApplyError, Filter, Unconverted, Versions, Write, applier, managed_fields, put_managed_fields,
    updater,
};

/// One table, in version `v1`.
struct One(Type);

impl Versions for One {
    fn table(&self, api_version: &str) -> Option<&Type> {
        (api_version == "v1").then_some(&self.0)
    }

    fn convert(&self, object: &Value, _: &str, to: &str) -> Result<Value, Unconverted> {
        if to == "v1" { Ok(object.clone()) } else { Err(Unconverted::Unknown) }
    }
}

/// An object of a table, and those who write it.
struct World {
    versions: One,
    live: Option<Value>,
    filter: Filter,
}

impl World {
    fn new(ty: Type) -> Self {
        Self { versions: One(ty), live: None, filter: Filter::All }
    }

    fn write<'a>(&'a self, manager: &'a crate::Manager, now: &'a str) -> Write<'a> {
        let (ty, filter) = (&self.versions.0, &self.filter);
        Write { ty, manager, now, filter, versions: &self.versions, is_changeable: true }
    }

    /// Applies; the fields that are in conflict, as `manager.path`.
    fn apply(&mut self, name: &str, config: &Value, is_forced: bool) -> Result<bool, Vec<String>> {
        let manager = applier(name, "", "v1");
        let write = self.write(&manager, "now");
        let result = write.apply_config(self.live.as_ref(), config, is_forced);
        let (object, managed) = result.map_err(|error| match error {
            ApplyError::Conflicts(conflicts) => {
                conflicts.iter().map(|c| format!("{}{}", c.manager.name, c.path)).collect()
            }
            other => vec![other.to_string()],
        })?;
        let is_changed = object.is_some();
        let mut live = object.or(self.live.take()).unwrap_or_else(|| json!({}));
        put_managed_fields(&mut live, managed);
        self.live = Some(live);
        Ok(is_changed)
    }

    fn update(&mut self, name: &str, mut new: Value) {
        if let Some(live) = &self.live {
            put_managed_fields(&mut new, managed_fields(live).to_vec());
        }
        let manager = updater(name, "", "v1");
        self.write(&manager, "now").record_update(self.live.as_ref(), &mut new).unwrap();
        self.live = Some(new);
    }

    /// The object without metadata, and whose are which fields.
    fn state(&self) -> (Value, Value) {
        let mut object = self.live.clone().unwrap();
        let mut owners = json!({});
        for entry in managed_fields(&object) {
            let fields = entry["fieldsV1"].as_str().unwrap();
            owners[entry["manager"].as_str().unwrap()] = serde_json::from_str(fields).unwrap();
        }
        object.as_object_mut().unwrap().remove("metadata");
        (object, owners)
    }
}

/// A struct `spec` with a bit of everything.
fn table() -> Type {
    let port = Type::new(
        "Port",
        vec![
            Field { pointer: false, omit_empty: false, ..Field::new("port", Kind::Int32) },
            Field { default: Some("\"TCP\"".into()), ..Field::new("proto", Kind::String) },
            Field::new("name", Kind::String),
        ],
    );
    let keyed = ListType::Map(vec!["port".into(), "proto".into()]);
    let nested = |ty: Type| Kind::Struct(TypeRef::Owned(ty.into()));
    let list = |item: Kind| Kind::List(Box::new(item));
    let spec = Type::new(
        "Spec",
        vec![
            Field::new("replicas", Kind::Int32),
            Field::new("labels", Kind::Map(Box::new(Kind::String))),
            Field { atomic: true, ..Field::new("selector", Kind::Map(Box::new(Kind::String))) },
            Field { list_type: Some(keyed), ..Field::new("ports", list(nested(port))) },
            Field { list_type: Some(ListType::Set), ..Field::new("set", list(Kind::String)) },
            Field::new("args", list(Kind::String)),
            Field { pointer: false, omit_empty: false, ..Field::new("shown", Kind::Int32) },
            Field::new("any", Kind::Json),
        ],
    );
    let printed = Field { pointer: false, omit_empty: false, ..Field::new("spec", nested(spec)) };
    Type::new("Thing", vec![printed])
}

fn world() -> World {
    World::new(table())
}

#[test]
fn what_is_applied_is_owned_and_goes_when_it_is_not_applied_any_more() {
    let mut world = world();
    world
        .apply("a", &json!({"spec": {"replicas": 1, "labels": {"x": "1", "y": "2"}}}), false)
        .unwrap();
    world.apply("b", &json!({"spec": {"labels": {"y": "2"}}}), false).unwrap();
    assert_eq!(world.apply("a", &json!({"spec": {"replicas": 2}}), false), Ok(true));
    let (object, owners) = world.state();
    assert_eq!(object, json!({"spec": {"replicas": 2, "shown": 0, "labels": {"y": "2"}}}));
    assert_eq!(
        owners,
        json!({"a": {"f:spec": {"f:replicas": {}}}, "b": {"f:spec": {"f:labels": {"f:y": {}}}}})
    );
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let mut world = world();
    let config = json!({"spec": {"replicas": 1}});
    assert_eq!(world.apply("a", &config, false), Ok(true));
    assert_eq!(world.apply("a", &config, false), Ok(false));
    // Another one owns it too, since never.
    assert_eq!(world.apply("b", &config, false), Ok(false));
    let times: Vec<&Value> =
        managed_fields(world.live.as_ref().unwrap()).iter().map(|entry| &entry["time"]).collect();
    assert_eq!(times, [&Value::Null, &json!("now")]);
}

#[test]
fn what_others_own_with_another_value_is_a_conflict_unless_it_is_forced() {
    let mut world = world();
    world.apply("a", &json!({"spec": {"replicas": 1, "selector": {"x": "1"}}}), false).unwrap();
    let other = json!({"spec": {"replicas": 2, "selector": {"y": "1"}}});
    assert_eq!(
        world.apply("b", &other, false),
        Err(vec!["a.spec.replicas".to_owned(), "a.spec.selector".to_owned()])
    );
    assert_eq!(world.apply("b", &other, true), Ok(true));
    let (object, owners) = world.state();
    assert_eq!(object["spec"]["selector"], json!({"y": "1"}));
    assert_eq!(owners, json!({"b": {"f:spec": {"f:replicas": {}, "f:selector": {}}}}));
}

#[test]
fn items_are_told_apart_by_keys_that_may_have_defaults() {
    let mut world = world();
    world.apply("a", &json!({"spec": {"ports": [{"port": 80, "name": "x"}]}}), false).unwrap();
    let config =
        json!({"spec": {"ports": [{"port": 80, "proto": "UDP"}, {"port": 80, "proto": "TCP"}]}});
    world.apply("b", &config, false).unwrap();
    let (object, owners) = world.state();
    assert_eq!(
        object["spec"]["ports"],
        json!([{"port": 80, "proto": "UDP"}, {"port": 80, "proto": "TCP", "name": "x"}])
    );
    assert_eq!(
        owners["a"]["f:spec"]["f:ports"],
        json!({"k:{\"port\":80,\"proto\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}})
    );
    world.apply("b", &json!({}), false).unwrap();
    assert_eq!(world.state().0["spec"]["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn lists_keep_the_order_of_the_configuration_and_the_place_of_the_rest() {
    let check = |live: Value, config: Value, expected: Value| {
        let mut world = world();
        world.update("u", json!({"spec": {"set": live}}));
        world.apply("a", &json!({"spec": {"set": config}}), false).unwrap();
        assert_eq!(world.state().0["spec"]["set"], expected);
    };
    check(json!(["a"]), json!(["b", "a"]), json!(["b", "a"]));
    check(json!(["c"]), json!(["s"]), json!(["c", "s"]));
    check(json!(["a", "b", "c"]), json!(["c", "a"]), json!(["b", "c", "a"]));
    check(json!(["a", "x", "b"]), json!(["a", "n", "b"]), json!(["a", "x", "n", "b"]));
    check(json!(["x", "a", "y"]), json!(["a"]), json!(["x", "a", "y"]));
}

#[test]
fn an_update_takes_what_it_changes_from_everybody() {
    let mut world = world();
    world.apply("a", &json!({"spec": {"replicas": 1, "labels": {"x": "1"}}}), false).unwrap();
    world.update("u", json!({"spec": {"replicas": 2, "labels": {"x": "1", "y": "2"}}}));
    let (_, owners) = world.state();
    assert_eq!(
        owners,
        json!({"a": {"f:spec": {"f:labels": {"f:x": {}}}},
            "u": {"f:spec": {"f:labels": {"f:y": {}}, "f:replicas": {}}}})
    );
    world.update("u", json!({"spec": {"replicas": 2}}));
    assert_eq!(world.state().1, json!({"u": {"f:spec": {"f:replicas": {}}}}));
}

#[test]
fn what_is_always_printed_is_nobodys_until_it_changes() {
    let mut world = world();
    world.update("u", json!({"spec": {"labels": {"x": "1"}}}));
    // Neither `spec`, which is there without anybody, nor `shown`, which is zero.
    assert_eq!(world.state().1, json!({"u": {"f:spec": {"f:labels": {".": {}, "f:x": {}}}}}));
    world.update("v", json!({"spec": {"labels": {"x": "1"}, "shown": 3}}));
    assert_eq!(world.state().1["v"], json!({"f:spec": {"f:shown": {}}}));
}

#[test]
fn fields_of_nobody_are_adopted_when_somebody_applies_first() {
    let mut world = world();
    world.live = Some(json!({"spec": {"replicas": 1}}));
    assert_eq!(
        world.apply("a", &json!({"spec": {"replicas": 2}}), false),
        Err(vec!["before-first-apply.spec.replicas".to_owned()])
    );
    world.update("u", json!({"spec": {"replicas": 5}}));
    assert_eq!(world.state().1, json!({}), "who is not managed is not managed by updates");
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client() {
    let annotated = |applied: &str, replicas: i32| {
        json!({"spec": {"replicas": replicas}, "metadata": {"annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": applied}}})
    };
    let applied = r#"{"apiVersion":"v1","spec":{"replicas":1}}"#;
    let config = json!({"spec": {"replicas": 2}});
    for (live, expected) in [
        (annotated(applied, 1), Ok(true)),
        // It is not as it was left.
        (annotated(applied, 3), Err(vec!["client.spec.replicas".to_owned()])),
    ] {
        let mut ty = table();
        ty.preserve_unknown = true;
        let mut world = World::new(ty);
        world.update("client", live);
        assert_eq!(world.apply("kubectl", &config, false), expected);
        if expected.is_ok() {
            let live = world.live.as_ref().unwrap();
            assert_eq!(
                live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
                "{\"spec\":{\"replicas\":2}}\n"
            );
        }
    }
}

#[test]
fn the_oldest_updaters_are_merged() {
    let mut world = world();
    for at in 0..13 {
        let labels: serde_json::Map<String, Value> =
            (0..=at).map(|n| (format!("l{n}"), json!("x"))).collect();
        world.update(&format!("u{at:02}"), json!({"spec": {"labels": labels}}));
    }
    let (_, owners) = world.state();
    let names: Vec<&String> = owners.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes");
    let ancient = &owners["ancient-changes"]["f:spec"]["f:labels"];
    assert_eq!(ancient.as_object().unwrap().len(), 5, "four labels and the map: {ancient}");
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstream_words() {
    for (config, expected) in [
        (json!({"foo": 1}), ".foo: field not declared in schema"),
        (
            json!({"spec": {"replicas": "x"}}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (json!({"spec": {"ports": {"a": 1}}}), ".spec.ports: expected list, got &{map[a:1]}"),
        (
            json!({"spec": {"labels": {"a": 5}}}),
            ".spec.labels.a: expected string, got &value.valueUnstructured{Value:5}",
        ),
        (
            json!({"spec": {"ports": [{"port": 1}, {"port": 1, "proto": "TCP"}]}}),
            ".spec.ports: duplicate entries for key [port=1,proto=\"TCP\"]",
        ),
        (json!({"spec": {"set": ["a", "a"]}}), ".spec.set: duplicate entries for key [=\"a\"]"),
        (
            json!({"spec": {"replicas": "x", "set": 1}}),
            "errors:\n  .spec.replicas: expected numeric (int or float), got string\n  .spec.set: expected list, got &{1}",
        ),
    ] {
        assert_eq!(world().apply("a", &config, false), Err(vec![expected.to_owned()]));
    }
}

#[test]
fn who_owned_part_of_what_is_one_value_now_owns_the_value() {
    let mut world = world();
    world.apply("a", &json!({"spec": {"labels": {"x": "1"}, "replicas": 1}}), false).unwrap();
    let Kind::Struct(spec) = &world.versions.0.fields()[0].kind else { panic!("a struct") };
    let mut fields = spec.get().fields().to_vec();
    fields.iter_mut().filter(|field| field.name == "labels").for_each(|field| field.atomic = true);
    let kind = Kind::Struct(TypeRef::Owned(Type::new("Spec", fields).into()));
    let spec = Field { pointer: false, omit_empty: false, ..Field::new("spec", kind) };
    world.versions = One(Type::new("Thing", vec![spec]));
    let other = json!({"spec": {"labels": {"y": "1"}}});
    assert_eq!(world.apply("b", &other, false), Err(vec!["a.spec.labels".to_owned()]));
    world.apply("b", &json!({"spec": {"shown": 1}}), false).unwrap();
    assert_eq!(world.state().1["a"], json!({"f:spec": {"f:labels": {}, "f:replicas": {}}}));
}

#[test]
fn what_the_resource_does_not_let_change_is_not_owned() {
    let mut world = world();
    world.filter = Filter::except(&[&["spec", "replicas"]]);
    world.apply("a", &json!({"spec": {"replicas": 1, "shown": 2}}), false).unwrap();
    assert_eq!(world.state().1, json!({"a": {"f:spec": {"f:shown": {}}}}));
}

#[test]
fn a_scale_tells_who_owns_the_replicas() {
    let mut world = world();
    world.apply("a", &json!({"spec": {"replicas": 1, "shown": 2}}), false).unwrap();
    let path = ["spec", "replicas"];
    let before = managed_fields(world.live.as_ref().unwrap()).to_vec();
    let scale = crate::to_scale(&before, &path).unwrap();
    assert_eq!((scale.len(), &scale[0]["apiVersion"]), (1, &json!("autoscaling/v1")));
    assert_eq!(crate::from_scale(&before, &scale, &path, "v1").unwrap(), before);
    let taken = json!([{"manager": "s", "operation": "Update", "subresource": "scale",
        "apiVersion": "autoscaling/v1", "fieldsType": "FieldsV1",
        "fieldsV1": "{\"f:spec\":{\"f:replicas\":{}}}"}]);
    let after = crate::from_scale(&before, taken.as_array().unwrap(), &path, "v1").unwrap();
    assert_eq!(after[0]["fieldsV1"], "{\"f:spec\":{\"f:shown\":{}}}");
    assert_eq!((&after[1]["manager"], &after[1]["apiVersion"]), (&json!("s"), &json!("v1")));
}

#[test]
fn the_creator_of_a_pod_owns_what_differs_from_nothing() {
    let gvk = meta::GroupVersionKind::new("", "v1", "Pod");
    let ty = schema::registry().kind(&gvk).unwrap();
    let mut pod = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "x", "namespace": "n", "labels": {"a<b": "1"},
            "ownerReferences": [{"uid": "u", "name": "o", "kind": "k", "apiVersion": "v"}]},
        "spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c \"quoted\"", "image": "i", "env": [{"name": "E"}],
                "ports": [{"containerPort": 80}, {"containerPort": 9}],
                "lifecycle": {"preStop": {"httpGet": {"port": 0}}}}]},
        "status": {"phase": "Pending"}});
    schema::apply_defaults(&gvk, &mut pod);
    let filter = Filter::except(&[&["status"]]);
    let manager = updater("m", "", "v1");
    let versions = One(table());
    let write = Write {
        ty,
        manager: &manager,
        now: "now",
        filter: &filter,
        versions: &versions,
        is_changeable: false,
    };
    let created = write.create(&pod).unwrap().fields.set().into_owned();
    let expected = write.compare(None, &pod).added;
    assert_eq!(created, expected);
    assert_eq!(
        created.to_fields_v1(),
        match write.create(&pod).unwrap().fields {
            crate::Fields::Text(text) => text,
            crate::Fields::Set(_) => String::new(),
        }
    );
}

#[test]
fn long_lists_in_any_order_take_no_longer_than_sorting_them() {
    const ITEMS: usize = 60_000;
    // Anything quadratic in the number of items would take minutes.
    let scattered = |at: usize| (at * 7919) % ITEMS;
    let set: Vec<String> = (0..ITEMS).map(|at| format!("i{:06}", scattered(at))).collect();
    let other: Vec<String> = set.iter().rev().cloned().collect();
    let mut world = world();
    world.update("u", json!({"spec": {"set": set}}));
    world.apply("a", &json!({"spec": {"set": other}}), true).unwrap();
    let (object, owners) = world.state();
    assert_eq!(object["spec"]["set"].as_array().unwrap().len(), ITEMS);
    assert_eq!(owners["a"]["f:spec"]["f:set"].as_object().unwrap().len(), ITEMS);
    let entries: Vec<Value> = (0..ITEMS)
        .map(|at| {
            json!({"manager": format!("m{}", scattered(at)), "operation": "Apply",
                "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": "{\"f:x\":{}}"})
        })
        .collect();
    assert_eq!(crate::Managed::decode(&entries).unwrap().entries.len(), ITEMS);
    let text: Vec<String> = set.iter().map(|name| format!("\"f:{name}\":{{}}")).collect();
    let text = format!("{{{}}}", text.join(","));
    assert_eq!(crate::FieldSet::from_fields_v1(&text).unwrap().len(), ITEMS);
}
