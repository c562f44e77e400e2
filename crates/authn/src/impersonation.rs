//! Acting as somebody else: the `Impersonate-*` headers.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::user::UserInfo;

/// Whom a request wants to act as. Each part needs its own permission for the verb `impersonate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impersonation {
    /// The user name.
    pub user: String,
    /// The uid.
    pub uid: Option<String>,
    /// The groups, as asked for.
    pub groups: Vec<String>,
    /// Extra, keys in lower case.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The headers do not make sense together.
#[derive(Debug, thiserror::Error)]
pub enum ImpersonationError {
    /// Groups, uid or extra without a user.
    #[error("requested {0} without impersonating a user name")]
    WithoutUser(String),
}

impl Impersonation {
    /// Reads the headers; `None` when there are none of them.
    ///
    /// # Errors
    /// When other parts come without a user.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, ImpersonationError> {
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let user = headers.get("impersonate-user").map(text).unwrap_or_default();
        let uid = headers.get("impersonate-uid").map(text).filter(|uid| !uid.is_empty());
        let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
                extra.entry(unescape(key)).or_default().push(text(value));
            }
        }
        if !user.is_empty() {
            return Ok(Some(Self { user, uid, groups, extra }));
        }
        if groups.is_empty() && extra.is_empty() && uid.is_none() {
            return Ok(None);
        }
        Err(ImpersonationError::WithoutUser(described(&uid.unwrap_or_default(), &groups, &extra)))
    }

    /// The user the request acts as, with the groups upstream adds.
    pub fn into_user(self) -> UserInfo {
        let mut groups = self.groups;
        let mut user = UserInfo { name: self.user, ..UserInfo::default() };
        if let Some((namespace, _)) = user.as_service_account()
            && groups.is_empty()
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let has = |group: &str| groups.iter().any(|found| found == group);
        if user.name == UserInfo::ANONYMOUS {
            if !has(UserInfo::UNAUTHENTICATED) {
                groups.push(UserInfo::UNAUTHENTICATED.to_owned());
            }
        } else if !has(UserInfo::AUTHENTICATED) && !has(UserInfo::UNAUTHENTICATED) {
            groups.push(UserInfo::AUTHENTICATED.to_owned());
        }
        user.groups = groups;
        user.uid = self.uid.unwrap_or_default();
        user.extra = self.extra;
        user
    }
}

/// A user without a name, as Go prints it.
fn described(uid: &str, groups: &[String], extra: &BTreeMap<String, Vec<String>>) -> String {
    let list = |items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
        format!("[]string{{{}}}", items.join(", "))
    };
    let groups = if groups.is_empty() { "[]string(nil)".to_owned() } else { list(groups) };
    let extra = if extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let entries: Vec<String> =
            extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        format!("map[string][]string{{{}}}", entries.join(", "))
    };
    format!("&user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{groups}, Extra:{extra}}}")
}

/// Keys of extra may have percent-encoded characters, since header names allow few.
pub(crate) fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match decoded {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
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
    fn all_parts_are_read() {
        let headers = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-example.com%2fscope", "view"),
        ]);
        let user = Impersonation::from_headers(&headers).unwrap().unwrap().into_user();
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["example.com/scope"], ["view"]);
    }

    #[test]
    fn groups_need_a_user() {
        let error = Impersonation::from_headers(&headers(&[
            ("impersonate-group", "a"),
            ("impersonate-extra-k", "v"),
        ]));
        assert_eq!(
            error.unwrap_err().to_string(),
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"a\"}, \
             Extra:map[string][]string{\"k\":[]string{\"v\"}}} without impersonating a user name"
        );
        assert_eq!(Impersonation::from_headers(&headers(&[])).unwrap(), None);
    }
}
