//! PriorityLevelConfigurations: how many requests of a level run at once.

use serde_json::{Value, json};

use crate::FieldError;
use crate::node::{Findings, Node};

const MAX_QUEUES: i64 = 10_000_000;
/// Most bits that dealing a hand of queues may need.
const MAX_ENTROPY_BITS: f64 = 60.0;
const VERSION_ANNOTATION: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let (metadata, spec) = (object.get("metadata"), object.get("spec"));
    let name = metadata.get("name");
    mandatory(name.text(), &spec, out);
    let annotations = metadata.get("annotations");
    if annotations.value.get(VERSION_ANNOTATION).is_some() {
        let detail = format!("annotation '{VERSION_ANNOTATION}' is forbidden");
        out.push(annotations.forbidden(detail));
    }
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (name.text() == "exempt") != (kind.text() == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        out.push(kind.invalid_text(detail));
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                out.push(limited.forbidden("must be nil if the type is not Limited"));
            }
            if exempt.is_set() {
                shares(&exempt, out);
            }
        }
        "Limited" => {
            if exempt.is_set() {
                out.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if limited.is_set() {
                limits(&limited, out);
            } else {
                let detail = "must not be empty when type is Limited";
                out.push(FieldError::required(&limited.path, detail));
            }
        }
        other => {
            out.push(FieldError::not_supported(&kind.path, other, &["Exempt", "Limited"]));
        }
    }
}

/// Two levels are upstream's own; of one only the exempt part may differ.
fn mandatory(name: &str, spec: &Node<'_>, out: &mut Findings) {
    let (fixed, detail) = match name {
        "exempt" => {
            let kept = spec.get("exempt").value.clone();
            let mut fixed = json!({"type": "Exempt"});
            if !kept.is_null() {
                fixed["exempt"] = kept;
            }
            let detail =
                "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            (fixed, detail)
        }
        "catch-all" => {
            let limited = json!({"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}});
            let detail = "spec of 'catch-all' must equal the fixed value";
            (json!({"type": "Limited", "limited": limited}), detail)
        }
        _ => return,
    };
    let mut given = spec.value.clone();
    if name == "catch-all" && given["limited"].get("lendablePercent").is_none() {
        given["limited"]["lendablePercent"] = Value::from(0);
    }
    if given != fixed {
        let finding = spec.invalid(detail);
        out.push(finding.shown_as("flowcontrol/v1.PriorityLevelConfigurationSpec"));
    }
}

fn shares(level: &Node<'_>, out: &mut Findings) {
    let (shares, lendable) = (level.get("nominalConcurrencyShares"), level.get("lendablePercent"));
    if shares.int() < 0 {
        out.push(shares.invalid("must be a non-negative integer"));
    }
    if !(0..=100).contains(&lendable.int()) {
        out.push(lendable.invalid("must be between 0 and 100, inclusive"));
    }
}

fn limits(limited: &Node<'_>, out: &mut Findings) {
    let shares = limited.get("nominalConcurrencyShares");
    if shares.int() < 0 {
        out.push(shares.invalid("must be a non-negative integer"));
    }
    let response = limited.get("limitResponse");
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            out.push(queuing.forbidden(detail));
        }
        "Queue" if !queuing.is_set() => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            out.push(FieldError::required(&queuing.path, detail));
        }
        "Queue" => queues(&queuing, out),
        "Reject" => {}
        other => out.push(FieldError::not_supported(&kind.path, other, &["Queue", "Reject"])),
    }
    let (lendable, borrowing) =
        (limited.get("lendablePercent"), limited.get("borrowingLimitPercent"));
    if !(0..=100).contains(&lendable.int()) {
        out.push(lendable.invalid("must be between 0 and 100, inclusive"));
    }
    if borrowing.int() < 0 {
        out.push(borrowing.invalid("if specified, must be a non-negative integer"));
    }
}

fn queues(queuing: &Node<'_>, out: &mut Findings) {
    let length = queuing.get("queueLengthLimit");
    if length.int() <= 0 {
        out.push(length.invalid_int("must be positive"));
    }
    let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
    if queues.int() <= 0 {
        out.push(queues.invalid_int("must be positive"));
    } else if queues.int() > MAX_QUEUES {
        out.push(queues.invalid(format!("must not be greater than {MAX_QUEUES}")));
    }
    if hand.int() <= 0 {
        out.push(hand.invalid_int("must be positive"));
    } else if hand.int() > queues.int() {
        let detail = format!("should not be greater than queues ({})", queues.int());
        out.push(hand.invalid(detail));
    } else if entropy_bits(queues.int(), hand.int()) > MAX_ENTROPY_BITS {
        out.push(hand.invalid(format!(
            "required entropy bits of deckSize {} and handSize {} should not be greater than {}",
            queues.int(),
            hand.int(),
            MAX_ENTROPY_BITS
        )));
    }
}

/// How many bits it takes to choose a hand from a deck, in order.
fn entropy_bits(deck: i64, hand: i64) -> f64 {
    let ways = (0..hand.min(64)).map(|taken| {
        // Both are small enough to be exact.
        let left = i32::try_from(deck - taken).unwrap_or(i32::MAX);
        f64::from(left).log2()
    });
    ways.sum::<f64>().ceil()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_decks_and_hands_need_many_bits() {
        assert!(entropy_bits(64, 8) <= MAX_ENTROPY_BITS);
        assert!(entropy_bits(70_000, 4) > MAX_ENTROPY_BITS);
        assert!(entropy_bits(512, 4) <= MAX_ENTROPY_BITS);
    }
}
