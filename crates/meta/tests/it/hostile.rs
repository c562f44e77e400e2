//! Texts from outside: no parser panics, and what is parsed means the same when it is printed.

use std::time::Instant;

use meta::{FieldSelector, LabelSelector, Quantity};
use proptest::prelude::*;

/// Texts that look like selectors.
fn nearly_selector() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just("x/y".to_owned()),
        Just("in".to_owned()),
        Just(" notin ".to_owned()),
        Just("=".to_owned()),
        Just("!=".to_owned()),
        Just("!".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
        Just(",".to_owned()),
        Just("<".to_owned()),
        Just(">".to_owned()),
        Just("\\".to_owned()),
        "[ -~]{0,3}".prop_map(|text| text),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn label_selectors_are_parsed_or_refused(text in nearly_selector(), noise in ".{0,40}") {
        for text in [text, noise] {
            if let Ok(selector) = LabelSelector::parse(&text) {
                let printed = selector.to_string();
                let again = LabelSelector::parse(&printed);
                prop_assert_eq!(again.map(|again| again.to_string()).ok(), Some(printed));
            }
        }
    }

    #[test]
    fn field_selectors_are_parsed_or_refused(text in nearly_selector(), noise in ".{0,40}") {
        for text in [text, noise] {
            if let Ok(selector) = FieldSelector::parse(&text) {
                let printed = selector.to_string();
                let again = FieldSelector::parse(&printed);
                prop_assert_eq!(again.map(|again| again.to_string()).ok(), Some(printed));
            }
        }
    }

    #[test]
    fn quantities_are_parsed_or_refused(
        text in "[+-]?[0-9.]{0,30}([EPTGMk]i?|[numeE]|[eE][+-]?[0-9]{0,12})?",
        noise in ".{0,20}",
    ) {
        for text in [text, noise] {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let printed = quantity.to_string();
                prop_assert_eq!(printed.parse::<Quantity>().map(|q| q.to_string()).ok(), Some(printed));
            }
        }
    }

    #[test]
    fn times_are_parsed_or_refused(text in "[0-9]{0,5}-?[0-9]{0,3}-?[0-9TZ:.+-]{0,30}") {
        drop((meta::time::parse(&text), meta::time::parse_duration(&text)));
    }
}

#[test]
fn long_texts_take_no_longer_than_they_are() {
    #[expect(clippy::disallowed_methods, reason = "the test is about the time that passes")]
    let begun = Instant::now();
    for piece in ["a,", "a in (", "(", "!", "a=b,", "\\", "9", "a notin (b,c),"] {
        let text = piece.repeat(200_000 / piece.len());
        drop(LabelSelector::parse(&text));
        drop(FieldSelector::parse(&text));
        // A number of any length is one: it is cut to the largest there is.
        assert_eq!(text.parse::<Quantity>().is_ok(), piece == "9");
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
