//! What expressions cost, beforehand and when they run.

use std::time::Duration;

use serde_json::json;

use crate::{Activation, Budget, Declaration, Environment, EvaluationError, Range, Value};

fn environment(schema: &serde_json::Value) -> Environment {
    Environment::new().with("self", Declaration::from_schema(schema, false).unwrap())
}

#[test]
fn estimates_are_upstreams() {
    let strings =
        json!({"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 20}});
    let string = json!({"type": "string", "maxLength": 100});
    let cases = [
        (&string, "true", 0, 0),
        (&string, "self == 'abc'", 2, 2),
        (&string, "self.startsWith('abcdefghijk')", 3, 3),
        (&string, "self.contains('a')", 1, 11),
        (&string, "self.matches('[a-z]+')", 3, 23),
        (&strings, "self.all(x, x == 'a')", 2, 52),
        (&strings, "self.map(x, x)", 12, 142),
        (&strings, "self.exists(x, x.contains('b'))", 2, 72),
    ];
    for (schema, text, min, max) in cases {
        let found = environment(schema).compile(text).unwrap().estimate();
        assert_eq!(found, Range { min, max }, "{text}");
    }
}

#[test]
fn what_has_no_limit_is_estimated_by_the_size_of_a_request() {
    let schema = json!({"type": "array", "items": {"type": "string"}});
    let found = environment(&schema).compile("self.all(x, self.all(y, x == y))").unwrap();
    assert!(found.estimate().max > 100 * crate::STATIC_LIMIT);
}

#[test]
fn what_is_spent_is_within_the_estimate() {
    let schema = json!({"type": "object", "properties": {
        "s": {"type": "string", "maxLength": 20},
        "n": {"type": "integer"},
        "l": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}},
        "m": {"type": "object", "maxProperties": 3,
            "additionalProperties": {"type": "string", "maxLength": 10}}}});
    let object = json!({"s": "a string of words", "n": 3,
        "l": ["aaaaaaaaaa", "b", "cc"], "m": {"k": "v", "other": "value"}});
    let declaration = Declaration::from_schema(&schema, false).unwrap();
    let environment = Environment::new().with("self", declaration.clone());
    let texts = [
        "self.n > 2 && self.s != ''",
        "self.n > 5 || self.s.startsWith('a')",
        "self.n > 5 ? self.s == 'x' : self.l[0] == 'y'",
        "self.l.all(x, x.size() > 0)",
        "self.l.exists(x, x.contains('b'))",
        "self.l.exists_one(x, x == 'b')",
        "self.l.map(x, x + 'z') == []",
        "self.l.filter(x, x.matches('^a+$')).size() == 1",
        "self.l.all(x, self.l.exists(y, x == y))",
        "self.l.all(i, x, i < 9 && x != '')",
        "self.m.all(k, self.m[k] != '')",
        "self.m.transformList(k, v, k + v).join(',') != ''",
        "self.s.split(' ').size() > 1",
        "self.s.replace('s', 'tt').lowerAscii() == self.s",
        "self.l.isSorted() || self.l.indexOf('b') > 0",
        "'%s and %d'.format([self.s, self.n]) != ''",
        "[self.s, 'b'].exists(x, x in self.l)",
        "has(self.s) && {'a': self.s}['a'] != 'x'",
        "quantity('1').isLessThan(quantity('2')) && isIP('10.0.0.1')",
        "self.s.find('[a-z]+') == 'a' && self.s.upperAscii().trim() != ''",
    ];
    for text in texts {
        let program = environment.compile(text).unwrap();
        let mut activation =
            Activation::new(&environment).with("self", Value::json(&object, Some(&declaration)));
        let mut budget = Budget::new(crate::RUNTIME_BUDGET);
        program.evaluate(&mut activation, &mut budget).unwrap();
        let (spent, estimate) = (budget.last_cost(), program.estimate());
        assert!(spent <= estimate.max && spent >= estimate.min, "{text}: {spent} of {estimate:?}");
    }
}

fn spent(text: &str) -> (Result<String, EvaluationError>, u64) {
    let environment = super::environment();
    let object = super::object();
    let program = environment.compile(text).unwrap();
    let mut activation = Activation::new(&environment).with("object", Value::json(&object, None));
    let mut budget = Budget::new(crate::RUNTIME_BUDGET);
    let found = program.evaluate(&mut activation, &mut budget);
    (found.map(|value| super::shown(&value)), budget.last_cost())
}

#[test]
fn steps_are_charged() {
    let cases = [
        ("true", 0),
        ("object.name", 2),
        ("object.name == 'web'", 3),
        ("[1, 2].all(x, x > 0)", 1 + 2 * (2 + 1 + 2)),
        ("[object.name]", 12),
        ("object.numbers.map(x, x)", 2 + 11 + 3 * 13),
    ];
    for (text, expected) in cases {
        assert_eq!(spent(text).1, expected, "{text}");
    }
}

#[test]
fn loops_within_loops_end_at_the_limit() {
    let text = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true)))";
    let (found, cost) = spent(text);
    assert_eq!(found, Err(EvaluationError::CostLimitExceeded));
    assert!(cost > crate::PER_CALL_LIMIT && cost < crate::PER_CALL_LIMIT + 2_000);
}

#[test]
fn budgets_are_shared_by_evaluations() {
    let environment = super::environment();
    let program = environment.compile("[1, 2, 3].all(x, x > 0)").unwrap();
    let mut activation = Activation::new(&environment);
    let mut budget = Budget::new(20);
    assert!(program.evaluate(&mut activation, &mut budget).is_ok());
    assert_eq!(budget.remaining(), Some(4));
    assert!(program.evaluate(&mut activation, &mut budget).is_ok());
    assert!(budget.is_exhausted());
}

#[test]
fn evaluations_can_be_interrupted() {
    let environment = super::environment();
    let program = environment.compile("lists.range(10000).all(x, x >= 0)").unwrap();
    let mut activation = Activation::new(&environment);
    let gone = || true;
    let mut budget = Budget::new(crate::RUNTIME_BUDGET).interrupted_by(&gone);
    let found = program.evaluate(&mut activation, &mut budget).map(|_| ());
    assert_eq!(found, Err(EvaluationError::Interrupted));
}

/// Twenty usual rules about an object of 3 KB.
#[test]
#[expect(clippy::disallowed_methods, reason = "it measures how long evaluation takes")]
fn twenty_usual_rules_are_quick() {
    let environment = super::environment();
    let containers: Vec<_> = (0..8)
        .map(|n| {
            json!({"name": format!("c{n}"), "image": format!("registry.example/app{n}:1.{n}"),
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                "securityContext": {"runAsNonRoot": true, "privileged": false},
                "env": [{"name": "A", "value": "a".repeat(150)}]})
        })
        .collect();
    let object = json!({"metadata": {"name": "web", "labels": {"app": "web", "team": "a"}},
        "spec": {"replicas": 3, "containers": containers}});
    assert!(object.to_string().len() > 2_500);
    let rules = [
        "object.spec.replicas <= 5",
        "has(object.metadata.labels) && 'team' in object.metadata.labels",
        "object.spec.containers.all(c, c.image.startsWith('registry.example/'))",
        "object.metadata.name.matches('^[a-z]+$')",
    ];
    let programs: Vec<_> = rules.iter().map(|rule| environment.compile(rule).unwrap()).collect();
    let run = || {
        let mut activation =
            Activation::new(&environment).with("object", Value::json(&object, None));
        let mut budget = Budget::new(crate::RUNTIME_BUDGET);
        for _ in 0..5 {
            for program in &programs {
                let found = program.evaluate(&mut activation, &mut budget);
                assert!(matches!(found, Ok(Value::Bool(true))));
            }
        }
    };
    run();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        run();
    }
    let each = start.elapsed() / 100;
    println!("20 rules: {each:?}");
    // A build that is not optimised takes some twenty times as long as one that is.
    assert!(each < Duration::from_millis(20), "{each:?}");
}
