//! CEL: expressions are compiled, and what compiles is evaluated within its budget.

use std::sync::LazyLock;

use cel::{Activation, Budget, Declaration, Environment, MATCH_CONDITIONS_BUDGET, Value};
use serde_json::json;

use super::Target;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "object",
        "self",
        ".spec",
        ".a",
        "['a']",
        ".all(x, ",
        ".exists(x, ",
        ".map(x, ",
        ".filter(x, ",
        "size(",
        "matches('",
        "has(",
        " ? ",
        " : ",
        " && ",
        " || ",
        " in ",
        "[1, 2]",
        "{'a': 1}",
        "quantity('1Gi')",
        "url('https://a')",
        "ip('::1')",
        "cidr('10.0.0.0/8')",
        "semver('1.2.3')",
        "format.named('dns1123Label').value()",
        ".format([",
        "%s",
        "b'a'",
        "r'\\'",
        "\"\"\"",
        "0x7fffffffffffffff",
        "1u",
        "1.5",
        "duration('1h')",
        "timestamp('2026-01-01T00:00:00Z')",
        ".split(',')",
        ".replace('a', 'b')",
        ".join(',')",
        ".find('a+')",
        ".findAll('[0-9]+')",
        "optional.of(1)",
        ".orValue(2)",
        ".?a",
        "[?0]",
        "sets.contains(",
        "cel.bind(x, 1, x)",
        "-",
        "!",
        "(",
        ")",
    ],
    // Regular expressions are compiled within a limit of their own, and evaluation has a budget.
    memory_per_byte: 4096,
    memory_base: 32 << 20,
    nanos_per_byte: 1_000_000,
    time_base: std::time::Duration::from_secs(2),
    ..Target::new("expression", seeds, run)
};

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let dynamic = Declaration::dynamic;
    Environment::new().with("object", dynamic()).with("self", dynamic())
});

fn seeds() -> Vec<Vec<u8>> {
    [
        "object.spec.replicas > 1 && object.metadata.name.startsWith('a')",
        "self.items.all(x, x.name.matches('^[a-z]+$')) ? 'a' : string(size(self.items))",
        "[1, 2, 3].map(x, x * 2).exists(y, y == 4) || has(object.a)",
        "quantity('1Gi').isGreaterThan(quantity('1Mi'))",
        "duration('1h') + duration('30m') < timestamp('2026-01-01T00:00:00Z') - timestamp('2025-01-01T00:00:00Z')",
        "'%s-%d'.format(['a', 1]).split('-').join('+')",
        "cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(program) = ENVIRONMENT.compile(text) else { return };
    let object = json!({"metadata": {"name": "abc", "labels": {"a": "b"}}, "a": [1, 2, "x"],
        "spec": {"replicas": 3}, "items": [{"name": "a"}, {"name": "b"}]});
    let value = || Value::json(&object, None);
    let mut activation =
        Activation::new(&ENVIRONMENT).with("object", value()).with("self", value());
    let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
    if let Ok(found) = program.evaluate(&mut activation, &mut budget) {
        drop(found.to_json());
    }
}
