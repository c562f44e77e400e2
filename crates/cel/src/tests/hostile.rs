//! Texts that are meant to do harm.

use proptest::prelude::*;

use super::{environment, value};
use crate::Environment;

fn refused(text: &str) -> String {
    environment().compile(text).map_or_else(|why| why.to_string(), |_| "taken".to_owned())
}

const TOO_DEEP: &str = "ERROR: <input>:-1:0: expression recursion limit exceeded: 250";

#[test]
fn nesting_is_bounded() {
    let cases = [
        format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)),
        "[".repeat(50_000),
        "{1:".repeat(30_000),
        format!("1{}", "+1".repeat(40_000)),
        format!("object{}", ".a".repeat(40_000)),
        format!("object{}", "[0]".repeat(30_000)),
        format!("{}true", "true ? true : ".repeat(5_000)),
        format!("object{}", ".map(x, x)".repeat(5_000)),
    ];
    for text in cases {
        assert_eq!(refused(&text), TOO_DEEP, "{}", &text[..20]);
    }
}

#[test]
fn nesting_that_is_allowed_works() {
    assert_eq!(value(&format!("{}1{}", "(".repeat(200), ")".repeat(200))), "1");
    assert_eq!(value(&format!("1{}", "+1".repeat(200))), "201");
    assert_eq!(value(&format!("size({}{})", "[".repeat(200), "]".repeat(200))), "1");
    // Long chains of `||` are flat.
    assert_eq!(value(&format!("{}true", "false || ".repeat(2_000))), "true");
    assert_eq!(value(&format!("{}true", "!".repeat(20_000))), "true");
}

#[test]
fn chains_within_chains_are_bounded() {
    // Each level may be long and deep; together they must not be deeper than the stack.
    let mut text = "1".to_owned();
    for _ in 0..100 {
        text = format!("({text}{})", "+1".repeat(100));
    }
    assert_eq!(refused(&text), TOO_DEEP);
}

#[test]
fn size_is_bounded() {
    let found = refused(&" ".repeat(100_001));
    let expected = "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100001, \
                    limit 100000";
    assert_eq!(found, expected);
}

#[test]
fn many_mistakes_are_not_all_told() {
    let found = refused(&"a||".repeat(33_000));
    assert!(found.len() < 1 << 20, "{}", found.len());
    let found = refused(&vec!["nope"; 2_000].join("||\n"));
    assert!(found.ends_with("\n1900 more errors were truncated"));
}

#[test]
fn long_texts_are_read_in_a_moment() {
    let cases = [
        vec!["object.a.b.c == 'x'"; 4_500].join("||"),
        format!("[{}]", vec!["1"; 49_000].join(",")),
        format!("{{{}}}", (0..7_000).map(|n| format!("'k{n}': {n}")).collect::<Vec<_>>().join(",")),
        vec!["[1].all(x, x > 0)"; 5_000].join("&&"),
        vec![format!("object{}", ".a".repeat(200)); 240].join("||"),
    ];
    for text in cases {
        assert_eq!(refused(&text), "taken", "{}", &text[..20]);
    }
}

#[test]
fn texts_that_grow_end_at_the_limit() {
    let text = "lists.range(20000).all(x, size('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'\
                .replace('', object.name + object.name).replace('', 'bbbbbbbbbbbbbbbbbbbbbbb')\
                .replace('', 'cccccccccccccccccccccccccccccccc')) > 0)";
    assert_eq!(value(text), "error: operation cancelled: actual cost limit exceeded");
}

#[test]
fn types_that_double_do_not_grow_without_bound() {
    let text: String =
        (0..60).map(|n| format!(".map(x{n}, {{'a': [x{n}], 'b': [x{n}]}})")).collect();
    assert_eq!(refused(&format!("[1]{text}")), "taken");
    let text: String = (0..60).map(|n| format!(".optMap(x{n}, [[x{n}], [x{n}]])")).collect();
    assert_eq!(refused(&format!("optional.of(1){text}")), "taken");
}

#[test]
fn values_that_double_end_at_the_limit() {
    let text: String = (0..60).map(|n| format!(".optMap(x{n}, x{n} + x{n})")).collect();
    let found = value(&format!("optional.of('aaaaaaaaaa'){text}.hasValue()"));
    assert_eq!(found, "error: operation cancelled: actual cost limit exceeded");
}

#[test]
fn regular_expressions_are_bounded() {
    let found = refused("'a'.matches('((a{1000}){1000}){1000}')");
    assert!(found.contains("invalid matches argument"), "{found}");
    let found = value("object.name.matches(object.name + '(x{1000}){1000}{1000}')");
    assert!(found.starts_with("error: error parsing regexp"), "{found}");
    assert_eq!(
        value("('a' + 'a'.replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaa')).matches('(a+)+$')"),
        "true"
    );
}

#[test]
fn deep_variables_are_bounded() {
    let mut environment = Environment::new();
    for n in 0..3_000 {
        environment = environment.with_composed(&format!("v{n}"), crate::Type::Dyn);
    }
    let texts = (0..3_000_u32).map(|n| match n.checked_sub(1) {
        Some(before) => format!("[variables.v{before}]"),
        None => "[1]".to_owned(),
    });
    let programs: Vec<_> = texts.map(|text| environment.compile(&text).unwrap()).collect();
    let mut activation = crate::Activation::new(&environment).compose(&programs);
    let mut budget = crate::Budget::new(crate::RUNTIME_BUDGET);
    let last = environment.compile("variables.v2999").unwrap();
    assert!(last.evaluate(&mut activation, &mut budget).is_err());
    // In order, too, when none is deep by itself.
    let mut activation = crate::Activation::new(&environment).compose(&programs);
    let mut failed = false;
    for n in 0..3_000 {
        let program = environment.compile(&format!("size(variables.v{n}) > 0")).unwrap();
        failed |= program.evaluate(&mut activation, &mut budget).is_err();
    }
    assert!(failed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        value(&text);
    }

    #[test]
    fn no_text_of_tokens_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "object", ".", "name", "(", ")", "[", "]", "{", "}", "1", "1u", "'a'", "b'x'", "+",
                "-", "*", "/", "%", "!", "&&", "||", "?", ":", ",", "==", "<", "in", "all", "map",
                "x", "has", "size", "items", "numbers", "null", "true", "optional", "of", "Object",
                "exists", "'", "\"", "\\", "é", "duration", "0.5", "matches", "format", "sort",
            ]),
            0..40,
        ),
        separator in prop::sample::select(vec!["", " "]),
    ) {
        value(&words.join(separator));
    }
}
