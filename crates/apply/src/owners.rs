//! Who owns what after a write.
//!
//! An update gives the writer every field that it changed and takes it from all others. Who applies
//! owns what his configuration says, and nothing else; what he no longer says goes, unless somebody
//! else owns it; what others own with another value is a conflict.

use std::borrow::Cow;

use schema::Type;
use serde_json::Value;

use crate::compare::{Comparison, compare, compare_complete, complete};
use crate::created::fields_of_new;
use crate::element::{Element, print};
use crate::fields_of::{as_whole_values, fields_of, with_named_fields};
use crate::filter::{Filter, STRIPPED};
use crate::managed::{Entry, Fields, Managed, Manager};
use crate::merge::{merge, without};
use crate::scalar::same;
use crate::set::FieldSet;
use crate::shape::Shape;

/// The versions of a kind, for managers that write in others than the request.
pub trait Versions: Sync {
    /// The table of a version.
    fn table(&self, api_version: &str) -> Option<&Type>;

    /// An object of a version, as a working form, in another one.
    ///
    /// # Errors
    /// See [`Unconverted`].
    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, Unconverted>;

    /// Why an object does not fit another version, where it can be that it does not.
    fn misfit(&self, _object: &Value, _to: &str) -> Option<String> {
        None
    }
}

/// Why an object is not to be had in another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unconverted {
    /// There is no such version any more; its managers are forgotten.
    Unknown,
    /// It could not be converted, and the write is not to happen.
    Failed(String),
}

/// What is needed to follow a write.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// The table of the version of the request.
    pub ty: &'a Type,
    /// Who writes; its version is that of the request.
    pub manager: &'a Manager,
    /// The time, as it is printed.
    pub now: &'a str,
    /// What the resource does not let the request change.
    pub filter: &'a Filter,
    /// The other versions of the kind.
    pub versions: &'a dyn Versions,
    /// Whether tables may have changed since fields were recorded, as those of custom resources may.
    pub is_changeable: bool,
}

/// A field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: Manager,
    /// Which field, as `.spec.replicas`.
    pub path: String,
    pub(crate) steps: Vec<Element>,
}

/// Why a configuration was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration does not fit the table; the words are upstream's.
    #[error("{0}")]
    Untyped(String),
    /// The live object or the result cannot be brought into the version of a manager.
    #[error("{0}")]
    Unconvertible(String),
    /// Others own fields with other values.
    #[error("{} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
}

impl Write<'_> {
    /// What an update changed, without what it may not change and what nobody owns.
    pub fn compare(&self, live: Option<&Value>, new: &Value) -> Comparison {
        let found = compare(self.ty, live, Some(new));
        found.map(|mut set| {
            set.subtract(&STRIPPED);
            self.filter.apply(set)
        })
    }

    /// Gives the writer what it changed. `changed` is what [`Self::compare`] found.
    ///
    /// # Errors
    /// When an object cannot be brought into the version of a manager.
    pub fn update(
        &self,
        managed: &mut Managed,
        changed: Comparison,
        live: Option<&Value>,
        new: &Value,
    ) -> Result<(), ApplyError> {
        self.follow_tables(managed);
        self.take_from_others(managed, None, &changed, &|version| {
            let other = |object: &Value| self.versions.convert(object, self.version(), version);
            let Some(ty) = self.versions.table(version) else { return Ok(None) };
            let Some((live, new)) = both(live, new, other)? else { return Ok(None) };
            let found = compare(ty, live.as_ref(), Some(&new));
            Ok(Some(found.map(|set| self.filter.apply(set))))
        })?;
        let mut taken = changed.added;
        taken.absorb(changed.modified);
        if !taken.is_empty() {
            match managed.position(self.manager) {
                Some(at) => {
                    let entry = &mut managed.entries[at];
                    entry.fields.set_mut().absorb(taken);
                    self.now.clone_into(&mut entry.time);
                }
                None => managed.entries.push(self.entry(Fields::Set(taken))),
            }
        }
        managed.cap_updaters();
        Ok(())
    }

    /// What the creator of an object owns; `None` when that is nothing.
    pub(crate) fn create(&self, new: &Value) -> Option<Entry> {
        let shape = Shape::of(self.ty);
        let fields = match self.filter.except_new() {
            Some(except) => Fields::Text(fields_of_new(shape, new, &except)?),
            None => {
                let added = self.compare(None, new).added;
                Fields::Set(Some(added).filter(|added| !added.is_empty())?)
            }
        };
        Some(self.entry(fields))
    }

    fn entry(&self, fields: Fields) -> Entry {
        Entry { manager: self.manager.clone(), time: self.now.to_owned(), fields }
    }

    /// Applies a configuration to a live object, both complete. `None` when the object stays as it
    /// is; who owns what may change all the same.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub(crate) fn apply(
        &self,
        managed: &mut Managed,
        live: &Value,
        config: &Value,
        is_forced: bool,
    ) -> Result<Option<Value>, ApplyError> {
        self.follow_tables(managed);
        let shape = Shape::of(self.ty);
        let merged = merge(shape, live, config).map_err(ApplyError::Untyped)?;
        let owned = self.filter.apply(fields_of(shape, config));
        let last = managed.position(self.manager).map(|at| managed.entries.remove(at));
        let new = match &last {
            Some(last) if !last.fields.set().is_empty() => {
                self.prune(managed, &owned, last, merged)?
            }
            _ => merged,
        };
        for other in managed.entries.iter().map(|entry| &entry.manager.api_version) {
            if other != self.version()
                && let Some(why) = self.versions.misfit(&new, other)
            {
                managed.entries.extend(last);
                let why = format!("failed to convert new object: {why}");
                return Err(ApplyError::Unconvertible(why));
            }
        }
        let changed = compare_complete(self.ty, live, &new).map(|set| self.filter.apply(set));
        let in_version = |version: &str| {
            let Some(ty) = self.versions.table(version) else { return Ok(None) };
            let other = |object: &Value| self.convert(object, version);
            let Some((live, new)) = both(Some(live), &new, other)? else { return Ok(None) };
            let live = live.unwrap_or_default();
            Ok(Some(compare_complete(ty, &live, &new).map(|set| self.filter.apply(set))))
        };
        if !is_forced {
            let conflicts = self.conflicts(managed, &changed, &in_version)?;
            if !conflicts.is_empty() {
                managed.entries.extend(last);
                return Err(ApplyError::Conflicts(conflicts));
            }
        }
        self.take_from_others(managed, Some(self.manager), &changed, &in_version)?;
        let is_same = same(live, &new);
        let mut fields = owned;
        fields.subtract(&STRIPPED);
        if !fields.is_empty() {
            let time = match (is_same, last) {
                (false, _) => self.now.to_owned(),
                (true, last) => last.map(|last| last.time).unwrap_or_default(),
            };
            managed.entries.push(Entry { time, ..self.entry(Fields::Set(fields)) });
        }
        Ok((!is_same).then_some(new))
    }

    fn version(&self) -> &str {
        &self.manager.api_version
    }

    /// A complete object of the request's version in another, complete again.
    fn convert(&self, object: &Value, version: &str) -> Result<Value, Unconverted> {
        self.between(object, self.version(), version)
    }

    /// Who owned something in what has become one value owns that value. What was one value before
    /// and is not any more stays as it was recorded.
    fn follow_tables(&self, managed: &mut Managed) {
        if !self.is_changeable {
            return;
        }
        for entry in &mut managed.entries {
            if let Some(ty) = self.versions.table(&entry.manager.api_version)
                && let Some(set) = as_whole_values(&entry.fields.set(), Some(Shape::of(ty)))
            {
                entry.fields = Fields::Set(set);
            }
        }
    }

    fn conflicts(
        &self,
        managed: &Managed,
        changed: &Comparison,
        in_version: &InVersion<'_>,
    ) -> Result<Vec<Conflict>, ApplyError> {
        let mut found = Vec::new();
        for entry in &managed.entries {
            let version = &entry.manager.api_version;
            let changed = match version == self.version() {
                true => Cow::Borrowed(changed),
                false => match in_version(version)? {
                    Some(changed) => Cow::Owned(changed),
                    None => continue,
                },
            };
            let contested = changed.modified.union(&changed.added);
            for steps in entry.fields.set().intersection(&contested).paths() {
                let (manager, path) = (entry.manager.clone(), print(&steps));
                found.push(Conflict { manager, path, steps });
            }
        }
        Ok(found)
    }

    /// Takes from every manager but `but` what was changed or is gone. Managers of versions that
    /// are not known any more are forgotten.
    fn take_from_others(
        &self,
        managed: &mut Managed,
        but: Option<&Manager>,
        changed: &Comparison,
        in_version: &InVersion<'_>,
    ) -> Result<(), ApplyError> {
        let mut others: Vec<(&str, Option<Comparison>)> = Vec::new();
        let is_spared = |manager: &Manager| but.is_some_and(|but| manager.is_same(but));
        let entries = managed.entries.iter().map(|entry| &entry.manager);
        let written = entries.filter(|manager| !is_spared(manager));
        let written: Vec<String> = written.map(|manager| manager.api_version.clone()).collect();
        for version in &written {
            if version != self.version() && !others.iter().any(|(known, _)| known == version) {
                others.push((version, in_version(version)?));
            }
        }
        managed.entries.retain_mut(|entry| {
            if is_spared(&entry.manager) {
                return true;
            }
            let version = &entry.manager.api_version;
            let changed = match others.iter().find(|(known, _)| known == version) {
                None => changed,
                Some((_, Some(changed))) => changed,
                Some((_, None)) => return false,
            };
            for lost in [&changed.modified, &changed.added, &changed.removed] {
                if !lost.is_empty() && entry.fields.may_meet(lost) {
                    entry.fields.set_mut().subtract(lost);
                }
            }
            !matches!(&entry.fields, Fields::Set(set) if set.is_empty())
        });
        Ok(())
    }

    /// The merged object without what the manager applied last time, does not apply now, and nobody
    /// else owns.
    fn prune(
        &self,
        others: &Managed,
        owned: &FieldSet,
        last: &Entry,
        merged: Value,
    ) -> Result<Value, ApplyError> {
        let version = &last.manager.api_version;
        let Some(ty) = self.versions.table(version) else { return Ok(merged) };
        let merged_then = known(self.convert(&merged, version), || {
            "failed to convert merged object to last applied version: ".to_owned()
        })?;
        let Some(merged_then) = merged_then else { return Ok(merged) };
        let shape = Shape::of(ty);
        let last_named = with_named_fields(&last.fields.set(), Some(shape));
        let mut current = (version.as_str(), merged_then.clone());
        let mut pruned = without(shape, &merged_then, &last_named);
        // The version of the last time comes first, lest what conversion needs is gone.
        let own = self.version();
        let written = others.entries.iter().map(|entry| entry.manager.api_version.as_str());
        let mut versions: Vec<&str> = written.chain([own]).collect();
        versions.sort_by_key(|other| (*other != version, *other));
        versions.dedup();
        for other in versions {
            let of_version = others.entries.iter().filter(|e| e.manager.api_version == other);
            let mut kept =
                of_version.fold(FieldSet::default(), |set, e| set.union(&e.fields.set()));
            if other == own {
                kept = kept.union(owned);
            }
            if let Some((next, left)) = self.add_back(&current, &pruned, other, &kept)? {
                (current, pruned) = ((other, next), left);
            }
        }
        let pruned_then = known(self.between(&pruned, current.0, version), || {
            "failed add back dangling items: failed to convert pruned object to last applied \
             version: "
                .to_owned()
        })?;
        let pruned = pruned_then.unwrap_or(pruned);
        // Only what was applied last time goes.
        let named = |value: &Value| with_named_fields(&fields_of(shape, value), Some(shape));
        let gone = named(&merged_then).difference(&named(&pruned)).intersection(&last_named);
        let left = without(shape, &merged_then, &gone);
        known(self.between(&left, version, own), String::new)?.ok_or_else(|| {
            ApplyError::Unconvertible(format!(
                "failed to prune fields: cannot convert the object from {version}"
            ))
        })
    }

    /// What was pruned although a manager of a version owns it comes back: the merged and the pruned
    /// object, in that version.
    fn add_back(
        &self,
        (current, merged): &(&str, Value),
        pruned: &Value,
        version: &str,
        kept: &FieldSet,
    ) -> Result<Option<(Value, Value)>, ApplyError> {
        let Some(ty) = self.versions.table(version) else { return Ok(None) };
        let shape = Shape::of(ty);
        let failed = |which: &str| {
            format!(
                "failed add back owned items: failed to convert {which} object at version {version}: "
            )
        };
        // Both are asked for before either is looked at: conversions may be done together.
        let merged = self.between(merged, current, version);
        let pruned = self.between(pruned, current, version);
        let Some(merged) = known(merged, || failed("merged"))? else { return Ok(None) };
        let Some(pruned) = known(pruned, || failed("pruned"))? else { return Ok(None) };
        let named = |set: &FieldSet| with_named_fields(set, Some(shape));
        let stays = named(&fields_of(shape, &pruned)).union(&named(kept));
        let goes = named(&fields_of(shape, &merged)).difference(&stays);
        let left = without(shape, &merged, &goes);
        Ok(Some((merged, left)))
    }

    fn between(&self, object: &Value, from: &str, to: &str) -> Result<Value, Unconverted> {
        if from == to {
            return Ok(object.clone());
        }
        let ty = self.versions.table(to).ok_or(Unconverted::Unknown)?;
        let converted = self.versions.convert(object, from, to)?;
        Ok(complete(ty, Some(&converted)))
    }
}

/// What changed, in another version; `None` of one that is not known any more.
type InVersion<'a> = dyn Fn(&str) -> Result<Option<Comparison>, ApplyError> + 'a;

/// An object before and after a write in another version; `None` of one that is not known any more.
fn both(
    live: Option<&Value>,
    new: &Value,
    convert: impl Fn(&Value) -> Result<Value, Unconverted>,
) -> Result<Option<(Option<Value>, Value)>, ApplyError> {
    let told = |which: &str, converted| match converted {
        Ok(object) => Ok(Some(object)),
        Err(Unconverted::Unknown) => Ok(None),
        Err(Unconverted::Failed(why)) => {
            Err(ApplyError::Unconvertible(format!("failed to convert {which} object: {why}")))
        }
    };
    // Both are asked for before either is looked at: conversions may be done together.
    let (live, new) = (live.map(&convert), convert(new));
    let live = match live {
        None => None,
        Some(live) => match told("old", live)? {
            None => return Ok(None),
            live => live,
        },
    };
    Ok(told("new", new)?.map(|new| (live, new)))
}

/// An object that was converted while fields are pruned; `None` of a version that is not known any
/// more.
fn known(
    converted: Result<Value, Unconverted>,
    what: impl FnOnce() -> String,
) -> Result<Option<Value>, ApplyError> {
    match converted {
        Ok(object) => Ok(Some(object)),
        Err(Unconverted::Unknown) => Ok(None),
        Err(Unconverted::Failed(why)) => {
            let what = what();
            Err(ApplyError::Unconvertible(format!("failed to prune fields: {what}{why}")))
        }
    }
}
