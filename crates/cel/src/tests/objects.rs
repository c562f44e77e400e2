//! Declared objects, composed variables, objects that are made, and the authorizer.

use serde_json::json;

use super::{check, shown};
use crate::{
    Activation, Authorizer, Budget, Check, Decision, Declaration, Environment, Type, Value,
};

fn rule(schema: &serde_json::Value, object: &serde_json::Value, text: &str) -> String {
    let declaration = Declaration::from_schema(schema, false).unwrap();
    let environment = Environment::new().with("self", declaration.clone());
    let program = match environment.compile(text) {
        Ok(program) => program,
        Err(why) => return why.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    let mut activation =
        Activation::new(&environment).with("self", Value::json(object, Some(&declaration)));
    match program.evaluate(&mut activation, &mut Budget::new(10_000_000)) {
        Ok(value) => shown(&value),
        Err(why) => format!("error: {why}"),
    }
}

#[test]
fn declared_objects_have_their_fields_alone() {
    let schema = json!({"type": "object", "properties": {
        "a-b": {"type": "integer"},
        "namespace": {"type": "string"},
        "when": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
        "ratio": {"type": "number"},
        "port": {"x-kubernetes-int-or-string": true},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "list": {"type": "array", "items": {"type": "object", "properties": {
            "k": {"type": "string"}, "v": {"type": "integer"}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    }});
    let object = json!({
        "a-b": 1, "namespace": "n", "when": "2024-01-01T00:00:00Z", "wait": "1h", "ratio": 2,
        "data": "YWJj", "port": "http", "set": ["a", "b"], "hidden": 1, "map": {"x-y": 1},
        "list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
    });
    let cases = [
        ("self.a__dash__b", "1"),
        ("self.__namespace__", "\"n\""),
        ("self.when.getFullYear()", "2024"),
        ("self.wait > duration('59m')", "true"),
        ("self.data == b'abc'", "true"),
        ("type(self.ratio)", "double"),
        ("self.port == 'http'", "true"),
        ("self.set == ['b', 'a']", "true"),
        ("self.set + ['b', 'c']", "[\"a\",\"b\",\"c\"]"),
        ("self.list == [self.list[1], self.list[0]]", "true"),
        ("size(self.list + [self.list[0]])", "2"),
        ("self.map['x-y']", "1"),
        ("has(self.hidden)", "ERROR: <input>:1:4: undefined field 'hidden'"),
        ("self.nope", "ERROR: <input>:1:5: undefined field 'nope'"),
        (
            "self.a__dash__b == 'x'",
            "ERROR: <input>:1:17: found no matching overload for '_==_' applied to '(int, string)'",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rule(&schema, &object, text), expected, "{text}");
    }
}

#[test]
fn roots_have_a_kind_and_a_name() {
    let schema = json!({"type": "object", "properties": {"metadata": {"type": "object"}}});
    let declaration = Declaration::from_schema(&schema, true).unwrap();
    let environment = Environment::new().with("self", declaration);
    for text in ["self.kind", "self.apiVersion", "self.metadata.name", "self.metadata.generateName"]
    {
        assert!(environment.compile(text).is_ok(), "{text}");
    }
    assert!(environment.compile("self.metadata.labels").is_err());
}

#[test]
fn composed_variables_are_evaluated_once_and_only_when_asked_for() {
    let environment = Environment::new()
        .with("object", Declaration::dynamic())
        .with_composed("a", Type::Int)
        .with_composed("bad", Type::Int)
        .with_composed("b", Type::Int);
    let programs: Vec<_> = ["object.x + 1", "1 / 0", "variables.a * 2"]
        .iter()
        .map(|text| environment.compile(text).unwrap())
        .collect();
    let object = json!({"x": 2});
    let mut activation =
        Activation::new(&environment).with("object", Value::json(&object, None)).compose(&programs);
    let mut budget = Budget::new(1_000);
    let mut run = |text: &str| {
        let found = environment.compile(text).unwrap().evaluate(&mut activation, &mut budget);
        found.map(|value| shown(&value)).map_err(|why| why.to_string())
    };
    assert_eq!(run("variables.b + variables.a"), Ok("9".to_owned()));
    assert_eq!(run("variables.bad"), Err("division by zero".to_owned()));
    assert!(environment.compile("variables.c").is_err());
    assert!(environment.compile("variables.a == 'x'").is_err());
}

#[test]
fn objects_are_made() {
    check(&[
        (
            "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{n: 1}}",
            r#"{"metadata":{"labels":{"a":"b"}},"spec":{"n":1}}"#,
        ),
        ("Object{?a: optional.none(), ?b: object.?name}", r#"{"b":"web"}"#),
        (
            "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c'), value: [1]}]",
            r#"[{"op":"add","path":"/a/b~1c","value":[1]}]"#,
        ),
        ("Object{a: 1}.a", "1"),
        ("has(Object{a: 1}.b)", "false"),
    ]);
}

struct Pods;

impl Authorizer for Pods {
    fn authorize(&self, check: &Check) -> Decision {
        let allowed = check.resource == "pods" && check.verb == "get" || check.path.is_some();
        let reason = format!("{}/{}", check.namespace, check.subresource);
        Decision { allowed, reason, error: check.label_selector.clone() }
    }
}

#[test]
fn the_authorizer_is_asked() {
    let environment = Environment::new()
        .with("authorizer", Declaration::of(Type::Opaque("kubernetes.authorization.Authorizer")))
        .with(
            "authorizer.requestResource",
            Declaration::of(Type::Opaque("kubernetes.authorization.ResourceCheck")),
        );
    let check = Check { resource: "pods".to_owned(), ..Check::default() };
    let mut activation = Activation::new(&environment)
        .with("authorizer", Value::authorizer(&Pods))
        .with("authorizer.requestResource", Value::resource_check(&Pods, check));
    let cases = [
        ("authorizer.group('').resource('pods').namespace('n').check('get').allowed()", "true"),
        ("authorizer.group('').resource('nodes').check('get').allowed()", "false"),
        (
            "authorizer.group('').resource('p').namespace('n').subresource('s').check('x').reason()",
            "\"n/s\"",
        ),
        ("authorizer.path('/healthz').check('get').allowed()", "true"),
        (
            "authorizer.serviceAccount('n', 'a').group('').resource('pods').check('get').allowed()",
            "true",
        ),
        ("authorizer.requestResource.check('get').allowed()", "true"),
        ("authorizer.group('').resource('p').labelSelector('!').check('x').errored()", "true"),
    ];
    for (text, expected) in cases {
        let program = environment.compile(text).unwrap();
        let mut budget = Budget::new(10_000_000);
        let found = program.evaluate(&mut activation, &mut budget).unwrap();
        assert_eq!(shown(&found), expected, "{text}");
        assert!(budget.last_cost() >= 350_000);
    }
}
