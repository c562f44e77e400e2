//! WATCH: a stream of changes from a revision on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use http::{HeaderValue, Response, StatusCode};
use meta::{Object, ResourceVersion, Status, WatchEvent};
use rand::RngExt;
use serde_json::json;

use super::list::{self, parse_timeout, parse_version};
use super::list_options::check_watch;
use super::{table_options, watch_form};
use crate::cache::{Cursor, Expired, Pace, Selected, Selection};
use crate::context::RequestContext;
use crate::custom::convert;
use crate::custom::selection::{self, Sight};
use crate::errors;
use crate::negotiate::{Encoding, Form, Shape};
use crate::render::{self, TableOptions};
use crate::resources::{Resource, Storage};
use crate::server::Server;
use crate::websocket;
use crate::write::storage;
use connection::Body;

/// Upstream sends a bookmark about every minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Upstream's `--min-request-timeout`; a watch lasts between one and two of it.
const MIN_TIMEOUT_SECS: u64 = 1800;

/// Events that are joined when so many are ready.
const TOGETHER: usize = 32;

/// What a watch hands out.
enum Item {
    Change(Selected),
    Bookmark { revision: u64, ends_initial: bool },
    Failed(Box<Status>),
}

/// A watch under way.
struct Watch {
    server: Arc<Server>,
    cursor: Cursor,
    /// The objects that were there before, not yet handed out.
    initial: VecDeque<Arc<Object>>,
    ready: VecDeque<Selected>,
    /// The bookmark that ends the initial events, still owed.
    owes_end: Option<u64>,
    sends_bookmarks: bool,
    bookmarked: u64,
    bookmark_due: std::time::Instant,
    /// Resolves when a bookmark or the end is due, or the server ends; made anew only then.
    alarm: BoxFuture<'static, ()>,
    deadline: std::time::Instant,
    ended: bool,
    /// Told how long the initial events took.
    listing: Option<(std::time::Instant, prometheus::Histogram)>,
}

pub(crate) async fn watch(
    ctx: &RequestContext,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let form = watch_form(ctx)?;
    let watch = presented(ctx, resource, Pace::Crowd).await?;
    let options = table_options(ctx);
    let resource = resource.clone();
    let mut is_first = true;
    let labels = [&*resource.gvk.group, &*resource.definition.name, &*resource.gvk.version];
    let sent = ctx.server.metrics.watch_events.with_label_values(&labels);
    // What is there already goes out as one piece; a message of a websocket is one event.
    let together = if websocket::is_asked(&ctx.headers) { 1 } else { TOGETHER };
    let stream = watch.ready_chunks(together).map(move |items| {
        sent.inc_by(items.len() as u64);
        let mut out = BytesMut::new();
        for item in items {
            frame(&resource, &item, (form, options, is_first), &mut out);
            is_first &= matches!(item, Item::Bookmark { .. });
        }
        Ok(out.freeze())
    });
    let mut response =
        render::respond(StatusCode::OK, form.stream_content_type(), Body::Stream(stream.boxed()));
    // Nothing on the way may wait for more.
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// A watch for a component in this process: objects are those of the cache.
pub(crate) async fn watch_objects(
    ctx: &RequestContext,
    resource: &Arc<Resource>,
) -> Result<BoxStream<'static, Result<WatchEvent, Status>>, Status> {
    let watch = presented(ctx, resource, Pace::Prompt).await?;
    let resource = resource.clone();
    let events = watch.map(move |item| match item {
        Item::Failed(status) => Err(*status),
        Item::Bookmark { revision, ends_initial } => Ok(WatchEvent::Bookmark {
            resource_version: ResourceVersion(revision),
            initial_events_end: ends_initial,
        }),
        Item::Change(change) => {
            let object = in_version(&resource, change.object());
            Ok(match change {
                Selected::Added(_) => WatchEvent::Added(object),
                Selected::Modified(_) => WatchEvent::Modified(object),
                Selected::Deleted(_) => WatchEvent::Deleted(object),
            })
        }
    });
    Ok(events.boxed())
}

/// The watch with its objects converted, where a webhook does that.
async fn presented(
    ctx: &RequestContext,
    resource: &Arc<Resource>,
    pace: Pace,
) -> Result<BoxStream<'static, Item>, Status> {
    let watch = start(ctx, resource, pace).await?;
    if resource.custom.as_ref().is_none_or(|version| version.kind.hook.is_none()) {
        return Ok(watch.boxed());
    }
    let fields = selection::afterwards(resource, &list::selection(ctx, resource)?.fields);
    let state = (ctx.server.clone(), resource.clone(), fields.map(Sight::new), watch.boxed());
    let stream = futures::stream::unfold(state, |(server, resource, mut sight, mut watch)| async {
        loop {
            let item = watch.next().await?;
            let item = match item {
                Item::Change(change) => {
                    let object = change.object().clone();
                    match convert::presented_one(&server, &resource, object).await {
                        Ok(object) => match &mut sight {
                            Some(sight) => match sight.follow(&change, object) {
                                Some(change) => Item::Change(change),
                                None => continue,
                            },
                            None => Item::Change(change.with(object)),
                        },
                        Err(status) => Item::Failed(Box::new(status)),
                    }
                }
                other => other,
            };
            return Some((item, (server, resource, sight, watch)));
        }
    });
    Ok(stream.boxed())
}

/// The object in the version of the resource; the same one when it is stored so.
pub(crate) fn in_version(resource: &Resource, object: &Arc<Object>) -> Arc<Object> {
    if resource.conversion.is_none() && resource.custom.is_none() {
        return object.clone();
    }
    Arc::new(Object::new(object.header().clone(), render::versioned(resource, object)))
}

/// Once the request is understood, what goes wrong is told in the stream, as upstream does it.
async fn start(
    ctx: &RequestContext,
    resource: &Resource,
    pace: Pace,
) -> Result<impl futures::Stream<Item = Item> + Send + use<>, Status> {
    let storage = storage(resource)?;
    let mut selection = list::selection(ctx, resource)?;
    if selection::afterwards(resource, &selection.fields).is_some() {
        selection = selection::before(selection);
    }
    // `GET …/name?watch=true` is a watch of that name.
    if !ctx.info.name.is_empty() && selection.fields.is_empty() {
        let text = format!("metadata.name={}", ctx.info.name);
        selection.fields = meta::FieldSelector::parse(&text)
            .map_err(|error| errors::bad_request(error.to_string()))?;
    }
    check_watch(&ctx.query, ctx.server.config.features.is_enabled("WatchList"))?;
    let version = ctx.query.non_empty("resourceVersion").map(parse_version).transpose()?;
    let timeout = match parse_timeout(ctx)? {
        Some(seconds) if seconds > 0 => seconds,
        _ => MIN_TIMEOUT_SECS + rand::rng().random_range(0..MIN_TIMEOUT_SECS),
    };
    let now = ctx.server.clock.monotonic();
    let (cursor, initial, owes_end) = match begin(ctx, storage, selection, (version, pace)).await {
        Ok(beginning) => beginning,
        Err(status) => {
            let failed = Item::Failed(Box::new(status));
            return Ok(futures::stream::once(std::future::ready(failed)).left_stream());
        }
    };
    let deadline = now + Duration::from_secs(timeout);
    let watch = Watch {
        server: ctx.server.clone(),
        cursor,
        initial: initial.into(),
        ready: VecDeque::new(),
        owes_end,
        sends_bookmarks: ctx.query.flag("allowWatchBookmarks"),
        bookmarked: 0,
        bookmark_due: now + BOOKMARK_EVERY,
        alarm: alarm(&ctx.server, deadline.min(now + BOOKMARK_EVERY)),
        deadline,
        ended: false,
        listing: owes_end.map(|_| (now, watch_list(ctx, resource))),
    };
    Ok(futures::stream::unfold(watch, Watch::next).right_stream())
}

fn watch_list(ctx: &RequestContext, resource: &Resource) -> prometheus::Histogram {
    let scope = if ctx.info.namespace.is_empty() { "cluster" } else { "namespace" };
    let gvk = &resource.gvk;
    let labels = [&*gvk.group, &*resource.definition.name, scope, &*gvk.version];
    ctx.server.metrics.watch_list.with_label_values(&labels)
}

type Beginning = (Cursor, Vec<Arc<Object>>, Option<u64>);

/// Where the watch begins, what it hands out first, and whether that has an end to announce.
async fn begin(
    ctx: &RequestContext,
    storage: &Storage,
    selection: Selection,
    (version, pace): (Option<u64>, Pace),
) -> Result<Beginning, Status> {
    let query = &ctx.query;
    let wants_initial = query.get("sendInitialEvents").is_some();
    let streams_initial = if wants_initial {
        query.flag("sendInitialEvents")
    } else {
        matches!(version, None | Some(0))
    };
    let pump = &ctx.server.pump;
    let open = |after, selection| {
        Cursor::new(storage.cache.clone(), selection, after, storage.is_namespaced, pace)
            .map_err(|expired| gone(&expired))
    };
    if !streams_initial {
        let after = match version {
            Some(version) if version > 0 => version,
            _ => pump.fresh().await?,
        };
        return Ok((open(after, selection)?, Vec::new(), None));
    }
    let applied = match version {
        None => pump.fresh().await?,
        Some(version) => {
            pump.reach(version).await?;
            pump.applied()
        }
    };
    let snapshot = match selection.fields.exact("spec.nodeName").filter(|node| !node.is_empty()) {
        Some(node) => storage.cache.snapshot_of_node(applied, node),
        None => storage.cache.snapshot(applied),
    };
    let is_scoped = storage.is_namespaced && !selection.namespace.is_empty();
    let prefix = if is_scoped { format!("{}/", selection.namespace) } else { String::new() };
    let from: Arc<str> = prefix.as_str().into();
    let initial = snapshot
        .map
        .range(from..)
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter(|(_, object)| selection.matches(object.header()))
        .map(|(_, object)| object.clone())
        .collect();
    let ends = wants_initial && query.flag("allowWatchBookmarks");
    let revision = snapshot.revision;
    Ok((open(revision, selection)?, initial, ends.then_some(revision)))
}

fn gone(expired: &Expired) -> Status {
    errors::too_old(expired.requested, expired.oldest)
}

/// Resolves at this time, or when the server ends.
fn alarm(server: &Arc<Server>, at: std::time::Instant) -> BoxFuture<'static, ()> {
    let server = server.clone();
    let wait = at.saturating_duration_since(server.clock.monotonic());
    async move {
        tokio::select! {
            () = server.clock.sleep(wait) => {}
            () = server.shutdown.begun() => {}
        }
    }
    .boxed()
}

impl Watch {
    async fn next(mut self) -> Option<(Item, Self)> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(object) = self.initial.pop_front() {
                return Some((Item::Change(Selected::Added(object)), self));
            }
            if let Some(revision) = self.owes_end.take() {
                self.bookmarked = revision;
                if let Some((since, histogram)) = self.listing.take() {
                    let took = self.server.clock.monotonic().saturating_duration_since(since);
                    histogram.observe(took.as_secs_f64());
                }
                return Some((Item::Bookmark { revision, ends_initial: true }, self));
            }
            if let Some(change) = self.ready.pop_front() {
                return Some((Item::Change(change), self));
            }
            // Read first: what is applied later may also be seen, what is applied now must be.
            let applied = self.server.pump.applied();
            match self.cursor.poll() {
                Err(expired) => {
                    self.ended = true;
                    return Some((Item::Failed(Box::new(gone(&expired))), self));
                }
                Ok((changes, more)) => {
                    self.ready.extend(changes);
                    if more || !self.ready.is_empty() {
                        continue;
                    }
                }
            }
            if self.cursor.is_closed() {
                return None;
            }
            // Nothing up to `applied` is left for this cursor.
            self.cursor.skip_to(applied);
            tokio::select! {
                () = self.cursor.changed() => continue,
                () = &mut self.alarm => {}
            }
            let now = self.server.clock.monotonic();
            if now >= self.deadline || self.server.shutdown.is_begun() {
                return None;
            }
            let is_due = now >= self.bookmark_due;
            if is_due {
                self.bookmark_due = now + BOOKMARK_EVERY;
            }
            self.alarm = alarm(&self.server, self.deadline.min(self.bookmark_due));
            // Nothing up to `applied` is left for this cursor.
            if is_due && self.sends_bookmarks && applied > self.bookmarked {
                self.bookmarked = applied;
                return Some((Item::Bookmark { revision: applied, ends_initial: false }, self));
            }
        }
    }
}

/// Appends the bytes of one event.
fn frame(
    resource: &Resource,
    item: &Item,
    (form, options, is_first): (Form, TableOptions, bool),
    out: &mut BytesMut,
) {
    let (word, gvk, json) = match item {
        Item::Change(change) => {
            let (gvk, json) = render::watched(resource, change.object(), form, options, is_first);
            (change.word(), gvk, json)
        }
        Item::Bookmark { revision, ends_initial } => {
            let object = bookmark(resource, *revision, *ends_initial);
            let (gvk, json) = match form.shape {
                Shape::Object => (resource.gvk.clone(), object),
                _ => match Object::from_json(object.clone()) {
                    Ok(object) => render::watched(resource, &object, form, options, is_first),
                    Err(_) => (resource.gvk.clone(), object),
                },
            };
            ("BOOKMARK", gvk, json)
        }
        Item::Failed(status) => {
            let gvk = meta::GroupVersionKind::new("", "v1", "Status");
            ("ERROR", gvk, serde_json::to_vec(status).unwrap_or_default().into())
        }
    };
    if form.encoding == Encoding::Protobuf {
        return protobuf_frame(word, &gvk, &json, out);
    }
    out.reserve(json.len() + 48);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(word.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(&json);
    out.put_slice(b"}\n");
}

fn bookmark(resource: &Resource, revision: u64, ends_initial: bool) -> Bytes {
    let mut object = json!({
        "kind": resource.gvk.kind,
        "apiVersion": resource.gvk.group_version().to_string(),
        "metadata": {"resourceVersion": revision.to_string()},
    });
    if ends_initial {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    render::encode(resource.ty, &object)
}

/// A length, then `WatchEvent { type = 1, object = 2 { raw = 1 } }`.
fn protobuf_frame(word: &str, gvk: &meta::GroupVersionKind, json: &[u8], out: &mut BytesMut) {
    let value = serde_json::from_slice(json).unwrap_or_default();
    let raw = schema::encode_protobuf(gvk, &value);
    let mut extension = Vec::with_capacity(raw.len() + 8);
    put_field(&mut extension, 1, &raw);
    let mut event = Vec::with_capacity(extension.len() + 32);
    put_field(&mut event, 1, word.as_bytes());
    put_field(&mut event, 2, &extension);
    out.reserve(event.len() + 4);
    out.put_u32(u32::try_from(event.len()).unwrap_or(u32::MAX));
    out.put_slice(&event);
}

fn put_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend_from_slice(bytes);
}
