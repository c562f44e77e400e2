//! How a component reaches the API: late, twice, or not at all.

mod follower;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, ObjectList, Transport, WatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Response};
use meta::{Reason, ResourceVersion, Status};
use serde_json::{Value, json};

use self::follower::Follower;
use crate::api::{Answer, PatchKind, Selection, Target, discovery};
use crate::sim_clock::SimClock;
use crate::strikes::Blow;
use crate::tally::Event;
use crate::view::{Sight, View};
use crate::world::World;

/// How long a request takes at most, and one that is slow.
const LATENCY: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(8);

/// Who asks for what all controllers share.
pub(crate) const MANAGER: &str = "manager-controller";

/// One life of a program. When it is over, nothing that it asks for happens, and nothing that it
/// waits for comes.
#[derive(Debug)]
pub(crate) struct Life {
    is_over: AtomicBool,
    /// Whether its lease is out of reach.
    is_cut_off: AtomicBool,
    clock: Arc<SimClock>,
    /// Under which name it holds a lease; none when it does not compete for one.
    identity: String,
    /// What the informers that all of it shares have been told.
    view: Mutex<View>,
}

impl Life {
    /// A life by this clock.
    pub(crate) fn new(clock: &Arc<SimClock>, identity: String) -> Self {
        let no = || AtomicBool::new(false);
        let clock = Arc::clone(clock);
        Self { is_over: no(), is_cut_off: no(), clock, identity, view: Mutex::default() }
    }

    /// Under which name it holds a lease.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Lets it renew its lease no more.
    fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_clock_wrong(&self) -> bool {
        self.clock.is_wrong()
    }
}

/// The API as one account of one life of a program sees it.
pub(crate) struct Wire {
    world: Arc<World>,
    by: String,
    life: Arc<Life>,
}

/// What is to go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Lost,
    Unanswered,
    Conflict,
    Busy,
    /// The program dies, before the request arrives or after it did.
    Dies {
        arrives: bool,
    },
    /// The program loses its lease before the request arrives.
    Deposed,
}

/// What can go wrong with a request.
#[derive(Clone, Copy, Debug)]
struct Shape {
    writes: bool,
    /// Something that is there already is changed.
    changes: bool,
    /// It is more than the beginning of a watch.
    is_single: bool,
}

impl Shape {
    const LIST: Self = Self { writes: false, changes: false, is_single: false };

    fn of(request: &Request<Bytes>) -> Self {
        let method = request.method();
        // Others than of one version are deleted as they are.
        let of_version = || request.body().windows(15).any(|part| part == b"resourceVersion");
        let changes = match *method {
            Method::PUT | Method::PATCH => true,
            Method::DELETE => of_version(),
            _ => false,
        };
        Self { writes: *method != Method::GET, changes, is_single: true }
    }

    fn allows(self, blow: Blow, life: &Life) -> bool {
        match blow {
            Blow::Lost | Blow::Busy => true,
            Blow::Unanswered => self.writes,
            Blow::Conflict => self.changes,
            Blow::Dies => self.is_single,
            Blow::Deposed => self.is_single && !life.identity.is_empty(),
            Blow::Late | Blow::WatchEnds | Blow::WatchExpires => false,
        }
    }
}

/// Who competes for the lease.
const ELECTION: &str = "leader-election";

impl Wire {
    /// A client of an account.
    pub(crate) fn client(world: &Arc<World>, by: &str, life: &Arc<Life>) -> Client {
        let (world, life) = (Arc::clone(world), Arc::clone(life));
        Client::new(Arc::new(Self { world, by: by.to_owned(), life }))
    }

    async fn pause(&self, usual: Duration, slow: Duration) {
        let wait = {
            let faults = self.world.faults();
            let mut dice = self.world.dice();
            let most = if dice.chance(faults.slow) {
                self.world.count(&self.by, Event::Slow);
                slow
            } else {
                usual
            };
            dice.within(most)
        };
        tokio::time::sleep(wait).await;
        self.alive().await;
    }

    /// Waits for ever when the program is no more.
    async fn alive(&self) {
        if self.life.is_over() {
            self.world.count(&self.by, Event::Died);
            std::future::pending::<()>().await;
        }
    }

    /// A request sets out.
    async fn set_out(&self) {
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
        self.world.step().await;
        self.world.count(&self.by, Event::Request);
        if self.life.is_clock_wrong() {
            self.world.count(&self.by, Event::WrongClock);
        }
        self.pause(LATENCY, SLOW).await;
    }

    fn roll(&self, shape: Shape) -> Fault {
        if self.by == ELECTION && self.life.is_cut_off.load(Ordering::Relaxed) {
            return Fault::Lost;
        }
        let struck = self.world.strike(&self.by, |blow| shape.allows(blow, &self.life));
        let faults = self.world.faults();
        let mut dice = self.world.dice();
        let dies = |arrives| (Fault::Dies { arrives }, None);
        let (fault, event) = match struck {
            Some(Blow::Busy) => (Fault::Busy, Some(Event::Busy)),
            Some(Blow::Unanswered) => (Fault::Unanswered, Some(Event::Unanswered)),
            Some(Blow::Conflict) => (Fault::Conflict, Some(Event::Conflict)),
            Some(Blow::Dies) => dies(dice.chance(500)),
            Some(Blow::Deposed) => (Fault::Deposed, Some(Event::Deposed)),
            Some(_) => (Fault::Lost, Some(Event::Lost)),
            None if dice.chance(faults.lost) => (Fault::Lost, Some(Event::Lost)),
            None if dice.chance(faults.busy) => (Fault::Busy, Some(Event::Busy)),
            None if shape.writes && dice.chance(faults.unanswered) => {
                (Fault::Unanswered, Some(Event::Unanswered))
            }
            None if shape.changes && dice.chance(faults.conflict) => {
                (Fault::Conflict, Some(Event::Conflict))
            }
            None => return Fault::None,
        };
        event.into_iter().for_each(|event| self.world.count(&self.by, event));
        fault
    }

    /// Of those that compete for a lease only its holder writes anything but events.
    fn leads(&self, path: &str) {
        let identity = self.life.identity();
        let target = Target::parse(path);
        if identity.is_empty() || ["leases", "events"].contains(&target.resource.as_str()) {
            return;
        }
        let mut api = self.world.api();
        let lease = api.get("coordination.k8s.io/leases", "kube-system", "kube-controller-manager");
        let holder = lease.map(|lease| lease["spec"]["holderIdentity"].clone()).unwrap_or_default();
        if holder != *identity {
            let by = &self.by;
            api.checks.violated(format!("{by} of {identity} writes {path}, and {holder} leads"));
        }
    }

    /// Whether what is asked for is what all controllers share of a collection.
    fn informs(&self, target: &Target, query: &str) -> bool {
        self.by == MANAGER
            && target.namespace.is_empty()
            && !query.contains("Selector=")
            && View::follows(&target.collection())
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let since = tokio::time::Instant::now();
        self.set_out().await;
        let shape = Shape::of(&request);
        let writes = shape.writes;
        let kinds = [(writes, Event::Write), (shape.changes, Event::Change)];
        for (_, event) in kinds.iter().filter(|(is_one, _)| *is_one) {
            self.world.count(&self.by, *event);
        }
        let fault = self.roll(shape);
        if fault != Fault::None {
            let line =
                format!("{}: {} {} fails: {fault:?}", self.by, request.method(), request.uri());
            self.world.trace(&line);
        }
        let answer = match fault {
            Fault::Lost => return Err(broken()),
            Fault::Busy => Err(Box::new(Status::failure(
                Reason::InternalError,
                "etcdserver: request timed out",
            ))),
            Fault::Conflict => {
                Err(Box::new(Status::failure(Reason::Conflict, "somebody else was faster")))
            }
            Fault::Dies { arrives: false } => {
                self.life.end();
                self.alive().await;
                return Err(broken());
            }
            Fault::Deposed => {
                self.life.cut_off();
                while !self.life.is_over() {
                    tokio::time::sleep(SLOW).await;
                }
                std::future::pending().await
            }
            Fault::None | Fault::Unanswered | Fault::Dies { arrives: true } => {
                if writes {
                    self.leads(request.uri().path());
                }
                let view = self.life.view();
                let sight = Sight { view: &view, since };
                answer(&self.world, &self.by, sight, &request)
            }
        };
        if let Fault::Dies { .. } = fault {
            self.life.end();
        }
        if let Fault::Unanswered = fault {
            if answer.is_ok() {
                self.world.api().checks.unanswered(&request);
            }
            self.pause(LATENCY, SLOW).await;
            return Err(broken());
        }
        if let Err(status) = &answer
            && writes
        {
            let line = format!(
                "{}: {} {} is refused: {}",
                self.by,
                request.method(),
                request.uri().path(),
                status.message
            );
            self.world.trace(&line);
            if ["Conflict", "NotFound", "AlreadyExists"].contains(&&*status.reason)
                && fault == Fault::None
            {
                self.world.count(&self.by, Event::Stale);
            }
        }
        self.pause(LATENCY, SLOW).await;
        Ok(answer)
    }
}

fn broken() -> ClientError {
    ClientError::transport("connection reset by peer")
}

fn answer(world: &World, by: &str, sight: Sight<'_>, request: &Request<Bytes>) -> Answer {
    let uri = request.uri();
    let path = uri.path();
    let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
    if discovery(path).is_some() {
        return Ok(Value::Null);
    }
    let target = Target::parse(path);
    if target.group == "metrics.k8s.io" {
        let query = uri.query().unwrap_or_default();
        return world.ask(by, None, |api, asked| api.metrics(asked, path, query));
    }
    world.ask(by, Some(sight), |api, asked| match *request.method() {
        Method::GET if target.name.is_empty() => {
            let selection = Selection::parse(uri.query().unwrap_or_default())?;
            let items = api.select(&target, &selection);
            let items: Vec<Value> = items.iter().map(|stored| stored.value.clone()).collect();
            Ok(json!({ "metadata": { "resourceVersion": api.version().to_string() },
                "items": items }))
        }
        Method::GET => api.read(&target),
        Method::POST => api.post(asked, &target, body),
        Method::PUT => api.put(asked, &target, &body),
        Method::PATCH => {
            let kind = request.headers().get("content-type").map(http::HeaderValue::as_bytes);
            let kind = match kind {
                Some(b"application/json-patch+json") => PatchKind::Json,
                Some(b"application/merge-patch+json") => PatchKind::Merge,
                _ => PatchKind::Strategic,
            };
            api.patch(asked, &target, kind, request.body())
        }
        Method::DELETE if target.name.is_empty() => {
            api.delete_all(asked, &target, uri.query().unwrap_or_default(), &body)
        }
        Method::DELETE => api.delete(asked, &target, &body),
        _ => Err(Box::new(Status::failure(Reason::MethodNotAllowed, "not allowed"))),
    })
}

impl Transport for Wire {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
        async move {
            let document = discovery(request.uri().path());
            let (code, body) = match (self.exchange(request).await?, document) {
                (Ok(_), Some(document)) => (200, document),
                (Ok(value), None) => (200, Bytes::from(value.to_string())),
                (Err(status), _) => {
                    let body = serde_json::to_string(&status).unwrap_or_default();
                    (status.code, Bytes::from(body))
                }
            };
            let response = Response::builder().status(code).body(body);
            response.map_err(ClientError::transport)
        }
        .boxed()
    }

    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
        async move {
            self.set_out().await;
            match self.roll(Shape::LIST) {
                Fault::None => {}
                Fault::Busy => {
                    return Err(Status::failure(Reason::InternalError, "timed out").into());
                }
                _ => return Err(broken()),
            }
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let selection = Selection::parse(query).map_err(|status| ClientError::from(*status))?;
            let target = Target::parse(path);
            let collection = target.collection();
            let (items, version) = {
                let mut api = self.world.api();
                let items = api.select(&target, &selection);
                if self.by == MANAGER {
                    items.iter().for_each(|item| api.checks.told(&collection, &item.value));
                }
                api.checks.looked(&self.by, &collection, &target.namespace);
                (items, api.version())
            };
            self.pause(LATENCY, SLOW).await;
            if self.informs(&target, query) {
                self.life.view().listed(&collection, &items);
            }
            Ok(ObjectList {
                resource_version: ResourceVersion(version),
                continue_token: String::new(),
                items: items.iter().map(|stored| Arc::clone(&stored.object)).collect(),
            })
        }
        .boxed()
    }

    fn watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
        async move {
            self.set_out().await;
            if self.roll(Shape::LIST) != Fault::None {
                return Err(broken());
            }
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let selection = Selection::parse(query).map_err(|status| ClientError::from(*status))?;
            let number = |key: &str| {
                let value = query.split('&').find_map(|pair| pair.strip_prefix(key));
                value.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
            };
            let from = number("resourceVersion=");
            if self.world.api().is_expired(from) {
                return Err(expired().into());
            }
            let target = Target::parse(path);
            let collection = target.collection();
            let at = {
                let api = self.world.api();
                api.log_of(&collection).partition_point(|commit| commit.version <= from)
            };
            let seconds = Duration::from_secs(number("timeoutSeconds=").max(1));
            let follower = Follower {
                world: Arc::clone(&self.world),
                life: Arc::clone(&self.life),
                selection,
                informs: self.by == MANAGER,
                is_seen: self.informs(&target, query),
                target,
                collection,
                at,
                ends: tokio::time::Instant::now() + seconds,
                is_over: false,
            };
            let events = futures::stream::unfold(follower, |mut follower| async move {
                let event = follower.next().await?;
                Some((event, follower))
            });
            Ok(events.boxed())
        }
        .boxed()
    }
}

fn expired() -> Status {
    Status::failure(Reason::Expired, "too old resource version")
}
