//! Whole objects: what a write does to their managed fields.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::check::check;
use crate::compare::{compare_complete, complete};
use crate::fields_of::fields_of;
use crate::managed::{APPLY, Managed, Manager, UPDATE, is_reset};
use crate::owners::{ApplyError, Conflict, Write};
use crate::set::FieldSet;
use crate::shape::Shape;

/// The manager of fields that were there before anybody applied; upstream's.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Where `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager for whom the annotation is kept up to date.
const KUBECTL: &str = "kubectl";
/// Upstream's limit on the size of all annotations.
const ANNOTATIONS_MAX: usize = 256 << 10;

impl Write<'_> {
    /// Follows a create or update: sets the managed fields of `new`, a working form, after what it
    /// changes of the live object. They are absent afterwards when nobody manages the object.
    ///
    /// # Errors
    /// When an object cannot be brought into the version of a manager. Nobody manages the object
    /// then: upstream writes it all the same.
    pub fn record_update(&self, live: Option<&Value>, new: &mut Value) -> Result<(), ApplyError> {
        let given = take_managed_fields(new);
        let of_live = live.map_or(&[][..], managed_fields);
        let is_subresource = !self.manager.subresource.is_empty();
        let wanted = match given.as_deref() {
            Some(given) if !is_subresource && given != of_live => {
                if is_reset(given) {
                    Some(Managed::default())
                } else {
                    Managed::decode(given).ok().filter(|managed| !managed.entries.is_empty())
                }
            }
            _ => None,
        };
        // What is not managed is not managed from now on because it is updated.
        let is_managed = match &wanted {
            Some(managed) => !managed.entries.is_empty(),
            None => !of_live.is_empty(),
        };
        if !is_managed && live.is_some() {
            return Ok(());
        }
        if live.is_none() && wanted.is_none() {
            let entries = self.create(new).into_iter().collect();
            put_managed_fields(new, Managed { entries }.encode());
            return Ok(());
        }
        let changed = self.compare(live, new);
        if changed.is_empty() && wanted.is_none() {
            put_managed_fields(new, of_live.to_vec());
            return Ok(());
        }
        let mut managed = wanted.unwrap_or_else(|| Managed::of_stored(of_live));
        self.update(&mut managed, changed, live, new)?;
        put_managed_fields(new, managed.encode());
        Ok(())
    }

    /// Applies a configuration: the object that results, complete but without defaults, and its
    /// managed fields. `None` for the object when it stays as it is.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply_config(
        &self,
        live: Option<&Value>,
        config: &Value,
        is_forced: bool,
    ) -> Result<(Option<Value>, Vec<Value>), ApplyError> {
        check(Shape::of(self.ty), config).map_err(ApplyError::Untyped)?;
        let list = live.map_or(&[][..], managed_fields);
        let mut managed = Managed::decode(list).map_err(|error| {
            ApplyError::Unconvertible(format!("failed to decode managed fields: {error}"))
        })?;
        let bare = live.map(|live| {
            let mut bare = live.clone();
            take_managed_fields(&mut bare);
            bare
        });
        if let (true, Some(live)) = (managed.entries.is_empty(), &bare) {
            self.adopt(&mut managed, live)?;
        }
        let whole = complete(self.ty, bare.as_ref());
        let result = self.apply_as_kubectl(&mut managed, &whole, config, is_forced)?;
        let result = self.with_last_applied(result, &whole, config);
        Ok((result, managed.encode()))
    }

    /// Gives every field of an object that nobody manages to one manager.
    fn adopt(&self, managed: &mut Managed, live: &Value) -> Result<(), ApplyError> {
        let manager = Manager {
            name: BEFORE_FIRST_APPLY.to_owned(),
            operation: UPDATE.to_owned(),
            ..self.manager.clone()
        };
        let write = Write { manager: &manager, ..*self };
        let changed = write.compare(None, live);
        write.update(managed, changed, None, live)
    }

    /// Applies; `kubectl` takes over without a conflict what its client applied before.
    fn apply_as_kubectl(
        &self,
        managed: &mut Managed,
        live: &Value,
        config: &Value,
        is_forced: bool,
    ) -> Result<Option<Value>, ApplyError> {
        if self.manager.name != KUBECTL || is_forced {
            return self.apply(managed, live, config, is_forced);
        }
        let before = managed.clone();
        match self.apply(managed, live, config, false) {
            Err(ApplyError::Conflicts(conflicts)) => {
                let Some(allowed) = self.last_applied_fields(live) else {
                    return Err(ApplyError::Conflicts(conflicts));
                };
                let is_left = |conflict: &Conflict| !allowed.contains(&conflict.steps);
                let left: Vec<Conflict> = conflicts.into_iter().filter(is_left).collect();
                if !left.is_empty() {
                    return Err(ApplyError::Conflicts(left));
                }
                *managed = before;
                self.apply(managed, live, config, true)
            }
            result => result,
        }
    }

    /// The fields that `kubectl apply` applied on the client and that are still as it left them.
    fn last_applied_fields(&self, live: &Value) -> Option<FieldSet> {
        let text = last_applied(live)?;
        let applied: Value = serde_json::from_str(text).ok()?;
        if applied.get("apiVersion")? != self.manager.api_version.as_str() {
            return None;
        }
        let shape = Shape::of(self.ty);
        check(shape, &applied).ok()?;
        let differs = compare_complete(self.ty, &applied, live);
        let same = fields_of(shape, &applied).difference(&differs.modified);
        Some(same.difference(&differs.added).difference(&differs.removed))
    }

    /// Keeps the annotation of those who still apply on the client as it would be.
    fn with_last_applied(
        &self,
        result: Option<Value>,
        live: &Value,
        config: &Value,
    ) -> Option<Value> {
        let has = |object: &Value| last_applied(object).is_some_and(|text| !text.is_empty());
        let now = result.as_ref().map_or(Cow::Borrowed(live), Cow::Borrowed);
        if self.manager.name != KUBECTL || !has(&now) {
            return result;
        }
        let mut object = now.into_owned();
        let mut config = config.clone();
        if let Some(annotations) = annotations_mut(&mut config) {
            annotations.remove(LAST_APPLIED);
        }
        let text = format!("{}\n", go_json(&config));
        if let Some(annotations) = annotations_mut(&mut object) {
            annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
            let of =
                |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
            if annotations.iter().map(of).sum::<usize>() > ANNOTATIONS_MAX {
                annotations.remove(LAST_APPLIED);
            }
        }
        Some(object)
    }
}

/// A manager that applies.
pub fn applier(name: &str, subresource: &str, api_version: &str) -> Manager {
    manager(name, APPLY, subresource, api_version)
}

/// A manager that writes in any other way.
pub fn updater(name: &str, subresource: &str, api_version: &str) -> Manager {
    manager(name, UPDATE, subresource, api_version)
}

fn manager(name: &str, operation: &str, subresource: &str, api_version: &str) -> Manager {
    Manager {
        name: name.to_owned(),
        operation: operation.to_owned(),
        subresource: subresource.to_owned(),
        api_version: api_version.to_owned(),
    }
}

/// The managed fields of a working form.
pub fn managed_fields(object: &Value) -> &[Value] {
    let list = object.get("metadata").and_then(|metadata| metadata.get("managedFields"));
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Takes the managed fields out of a working form.
pub fn take_managed_fields(object: &mut Value) -> Option<Vec<Value>> {
    match object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")? {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

/// Puts managed fields into a working form; none is none at all.
pub fn put_managed_fields(object: &mut Value, list: Vec<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else { return };
    if list.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(list));
    }
}

fn last_applied(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()
}

fn annotations_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}

fn go_json(value: &Value) -> String {
    let mut out = Vec::new();
    schema::encode_untyped(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}
