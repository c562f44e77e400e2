//! Label and field selectors: what is parsed is printed and parsed to the same.

use meta::{FieldSelector, LabelSelector};

use super::Target;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        " in ",
        " notin ",
        "(",
        ")",
        ",",
        "=",
        "==",
        "!=",
        "!",
        "<",
        ">",
        "a",
        "x/y",
        "\\,",
        "\\=",
        "\\\\",
        "metadata.name",
        "1",
        "\"matchLabels\":",
        "\"matchExpressions\":",
        "\"key\":",
        "\"operator\":\"In\"",
        "\"values\":[]",
    ],
    memory_per_byte: 256,
    ..Target::new("selector", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    [
        "a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2",
        "metadata.name=a,spec.nodeName!=b\\,c",
        r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"In","values":["d"]}]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let printed = selector.to_string();
        let again = LabelSelector::parse(&printed).map(|again| again.to_string());
        assert_eq!(again.ok(), Some(printed));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let printed = selector.to_string();
        let again = FieldSelector::parse(&printed).map(|again| again.to_string());
        assert_eq!(again.ok(), Some(printed));
    }
    if let Ok(object) = serde_json::from_str(text) {
        drop(LabelSelector::from_object(Some(&object)));
    }
}
