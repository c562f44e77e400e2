//! What a client makes of an answer without a `Status`, from its code alone: upstream
//! `apimachinery/pkg/api/errors.NewGenericServerResponse`.

use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{Method, StatusCode};

use crate::{Cause, GroupResource, Reason, Status, StatusDetails};

/// Characters of an answer that are kept; upstream's limit.
const TEXT_MAX: usize = 2048;

impl Status {
    /// A failure in upstream's words.
    pub fn of_answer(method: &Method, answer: &Parts, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let said = if is_text(answer) { text.trim() } else { "unknown" };
        let said = &said[..said.floor_char_boundary(TEXT_MAX)];
        let (reason, message) = match answer.status {
            StatusCode::CONFLICT => {
                let is_new = *method == Method::POST;
                let reason = if is_new { Reason::AlreadyExists } else { Reason::Conflict };
                (Some(reason), "the server reported a conflict".to_owned())
            }
            // These two say who may not do what, and what is understood.
            StatusCode::FORBIDDEN => (Some(Reason::Forbidden), said.to_owned()),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                (Some(Reason::UnsupportedMediaType), said.to_owned())
            }
            StatusCode::NOT_ACCEPTABLE if !matches!(said, "" | "unknown") => {
                (Some(Reason::NotAcceptable), said.to_owned())
            }
            code => match fixed(code) {
                Some((reason, message)) => (Some(reason), message.to_owned()),
                None if code.is_server_error() => {
                    let what = format!("an error on the server ({said:?})");
                    let message = format!("{what} has prevented the request from succeeding");
                    (Some(Reason::InternalError), message)
                }
                None => {
                    let what =
                        format!("the server responded with the status code {}", code.as_u16());
                    (None, format!("{what} but did not return more information"))
                }
            },
        };
        let cause = Cause {
            reason: "UnexpectedServerResponse".to_owned(),
            message: said.to_owned(),
            field: String::new(),
        };
        let mut status = Self::failure(Reason::InternalError, message)
            .with_details(StatusDetails { causes: vec![cause], ..StatusDetails::default() });
        status.reason = reason.map_or("", Reason::as_str).to_owned();
        status.code = answer.status.as_u16();
        status
    }

    /// The same with what was asked of which resource, and of which object, if it was one.
    #[must_use]
    pub fn about(mut self, method: &Method, resource: &GroupResource, name: &str) -> Self {
        let space = if name.is_empty() { "" } else { " " };
        let method = method.as_str().to_lowercase();
        self.message = format!("{} ({method} {resource}{space}{name})", self.message);
        let details = self.details.get_or_insert_default();
        details.group.clone_from(&resource.group);
        details.kind.clone_from(&resource.resource);
        details.name = name.to_owned();
        self
    }
}

/// Whether an answer is for people; one that does not say is taken for that.
fn is_text(answer: &Parts) -> bool {
    let Some(value) = answer.headers.get(CONTENT_TYPE) else { return true };
    value.to_str().is_ok_and(|value| value.starts_with("text/"))
}

/// Codes with one message, whatever the server said.
fn fixed(code: StatusCode) -> Option<(Reason, &'static str)> {
    Some(match code {
        StatusCode::NOT_FOUND => {
            (Reason::NotFound, "the server could not find the requested resource")
        }
        StatusCode::BAD_REQUEST => {
            (Reason::BadRequest, "the server rejected our request for an unknown reason")
        }
        StatusCode::UNAUTHORIZED => {
            (Reason::Unauthorized, "the server has asked for the client to provide credentials")
        }
        StatusCode::NOT_ACCEPTABLE => (
            Reason::NotAcceptable,
            "the server was unable to respond with a content type that the client supports",
        ),
        StatusCode::METHOD_NOT_ALLOWED => (
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        ),
        StatusCode::UNPROCESSABLE_ENTITY => {
            (Reason::Invalid, "the server rejected our request due to an error in our request")
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            (Reason::ServiceUnavailable, "the server is currently unable to handle the request")
        }
        StatusCode::GATEWAY_TIMEOUT => (
            Reason::Timeout,
            "the server was unable to return a response in the time allotted, but may still be \
             processing the request",
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, method: &Method, said: Option<&str>) -> Status {
        let kind = if said.is_some() { "text/plain; charset=utf-8" } else { "application/json" };
        let answer = http::Response::builder().status(code).header(CONTENT_TYPE, kind);
        let (answer, ()) = answer.body(()).unwrap().into_parts();
        Status::of_answer(method, &answer, said.unwrap_or("{}").as_bytes())
    }

    #[test]
    fn a_code_alone_has_upstreams_words() {
        let of = |code, said| {
            let status = answer(code, &Method::GET, said);
            assert_eq!(status.code, code);
            (status.reason, status.message)
        };
        let words = |reason: &str, message: &str| (reason.to_owned(), message.to_owned());
        assert_eq!(
            of(404, Some("404 page not found\n")),
            words("NotFound", "the server could not find the requested resource")
        );
        assert_eq!(of(403, Some("go away")), words("Forbidden", "go away"));
        assert_eq!(of(403, None), words("Forbidden", "unknown"));
        assert_eq!(of(406, Some("only text")), words("NotAcceptable", "only text"));
        assert!(of(406, None).1.ends_with("a content type that the client supports"));
        assert_eq!(of(409, None), words("Conflict", "the server reported a conflict"));
        assert_eq!(
            of(500, Some("bad\nday")),
            words(
                "InternalError",
                r#"an error on the server ("bad\nday") has prevented the request from succeeding"#
            )
        );
        assert_eq!(
            of(418, None),
            words(
                "",
                "the server responded with the status code 418 but did not return more information"
            )
        );
        let long = "é".repeat(TEXT_MAX);
        assert_eq!(of(403, Some(&long)).1.len(), TEXT_MAX);
        let made = answer(409, &Method::POST, None);
        assert!(made.is(Reason::AlreadyExists));
    }

    #[test]
    fn what_was_asked_for_is_named() {
        let resource = GroupResource { group: "metrics.k8s.io".into(), resource: "pods".into() };
        let status = answer(404, &Method::GET, Some("no"));
        let listed = status.clone().about(&Method::GET, &resource, "");
        let text = "the server could not find the requested resource (get pods.metrics.k8s.io)";
        assert_eq!(listed.message, text);
        let one = status.about(&Method::GET, &resource, "a");
        assert!(one.message.ends_with("(get pods.metrics.k8s.io a)"), "{}", one.message);
        let details = one.details.unwrap();
        assert_eq!(
            (&*details.group, &*details.kind, &*details.name),
            ("metrics.k8s.io", "pods", "a")
        );
        let cause = &details.causes[0];
        assert_eq!((&*cause.reason, &*cause.message), ("UnexpectedServerResponse", "no"));
    }
}
