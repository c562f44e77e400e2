//! Tokens of those who are about to join the cluster: `id.secret`, against Secrets in kube-system.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::user::UserInfo;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
/// Upstream's bound of a group's name, behind the prefix.
const LONGEST_GROUP: usize = 256;

/// A Secret that may have a bootstrap token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapSecret {
    /// Its type.
    pub kind: String,
    /// Whether it is being deleted.
    pub is_deleted: bool,
    /// Its data, as far as it is text.
    pub data: BTreeMap<String, String>,
}

/// The Secrets of kube-system.
pub trait BootstrapSecrets: Send + Sync + 'static {
    /// One by its name.
    fn secret(&self, name: &str) -> Option<BootstrapSecret>;
}

/// Upstream `TokenAuthenticator` of bootstrap tokens: the user, if it is a token and valid.
pub(crate) fn user(token: &str, secrets: &dyn BootstrapSecrets, now: i64) -> Option<UserInfo> {
    let (id, wanted) = parse(token)?;
    let found = secrets.secret(&format!("bootstrap-token-{id}"))?;
    let data = |key: &str| found.data.get(key).map(String::as_str).unwrap_or_default();
    // Hashes: how long the comparison takes then says nothing about the token.
    let is_same = Sha256::digest(data("token-secret")) == Sha256::digest(wanted);
    let is_valid = !found.is_deleted
        && found.kind == TYPE
        && is_same
        && data("token-id") == id
        && !has_expired(data("expiration"), now)
        && data("usage-bootstrap-authentication") == "true";
    if !is_valid {
        return None;
    }
    let mut user = UserInfo::new(format!("system:bootstrap:{id}"), &[]);
    user.groups = groups(data("auth-extra-groups"))?;
    Some(user)
}

/// Id and secret, if it is such a token at all.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_word = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    (is_word(id, 6) && is_word(secret, 16)).then_some((id, secret))
}

/// A time that cannot be read has passed.
fn has_expired(expiration: &str, now: i64) -> bool {
    if expiration.is_empty() {
        return false;
    }
    expiration.parse::<Timestamp>().map_or(true, |end| end.as_second() <= now)
}

/// The groups in upstream's order; none when one is not for those who join.
fn groups(extra: &str) -> Option<Vec<String>> {
    let mut groups = BTreeSet::from([GROUP.to_owned()]);
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        let own = group.strip_prefix(GROUP)?.strip_prefix(':')?;
        let is_word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let last = own.bytes().last()?;
        let is_valid = own.len() <= LONGEST_GROUP
            && is_word(last)
            && own.bytes().all(|c| is_word(c) || c == b':' || c == b'-');
        groups.insert(is_valid.then(|| group.to_owned())?);
    }
    Some(groups.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600;

    /// One Secret.
    struct One(BootstrapSecret);

    impl BootstrapSecrets for One {
        fn secret(&self, name: &str) -> Option<BootstrapSecret> {
            (name == "bootstrap-token-abcdef").then(|| self.0.clone())
        }
    }

    fn with(change: impl FnOnce(&mut BootstrapSecret)) -> Option<UserInfo> {
        let data = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let mut secret = BootstrapSecret { kind: TYPE.to_owned(), is_deleted: false, data };
        change(&mut secret);
        user("abcdef.0123456789abcdef", &One(secret), NOW)
    }

    fn set(key: &str, value: &str) -> Option<UserInfo> {
        with(|secret| drop(secret.data.insert(key.to_owned(), value.to_owned())))
    }

    #[test]
    fn a_token_gives_a_user_and_groups_of_those_who_join() {
        let user = set("auth-extra-groups", "system:bootstrappers:workers").unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:workers"]);
        assert_eq!(with(|_| ()).unwrap().groups, ["system:bootstrappers"]);
    }

    #[test]
    fn groups_of_others_cannot_be_had() {
        for group in ["system:masters", "system:bootstrappers:", "system:bootstrappers:A", "a,b"] {
            assert_eq!(set("auth-extra-groups", group), None, "{group}");
        }
    }

    #[test]
    fn a_token_ends_with_its_time_its_use_and_its_secret() {
        assert!(set("expiration", "2026-01-01T00:00:01Z").is_some());
        assert_eq!(set("expiration", "2026-01-01T00:00:00Z"), None);
        assert_eq!(set("expiration", "soon"), None);
        assert_eq!(set("usage-bootstrap-authentication", "yes"), None);
        assert_eq!(set("token-secret", "0123456789abcdeg"), None);
        assert_eq!(set("token-id", "abcdeg"), None);
        assert_eq!(with(|secret| secret.kind = "Opaque".to_owned()), None);
        assert_eq!(with(|secret| secret.is_deleted = true), None);
    }

    #[test]
    fn only_what_looks_like_a_token_is_looked_up() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef", "abcde.0123456789abcdef", "abcdeF.0123456789abcdef", "a.b.c"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
