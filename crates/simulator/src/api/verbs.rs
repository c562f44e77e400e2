//! Create, update, patch and delete.

use jiff::ToSpan;
use meta::{Reason, Status};
use schema::FieldValidation;
use serde_json::{Value, json};

use super::{
    Answer, Api, Asked, Key, Selection, Target, admission, custom, failure, gvk_of, not_found,
};

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
}

impl Api {
    /// Reads one object, or its scale.
    pub(crate) fn read(&self, target: &Target) -> Answer {
        let object = self.get(&target.collection(), &target.namespace, &target.name);
        let object = object.ok_or_else(|| not_found(target))?;
        if target.subresource == "scale" {
            return Ok(json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": object["metadata"],
                "spec": { "replicas": object["spec"]["replicas"] },
                "status": { "replicas": object["status"]["replicas"],
                    "selector": printed(&object["spec"]["selector"]["matchLabels"]) } }));
        }
        Ok(object.clone())
    }

    /// Creates an object, or does what its subresource means.
    pub(crate) fn post(&mut self, asked: Asked<'_>, target: &Target, body: Value) -> Answer {
        match target.subresource.as_str() {
            "" if target.resource == "subjectaccessreviews" => {
                let mut review = body;
                review["status"] = json!({ "allowed": true });
                Ok(review)
            }
            "" => self.create(asked, target, body),
            "binding" => self.bind(asked, target, &body),
            "eviction" => self.evict(asked, target, &body),
            other => Err(failure(Reason::NotFound, format!("no subresource {other}"))),
        }
    }

    fn create(&mut self, asked: Asked<'_>, target: &Target, mut body: Value) -> Answer {
        let gvk = gvk_of(target)?;
        admission::namespace_is_open(self, target)?;
        let meta = &mut body["metadata"];
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let prefix = meta["generateName"].as_str().unwrap_or_default().to_owned();
            meta["name"] = format!("{prefix}{}", self.suffix()).into();
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let key = (target.collection(), target.namespace.clone(), name.clone());
        if self.objects.contains_key(&key) {
            let text = format!("{} {name:?} already exists", target.resource);
            return Err(failure(Reason::AlreadyExists, text));
        }
        self.uids += 1;
        meta["uid"] = format!("00000000-0000-4000-8000-{:012x}", self.uids).into();
        meta["creationTimestamp"] = meta::time::rfc3339(asked.now).into();
        meta["generation"] = 1.into();
        if !target.namespace.is_empty() {
            meta["namespace"] = target.namespace.as_str().into();
        }
        for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            remove(meta, field);
        }
        if !["nodes", "namespaces"].contains(&target.resource.as_str()) {
            remove(&mut body, "status");
        }
        let mut value = canonical(target, &body)?;
        admission::prepare(self, &gvk, target, &mut value)?;
        let value = canonical(target, &value)?;
        self.validate(asked, target, &value, None)?;
        admission::charge(self, asked, &gvk, &value)?;
        Ok(self.commit(asked, key, value, false))
    }

    /// Replaces an object or its status.
    pub(crate) fn put(&mut self, asked: Asked<'_>, target: &Target, body: &Value) -> Answer {
        let present = self.read(&plain(target))?;
        let sent = &body["metadata"]["resourceVersion"];
        if sent.as_str().is_some_and(|sent| !sent.is_empty())
            && *sent != present["metadata"]["resourceVersion"]
        {
            return Err(changed(target));
        }
        let replaced = self.replace(asked, target, &present, body.clone())?;
        if target.subresource == "scale" { self.read(target) } else { Ok(replaced) }
    }

    /// Patches an object or its status.
    pub(crate) fn patch(
        &mut self,
        asked: Asked<'_>,
        target: &Target,
        kind: PatchKind,
        patch: &[u8],
    ) -> Answer {
        let gvk = gvk_of(target)?;
        let present = self.read(&plain(target))?;
        let patched = match (kind, schema::registry().kind(&gvk)) {
            (PatchKind::Json, _) => patch::json(&present, patch),
            (PatchKind::Merge, _) => patch::merge(present.clone(), patch),
            (PatchKind::Strategic, Some(ty)) => patch::strategic_merge(ty, &present, patch),
            (PatchKind::Strategic, None) => return Err(custom::no_strategic_patch()),
        };
        let next = patched.map_err(|error| failure(Reason::BadRequest, error.to_string()))?;
        for field in ["uid", "resourceVersion"] {
            if next["metadata"][field] != present["metadata"][field] {
                return Err(changed(target));
            }
        }
        self.replace(asked, target, &present, next)
    }

    /// Deletes an object, or marks it for those who must let it go first.
    pub(crate) fn delete(&mut self, asked: Asked<'_>, target: &Target, how: &Value) -> Answer {
        let present = self.read(target)?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &how["preconditions"][field];
            if wanted.is_string() && *wanted != present["metadata"][field] {
                return Err(changed(target));
            }
        }
        let mut next = present.clone();
        let policy = how["propagationPolicy"].as_str().unwrap_or_default();
        // Upstream's strategy of jobs, for clients of old.
        let orphan = policy == "Orphan" || (policy.is_empty() && target.resource == "jobs");
        let (foreground, orphans) = ("foregroundDeletion", "orphan");
        if present["metadata"]["deletionTimestamp"].is_null() || !policy.is_empty() {
            set_finalizer(&mut next, foreground, policy == "Foreground");
            set_finalizer(&mut next, orphans, orphan);
        }
        let grace = grace(target, &present, how);
        let meta = &mut next["metadata"];
        let earlier = meta["deletionGracePeriodSeconds"].as_i64();
        if meta["deletionTimestamp"].is_null() || earlier.is_some_and(|earlier| grace < earlier) {
            let at = asked.now.checked_add(grace.seconds()).unwrap_or(asked.now);
            meta["deletionTimestamp"] = meta::time::rfc3339(at).into();
            meta["deletionGracePeriodSeconds"] = grace.into();
            meta["generation"] = (meta["generation"].as_i64().unwrap_or(0) + 1).into();
            if target.resource == "namespaces" {
                next["status"]["phase"] = "Terminating".into();
            }
        }
        Ok(self.settle(asked, target, &present, next))
    }

    /// Deletes what is selected of a collection.
    pub(crate) fn delete_all(
        &mut self,
        asked: Asked<'_>,
        target: &Target,
        query: &str,
        how: &Value,
    ) -> Answer {
        for stored in self.select(target, &Selection::parse(query)?) {
            let header = stored.object.header();
            let one = Target {
                namespace: header.namespace.clone(),
                name: header.name.clone(),
                ..target.clone()
            };
            self.delete(asked, &one, how)?;
        }
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }

    fn replace(
        &mut self,
        asked: Asked<'_>,
        target: &Target,
        present: &Value,
        mut sent: Value,
    ) -> Answer {
        let next = match target.subresource.as_str() {
            "status" | "approval" => {
                let mut next = present.clone();
                next["status"] = sent["status"].take();
                // As upstream's strategies let whoever writes a status.
                next["metadata"]["annotations"] = sent["metadata"]["annotations"].take();
                next
            }
            "finalize" => {
                let mut next = present.clone();
                next["spec"]["finalizers"] = sent["spec"]["finalizers"].take();
                next
            }
            "scale" => {
                let mut next = present.clone();
                next["spec"]["replicas"] = sent["spec"]["replicas"].take();
                next
            }
            _ => {
                keep_fixed(present, &mut sent);
                sent
            }
        };
        let mut next = canonical(target, &next)?;
        if next["spec"] != present["spec"] {
            let generation = present["metadata"]["generation"].as_i64().unwrap_or(0);
            next["metadata"]["generation"] = (generation + 1).into();
        }
        self.validate(asked, target, &next, Some(present))?;
        Ok(self.settle(asked, target, present, next))
    }

    /// Stores a change, unless there is none, and removes what nothing holds any more.
    pub(super) fn settle(
        &mut self,
        asked: Asked<'_>,
        target: &Target,
        present: &Value,
        next: Value,
    ) -> Value {
        let meta = &next["metadata"];
        let holds = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
        let is_held = holds(&meta["finalizers"])
            || (target.resource == "namespaces" && holds(&next["spec"]["finalizers"]));
        let is_due = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
        let removed = !meta["deletionTimestamp"].is_null() && is_due && !is_held;
        if !removed && next == *present {
            return next;
        }
        let key: Key = (target.collection(), target.namespace.clone(), target.name.clone());
        self.commit(asked, key, next, removed)
    }

    /// Upstream's rules for the kind. A controller that breaks them is a finding.
    fn validate(
        &mut self,
        asked: Asked<'_>,
        target: &Target,
        value: &Value,
        old: Option<&Value>,
    ) -> Result<(), Box<Status>> {
        if custom::gvk(target).is_some() {
            return Ok(());
        }
        let gvk = gvk_of(target)?;
        let working = working(target, value)?;
        let findings = match old {
            None => validation::validate_create(&gvk, &working),
            Some(old) => {
                let old = self::working(target, old)?;
                validation::validate_update(&gvk, &target.subresource, &working, &old)
            }
        };
        let Some(first) = findings.first() else { return Ok(()) };
        let text = format!("{} {} is invalid: {first}", gvk.kind, target.name);
        if asked.by.ends_with("-controller") || asked.by == "scheduler" {
            self.checks.violated(format!("{} writes what is invalid: {text}", asked.by));
        }
        Err(failure(Reason::Invalid, text))
    }

    /// Five characters, as upstream's generated names end.
    fn suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let character = |_| char::from(ALPHABET[self.names.below(ALPHABET.len())]);
        (0..5).map(character).collect()
    }
}

/// Labels as a selector is written.
fn printed(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

/// The object itself.
fn plain(target: &Target) -> Target {
    Target { subresource: String::new(), ..target.clone() }
}

fn changed(target: &Target) -> Box<Status> {
    let text = "the object has been modified; please apply your changes to the latest version";
    failure(Reason::Conflict, format!("{} {:?}: {text}", target.resource, target.name))
}

/// What nobody changes by writing the object.
fn keep_fixed(present: &Value, sent: &mut Value) {
    for field in [
        "uid",
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        let value = &present["metadata"][field];
        if value.is_null() {
            remove(&mut sent["metadata"], field);
        } else {
            sent["metadata"][field] = value.clone();
        }
    }
    if present["status"].is_null() {
        remove(sent, "status");
    } else {
        sent["status"] = present["status"].clone();
    }
}

/// How long the object may take to end: only pods that run take any time.
fn grace(target: &Target, present: &Value, how: &Value) -> i64 {
    let phase = present["status"]["phase"].as_str().unwrap_or_default();
    let runs = target.resource == "pods"
        && present["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty())
        && !["Succeeded", "Failed"].contains(&phase);
    if !runs {
        return 0;
    }
    let of_spec = present["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    how["gracePeriodSeconds"].as_i64().unwrap_or(of_spec)
}

fn set_finalizer(object: &mut Value, finalizer: &str, wanted: bool) {
    let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let mut list: Vec<Value> = list.into_iter().filter(|present| present != finalizer).collect();
    if wanted {
        list.push(finalizer.into());
    }
    if list.is_empty() {
        remove(&mut object["metadata"], "finalizers");
    } else {
        object["metadata"]["finalizers"] = list.into();
    }
}

pub(super) fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// The working form, defaulted.
fn working(target: &Target, value: &Value) -> Answer {
    let gvk = gvk_of(target)?;
    let ty = schema::registry().kind(&gvk).ok_or_else(|| not_found(target))?;
    let decoded = schema::decode_value(ty, value, FieldValidation::Ignore)
        .map_err(|error| failure(Reason::BadRequest, error.to_string()))?;
    let mut value = decoded.value;
    schema::apply_defaults(&gvk, &mut value);
    Ok(value)
}

/// The object as it is stored.
fn canonical(target: &Target, value: &Value) -> Answer {
    if custom::gvk(target).is_some() {
        return Ok(custom::canonical(value));
    }
    let gvk = gvk_of(target)?;
    let ty = schema::registry().kind(&gvk).ok_or_else(|| not_found(target))?;
    let mut value = working(target, value)?;
    value["apiVersion"] = gvk.group_version().to_string().into();
    value["kind"] = gvk.kind.as_str().into();
    let mut bytes = Vec::new();
    schema::encode_json(ty, &value, &mut bytes);
    serde_json::from_slice(&bytes)
        .map_err(|error| failure(Reason::InternalError, error.to_string()))
}
