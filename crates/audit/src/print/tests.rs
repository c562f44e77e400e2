//! Events as text.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::event::{Facts, Stage};

fn event(level: Level) -> Event {
    Event {
        level,
        stage: Stage::ResponseComplete,
        stage_timestamp: Timestamp::from_microsecond(1_700_000_000_000_007).unwrap(),
        facts: Arc::new(Facts {
            audit_id: "id-1".to_owned(),
            request_uri: "/api/v1/pods?limit=1&watch=0".to_owned(),
            verb: "list".to_owned(),
            user: UserInfo::new("jane", &["dev", "ops"]),
            source_ips: vec!["192.0.2.1".parse().unwrap()],
            user_agent: "curl".to_owned(),
            received: Timestamp::from_microsecond(1_700_000_000_000_000).unwrap(),
        }),
        impersonated_user: None,
        object: Some(ObjectReference {
            resource: "pods".to_owned(),
            api_version: "v1".to_owned(),
            ..ObjectReference::default()
        }),
        response_status: Some(ResponseStatus::of_code(200)),
        request_object: None,
        response_object: None,
        omits_managed_fields: false,
        annotations: BTreeMap::from([("a/b".to_owned(), "<c>".to_owned())]),
    }
}

fn printed(event: &Event, truncate: &TruncateOptions) -> Result<String, PrintError> {
    let mut out = Vec::new();
    line(event, Format::Json, truncate, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn an_event_is_printed_in_upstreams_order_and_escapes() {
    let text = printed(&event(Level::Metadata), &TruncateOptions::default()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-1","#,
            r#""stage":"ResponseComplete","requestURI":"/api/v1/pods?limit=1\u0026watch=0","#,
            r#""verb":"list","user":{"username":"jane","groups":["dev","ops"]},"#,
            r#""sourceIPs":["192.0.2.1"],"userAgent":"curl","#,
            r#""objectRef":{"resource":"pods","apiVersion":"v1"},"#,
            r#""responseStatus":{"metadata":{},"code":200},"#,
            r#""requestReceivedTimestamp":"2023-11-14T22:13:20.000000Z","#,
            r#""stageTimestamp":"2023-11-14T22:13:20.000007Z","#,
            r#""annotations":{"a/b":"\u003cc\u003e"}}"#,
            "\n"
        )
    );
}

#[test]
fn the_older_format_is_one_line() {
    let mut event = event(Level::Metadata);
    event.impersonated_user = Some(UserInfo::new("joe", &["x"]));
    assert_eq!(
        legacy(&event),
        "2023-11-14T22:13:20Z AUDIT: id=\"id-1\" stage=\"ResponseComplete\" ip=\"192.0.2.1\" \
         method=\"list\" user=\"jane\" groups=\"\\\"dev\\\",\\\"ops\\\"\" as=\"joe\" \
         asgroups=\"\\\"x\\\"\" user-agent=\"curl\" namespace=\"<none>\" \
         uri=\"/api/v1/pods?limit=1&watch=0\" response=\"200\""
    );
}

#[test]
fn objects_are_json_whatever_they_were_sent_as() {
    let pod = serde_json::json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}});
    let gvk = GroupVersionKind::new("", "v1", "Pod");
    let forms = [
        (
            Media::Json,
            b"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\"}}\n".to_vec(),
        ),
        (Media::Yaml, b"kind: Pod\napiVersion: v1\nmetadata: {name: p}\n".to_vec()),
        (Media::Protobuf, schema::encode_protobuf(&gvk, &pod)),
    ];
    for (media, bytes) in forms {
        let recorded = Recorded { media, chunks: vec![Bytes::from(bytes)] };
        let text = object(&recorded, false).unwrap();
        let found: Value = serde_json::from_str(text.get()).unwrap();
        assert_eq!(
            (&found["kind"], &found["metadata"]["name"]),
            (&pod["kind"], &pod["metadata"]["name"])
        );
    }
}

#[test]
fn managed_fields_are_left_out_of_objects_lists_and_tables() {
    let check = |text: &str, expected: &str| {
        let recorded = Recorded::json(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(object(&recorded, true).unwrap().get(), expected);
        assert_eq!(object(&recorded, false).unwrap().get(), text);
    };
    check(r#"{"metadata":{"managedFields":[{}],"name":"a"}}"#, r#"{"metadata":{"name":"a"}}"#);
    check(
        r#"{"items":[{"metadata":{"managedFields":[]}}],"rows":[{"object":{"metadata":{"managedFields":[]}}}]}"#,
        r#"{"items":[{"metadata":{}}],"rows":[{"object":{"metadata":{}}}]}"#,
    );
}

#[test]
fn what_is_too_large_loses_its_objects_and_then_itself() {
    let truncate = TruncateOptions { enabled: true, max_event_size: 900, max_batch_size: 900 };
    let mut large = event(Level::RequestResponse);
    let body = format!("{{\"a\":\"{}\"}}", "filler".repeat(200));
    large.response_object = Some(Recorded::json(Bytes::from(body)));
    let text = printed(&large, &truncate).unwrap();
    assert!(
        text.contains(r#""audit.k8s.io/truncated":"true""#) && !text.contains("fillerfiller"),
        "{text}"
    );
    let unlimited = printed(&large, &TruncateOptions::default()).unwrap();
    assert!(unlimited.contains("fillerfiller"));
    large.annotations.insert("long".to_owned(), "y".repeat(1000));
    assert!(matches!(printed(&large, &truncate), Err(PrintError::TooLarge)));
    large.level = Level::Metadata;
    assert!(matches!(printed(&large, &truncate), Err(PrintError::TooLarge)));
}

#[test]
fn what_is_not_json_is_left_out_and_the_event_is_not() {
    for nonsense in ["", "{\"a\": ", "\n", "[1] [2]"] {
        let mut broken = event(Level::Request);
        broken.request_object = Some(Recorded::json(Bytes::from_static(nonsense.as_bytes())));
        let text = printed(&broken, &TruncateOptions::default()).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        assert!(found["requestObject"].is_null() && found["auditID"] == "id-1", "{text}");
    }
}

#[test]
fn an_object_of_many_lines_is_one() {
    let sent = "\n{ \"a\" :\t[1, 2,\r\n {}],\n \"b \\\"\": \" c\\\\\" }\n";
    let text = object(&Recorded::json(Bytes::from_static(sent.as_bytes())), false).unwrap();
    assert_eq!(text.get(), "{\"a\":[1,2,{}],\"b \\\"\":\" c\\\\\"}");
}

#[test]
fn times_are_printed_as_others_are() {
    for text in
        ["2026-11-20T19:34:31.000001Z", "1970-01-01T00:00:00Z", "2024-02-29T23:59:59.999999Z"]
    {
        let time: Timestamp = text.parse().unwrap();
        assert_eq!(micro_time(time), meta::time::rfc3339_micro(time));
    }
}
