//! The gates and a choice among them.
//!
//! `data/gates.txt` has one gate per line: name, stage, `on` or `off` by default, `locked` if that
//! cannot be changed; columns are separated by tabs, lines sorted by name.
//!
//! Upstream: `component-base/featuregate`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::parse_bool::{ParseBoolError, parse_bool};

static GATES: LazyLock<Vec<Gate>> =
    LazyLock::new(|| include_str!("../data/gates.txt").lines().filter_map(Gate::parse).collect());

/// Gates of a whole stage.
const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

/// How far a feature has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// May go again.
    Alpha,
    /// Will stay, and may change.
    Beta,
    /// Stays as it is.
    Ga,
    /// Will go.
    Deprecated,
}

impl Stage {
    /// The word that metrics use; nothing for what is generally available.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
            Self::Ga => "",
            Self::Deprecated => "DEPRECATED",
        }
    }
}

/// A feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Upstream's name.
    pub name: &'static str,
    /// How far it has come.
    pub stage: Stage,
    /// Whether it is on when nobody says otherwise.
    pub default: bool,
    /// Whether nobody can say otherwise.
    pub is_locked: bool,
}

impl Gate {
    fn parse(line: &'static str) -> Option<Self> {
        let mut columns = line.split('\t');
        let (name, stage, default) = (columns.next()?, columns.next()?, columns.next()?);
        let stage = match stage {
            "ALPHA" => Stage::Alpha,
            "BETA" => Stage::Beta,
            "GA" => Stage::Ga,
            _ => Stage::Deprecated,
        };
        let is_locked = columns.next() == Some("locked");
        Some(Self { name, stage, default: default == "on", is_locked })
    }

    fn find(name: &str) -> Option<&'static Self> {
        let at = GATES.binary_search_by(|gate| gate.name.cmp(name)).ok()?;
        GATES.get(at)
    }
}

/// Why a choice of gates is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// There is no such gate.
    #[error("unrecognized feature gate: {0}")]
    Unrecognized(String),
    /// The gate's value cannot be changed.
    #[error("cannot set feature gate {name} to {value}, feature is locked to {}", !value)]
    Locked {
        /// Which.
        name: &'static str,
        /// What was wanted.
        value: bool,
    },
    /// There is a name and nothing else.
    #[error("missing bool value for {0}")]
    NoValue(String),
    /// What a gate is to be is neither true nor false.
    #[error("invalid value of {name}={value}, err: {source}")]
    Value {
        /// Which.
        name: String,
        /// What was given.
        value: String,
        /// Why it is none.
        source: ParseBoolError,
    },
    /// The gates of another component.
    #[error("component not registered: {0}")]
    Component(String),
}

/// A choice of gates; cheap to clone. The default one has every gate at its own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Those that are not at their default.
    changed: Arc<BTreeMap<&'static str, bool>>,
}

impl Features {
    /// Reads pairs such as `WatchList=false`; each text may have several, between commas. A name
    /// may have the prefix `kube:`, the component it belongs to.
    ///
    /// # Errors
    /// The first thing that is wrong, in upstream's words.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, GateError> {
        let mut said = BTreeMap::new();
        let mut stages = BTreeMap::new();
        let pairs = texts.iter().flat_map(|text| text.as_ref().split(','));
        for pair in pairs.filter(|pair| !pair.trim().is_empty()) {
            let (name, value) = read_pair(pair)?;
            match (name, Gate::find(name)) {
                (ALL_ALPHA, _) => drop(stages.insert(Stage::Alpha.as_str(), value)),
                (ALL_BETA, _) => drop(stages.insert(Stage::Beta.as_str(), value)),
                (_, None) => return Err(GateError::Unrecognized(name.to_owned())),
                (_, Some(gate)) if gate.is_locked && gate.default != value => {
                    return Err(GateError::Locked { name: gate.name, value });
                }
                (_, Some(gate)) => drop(said.insert(gate.name, value)),
            }
        }
        let mut changed = BTreeMap::new();
        for gate in GATES.iter() {
            let of_stage = stages.get(gate.stage.as_str()).filter(|_| !gate.is_locked);
            let value = said.get(gate.name).or(of_stage).copied().unwrap_or(gate.default);
            if value != gate.default {
                changed.insert(gate.name, value);
            }
        }
        Ok(Self { changed: Arc::new(changed) })
    }

    /// Whether a gate is open. A name that nobody knows is a mistake of the caller and closed.
    pub fn is_enabled(&self, name: &str) -> bool {
        let gate = Gate::find(name);
        debug_assert!(gate.is_some(), "no gate {name}");
        let changed = self.changed.get(name).copied();
        changed.or(gate.map(|gate| gate.default)).unwrap_or(false)
    }

    /// Every gate and whether it is open, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        let value = |gate: &Gate| self.changed.get(gate.name).copied().unwrap_or(gate.default);
        GATES.iter().map(move |gate| (gate, value(gate)))
    }

    /// The gates that are not at their default.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.changed.iter().map(|(name, value)| (*name, *value))
    }
}

fn read_pair(pair: &str) -> Result<(&str, bool), GateError> {
    let (name, value) = match pair.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (pair.trim(), None),
    };
    let name = match name.split_once(':') {
        Some(("kube", name)) => name,
        Some((component, _)) => return Err(GateError::Component(component.to_owned())),
        None => name,
    };
    let Some(value) = value else { return Err(GateError::NoValue(name.to_owned())) };
    let wrong =
        |source| GateError::Value { name: name.to_owned(), value: value.to_owned(), source };
    Ok((name, parse_bool(value).map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Features::parse(&[text]).unwrap_err().to_string()
    }

    #[test]
    fn gates_are_sorted_by_name_and_say_everything() {
        assert!(GATES.is_sorted_by(|a, b| a.name < b.name));
        let lines = include_str!("../data/gates.txt").lines().count();
        assert_eq!(GATES.len(), lines);
        assert!(lines > 200);
    }

    #[test]
    fn what_is_said_of_one_gate_outranks_what_is_said_of_all() {
        for texts in [["AllBeta=false,WatchList=true"], ["WatchList=true,AllBeta=false"]] {
            let features = Features::parse(&texts).unwrap();
            assert!(features.is_enabled("WatchList"));
            assert!(!features.is_enabled("APIResponseCompression"));
            assert!(!features.is_enabled("ClusterTrustBundle"));
        }
        let features = Features::parse(&["AllAlpha=true"]).unwrap();
        assert!(features.is_enabled("AllowUnsafeMalformedObjectDeletion"));
        assert_eq!(
            features.is_enabled("ClusterTrustBundle"),
            Features::default().is_enabled("ClusterTrustBundle")
        );
    }

    #[test]
    fn flags_may_be_repeated_and_name_their_component() {
        let features = Features::parse(&["kube:WatchList=0", " ClusterTrustBundle = T ,"]).unwrap();
        assert!(!features.is_enabled("WatchList"));
        assert!(features.is_enabled("ClusterTrustBundle"));
        assert_eq!(features.changed().count(), 2);
        assert_eq!(Features::parse::<&str>(&[]).unwrap(), Features::default());
    }

    #[test]
    fn mistakes_are_told_in_upstreams_words() {
        assert_eq!(refusal("Nonsense=true"), "unrecognized feature gate: Nonsense");
        assert_eq!(refusal("WatchList"), "missing bool value for WatchList");
        assert_eq!(
            refusal("WatchList=maybe"),
            "invalid value of WatchList=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid \
             syntax"
        );
        assert_eq!(refusal("other:WatchList=true"), "component not registered: other");
        let locked = GATES.iter().find(|gate| gate.is_locked && gate.default).unwrap();
        assert_eq!(
            refusal(&format!("{}=false", locked.name)),
            format!("cannot set feature gate {} to false, feature is locked to true", locked.name)
        );
        assert!(Features::parse(&[format!("{}=true", locked.name)]).is_ok());
    }
}
