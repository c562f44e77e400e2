//! The libraries.

use super::check;

#[test]
fn strings_are_taken_apart_and_made() {
    check(&[
        ("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true"),
        ("'héllo'.charAt(1)", "\"é\""),
        ("'abc'.charAt(3)", "\"\""),
        ("'abc'.charAt(4)", "error: index out of range: 4"),
        ("'hello'.indexOf('l')", "2"),
        ("'hello'.indexOf('l', 3)", "3"),
        ("'hello'.indexOf('z')", "-1"),
        ("'hello'.lastIndexOf('l')", "3"),
        ("'hello'.lastIndexOf('l', 2)", "2"),
        ("'aXbX'.replace('X', '-')", "\"a-b-\""),
        ("'aXbX'.replace('X', '-', 1)", "\"a-bX\""),
        ("'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"),
        ("'abc'.split('')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("['a', 'b'].join()", "\"ab\""),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'tacocat'.substring(4)", "\"cat\""),
        ("'tacocat'.substring(0, 4)", "\"taco\""),
        ("'a'.substring(2)", "error: index out of range: 2"),
        ("'abc'.substring(2, 1)", "error: invalid substring range. start: 2, end: 1"),
        ("'  a '.trim() + 'AbC'.lowerAscii() + 'aé'.upperAscii()", "\"aabcAé\""),
        ("strings.quote('a\"b\\n')", r#""\"a\\\"b\\n\"""#),
        ("'%s is %d, %.2f%%'.format(['x', 3, 1.5])", "\"x is 3, 1.50%\""),
        ("'%s'.format([[1, 'a', {'k': null}]])", "\"[1, a, {k: null}]\""),
        ("'%x %X %b %o %e'.format([255, 255, 5, 8, 1234.5])", "\"ff FF 101 10 1.234500e+03\""),
        ("'%d'.format([])", "error: index 0 out of range"),
    ]);
}

#[test]
fn lists_are_counted_and_ordered() {
    check(&[
        ("[1, 2, 3].isSorted() && !['b', 'a'].isSorted()", "true"),
        ("[1, 2, 3].sum()", "6"),
        ("[1.5, 2.0].sum()", "3.5"),
        ("object.numbers.min() + object.numbers.max()", "4"),
        ("[1, 2, 1].indexOf(1)", "0"),
        ("[1, 2, 1].lastIndexOf(1)", "2"),
        ("[1, 2, 3].slice(1, 3)", "[2,3]"),
        ("[1].slice(0, 2)", "error: cannot slice(0, 2), list is length 1"),
        ("[[1], [2, 3]].flatten()", "[1,2,3]"),
        ("dyn([dyn(1), dyn([2, 3])]).flatten(2)", "[1,2,3]"),
        ("[1, 2, 1].distinct()", "[1,2]"),
        ("[3, 1, 2].sort()", "[1,2,3]"),
        ("[1, 2].reverse()", "[2,1]"),
        ("lists.range(3)", "[0,1,2]"),
        ("object.items.sortBy(i, -i.v).map(i, i.n)", "[\"b\",\"a\"]"),
        ("sets.contains([1, 2], [2])", "true"),
        ("sets.equivalent([1, 1], [1])", "true"),
        ("sets.intersects([1], [2])", "false"),
    ]);
}

#[test]
fn regular_expressions_match_and_find() {
    check(&[
        ("'abc'.matches('^a.c$')", "true"),
        ("matches('abc', 'b')", "true"),
        ("object.name.matches(object.name)", "true"),
        ("'a1b22'.find('[0-9]+')", "\"1\""),
        ("'a1b22'.findAll('[0-9]+')", "[\"1\",\"22\"]"),
        ("'a1b22'.findAll('[0-9]+', 1)", "[\"1\"]"),
        ("'a'.find('z')", "\"\""),
    ]);
}

#[test]
fn addresses_and_urls_are_read() {
    check(&[
        ("isIP('10.0.0.1') && !isIP('10.0.0.256') && !isIP('::ffff:1.2.3.4')", "true"),
        ("ip('10.0.0.1').family()", "4"),
        ("ip('::1').isLoopback()", "true"),
        ("ip.isCanonical('2001:db8::abcd')", "true"),
        ("ip.isCanonical('2001:DB8::ABCD')", "false"),
        ("ip('10.0.0.1') == ip('10.0.0.1')", "true"),
        ("string(ip('2001:DB8::1'))", "\"2001:db8::1\""),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", "true"),
        ("cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))", "false"),
        ("cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')", "true"),
        ("cidr('10.1.2.3/8').prefixLength()", "8"),
        ("string(cidr('10.1.2.3/8').ip())", "\"10.1.2.3\""),
        ("isCIDR('10.0.0.0/33')", "false"),
        ("url('https://user@example.com:8080/a b?x=1&x=2#y').getHost()", "\"example.com:8080\""),
        ("url('https://example.com:8080/').getPort()", "\"8080\""),
        ("url('https://[::1]:80/a').getHostname()", "\"::1\""),
        ("url('https://example.com/a b').getEscapedPath()", "\"/a%20b\""),
        ("url('/x?k=a+b&k=c').getQuery()", r#"{"k":["a b","c"]}"#),
        ("isURL('relative/path')", "false"),
        ("isURL('https://a:port/')", "false"),
    ]);
}

#[test]
fn quantities_versions_and_formats_are_read() {
    check(&[
        ("quantity('1Ki').isGreaterThan(quantity('1k'))", "true"),
        ("quantity('500m').add(quantity('500m')) == quantity('1')", "true"),
        ("quantity('2').sub(1).asInteger()", "1"),
        ("quantity('0.5').asInteger()", "error: cannot convert value to integer"),
        ("quantity('1.5').asApproximateFloat()", "1.5"),
        ("quantity('-1').sign()", "-1"),
        ("quantity('1').compareTo(quantity('2'))", "-1"),
        ("isQuantity('10 apples')", "false"),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", "true"),
        ("semver('1.0.0-alpha').compareTo(semver('1.0.0'))", "-1"),
        ("semver('v01.2', true).minor()", "2"),
        ("isSemver('1.2') || isSemver('01.2.3')", "false"),
        ("format.named('dns1123Label').hasValue()", "true"),
        ("format.named('nope').hasValue()", "false"),
        ("format.dns1123Label().validate('ok')", "none"),
        ("format.dns1123Label().validate('No').value().size()", "1"),
        ("format.uuid().validate('x').hasValue()", "true"),
        ("format.date().validate('2024-01-01').hasValue()", "false"),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
    ]);
}
