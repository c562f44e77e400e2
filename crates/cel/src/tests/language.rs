//! The language itself.

use super::check;

#[test]
fn numbers_follow_their_types() {
    check(&[
        ("1 + 2 * 3 - 4", "3"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7u / 2u", "3u"),
        ("1.5 + 2.0", "3.5"),
        ("0x10 + 0xFF", "271"),
        ("-0x1", "-1"),
        ("1e3", "1000.0"),
        (".5", "0.5"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808 - 1", "error: integer overflow"),
        ("1u - 2u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0 > 1.0", "true"),
        ("--1", "1"),
        ("!!true", "true"),
        ("- (1)", "-1"),
    ]);
}

#[test]
fn numbers_of_different_types_are_compared() {
    check(&[
        ("1 < 2u", "true"),
        ("1.5 > 1", "true"),
        ("2u <= 2.0", "true"),
        ("dyn(1) == dyn(1.0)", "true"),
        ("dyn(1) == dyn('1')", "false"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("-1 < 18446744073709551615u", "true"),
        ("double('NaN') == double('NaN')", "false"),
        ("double('NaN') < 1.0", "false"),
    ]);
}

#[test]
fn what_decides_comes_before_a_mistake() {
    check(&[
        ("true || 1 / 0 > 0", "true"),
        ("1 / 0 > 0 || true", "true"),
        ("false && 1 / 0 > 0", "false"),
        ("1 / 0 > 0 && false", "false"),
        ("1 / 0 > 0 || false", "error: division by zero"),
        ("true && 1 / 0 > 0", "error: division by zero"),
        ("object.name && true", "error: no such overload"),
        ("object.name || true", "true"),
        ("true ? 1 : 1 / 0", "1"),
        ("false ? 1 / 0 : 2", "2"),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 2].all(x, 4 / x == 3)", "false"),
        ("[0, 1].all(x, 4 / x > 0)", "error: division by zero"),
    ]);
}

#[test]
fn literals_stand_for_what_they_say() {
    check(&[
        (r#""a\tb\"c\"""#, r#""a\tb\"c\"""#),
        (r"'\u00e9\x41\101'", "\"éAA\""),
        (r"r'\n'", r#""\\n""#),
        ("'''a'b'''", "\"a'b\""),
        ("''''''", "\"\""),
        ("size(b'\\xff\\x00')", "2"),
        ("b'abc' == bytes('abc')", "true"),
        ("null", "null"),
        ("[1, 2,]", "[1,2]"),
        ("{'a': 1, 'b': dyn([true])}", r#"{"a":1,"b":[true]}"#),
        ("1 // what follows is no part of it", "1"),
        ("size('héllo')", "5"),
    ]);
}

#[test]
fn fields_and_items_are_found() {
    check(&[
        ("object.name", "\"web\""),
        ("object['name']", "\"web\""),
        ("object.items[1].v", "2"),
        ("object.labels['app']", "\"web\""),
        ("object.missing", "error: no such key: missing"),
        ("object.items[2]", "error: index out of bounds: 2"),
        ("object.items[-1]", "error: index out of bounds: -1"),
        ("has(object.name) && !has(object.missing)", "true"),
        ("has(object.name.x)", "error: no such overload"),
        ("has(object.nothing)", "true"),
        ("object.nothing == null", "true"),
        ("'app' in object.labels", "true"),
        ("2 in object.numbers", "true"),
        ("'z' in ['x', 'y']", "false"),
        ("1 in {1: 2}", "true"),
        ("dyn({1: 'a'})[1u]", "\"a\""),
        ("object.numbers + [4]", "[3,1,2,4]"),
        ("object.items == [{'n': dyn('a'), 'v': 1}, {'n': dyn('b'), 'v': 2}]", "true"),
        ("object.labels == {'tier': 'front', 'app': 'web'}", "true"),
        ("object.replicas > 2", "true"),
        ("object.ratio * 2.0", "1.0"),
        ("{1: 'a', 1: 'b'}[1]", "\"b\""),
        ("{'a': 1, 'a': 2}", r#"{"a":2}"#),
        ("object.name + 1", "error: no such overload"),
        ("object.flag + 1", "error: no such overload: _+_"),
        ("object.name.isSorted()", "error: no such overload: isSorted(string)"),
        ("int(object.labels)", "error: no such overload: int(map)"),
        ("size(object.replicas)", "error: no such overload: size"),
    ]);
}

#[test]
fn loops_make_and_test() {
    check(&[
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[].all(x, false)", "true"),
        ("[].exists(x, true)", "false"),
        ("[1, 2, 2].exists_one(x, x == 2)", "false"),
        ("[1, 2].existsOne(x, x == 2)", "true"),
        ("[1, 2].map(x, x * 2)", "[2,4]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4,6]"),
        ("[1, 2, 3].filter(x, x != 2)", "[1,3]"),
        ("object.labels.all(k, k != 'z')", "true"),
        ("object.labels.map(k, object.labels[k])", "[\"web\",\"front\"]"),
        ("object.items.map(i, object.numbers.map(n, n + i.v))", "[[4,2,3],[5,3,4]]"),
        ("[1].map(x, [2].map(x, x))", "[[2]]"),
        ("object.name.all(x, true)", "error: no such overload"),
        ("[1, 2].all(i, v, i < v)", "true"),
        ("['a', 'b'].exists(i, v, i == 1 && v == 'b')", "true"),
        ("['a', 'b'].transformList(i, v, string(i) + v)", "[\"0a\",\"1b\"]"),
        ("['a', 'b'].transformList(i, v, i > 0, v)", "[\"b\"]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", r#"{"a":2,"b":3}"#),
        ("{'a': 1, 'b': 2}.transformMap(k, v, k == 'a', v)", r#"{"a":1}"#),
        ("{'a': 'x'}.transformMapEntry(k, v, {v: k})", r#"{"x":"a"}"#),
        (
            "['a', 'a'].transformMapEntry(i, v, {v: i})",
            "error: insert failed: key a already exists",
        ),
    ]);
}

#[test]
fn optional_values_are_something_or_nothing() {
    check(&[
        ("object.?name", "some(\"web\")"),
        ("object.?missing", "none"),
        ("object.?missing.x.y", "none"),
        ("object.?labels.app.orValue('z')", "\"web\""),
        ("object.?missing.orValue('z')", "\"z\""),
        ("object.labels[?'app']", "some(\"web\")"),
        ("object.numbers[?7]", "none"),
        ("optional.of(1).value()", "1"),
        ("optional.none().hasValue()", "false"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("optional.ofNonZeroValue('')", "none"),
        ("optional.none().or(optional.of(2))", "some(2)"),
        ("optional.of(2).optMap(x, x + 1)", "some(3)"),
        ("object.?missing.optMap(x, x + 1)", "none"),
        ("optional.of(2).optFlatMap(x, x > 3 ? optional.of(x) : optional.none())", "none"),
        ("[1, ?optional.none(), ?optional.of(2)]", "[1,2]"),
        ("{'a': 1, ?'b': optional.none()}", r#"{"a":1}"#),
        ("{?'b': object.?name}", r#"{"b":"web"}"#),
        ("optional.unwrap([optional.of(1), optional.none()])", "[1]"),
        ("[1, 2].first()", "some(1)"),
        ("[].last()", "none"),
    ]);
}

#[test]
fn types_convert() {
    check(&[
        ("int('12') + int(3.9) + int(2u)", "17"),
        ("int('x')", "error: type conversion error from 'string' to 'int'"),
        ("int(1e30)", "error: integer overflow"),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("double('1.5')", "1.5"),
        ("string(1.5) + string(true) + string(3u)", "\"1.5true3\""),
        ("string(1000000.0)", "\"1e+06\""),
        ("string(0.00001)", "\"1e-05\""),
        ("string(123456.0)", "\"123456\""),
        ("string(b'abc')", "\"abc\""),
        ("bool('true')", "true"),
        ("bool('yes')", "error: type conversion error from 'string' to 'bool'"),
        ("type(1)", "int"),
        ("type(1) == int", "true"),
        ("type([]) == list && type({}) == map && type(null) == null_type", "true"),
        ("type(type(1)) == type", "true"),
        ("type(duration('1s'))", "google.protobuf.Duration"),
        ("type(object) == map", "true"),
    ]);
}

#[test]
fn times_are_reckoned() {
    check(&[
        ("timestamp('2024-02-29T12:30:15.5Z').getDayOfYear()", "59"),
        ("timestamp('2024-02-29T12:30:15Z').getMonth()", "1"),
        ("timestamp('2024-02-29T12:30:15Z').getDate()", "29"),
        ("timestamp('2024-02-29T12:30:15Z').getDayOfWeek()", "4"),
        ("timestamp('2024-02-29T12:30:15Z').getHours('America/New_York')", "7"),
        ("timestamp('2024-02-29T12:30:15Z').getMinutes('-01:15')", "15"),
        ("timestamp('2024-02-29T12:30:15.125Z').getMilliseconds()", "125"),
        ("timestamp('2024-02-29T12:30:15Z') + duration('24h')", "\"2024-03-01T12:30:15Z\""),
        ("timestamp('2024-01-01T00:00:01Z') - timestamp('2024-01-01T00:00:00Z')", "\"1s\""),
        ("duration('1h30m').getMinutes()", "90"),
        ("string(duration('90.5s'))", "\"90.5s\""),
        ("duration('1m') < duration('61s')", "true"),
        ("timestamp('9999-12-30T00:00:00Z') + duration('100h')", "error: timestamp overflow"),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ("timestamp(60).getMinutes()", "1"),
    ]);
}
