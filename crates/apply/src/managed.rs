//! The list of managers and what they own: `metadata.managedFields`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

use serde_json::{Map, Value};

use crate::fields_v1::{FieldsError, write_element};
use crate::set::FieldSet;

/// The operation of those who apply.
pub(crate) const APPLY: &str = "Apply";
/// The operation of everybody else.
pub(crate) const UPDATE: &str = "Update";
/// The one form that sets of fields have.
const FIELDS_TYPE: &str = "FieldsV1";
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

    /// What tells managers apart.
    fn key(&self) -> [String; 4] {
        let version = if self.is_applier() { "" } else { &self.api_version };
        [&self.name, &self.operation, &self.subresource, version].map(str::to_owned)
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
    pub fields: Fields,
}

/// A set of fields, or its text as long as nobody looks into it.
#[derive(Clone, Debug)]
pub enum Fields {
    /// `FieldsV1` that was stored, so that it can be read.
    Text(String),
    /// The set.
    Set(FieldSet),
}

impl Fields {
    /// The set; what cannot be read is none.
    pub fn set(&self) -> Cow<'_, FieldSet> {
        match self {
            Self::Text(text) => Cow::Owned(FieldSet::from_fields_v1(text).unwrap_or_default()),
            Self::Set(set) => Cow::Borrowed(set),
        }
    }

    /// The set, to be changed.
    pub(crate) fn set_mut(&mut self) -> &mut FieldSet {
        if let Self::Text(_) = self {
            *self = Self::Set(self.set().into_owned());
        }
        match self {
            Self::Set(set) => set,
            Self::Text(_) => unreachable!("texts have just been read"),
        }
    }

    /// Whether the set may have paths in common with another one. Most managers own nothing of what
    /// a write changes, and the names of the outermost fields tell.
    pub(crate) fn may_meet(&self, other: &FieldSet) -> bool {
        match self {
            Self::Set(_) => true,
            Self::Text(text) => other.nodes().iter().any(|node| {
                let mut step = Vec::new();
                write_element(&node.element, &mut step);
                std::str::from_utf8(&step).is_ok_and(|step| text.contains(step))
            }),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Set(set) => set.to_fields_v1(),
        }
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.set() == other.set()
    }
}

impl Eq for Fields {}

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
    /// Upstream's words for an entry that says too little, or whose fields cannot be read.
    pub fn decode(list: &[Value]) -> Result<Self, FieldsError> {
        for (at, item) in list.iter().enumerate() {
            check_entry(at, item)?;
        }
        let mut managed = Self::of_stored(list);
        for entry in &mut managed.entries {
            if let Fields::Text(text) = &entry.fields {
                entry.fields = Fields::Set(FieldSet::from_fields_v1(text)?);
            }
        }
        Ok(managed)
    }

    /// The same for a list that was stored, and is right therefore; fields are read when they are
    /// needed.
    pub(crate) fn of_stored(list: &[Value]) -> Self {
        let mut managed = Self::default();
        let mut places: BTreeMap<[String; 4], usize> = BTreeMap::new();
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
                    Value::String(json) => Fields::Text(json.clone()),
                    Value::Null => Fields::Set(FieldSet::default()),
                    json => Fields::Text(json.to_string()),
                },
            };
            match places.entry(entry.manager.key()) {
                MapEntry::Occupied(place) => managed.entries[*place.get()] = entry,
                MapEntry::Vacant(place) => {
                    place.insert(managed.entries.len());
                    managed.entries.push(entry);
                }
            }
        }
        managed
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
        let fields = merged.fields.set().into_owned();
        self.entries[at].fields.set_mut().absorb(fields);
        self.entries[at].time = merged.time;
    }
}

fn check_entry(at: usize, item: &Value) -> Result<(), FieldsError> {
    let text = |field: &str| item[field].as_str().unwrap_or_default();
    let refuse = |why: String| Err(FieldsError(why));
    if !matches!(text("operation"), APPLY | UPDATE) {
        return refuse("operation must be `Apply` or `Update`".to_owned());
    }
    if text("apiVersion").is_empty() {
        return refuse("apiVersion must not be empty".to_owned());
    }
    match text("fieldsType") {
        FIELDS_TYPE => Ok(()),
        "" => refuse(format!("missing fieldsType in managed fields entry {at}")),
        other => refuse(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
    }
}

fn order(a: &Entry, b: &Entry) -> Ordering {
    let (first, second) = (&a.manager, &b.manager);
    let by_operation = first.operation.cmp(&second.operation);
    by_operation
        .then_with(|| a.time.cmp(&b.time))
        .then_with(|| first.name.cmp(&second.name))
        .then_with(|| first.api_version.cmp(&second.api_version))
        .then_with(|| first.subresource.cmp(&second.subresource))
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
    put("fieldsType", FIELDS_TYPE);
    put("fieldsV1", &entry.fields.text());
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
    let fields = ["manager", "operation", "apiVersion", "fieldsType", "fieldsV1", "subresource"];
    let same = |(a, b): (&Value, &Value)| fields.iter().all(|name| a.get(name) == b.get(name));
    a.len() == b.len() && a.iter().zip(b).all(same)
}
