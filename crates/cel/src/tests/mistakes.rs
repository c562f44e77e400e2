//! What is wrong with expressions, in upstream's words.

use super::environment;
use crate::{Declaration, Environment, Type};

const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                       NUM_UINT, STRING, BYTES, IDENTIFIER}";

fn mistakes(environment: &Environment, text: &str) -> Vec<String> {
    let printed = environment.compile(text).map_or_else(|why| why.to_string(), |_| String::new());
    let lines = printed.lines().filter_map(|line| line.strip_prefix("ERROR: <input>:"));
    lines.map(str::to_owned).collect()
}

#[test]
fn syntax_is_explained() {
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("1 +", vec![format!("1:4: Syntax error: mismatched input '<EOF>' expecting {OPERAND}")]),
        ("", vec![format!("1:0: Syntax error: mismatched input '<EOF>' expecting {OPERAND}")]),
        ("-x-", vec![format!("1:4: Syntax error: mismatched input '<EOF>' expecting {OPERAND}")]),
        ("1x", vec!["1:2: Syntax error: extraneous input 'x' expecting <EOF>".into()]),
        ("Bad_Value!", vec!["1:10: Syntax error: extraneous input '!' expecting <EOF>".into()]),
        (
            "1 + $",
            vec![
                "1:5: Syntax error: token recognition error at: '$'".into(),
                format!("1:6: Syntax error: mismatched input '<EOF>' expecting {OPERAND}"),
            ],
        ),
        (
            "1 + +",
            vec![
                format!("1:5: Syntax error: mismatched input '+' expecting {OPERAND}"),
                format!("1:6: Syntax error: mismatched input '<EOF>' expecting {OPERAND}"),
            ],
        ),
        ("a.", vec!["1:3: Syntax error: no viable alternative at input '.'".into()]),
        ("{'a': 1}.'a'", vec!["1:10: Syntax error: no viable alternative at input '.'a''".into()]),
        ("(1", vec!["1:3: Syntax error: missing ')' at '<EOF>'".into()]),
        ("a.`b`", vec!["1:3: unsupported syntax: '`'".into()]),
        ("as", vec!["1:1: reserved identifier: as".into()]),
        ("has(1)", vec!["1:5: invalid argument to has() macro".into()]),
        ("[1].all(2, true)", vec!["1:9: argument must be a simple name".into()]),
        ("99999999999999999999", vec!["1:1: invalid int literal".into()]),
    ];
    for (text, expected) in cases {
        assert_eq!(mistakes(&environment(), text), expected, "{text}");
    }
}

#[test]
fn types_are_explained() {
    let environment = Environment::new()
        .with("object", Declaration::dynamic())
        .with("text", Declaration::of(Type::String))
        .with("names", Declaration::list(Declaration::of(Type::String), crate::ListKind::Atomic));
    let cases = [
        ("nope.x", "1:1: undeclared reference to 'nope' (in container '')"),
        ("nope(1)", "1:5: undeclared reference to 'nope' (in container '')"),
        ("1 + 'a'", "1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 == 'a'", "1:3: found no matching overload for '_==_' applied to '(int, string)'"),
        (
            "text.contains(1)",
            "1:14: found no matching overload for 'contains' applied to 'string.(int)'",
        ),
        (
            "names == 'a'",
            "1:7: found no matching overload for '_==_' applied to '(list(string), string)'",
        ),
        ("!text", "1:1: found no matching overload for '!_' applied to '(string)'"),
        ("text && true", "1:6: found no matching overload for '_&&_' applied to '(string, bool)'"),
        ("text.x", "1:5: type 'string' does not support field selection"),
        ("[1, 'a']", "1:5: expected type 'int' but found 'string'"),
        (
            "text.all(x, true)",
            "1:1: expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        (
            "names.all(x, x)",
            "1:10: found no matching overload for '_&&_' applied to '(bool, string)'",
        ),
        ("Object{}", "1:7: undeclared reference to 'Object' (in container '')"),
        ("jsonpatch.escapeKey('a')", "1:1: undeclared reference to 'jsonpatch' (in container '')"),
        ("duration('1 day')", "1:10: invalid duration argument"),
        ("timestamp('x')", "1:11: invalid timestamp argument"),
        ("text.matches('(')", "1:14: invalid matches argument"),
    ];
    for (text, expected) in cases {
        assert_eq!(
            mistakes(&environment, text).first().map(String::as_str),
            Some(expected),
            "{text}"
        );
    }
}

#[test]
fn results_have_types() {
    let environment = environment();
    let cases = [
        ("1", "int"),
        ("object.x", "dyn"),
        ("object.x == 1", "bool"),
        ("[1].map(x, string(x))", "list(string)"),
        ("{'a': [1]}", "map(string, list(int))"),
        ("[]", "list(dyn)"),
        ("optional.of(1).optMap(x, 'a')", "optional_type(string)"),
        ("true ? 1 : object.x", "dyn"),
        ("null", "null_type"),
        ("Object{spec: Object.spec{a: 1}}", "Object"),
        ("[JSONPatch{op: 'add', path: '/a', value: 1}]", "list(JSONPatch)"),
        ("timestamp('2024-01-01T00:00:00Z')", "google.protobuf.Timestamp"),
    ];
    for (text, expected) in &cases {
        let program = environment.compile(text).map_err(|why| why.to_string());
        assert_eq!(program.map(|p| p.result().to_string()), Ok((*expected).to_owned()), "{text}");
    }
}
