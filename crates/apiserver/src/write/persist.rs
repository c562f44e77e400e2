//! From encoded objects to the store, and back to those who asked.

use std::sync::Arc;

use bytes::Bytes;
use meta::{Header, Object, ResourceVersion, Status};
use serde_json::Value;
use store::{Expect, Outcome, Revision, Write};

use crate::context::RequestContext;
use crate::errors;
use crate::pump::{self, Prepared};
use crate::render;
use crate::resources::Storage;
use crate::verbs::patch::PatchType;
use cache::splice::{with_place_for_version, with_resource_version};

/// Writes, and waits until the caches have it: who has an answer finds its effect everywhere, in
/// reads as in admission and authorization.
pub(crate) async fn commit(ctx: &RequestContext, write: Write) -> Result<Outcome, Status> {
    let is_patient = ctx.lane.as_ref().is_some_and(connection::listener::Lane::is_aside);
    let write = Write { is_patient, ..write };
    let outcome =
        ctx.server.store.write(write).await.map_err(|error| errors::from_store(&error))?;
    if let Outcome::Committed(committed) = &outcome
        && let Err(status) = ctx.server.pump.reach(committed.revision.0).await
    {
        // It is written all the same.
        tracing::warn!(%status, "the watch cache does not follow the store");
    }
    Ok(outcome)
}

/// Writes an object, and tells as what. One that is too large with its managed fields is written
/// without them, as upstream does it, unless it is they that the request is about.
pub(super) async fn commit_object(
    ctx: &RequestContext,
    storage: &Storage,
    (key, expect): (Bytes, Expect),
    object: &Value,
    json: Bytes,
) -> Result<(Outcome, Bytes), Status> {
    let note = Prepared::note(storage, object);
    let write = Write { note, ..stamped(key.clone(), Some(&json), expect) };
    let result = commit(ctx, write).await;
    let is_too_large = result.as_ref().is_err_and(errors::is_too_large);
    if !is_too_large || apply::managed_fields(object).is_empty() || is_applied(ctx) {
        return Ok((result?, json));
    }
    let mut bare = object.clone();
    apply::take_managed_fields(&mut bare);
    let json = render::encode(storage.ty, &bare);
    Ok((commit(ctx, stamped(key, Some(&json), expect)).await?, json))
}

fn is_applied(ctx: &RequestContext) -> bool {
    ctx.info.verb == "patch" && PatchType::read(&ctx.headers) == Ok(PatchType::Apply)
}

/// A working form and its JSON as an object at a revision.
pub(crate) fn at(
    storage: &Storage,
    object: &Value,
    json: &Bytes,
    revision: Revision,
) -> Result<Arc<Object>, Status> {
    let json = with_resource_version(json, revision.0).ok_or_else(broken)?;
    let header = pump::header(storage, object).ok_or_else(broken)?;
    let header = Header { resource_version: ResourceVersion(revision.0), ..header };
    Ok(Arc::new(Object::new(header, json)))
}

/// The object of a committed write: the one in the cache, unless that is another by now.
pub(super) fn committed_at(
    storage: &Storage,
    cache_key: &str,
    json: &Bytes,
    revision: Revision,
) -> Result<Arc<Object>, Status> {
    let cached = storage.cache.get(cache_key);
    match cached.filter(|object| object.header().resource_version.0 == revision.0) {
        Some(object) => Ok(object),
        None => {
            let json = with_resource_version(json, revision.0).ok_or_else(broken)?;
            pump::make(storage, json, revision.0).ok_or_else(broken)
        }
    }
}

/// A write that puts its revision into the object.
pub(crate) fn stamped(key: Bytes, json: Option<&Bytes>, expect: Expect) -> Write {
    match json.map(|json| (json, with_place_for_version(json))) {
        None => Write::new(key, None, expect),
        // Nothing without metadata gets here; the caches would leave it out.
        Some((json, None)) => Write::new(key, Some(json.clone()), expect),
        Some((_, Some((json, at)))) => {
            Write { revision_at: Some(at), ..Write::new(key, Some(json), expect) }
        }
    }
}

pub(super) fn broken() -> Status {
    errors::internal("an encoded object has no metadata")
}
