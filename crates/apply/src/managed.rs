//! The list of managers and what they own: `metadata.managedFields`.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::fields_v1::FieldsError;
use crate::set::FieldSet;

/// The operation of those who apply.
pub(crate) const APPLY: &str = "Apply";
/// The operation of everybody else.
pub(crate) const UPDATE: &str = "Update";
/// Managers that update, of which the oldest are merged when there are more; upstream's.
const MAX_UPDATERS: usize = 10;
/// The manager that the oldest are merged into; upstream's.
const ANCIENT: &str = "ancient-changes";

/// Who writes: those who differ in any of this own fields apart from each other. The version does
/// not tell appliers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Name.
    pub name: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// The subresource that is written, or empty.
    pub subresource: String,
    /// The version in which it writes.
    pub api_version: String,
}

impl Manager {
    /// Whether it applies.
    pub fn is_applier(&self) -> bool {
        self.operation == APPLY
    }

    /// Whether this is the same manager.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.is_applier() || self.api_version == other.api_version)
    }
}

/// A manager and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// When it last changed something, as it is printed; empty when it never did.
    pub time: String,
    /// What it owns.
    pub fields: FieldSet,
}

/// Every manager of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    /// In no order.
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads `metadata.managedFields` of a working form. Of entries of one manager the last counts.
    ///
    /// # Errors
    /// When the fields of an entry cannot be read.
    pub fn decode(list: &[Value]) -> Result<Self, FieldsError> {
        let mut managed = Self::default();
        for item in list {
            let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
            let entry = Entry {
                manager: Manager {
                    name: text("manager"),
                    operation: text("operation"),
                    subresource: text("subresource"),
                    api_version: text("apiVersion"),
                },
                time: text("time"),
                fields: match &item["fieldsV1"] {
                    Value::String(json) => FieldSet::from_fields_v1(json)?,
                    Value::Null => FieldSet::default(),
                    json => FieldSet::from_fields_v1(&json.to_string())?,
                },
            };
            match managed.position(&entry.manager) {
                Some(at) => managed.entries[at] = entry,
                None => managed.entries.push(entry),
            }
        }
        Ok(managed)
    }

    /// The list for a working form, sorted as upstream sorts it.
    pub fn encode(&self) -> Vec<Value> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| order(a, b));
        entries.into_iter().map(encode_entry).collect()
    }

    /// The place of a manager.
    pub(crate) fn position(&self, manager: &Manager) -> Option<usize> {
        self.entries.iter().position(|entry| entry.manager.is_same(manager))
    }

    /// Merges the managers that have not updated for longest, version by version, until there are
    /// not too many.
    pub(crate) fn cap_updaters(&mut self) {
        let mut updaters: Vec<Manager> = Vec::new();
        let mut oldest: Vec<&Entry> =
            self.entries.iter().filter(|entry| !entry.manager.is_applier()).collect();
        let Some(mut surplus) = oldest.len().checked_sub(MAX_UPDATERS).filter(|n| *n > 0) else {
            return;
        };
        oldest.sort_by(|a, b| {
            let key = |entry: &Entry| {
                let manager = &entry.manager;
                (manager.name.clone(), manager.api_version.clone(), manager.subresource.clone())
            };
            a.time.cmp(&b.time).then_with(|| key(a).cmp(&key(b)))
        });
        updaters.extend(oldest.iter().map(|entry| entry.manager.clone()));
        let mut buckets: Vec<String> = Vec::new();
        for manager in updaters {
            if surplus == 0 {
                return;
            }
            // The first of a version stays what it is until there is a second to merge it with.
            if !buckets.contains(&manager.api_version) {
                buckets.push(manager.api_version);
                continue;
            }
            self.merge_into_bucket(&manager);
            surplus -= 1;
        }
    }

    /// Merges an updater with the oldest of its version.
    fn merge_into_bucket(&mut self, manager: &Manager) {
        let bucket = Manager {
            name: ANCIENT.to_owned(),
            operation: UPDATE.to_owned(),
            subresource: String::new(),
            api_version: manager.api_version.clone(),
        };
        let Some(at) = self.position(manager) else { return };
        let merged = self.entries.remove(at);
        if self.position(&bucket).is_none() {
            let of_version = |entry: &&mut Entry| {
                !entry.manager.is_applier() && entry.manager.api_version == bucket.api_version
            };
            let oldest = self.entries.iter_mut().filter(of_version).min_by(|a, b| order(a, b));
            if let Some(oldest) = oldest {
                oldest.manager = bucket.clone();
            }
        }
        let Some(at) = self.position(&bucket) else { return };
        self.entries[at].fields = self.entries[at].fields.union(&merged.fields);
        self.entries[at].time = merged.time;
    }
}

fn order(a: &Entry, b: &Entry) -> Ordering {
    let key = |entry: &Entry| {
        let manager = &entry.manager;
        (manager.operation.clone(), entry.time.clone(), manager.name.clone())
    };
    key(a).cmp(&key(b)).then_with(|| {
        let rest = |entry: &Entry| {
            (entry.manager.api_version.clone(), entry.manager.subresource.clone())
        };
        rest(a).cmp(&rest(b))
    })
}

fn encode_entry(entry: &Entry) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            out.insert(name.to_owned(), Value::from(value));
        }
    };
    put("manager", &entry.manager.name);
    put("operation", &entry.manager.operation);
    put("apiVersion", &entry.manager.api_version);
    put("time", &entry.time);
    put("fieldsType", "FieldsV1");
    put("fieldsV1", &entry.fields.to_fields_v1());
    put("subresource", &entry.manager.subresource);
    Value::Object(out)
}

/// Whether a list in a request asks to forget who owns what: it is empty, or its one entry is.
pub fn is_reset(list: &[Value]) -> bool {
    match list {
        [] => true,
        [one] => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Whether two lists differ in nothing but times.
pub fn is_same_but_for_times(a: &[Value], b: &[Value]) -> bool {
    let fields =
        ["manager", "operation", "apiVersion", "fieldsType", "fieldsV1", "subresource"];
    let same = |(a, b): (&Value, &Value)| fields.iter().all(|name| a.get(name) == b.get(name));
    a.len() == b.len() && a.iter().zip(b).all(same)
}
