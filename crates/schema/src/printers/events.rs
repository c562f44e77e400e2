//! Events, in both of their groups.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{int, name, since, text, text_or};

pub(super) fn row(resource: &str, event: &Value, now: Timestamp) -> Option<Vec<Value>> {
    if resource != "events" {
        return None;
    }
    // The newer group names the same fields differently.
    let first_of = |a: &'static str, b: &'static str| text_or(event, a, text(event, b));
    let ago = |at: &str| if at.is_empty() { "<unknown>".to_owned() } else { since(at, now) };
    let first = first_of("/firstTimestamp", "/deprecatedFirstTimestamp");
    let first = ago(if first.is_empty() { text(event, "/eventTime") } else { first });
    let mut last = match first_of("/lastTimestamp", "/deprecatedLastTimestamp") {
        "" => first.clone(),
        at => ago(at),
    };
    let mut count = int(event, "/count").max(int(event, "/deprecatedCount"));
    if let Some(series) = event.get("series") {
        last = ago(text(series, "/lastObservedTime"));
        count = int(series, "/count");
    } else if count == 0 {
        count = 1;
    }
    let subject = event.get("involvedObject").or_else(|| event.get("regarding"));
    let subject = subject.unwrap_or(&Value::Null);
    let kind = text(subject, "/kind").to_lowercase();
    let target = match text(subject, "/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let message = first_of("/message", "/note").trim();
    Some(vec![
        json!(last),
        json!(text(event, "/type")),
        json!(text(event, "/reason")),
        json!(target),
        json!(text(subject, "/fieldPath")),
        json!(source(event)),
        json!(message),
        json!(first),
        json!(count),
        name(event),
    ])
}

fn source(event: &Value) -> String {
    let old = event.get("source").or_else(|| event.get("deprecatedSource"));
    let old = old.unwrap_or(&Value::Null);
    let controller = text_or(event, "/reportingComponent", text(event, "/reportingController"));
    let component = text_or(old, "/component", controller);
    let instance = text_or(old, "/host", text(event, "/reportingInstance"));
    if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") }
}
