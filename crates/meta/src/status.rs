//! `Status`: the only error a client of the API sees.
//!
//! Reasons, codes and message forms: upstream `apimachinery/pkg/api/errors`.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Why a request failed, in a word that programs compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 409, on create.
    AlreadyExists,
    /// 409, on update.
    Conflict,
    /// 410, on a resource version that is no longer kept.
    Expired,
    /// 410.
    Gone,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 422.
    Invalid,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 500, when another server must be asked.
    ServerTimeout,
    /// 503.
    ServiceUnavailable,
    /// 504.
    Timeout,
}

impl Reason {
    const ALL: [(Reason, &'static str, u16); 18] = [
        (Reason::BadRequest, "BadRequest", 400),
        (Reason::Unauthorized, "Unauthorized", 401),
        (Reason::Forbidden, "Forbidden", 403),
        (Reason::NotFound, "NotFound", 404),
        (Reason::MethodNotAllowed, "MethodNotAllowed", 405),
        (Reason::NotAcceptable, "NotAcceptable", 406),
        (Reason::AlreadyExists, "AlreadyExists", 409),
        (Reason::Conflict, "Conflict", 409),
        (Reason::Expired, "Expired", 410),
        (Reason::Gone, "Gone", 410),
        (Reason::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
        (Reason::UnsupportedMediaType, "UnsupportedMediaType", 415),
        (Reason::Invalid, "Invalid", 422),
        (Reason::TooManyRequests, "TooManyRequests", 429),
        (Reason::InternalError, "InternalError", 500),
        (Reason::ServerTimeout, "ServerTimeout", 500),
        (Reason::ServiceUnavailable, "ServiceUnavailable", 503),
        (Reason::Timeout, "Timeout", 504),
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or("", |(_, word, _)| word)
    }

    /// The HTTP code that goes with the reason.
    pub fn code(self) -> StatusCode {
        let code = Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or(500, |row| row.2);
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The reason a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text, _)| *text == word).map(|(reason, ..)| *reason)
    }
}

/// One finding among several in a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What kind of finding, such as `FieldValueRequired`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The finding in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field, such as `spec.containers[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Group of the resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource, or kind, of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Uid of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The answer to a request that failed, or that has no object to answer with.
///
/// Serialises with upstream's field order, `kind` and `apiVersion` first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `Status`.
    #[serde(default)]
    pub kind: String,
    /// Always `v1`.
    #[serde(default)]
    pub api_version: String,
    /// List metadata: empty, or the continue token of an expired list.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// `Success` or `Failure`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs: a [`Reason`] word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP code.
    #[serde(default, skip_serializing_if = "is_zero_u16")]
    pub code: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero_u16(n: &u16) -> bool {
    *n == 0
}

impl Status {
    /// A failure.
    pub fn failure(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: serde_json::Map::new(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.as_str().to_owned(),
            details: None,
            code: reason.code().as_u16(),
        }
    }

    /// A success without an object.
    pub fn success() -> Self {
        Self {
            status: "Success".to_owned(),
            reason: String::new(),
            code: 0,
            ..Self::failure(Reason::InternalError, "")
        }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(details);
        self
    }

    /// The reason as an enum, when it is a known word.
    pub fn parsed_reason(&self) -> Option<Reason> {
        Reason::parse(&self.reason)
    }

    /// Whether the failure has this reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_prints_in_upstream_order() {
        let status =
            Status::failure(Reason::NotFound, "pods \"a\" not found").with_details(StatusDetails {
                name: "a".into(),
                kind: "pods".into(),
                ..Default::default()
            });
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"a\" not found","reason":"NotFound","details":{"name":"a","kind":"pods"},"code":404}"#
        );
    }

    #[test]
    fn every_reason_has_its_word_and_code() {
        for (reason, word, code) in Reason::ALL {
            assert_eq!(reason.as_str(), word);
            assert_eq!(reason.code().as_u16(), code);
            assert_eq!(Reason::parse(word), Some(reason));
        }
    }
}
