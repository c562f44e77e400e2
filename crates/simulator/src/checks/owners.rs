//! What must hold when objects are removed because of others.

use serde_json::Value;

use super::Checks;
use crate::api::{Api, Commit};
use crate::nodes::text;

impl Checks {
    /// The garbage collector takes only what nobody owns any more.
    pub(super) fn ownership(&mut self, api: &Api, commit: &Commit, by: &str) {
        let value = &commit.last.value;
        let uid = text(&value["metadata"]["uid"]).to_owned();
        let is_new = |value: &Value| value["metadata"]["deletionTimestamp"].is_null();
        let begins = commit.old.as_ref().is_some_and(|old| is_new(&old.value));
        let ends = commit.new.is_none() || !is_new(value);
        if by == "generic-garbage-collector" && begins && ends {
            self.collected(api, commit);
        }
        match &commit.new {
            Some(_) => drop(self.places.insert(uid, commit.key.clone())),
            None => drop(self.places.remove(&uid)),
        }
    }

    fn collected(&mut self, api: &Api, commit: &Commit) {
        let (collection, namespace, name) = &commit.key;
        let owners = commit.last.value["metadata"]["ownerReferences"].as_array();
        if owners.is_none_or(Vec::is_empty) {
            return self.violated(format!("{collection} {namespace}/{name} has no owner and goes"));
        }
        for owner in owners.into_iter().flatten() {
            let Some(place) = self.places.get(text(&owner["uid"])) else { continue };
            let owner = api.get(&place.0, &place.1, &place.2);
            if owner.is_some_and(|owner| owner["metadata"]["deletionTimestamp"].is_null()) {
                let (kind, of) = (place.0.clone(), place.2.clone());
                self.violated(format!(
                    "{collection} {namespace}/{name} goes though its owner {kind} {of} is there"
                ));
            }
        }
    }

    /// A namespace goes when nothing is left in it.
    pub(super) fn namespace(&mut self, api: &Api, commit: &Commit) {
        if commit.new.is_some() {
            return;
        }
        let name = &commit.key.2;
        let left = api.everything().find(|((_, namespace, _), _)| namespace == name);
        if let Some(((collection, _, of), _)) = left {
            self.violated(format!(
                "namespace {name} is gone, and {collection} {of} is still there"
            ));
        }
    }
}
