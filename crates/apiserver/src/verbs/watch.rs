//! WATCH: a stream of changes from a revision on.

mod frame;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use http::{HeaderValue, Response, StatusCode};
use meta::{Object, ResourceVersion, Status, WatchEvent};
use rand::RngExt;

use super::list::{self, parse_timeout, parse_version};
use super::list_options::check_watch;
use super::{table_options, watch_form};
use crate::context::RequestContext;
use crate::custom::convert;
use crate::custom::selection::{self, Sight};
use crate::errors;
use crate::render;
use crate::resources::{Resource, Storage};
use crate::server::Server;
use crate::websocket;
use crate::write::storage;
use cache::{Batch, Cursor, Expired, Pace, Selected, Selection};
use connection::Body;

/// Upstream sends a bookmark about every minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Upstream's `--min-request-timeout`; a watch lasts between one and two of it.
const MIN_TIMEOUT_SECS: u64 = 1800;

/// Initial events that are handed out together.
const TOGETHER: usize = 32;

/// What a watch hands out.
enum Item {
    Changes(Arc<Batch>),
    Bookmark { revision: u64, ends_initial: bool },
    Failed(Box<Status>),
}

/// A watch under way.
struct Watch {
    server: Arc<Server>,
    cursor: Cursor,
    /// The objects that were there before, not yet handed out.
    initial: VecDeque<Arc<Object>>,
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
    let manner = frame::Manner { form, options };
    let stream = match websocket::is_asked(&ctx.headers) {
        // A message is one event.
        true => watch.flat_map(|item| futures::stream::iter(singles(item))).boxed(),
        false => watch,
    };
    let stream = stream.map(move |item| {
        sent.inc_by(item.events());
        let bytes = frame::write(&resource, &item, manner, is_first);
        is_first &= matches!(item, Item::Bookmark { .. });
        Ok(bytes)
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
    let watch = presented(ctx, resource, Pace::AtOnce).await?;
    let resource = resource.clone();
    let events = watch.flat_map(move |item| {
        let events = match item {
            Item::Failed(status) => vec![Err(*status)],
            Item::Bookmark { revision, ends_initial } => vec![Ok(WatchEvent::Bookmark {
                resource_version: ResourceVersion(revision),
                initial_events_end: ends_initial,
            })],
            Item::Changes(batch) => {
                batch.changes.iter().map(|change| Ok(event(&resource, change))).collect()
            }
        };
        futures::stream::iter(events)
    });
    Ok(events.boxed())
}

fn event(resource: &Resource, change: &Selected) -> WatchEvent {
    let object = in_version(resource, change.object());
    match change {
        Selected::Added(_) => WatchEvent::Added(object),
        Selected::Modified(_) => WatchEvent::Modified(object),
        Selected::Deleted(_) => WatchEvent::Deleted(object),
    }
}

impl Item {
    fn events(&self) -> u64 {
        match self {
            Self::Changes(batch) => batch.changes.len() as u64,
            Self::Bookmark { .. } | Self::Failed(_) => 1,
        }
    }
}

/// The same with one event in each.
fn singles(item: Item) -> Vec<Item> {
    match item {
        Item::Changes(batch) => {
            let single =
                |change: &Selected| Item::Changes(Arc::new(Batch::new(vec![change.clone()])));
            batch.changes.iter().map(single).collect()
        }
        item => vec![item],
    }
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
    let state = (ctx.server.clone(), resource.clone(), fields.map(Sight::new), Some(watch.boxed()));
    let stream = futures::stream::unfold(state, |(server, resource, mut sight, watch)| async {
        let mut watch = watch?;
        let items = match watch.next().await? {
            Item::Changes(batch) => converted(&server, &resource, &mut sight, &batch).await,
            other => vec![other],
        };
        // Whoever read on after a failure would never hear of the changes it hides.
        let goes_on = !matches!(items.last(), Some(Item::Failed(_)));
        let state = (server, resource, sight, goes_on.then_some(watch));
        Some((futures::stream::iter(items), state))
    });
    Ok(stream.flatten().boxed())
}

/// The changes up to the first that cannot be converted, and why it cannot.
async fn converted(
    server: &Arc<Server>,
    resource: &Resource,
    sight: &mut Option<Sight>,
    batch: &Batch,
) -> Vec<Item> {
    let (mut changes, mut failed) = (Vec::new(), None);
    for change in &batch.changes {
        match convert::presented_one(server, resource, change.object().clone()).await {
            Ok(object) => match sight {
                Some(sight) => changes.extend(sight.follow(change, object)),
                None => changes.push(change.with(object)),
            },
            Err(status) => {
                failed = Some(Item::Failed(Box::new(status)));
                break;
            }
        }
    }
    let changes = (!changes.is_empty()).then(|| Item::Changes(Arc::new(Batch::new(changes))));
    changes.into_iter().chain(failed).collect()
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
        owes_end,
        sends_bookmarks: ctx.query.flag("allowWatchBookmarks"),
        bookmarked: 0,
        bookmark_due: now + BOOKMARK_EVERY,
        alarm: alarm(&ctx.server, deadline.min(now + BOOKMARK_EVERY)),
        deadline,
        ended: false,
        listing: owes_end.map(|_| (now, watch_list(ctx, resource))),
    };
    // Boxed: it moves with every item.
    Ok(futures::stream::unfold(Box::new(watch), Watch::next).right_stream())
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
    async fn next(mut self: Box<Self>) -> Option<(Item, Box<Self>)> {
        if self.ended {
            return None;
        }
        loop {
            if !self.initial.is_empty() {
                let count = self.initial.len().min(TOGETHER);
                let changes = self.initial.drain(..count).map(Selected::Added).collect();
                return Some((Item::Changes(Arc::new(Batch::new(changes))), self));
            }
            if let Some(revision) = self.owes_end.take() {
                self.bookmarked = revision;
                if let Some((since, histogram)) = self.listing.take() {
                    let took = self.server.clock.monotonic().saturating_duration_since(since);
                    histogram.observe(took.as_secs_f64());
                }
                return Some((Item::Bookmark { revision, ends_initial: true }, self));
            }
            // Read first: what is applied later may also be seen, what is applied now must be.
            let applied = self.server.pump.applied();
            match self.cursor.poll() {
                Err(expired) => {
                    self.ended = true;
                    return Some((Item::Failed(Box::new(gone(&expired))), self));
                }
                Ok((batch, _)) if !batch.changes.is_empty() => {
                    return Some((Item::Changes(batch), self));
                }
                Ok((_, true)) => continue,
                Ok((_, false)) => {}
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
