//! Users named in headers by a proxy in front of the server, which proves by its certificate that
//! it may.
//!
//! Upstream: `apiserver/pkg/authentication/request/headerrequest`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};

use crate::impersonation::unescape;
use crate::user::UserInfo;

/// The headers that upstream's own servers use among each other.
const STANDARD_USER: &str = "X-Remote-User";
const STANDARD_UID: &str = "X-Remote-Uid";
const STANDARD_GROUP: &str = "X-Remote-Group";
const STANDARD_EXTRA: &str = "X-Remote-Extra-";

/// Which headers, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// Headers with the name; the first that is not empty counts.
    pub username_headers: Vec<String>,
    /// Headers with the uid, likewise.
    pub uid_headers: Vec<String>,
    /// Headers with groups; all of them count.
    pub group_headers: Vec<String>,
    /// What headers begin with whose rest is a key of `extra`.
    pub extra_headers_prefixes: Vec<String>,
    /// Common names of certificates that may say who asks; any, when there is none.
    pub allowed_names: Vec<String>,
}

/// Names that are none. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum RequestHeaderError {
    /// A name of nothing but space.
    #[error("empty value in {0:?}")]
    Empty(&'static str),
    /// Aggregated servers would not hear of uids.
    #[error(
        "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - \
         API aggregation will not work"
    )]
    NoStandardUid,
}

impl RequestHeader {
    /// The standard headers, from certificates with these names.
    pub fn standard(allowed_names: &[&str]) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            username_headers: one(STANDARD_USER),
            uid_headers: one(STANDARD_UID),
            group_headers: one(STANDARD_GROUP),
            extra_headers_prefixes: one(STANDARD_EXTRA),
            allowed_names: allowed_names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// Finds names that are none.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), RequestHeaderError> {
        for (flag, names) in [
            ("requestheader-username-headers", &self.username_headers),
            ("requestheader-group-headers", &self.group_headers),
            ("requestheader-extra-headers-prefix", &self.extra_headers_prefixes),
            ("requestheader-allowed-names", &self.allowed_names),
            ("requestheader-uid-headers", &self.uid_headers),
        ] {
            if names.iter().any(|name| name.trim().is_empty()) {
                return Err(RequestHeaderError::Empty(flag));
            }
        }
        let is_standard = |name: &String| name.eq_ignore_ascii_case(STANDARD_UID);
        if !self.uid_headers.is_empty() && !self.uid_headers.iter().any(is_standard) {
            return Err(RequestHeaderError::NoStandardUid);
        }
        Ok(())
    }

    /// Whether a certificate with this common name may say who asks.
    pub fn allows(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// Who asks, by the headers of a request that comes from one who may say so.
    pub fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let first = |names: &[String]| {
            let mut values = names.iter().map(|name| text(headers.get(name.trim())));
            values.find(|value| !value.is_empty())
        };
        let name = first(&self.username_headers)?;
        let groups = self.group_headers.iter().flat_map(|name| headers.get_all(name.trim()));
        let groups = groups.map(|value| text(Some(value))).filter(|group| !group.is_empty());
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.extra_headers_prefixes {
            for (header, value) in headers {
                if let Some(key) = after(header, prefix.trim()) {
                    extra.entry(unescape(key)).or_default().push(text(Some(value)));
                }
            }
        }
        Some(UserInfo {
            name,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: groups.collect(),
            extra,
        })
    }

    /// Takes the headers out: they are believed here, and not beyond.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let names = [&self.username_headers, &self.uid_headers, &self.group_headers];
        for name in names.into_iter().flatten() {
            headers.remove(name.trim());
        }
        let has_prefix = |header: &HeaderName| {
            self.extra_headers_prefixes.iter().any(|prefix| after(header, prefix.trim()).is_some())
        };
        let extra: Vec<HeaderName> = headers.keys().filter(|it| has_prefix(it)).cloned().collect();
        for header in extra {
            headers.remove(header);
        }
    }

    /// Takes the standard headers out, whoever sent them.
    pub fn strip_standard(headers: &mut HeaderMap) {
        // Hardly any request has one.
        if headers.keys().any(|name| name.as_str().starts_with("x-remote-")) {
            Self::standard(&[]).strip(headers);
        }
    }
}

fn text(value: Option<&http::HeaderValue>) -> String {
    value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// What follows a prefix, whose case does not matter; names of headers are in lower case.
fn after<'a>(header: &'a HeaderName, prefix: &str) -> Option<&'a str> {
    let (begin, rest) = header.as_str().split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_user_is_read_and_the_headers_are_gone() {
        let config = RequestHeader {
            username_headers: vec!["X-User".to_owned(), "X-Remote-User".to_owned()],
            ..RequestHeader::standard(&["proxy"])
        };
        let mut headers = headers(&[
            ("x-user", ""),
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "a"),
            ("x-remote-group", ""),
            ("x-remote-group", "b"),
            ("x-remote-extra-scopes%2fx", "1"),
            ("x-remote-extra-scopes%2fx", "2"),
            ("accept", "*/*"),
        ]);
        let user = config.user(&headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["scopes/x"], ["1", "2"]);
        config.strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
        assert_eq!(config.user(&headers), None);
        assert!(config.allows("proxy") && !config.allows("other"));
        assert!(RequestHeader::standard(&[]).allows("other"));
    }

    #[test]
    fn names_of_nothing_are_refused_in_upstreams_words() {
        let wrong =
            RequestHeader { group_headers: vec![" ".to_owned()], ..RequestHeader::default() };
        assert_eq!(
            wrong.check().unwrap_err().to_string(),
            "empty value in \"requestheader-group-headers\""
        );
        let wrong =
            RequestHeader { uid_headers: vec!["X-Uid".to_owned()], ..RequestHeader::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("standard X-Remote-Uid header"));
        assert!(RequestHeader::standard(&[]).check().is_ok());
    }
}
