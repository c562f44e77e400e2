//! Property tests of everything here that reads what clients send.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use crate::negotiate::{self, Shape};
use crate::query::{Query, escape, unescape};
use crate::request_info::RequestInfo;
use cache::splice;

const SHAPES: [Shape; 3] = [Shape::Object, Shape::Table, Shape::Metadata];

/// Paths that look like those of the API.
fn nearly_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("api"),
        Just("apis"),
        Just("v1"),
        Just("apps"),
        Just("namespaces"),
        Just("watch"),
        Just("pods"),
        Just("a:b:c"),
        Just("proxy"),
        Just(""),
        Just("%2F"),
        Just("%"),
        Just("%zz"),
        Just("ä"),
    ];
    prop::collection::vec(part, 0..10).prop_map(|parts| format!("/{}", parts.join("/")))
}

/// Headers that look like `Accept`.
fn nearly_accept() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("application/json"),
        Just("application/vnd.kubernetes.protobuf"),
        Just("*/*"),
        Just(";"),
        Just(","),
        Just("as=Table"),
        Just("as=PartialObjectMetadataList"),
        Just("g=meta.k8s.io"),
        Just("v=v1"),
        Just("q="),
        Just("q=NaN"),
        Just("0.5"),
        Just(" "),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn request_lines_are_understood_or_not(path in nearly_path(), query in "[ -~]{0,40}") {
        let query = Query::parse(&query);
        for method in [Method::GET, Method::DELETE, Method::OPTIONS] {
            let info = RequestInfo::parse(&method, &path, &query);
            prop_assert!(info.rest.is_empty() || path.ends_with(&info.rest));
            prop_assert!(info.is_resource || info.resource.is_empty());
        }
    }

    #[test]
    fn escaping_is_undone_by_unescaping(text in "\\PC{0,40}") {
        prop_assert_eq!(unescape(&escape(&text)), text);
    }

    #[test]
    fn accepted_types_are_understood_or_refused(text in nearly_accept(), noise in "[ -~]{0,40}") {
        for text in [text, noise] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(&text).expect("visible characters"));
            let query = Query::default();
            for shapes in [&SHAPES[..], &SHAPES[..1]] {
                if let Ok(form) = negotiate::form(&headers, &query, shapes) {
                    prop_assert!(shapes.contains(&form.shape), "{text}");
                }
            }
            let takes_all = text.split(',').any(|clause| clause.trim() == "*/*");
            prop_assert!(!takes_all || negotiate::accepts(&headers, "text/plain"));
        }
    }

    #[test]
    fn bytes_without_a_place_for_the_version_have_none(
        bytes in prop::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b':'), Just(b','), Just(b'\\'),
                Just(b'['), any::<u8>()], 0..60),
        metadata in any::<bool>(),
    ) {
        let bytes = if metadata { [b"{\"metadata\":{".as_slice(), &bytes].concat() } else { bytes };
        let found = splice::metadata(&bytes).unwrap_or(b"{}");
        let is_object = found.first() == Some(&b'{') && found.last() == Some(&b'}');
        prop_assert!(is_object, "metadata without its braces");
        drop(splice::with_place_for_version(&bytes));
        drop(splice::with_resource_version(&Bytes::from(bytes), 7));
    }
}
