//! Texts with a meaning of their own: quantities, times, durations, schedules, names, images.

use meta::{GroupVersion, GroupVersionKind, Quantity, names, time};
use serde_json::json;

use super::Target;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "Ki",
        "Mi",
        "Gi",
        "m",
        "u",
        "n",
        "e3",
        "E-9",
        ".",
        "-",
        "+",
        "0",
        "9",
        "T",
        "Z",
        ":",
        "1h",
        "1m",
        "1.5s",
        "1us",
        "1\u{b5}s",
        "*/5",
        "*",
        "@daily",
        "@every 1h",
        "TZ=UTC ",
        "MON-FRI",
        "?",
        "L",
        ",",
        "/",
        "@sha256:",
        ":latest",
        "registry.example:5000/",
        "=true",
        "AllAlpha",
        "api/all",
        "v1beta1",
        "%",
        "[",
        "]",
    ],
    memory_per_byte: 512,
    nanos_per_byte: 20_000,
    ..Target::new("text", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    [
        "1500m", "1Gi", "12e6", "-0.5", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456+01:00",
        "1h30m0.5s", "*/5 1-3 * JAN MON", "@every 1h30m", "CRON_TZ=Europe/Berlin 0 0 * * *",
        "registry.example:5000/a/b:tag@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "a.example/name", "apps/v1", "AllAlpha=true,WatchList=false", "api/all=true,apps/v1=false",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        let printed = quantity.to_string();
        let again = printed.parse::<Quantity>().map(|again| again.to_string());
        assert_eq!(again.ok(), Some(printed));
    }
    for normalize in [time::normalize, time::normalize_micro, time::normalize_duration] {
        if let Ok(normal) = normalize(text) {
            assert_eq!(normalize(&normal).as_ref(), Ok(&normal));
        }
    }
    if let Ok(nanos) = time::parse_duration(text) {
        assert_eq!(time::parse_duration(&time::print_duration(nanos)), Ok(nanos));
    }
    for rule in [names::dns1123_label, names::dns1123_subdomain, names::qualified_name] {
        drop(rule(text));
    }
    drop(GroupVersion::parse(text));
    if let Ok(reference) = image::Reference::parse(text) {
        let printed = reference.to_string();
        let again = image::Reference::parse(&printed).map(|again| again.to_string());
        assert_eq!(again.ok(), Some(printed));
    }
    drop(features::Features::parse(&[text]));
    drop(schema::RuntimeConfig::parse(&[text], |_| true));
    schedule(text);
}

/// A schedule is parsed when a cron job is validated.
fn schedule(text: &str) {
    let job = GroupVersionKind::new("batch", "v1", "CronJob");
    let object = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"schedule": text}});
    drop(validation::validate_create(&job, &object));
}
