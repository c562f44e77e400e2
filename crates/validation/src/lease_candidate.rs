//! LeaseCandidates.
//!
//! Upstream: `pkg/apis/coordination/validation`.

use crate::FieldError;
use crate::lease;
use crate::node::{Findings, Node};

/// Major, minor and patch, and what comes before the release of that version.
type Version<'a> = ([u64; 3], PreRelease<'a>);

/// Parts of a pre-release; the release itself comes after every one of its pre-releases.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PreRelease<'a> {
    Before(Vec<Part<'a>>),
    Release,
}

/// Numbers come before words.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Number(u64),
    Word(&'a str),
}

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    spec.get("leaseName").require(out);
    let (emulation, binary) = (spec.get("emulationVersion"), spec.get("binaryVersion"));
    let emulated = emulation.is_set().then(|| read(&emulation, out)).flatten();
    let built = if binary.require(out) { read(&binary, out) } else { None };
    let zero = || ([0; 3], PreRelease::Release);
    let both = binary.is_set() && emulation.is_set();
    if both && built.unwrap_or_else(zero) < *emulated.as_ref().unwrap_or(&zero()) {
        out.push(binary.invalid("must be greater than or equal to `emulationVersion`"));
    }
    let strategy = spec.get("strategy");
    if !strategy.require(out) {
        return;
    }
    if strategy.text() == lease::STRATEGY && emulated.is_none_or(|version| version == zero()) {
        let detail = "must be specified when `strategy` is 'OldestEmulationVersion'";
        out.push(FieldError::required(&emulation.path, detail));
    }
    // Upstream names the field twice.
    lease::strategy(&strategy.under(strategy.path.child("strategy")), out);
}

pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    validate(new, out);
    new.get("spec").get("leaseName").immutable(&old.get("spec").get("leaseName"), out);
}

fn read<'a>(node: &Node<'a>, out: &mut Findings) -> Option<Version<'a>> {
    let version = parse(node.text());
    if version.is_none() {
        out.push(node.invalid("must be a valid semantic version"));
    }
    version
}

fn parse(text: &str) -> Option<Version<'_>> {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if build.is_some_and(|build| !build.split('.').all(is_word)) {
        return None;
    }
    let (numbers, before) = match text.split_once('-') {
        Some((numbers, before)) => (numbers, Some(before)),
        None => (text, None),
    };
    let mut parts = numbers.split('.').map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    if parts.next().is_some() {
        return None;
    }
    let Some(before) = before else { return Some((numbers, PreRelease::Release)) };
    let part = |part| match part {
        part if !is_word(part) => None,
        part if part.bytes().all(|b| b.is_ascii_digit()) => number(part).map(Part::Number),
        part => Some(Part::Word(part)),
    };
    let parts: Option<Vec<_>> = before.split('.').map(part).collect();
    Some((numbers, PreRelease::Before(parts?)))
}

fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    (is_plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::{check, check_update};

    fn candidate(emulation: &str, binary: &str, strategy: &str) -> serde_json::Value {
        let mut spec = json!({"leaseName": "l"});
        for (field, text) in
            [("emulationVersion", emulation), ("binaryVersion", binary), ("strategy", strategy)]
        {
            if !text.is_empty() {
                spec[field] = json!(text);
            }
        }
        json!({"metadata": {"name": "x"}, "spec": spec})
    }

    fn refused(emulation: &str, binary: &str, strategy: &str, expected: &[&str]) {
        check(
            "coordination.k8s.io",
            "LeaseCandidate",
            candidate(emulation, binary, strategy),
            expected,
        );
    }

    #[test]
    fn versions_are_semantic_and_in_order() {
        refused("1.35.0", "1.36.0", "OldestEmulationVersion", &[]);
        refused(
            "1.36.0",
            "1.36.0-rc.1",
            "x.io/own",
            &[
                "spec.binaryVersion: Invalid value: \"1.36.0-rc.1\": must be greater than or equal to \
             `emulationVersion`",
            ],
        );
        refused(
            "1.36",
            "01.2.3",
            "x.io/own",
            &[
                "spec.emulationVersion: Invalid value: \"1.36\": must be a valid semantic version",
                "spec.binaryVersion: Invalid value: \"01.2.3\": must be a valid semantic version",
            ],
        );
        assert!(parse("1.0.0-alpha") < parse("1.0.0-alpha.1"));
        assert!(parse("1.0.0-2") < parse("1.0.0-alpha"));
        assert!(parse("1.0.0-rc+b.1").is_some() && parse("1.0.0+").is_none());
    }

    #[test]
    fn a_strategy_may_need_the_emulated_version() {
        refused(
            "",
            "1.36.0",
            "OldestEmulationVersion",
            &["spec.emulationVersion: Required value: must be specified when `strategy` is \
             'OldestEmulationVersion'"],
        );
        refused(
            "",
            "",
            "",
            &["spec.binaryVersion: Required value", "spec.strategy: Required value"],
        );
        refused(
            "",
            "1.36.0",
            "Mine",
            &["spec.strategy.strategy: Unsupported value: \"Mine\": supported values: \
             \"OldestEmulationVersion\""],
        );
    }

    #[test]
    fn a_candidate_keeps_its_lease() {
        let old = candidate("", "1.36.0", "x.io/own");
        let mut new = old.clone();
        new["spec"]["leaseName"] = json!("m");
        check_update(
            "coordination.k8s.io",
            "LeaseCandidate",
            "",
            (&new, &old),
            &["spec.leaseName: Invalid value: \"m\": field is immutable"],
        );
    }
}
