//! Query parameters.

/// The parameters of a request, decoded, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    raw: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the part behind the question mark.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode_form(key), decode_form(value))
            })
            .collect();
        Self { raw: text.to_owned(), pairs }
    }

    /// The same of parameters that are decoded already.
    pub(crate) fn of(pairs: Vec<(String, String)>) -> Self {
        let parts = pairs.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
        Self { raw: parts.collect::<Vec<_>>().join("&"), pairs }
    }

    /// As it came, for those to whom it is passed on.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The first value, unless it is empty.
    pub(crate) fn non_empty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// A boolean as upstream reads it: there, and neither `false` nor `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// All parameters.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// Decodes percent escapes; what is not a valid escape stays.
pub(crate) fn unescape(text: &str) -> String {
    decode(text, false)
}

/// Encodes everything but unreserved characters.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode_form(text: &str) -> String {
    decode(text, true)
}

fn decode(text: &str, plus_is_space: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = tail;
        match hex {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None if *first == b'+' && plus_is_space => out.push(b' '),
            None => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("a=1&b=x%2Cy+z&a=2&watch&off=false");
        assert_eq!(query.get("b"), Some("x,y z"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert!(query.flag("watch") && !query.flag("off") && !query.flag("none"));
    }

    #[test]
    fn escaping_is_undone_by_unescaping() {
        assert_eq!(escape("a b/c"), "a%20b%2Fc");
        assert_eq!(unescape(&escape("ä+%/")), "ä+%/");
    }
}
