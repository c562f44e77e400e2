//! Levels and versions, and the labels that name them.

use std::fmt;

use meta::Cause;
use serde_json::Value;

/// How much pods may do, least restricted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that is known to give rights over the node.
    Baseline,
    /// What current practice recommends.
    Restricted,
}

/// The minor version whose rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    #[default]
    Latest,
    Minor(u32),
}

impl Version {
    /// Whether the rules are those of this minor version or later ones.
    pub(super) fn is_at_least(self, minor: u32) -> bool {
        match self {
            Version::Latest => true,
            Version::Minor(own) => own >= minor,
        }
    }
}

/// A level of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// The standards of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Policy {
    /// The policy in a namespace's labels, and which of them say nothing.
    pub(super) fn of(namespace: &Value) -> (Self, Vec<Cause>) {
        let labels = &namespace["metadata"]["labels"];
        Self::of_labels(&|key| labels.get(key).and_then(Value::as_str))
    }

    /// The same for labels that are looked up.
    pub(super) fn of_labels<'a>(label: Labels<'_, 'a>) -> (Self, Vec<Cause>) {
        let mut wrong = Vec::new();
        let enforce = mode(label, "enforce", &mut wrong);
        let is_enforced = wrong.is_empty();
        let open = |mut standard: Standard, mode: &str| {
            // A level that is none refuses much, and is not worth a word.
            let given = label(&format!("pod-security.kubernetes.io/{mode}"));
            if given.is_none_or(|level| !LEVELS.contains(&level)) {
                standard.level = Level::Privileged;
            }
            standard
        };
        let audit = open(mode(label, "audit", &mut wrong), "audit");
        let mut warn = open(mode(label, "warn", &mut wrong), "warn");
        if label("pod-security.kubernetes.io/warn").is_none() && is_enforced {
            warn.level = enforce.level;
            if label("pod-security.kubernetes.io/warn-version").is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, wrong)
    }
}

const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];

/// The value of a label.
type Labels<'f, 'a> = &'f dyn Fn(&str) -> Option<&'a str>;

fn mode(labels: Labels<'_, '_>, mode: &str, wrong: &mut Vec<Cause>) -> Standard {
    let label = |suffix: &str| {
        let key = format!("pod-security.kubernetes.io/{mode}{suffix}");
        let value = labels(&key).map(str::to_owned);
        (key, value)
    };
    let mut refuse = |key: &str, value: &str, why: &str| {
        wrong.push(Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {value:?}: {why}"),
            field: format!("metadata.labels[{key}]"),
        });
    };
    let mut standard = Standard::default();
    if let (key, Some(level)) = label("") {
        standard.level = match level.as_str() {
            "privileged" => Level::Privileged,
            "baseline" => Level::Baseline,
            "restricted" => Level::Restricted,
            other => {
                refuse(&key, other, "must be one of privileged, baseline, restricted");
                Level::Restricted
            }
        };
    }
    if let (key, Some(version)) = label("-version") {
        let minor = version.strip_prefix("v1.").filter(|minor| {
            !minor.is_empty()
                && minor.bytes().all(|byte| byte.is_ascii_digit())
                && (*minor == "0" || !minor.starts_with('0'))
        });
        standard.version = match (version.as_str(), minor.and_then(|minor| minor.parse().ok())) {
            ("latest", _) => Version::Latest,
            (_, Some(minor)) => Version::Minor(minor),
            (other, None) => {
                refuse(&key, other, "must be \"latest\" or \"v1.x\"");
                Version::Latest
            }
        };
    }
    standard
}
