//! In what form an answer is wanted, and in what form a body came.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use meta::{Reason, Status};

use crate::query::Query;

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    /// Indented, for people.
    PrettyJson,
    Yaml,
    Protobuf,
}

/// What objects are turned into first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// Metadata alone; lists become lists of it.
    Metadata,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
    /// The version of `meta.k8s.io` for tables and metadata.
    pub(crate) is_v1beta1: bool,
    /// Whether the client named the list of metadata, and not that of one object.
    pub(crate) names_list: bool,
}

impl Form {
    /// Plain JSON.
    pub(crate) const JSON: Self = Self {
        encoding: Encoding::Json,
        shape: Shape::Object,
        is_v1beta1: false,
        names_list: false,
    };

    /// The form as a number, another one for each.
    pub(crate) fn number(self) -> u32 {
        let flags = u32::from(self.is_v1beta1) | u32::from(self.names_list) << 1;
        flags | (self.shape as u32) << 8 | (self.encoding as u32) << 16
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self.encoding {
            Encoding::Json | Encoding::PrettyJson => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The same for a watch.
    pub(crate) fn stream_content_type(self) -> &'static str {
        match self.encoding {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            _ => "application/json",
        }
    }
}

/// The best form that the client accepts and that this endpoint has.
pub(crate) fn form(headers: &HeaderMap, query: &Query, shapes: &[Shape]) -> Result<Form, Status> {
    best(headers, query, shapes).map_err(|is_known| not_acceptable(is_known, ""))
}

/// The same where the answer may be a stream, as it may be wherever there are lists.
pub(crate) fn list_form(
    headers: &HeaderMap,
    query: &Query,
    shapes: &[Shape],
) -> Result<Form, Status> {
    const STREAMS: &str =
        ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    best(headers, query, shapes).map_err(|is_known| not_acceptable(is_known, STREAMS))
}

/// Fails with whether any media type was one that is served.
fn best(headers: &HeaderMap, query: &Query, shapes: &[Shape]) -> Result<Form, bool> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let accept = if accept.trim().is_empty() { "*/*" } else { accept };
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let found = clauses.iter().find_map(|clause| clause.form(shapes));
    let is_known = clauses.iter().any(|clause| clause.encoding().is_some());
    let mut form = found.ok_or(is_known)?;
    if form.encoding == Encoding::Json && wants_pretty(headers, query) {
        form.encoding = Encoding::PrettyJson;
    }
    Ok(form)
}

/// Refuses an answer in the form of a list where there is one object, or the other way round.
pub(crate) fn check_metadata(form: Form, is_list: bool, go_type: &str) -> Result<(), Status> {
    if form.shape != Shape::Metadata || form.names_list == is_list {
        return Ok(());
    }
    let message = if is_list {
        format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({go_type})"
        )
    } else {
        format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list \
             ({go_type})"
        )
    };
    Err(Status::failure(Reason::NotAcceptable, message))
}

/// The form of errors: never refused.
pub(crate) fn error_form(headers: &HeaderMap, query: &Query) -> Form {
    form(headers, query, &[Shape::Object]).unwrap_or(Form::JSON)
}

/// How the body of a request is written.
pub(crate) fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match media.as_str() {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(Status::failure(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// A known media type may still come with parameters that are not served.
fn not_acceptable(is_known: bool, streams: &str) -> Status {
    const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    if is_known {
        let message = format!("only the following media types are accepted: {TYPES}");
        return Status::failure(Reason::NotAcceptable, message);
    }
    nothing_acceptable(&format!("{TYPES}{streams}"))
}

/// 406 as upstream's router gives it.
pub(crate) fn nothing_acceptable(types: &str) -> Status {
    Status::failure(
        Reason::NotAcceptable,
        format!("406: Not Acceptable\n\nAvailable representations: {types}"),
    )
    .with_details(meta::StatusDetails::default())
}

/// Whether the client takes exactly this type, whatever it prefers; for endpoints with one type.
pub(crate) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let mut clauses = accept.split(',').filter_map(Clause::parse);
    accept.trim().is_empty()
        || clauses.any(|clause| {
            let range = clause.media.strip_suffix('*').filter(|range| range.ends_with('/'));
            clause.media == media
                || clause.media == "*/*"
                || range.is_some_and(|range| media.starts_with(range))
        })
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.get("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

/// One alternative of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?;
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let quality = parameters.iter().find(|(key, _)| *key == "q");
        let quality = quality.and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
        Some(Self { media, quality, parameters })
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    fn form(&self, shapes: &[Shape]) -> Option<Form> {
        let encoding = self.encoding()?;
        let parameter =
            |key: &str| self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| *v);
        let shape = match parameter("as") {
            "" => Shape::Object,
            "Table" => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
            _ => return None,
        };
        let is_v1beta1 = parameter("v") == "v1beta1";
        if shape != Shape::Object {
            let is_meta =
                parameter("g") == "meta.k8s.io" && matches!(parameter("v"), "v1" | "v1beta1");
            let is_printable = shape != Shape::Table || encoding != Encoding::Protobuf;
            if !is_meta || !is_printable || !shapes.contains(&shape) {
                return None;
            }
        }
        let names_list = parameter("as") == "PartialObjectMetadataList";
        Some(Form { encoding, shape, is_v1beta1, names_list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Shape; 3] = [Shape::Object, Shape::Table, Shape::Metadata];

    fn check(accept: &'static str, expected: Option<(Encoding, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
        let found = form(&headers, &Query::default(), &ALL).ok();
        assert_eq!(found.map(|form| (form.encoding, form.shape)), expected, "{accept}");
    }

    #[test]
    fn the_first_form_that_is_served_wins() {
        check("application/json", Some((Encoding::Json, Shape::Object)));
        check("text/html", None);
        check("text/html, */*;q=0.1", Some((Encoding::Json, Shape::Object)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some((Encoding::Json, Shape::Table)),
        );
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some((Encoding::Protobuf, Shape::Metadata)),
        );
        check("application/json;as=Nope;v=v1;g=meta.k8s.io", None);
    }

    #[test]
    fn endpoints_with_one_type_take_ranges() {
        let takes = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
            accepts(&headers, "application/jwk-set+json")
        };
        assert!(takes("*/*") && takes("application/*") && takes("text/html, */*;q=0.1"));
        assert!(takes("application/jwk-set+json") && takes(""));
        assert!(!takes("application/json") && !takes("text/*"));
    }
}
