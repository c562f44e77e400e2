//! `$(VAR)` in commands, arguments and environment values.

/// Replaces every `$(NAME)` whose name `lookup` knows; `$$` stands for one dollar.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn variables_are_replaced_and_dollars_escaped() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        let cases = [
            ("$(A)", "x"),
            ("a$(A)b$(A)", "axbx"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$", "$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
        ];
        for (text, expect) in cases {
            assert_eq!(super::expand(text, &lookup), expect, "{text}");
        }
    }
}
