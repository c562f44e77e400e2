//! What a webhook has converted for a request, lest it be asked twice, and conversions in the midst of
//! what does not wait for anybody.
//!
//! Who owns what is told in the version in which each manager writes, and the way there may lead
//! over a webhook. What is written is therefore made in rounds: what a round lacks is noted, and it
//! goes on with what it has; then the webhook is asked for all of it together, and another round
//! begins, until one lacks nothing. Nothing of the rounds before is kept but what was converted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use meta::Status;
use serde_json::Value;

use super::convert;
use super::kind::CustomVersion;
use crate::context::RequestContext;
use crate::errors;
use crate::render;
use crate::resources::Resource;

/// Rounds of one write. Each version in which somebody manages fields takes at most four: two to
/// get there, by way of the version of the request, and as many back.
const ROUNDS: usize = 64;

/// Objects that are converted for one request.
const CONVERSIONS: usize = 512;

/// Bytes of these objects together.
const BYTES: usize = 64 << 20;

/// The text of an object, and the version it is wanted in.
type Wanted = (Bytes, String);

/// What was converted for a request, and what is to be.
#[derive(Debug, Default)]
pub(crate) struct Conversions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Wanted, Result<Value, String>>,
    pending: Vec<Wanted>,
    /// Of the objects that were converted.
    bytes: usize,
}

impl Conversions {
    /// An object in another version, or why it cannot be had; `None` when the webhook has to be
    /// asked first.
    pub(crate) fn find(&self, object: &Value, api_version: &str) -> Option<Result<Value, String>> {
        let wanted = (render::encode(custom::wire(), object), api_version.to_owned());
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = state.known.get(&wanted).cloned();
        if found.is_none() && !state.pending.contains(&wanted) {
            state.pending.push(wanted);
        }
        found
    }

    /// An object in another version, brought into form, as soon as the webhook has converted it.
    pub(crate) async fn present(
        &self,
        ctx: &RequestContext,
        version: &CustomVersion,
        object: &Value,
    ) -> Result<Value, Status> {
        let wanted = version.api_version();
        if object["apiVersion"] == *wanted {
            return Ok(object.clone());
        }
        let found = match self.find(object, &wanted) {
            Some(found) => found,
            None => {
                let pending = self.take_pending();
                if !self.put(converted(ctx, version, pending).await) {
                    return Err(too_many());
                }
                let found = self.find(object, &wanted);
                found.unwrap_or_else(|| Err("the object is not readable".to_owned()))
            }
        };
        let mut object = found.map_err(errors::unexpected)?;
        version.compiled().accept(&mut object).map_err(errors::unexpected)?;
        Ok(object)
    }

    fn take_pending(&self) -> Vec<Wanted> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.pending)
    }

    /// Remembers answers; `false` when there are too many.
    fn put(&self, answers: Vec<(Wanted, Result<Value, String>)>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += answers.iter().map(|((object, _), _)| object.len()).sum::<usize>();
        state.known.extend(answers);
        state.known.len() <= CONVERSIONS && state.bytes <= BYTES
    }
}

/// Runs something until it lacks no conversion.
///
/// # Errors
/// Those of the last run, or when it never comes to an end.
pub(crate) async fn settled<T>(
    ctx: &RequestContext,
    resource: &Resource,
    mut run: impl FnMut() -> Result<T, Status>,
) -> Result<T, Status> {
    let hooked = resource.custom.as_ref().filter(|version| version.kind.hook.is_some());
    let Some(version) = hooked else { return run() };
    for _ in 0..ROUNDS {
        let pending = {
            let result = run();
            let pending = ctx.conversions.take_pending();
            if pending.is_empty() {
                return result;
            }
            pending
        };
        if !ctx.conversions.put(converted(ctx, version, pending).await) {
            break;
        }
    }
    Err(too_many())
}

fn too_many() -> Status {
    errors::internal("too many conversions are needed for one request")
}

/// What the webhook says, asked once for each pair of versions.
async fn converted(
    ctx: &RequestContext,
    version: &CustomVersion,
    pending: Vec<Wanted>,
) -> Vec<(Wanted, Result<Value, String>)> {
    let mut groups: BTreeMap<(String, String), Vec<(Wanted, Value)>> = BTreeMap::new();
    for wanted in pending {
        let Ok(object) = serde_json::from_slice::<Value>(&wanted.0) else { continue };
        let source = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        groups.entry((source, wanted.1.clone())).or_default().push((wanted, object));
    }
    let mut answers = Vec::new();
    for ((source, wanted), group) in groups {
        let (keys, objects): (Vec<Wanted>, Vec<Value>) = group.into_iter().unzip();
        let ask =
            async |objects| convert::review(&ctx.server, version, &wanted, &source, objects).await;
        match ask(&objects).await {
            Ok(converted) => answers.extend(keys.into_iter().zip(converted.into_iter().map(Ok))),
            Err(why) if objects.len() == 1 => {
                answers.extend(keys.into_iter().map(|key| (key, Err(why.clone()))));
            }
            // One of them fails all, and which one it is matters.
            Err(_) => {
                for (key, object) in keys.into_iter().zip(&objects) {
                    let alone = ask(std::slice::from_ref(object)).await;
                    answers.push((key, alone.map(|mut converted| converted.remove(0))));
                }
            }
        }
    }
    answers
}
