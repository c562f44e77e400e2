//! One of several copies of a component works, the others wait: upstream
//! `client-go/tools/leaderelection` with a Lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use prometheus::IntCounter;
use stdx::shutdown::Shutdown;

use crate::{Client, ClientError, EventRecorder, EventType, Regarding};

/// Where and how to compete.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    /// Namespace of the Lease, upstream's default is `kube-system`.
    pub namespace: String,
    /// Name of the Lease, such as `kube-scheduler`.
    pub name: String,
    /// Who competes: unique among the copies.
    pub identity: String,
    /// How long a lease that is not renewed holds.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Time between tries.
    pub retry_period: Duration,
    /// Counts renewals for which the lease had to be read first: somebody else wrote into it.
    pub slow_renewals: Option<IntCounter>,
}

impl LeaderElection {
    /// Upstream's times: 15 s, 10 s, 2 s.
    pub fn new(name: &str, identity: String) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            identity,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            slow_renewals: None,
        }
    }
}

/// The lease as last read, and when it was first seen in that state on our own clock: the times
/// in it are another machine's.
struct Observed {
    lease: Option<Lease>,
    at: Instant,
}

/// How long `work` may take to end at shutdown: upstream's `--controller-shutdown-timeout`, and
/// less than a lease holds. When it takes longer the lease is not given back.
const END_MAX: Duration = Duration::from_secs(10);

/// Why the configuration cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaderElectionError {
    /// A lease would be over before its holder gives up.
    #[error("leaseDuration must be greater than renewDeadline")]
    Lease,
    /// The holder would give up after one failure.
    #[error("renewDeadline must be greater than retryPeriod*JitterFactor")]
    Renew,
    /// Nobody would ever hold it.
    #[error("leaseDuration must be at least one second, and retryPeriod greater than zero")]
    Zero,
}

/// Upstream `leaderelection.JitterFactor`.
const JITTER: f64 = 1.2;

impl LeaderElection {
    /// Whether the times fit each other.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), LeaderElectionError> {
        if self.lease_duration <= self.renew_deadline {
            return Err(LeaderElectionError::Lease);
        }
        if self.renew_deadline <= self.retry_period.mul_f64(JITTER) {
            return Err(LeaderElectionError::Renew);
        }
        // The Lease says whole seconds.
        if self.lease_duration < Duration::from_secs(1) || self.retry_period.is_zero() {
            return Err(LeaderElectionError::Zero);
        }
        Ok(())
    }
}

/// Waits for the lease, runs `work` while it is held and gives it back at `shutdown`, when `work`
/// has ended; if it does not end, the lease is left to expire.
///
/// Returns when `work` ends, at `shutdown`, or when the lease was lost; `work` is dropped then, so
/// it must be safe to drop, and the process should end.
///
/// The client should have connections of its own: a renewal that waits behind all that `work` asks
/// for is late when there is much to do.
///
/// # Errors
/// When the lease was lost.
pub async fn lead(
    config: &LeaderElection,
    client: &Client,
    clock: &SharedClock,
    shutdown: &Shutdown,
    work: impl Future<Output = ()>,
) -> Result<(), LeaseLost> {
    let mut elector = Elector {
        config,
        client,
        clock,
        observed: Observed { lease: None, at: clock.monotonic() },
    };
    let acquired = tokio::select! {
        at = elector.acquire() => Some(at),
        () = shutdown.begun() => None,
    };
    let Some(acquired) = acquired else { return Ok(()) };
    tracing::info!(lease = config.name, identity = config.identity, "became leader");
    // Of its own: that it leads no more is told after the shutdown has begun.
    let telling = Shutdown::new();
    let recorder =
        EventRecorder::spawn(client.clone(), Arc::clone(clock), &config.name, "", &telling);
    let regarding = elector.regarding();
    let tell = |what: &str| {
        let text = format!("{} {what}", config.identity);
        recorder.record(&regarding, EventType::Normal, "LeaderElection", text);
    };
    tell("became leader");
    let mut work = std::pin::pin!(work);
    let overdue = async {
        shutdown.begun().await;
        clock.sleep(END_MAX).await;
    };
    // The lease is renewed also while the work is ending: the last time may have been long ago.
    let end = tokio::select! {
        () = &mut work => End::Done,
        () = elector.renew(acquired) => End::Lost,
        () = overdue => End::Overdue,
    };
    tell("stopped leading");
    match end {
        End::Done => elector.release().await,
        End::Lost => return Err(LeaseLost),
        // Whoever is next must not meet what has not ended yet: the lease has to expire.
        End::Overdue => tracing::warn!(lease = config.name, "the leader's work does not end"),
    }
    Ok(())
}

/// The lease could not be renewed in time, or somebody else has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leader election lost")]
pub struct LeaseLost;

/// How leading ended.
enum End {
    /// The work ended.
    Done,
    /// Another one leads, or this one could not renew.
    Lost,
    /// It was told to end, and did not.
    Overdue,
}

struct Elector<'a> {
    config: &'a LeaderElection,
    client: &'a Client,
    clock: &'a SharedClock,
    observed: Observed,
}

impl Elector<'_> {
    /// When the lease that it has begins: not later than others see it.
    async fn acquire(&mut self) -> Instant {
        loop {
            let begun = self.clock.monotonic();
            match self.answered(self.answer_max()).await {
                // What was answered too late may be over already: it is renewed first.
                Ok(true) if !self.left(begun).is_zero() => return begun,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(lease = self.config.name, %error, "lease cannot be acquired");
                }
            }
            self.clock.sleep(self.config.retry_period.mul_f64(1.0 + rand::random::<f64>())).await;
        }
    }

    /// Renews until that has failed for the renew deadline, or another one has the lease.
    ///
    /// The deadline counts from when a renewal was asked for, not from when it was answered: others
    /// count from when it took effect, and the answer may have been long on its way.
    async fn renew(&mut self, mut renewed: Instant) {
        loop {
            self.clock.sleep(self.config.retry_period.min(self.left(renewed))).await;
            let begun = self.clock.monotonic();
            let left = self.left(renewed);
            if left.is_zero() {
                let since = self.clock.monotonic().saturating_duration_since(renewed);
                tracing::error!(lease = self.config.name, ?since, "lease was not renewed in time");
                return;
            }
            match self.answered(left).await {
                Ok(true) => renewed = begun,
                Ok(false) if self.is_another() => {
                    tracing::error!(lease = self.config.name, "lease is held by somebody else");
                    return;
                }
                // Somebody else wrote into it at the same time.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease = self.config.name, %error, "lease cannot be renewed");
                }
            }
        }
    }

    /// How long an answer is waited for: upstream's part of the renew deadline.
    fn answer_max(&self) -> Duration {
        (self.config.renew_deadline / 2).max(Duration::from_secs(1))
    }

    /// How long a lease that was renewed at this time still holds for its holder.
    fn left(&self, renewed: Instant) -> Duration {
        let since = self.clock.monotonic().saturating_duration_since(renewed);
        self.config.renew_deadline.saturating_sub(since)
    }

    fn is_another(&self) -> bool {
        self.observed.lease.as_ref().is_some_and(|lease| holder(lease) != self.config.identity)
    }

    /// How events refer to the lease.
    fn regarding(&self) -> Regarding {
        self.observed.lease.as_ref().map(Regarding::object).unwrap_or_default()
    }

    /// One try, for at most this long: a request that is not answered must not keep a lease that is
    /// over, and leaves time for another one.
    async fn answered(&mut self, limit: Duration) -> Result<bool, ClientError> {
        let limit = limit.min(self.answer_max());
        let unanswered = self.clock.sleep(limit);
        tokio::select! {
            tried = self.try_acquire_or_renew() => tried,
            () = unanswered => Err(ClientError::Timeout { seconds: limit.as_secs() }),
        }
    }

    async fn try_acquire_or_renew(&mut self) -> Result<bool, ClientError> {
        let leases = self.client.api::<Lease>(&self.config.namespace);
        let now = self.clock.now();
        // Whoever leads knows the lease, unless somebody else wrote into it.
        if let Some(own) = self.own_lease() {
            match leases.update(&self.lease(own, now)).await {
                Ok(lease) => {
                    self.keep(lease);
                    return Ok(true);
                }
                Err(error) => {
                    tracing::debug!(lease = self.config.name, %error, "lease is read again");
                }
            }
            self.config.slow_renewals.iter().for_each(IntCounter::inc);
        }
        let Some(current) = leases.get_opt(&self.config.name).await? else {
            let lease = self.lease(Lease::default(), now);
            return match leases.create(&lease).await {
                Ok(lease) => {
                    self.keep(lease);
                    Ok(true)
                }
                Err(error) if error.is_already_exists() => Ok(false),
                Err(error) => Err(error),
            };
        };
        self.observe(current.clone());
        if !self.may_take(&current) {
            return Ok(false);
        }
        match leases.update(&self.lease(current, now)).await {
            Ok(lease) => {
                self.keep(lease);
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The lease as it was written here, while it holds.
    fn own_lease(&self) -> Option<Lease> {
        let age = self.clock.monotonic().saturating_duration_since(self.observed.at);
        let is_held = |lease: &&Lease| holder(lease) == self.config.identity;
        let lease = self.observed.lease.as_ref().filter(is_held);
        lease.filter(|_| age <= self.config.lease_duration).cloned()
    }

    fn may_take(&self, lease: &Lease) -> bool {
        let holder = holder(lease);
        if holder.is_empty() || holder == self.config.identity {
            return true;
        }
        let age = self.clock.monotonic().saturating_duration_since(self.observed.at);
        age > self.config.lease_duration
    }

    fn observe(&mut self, lease: Lease) {
        if self.observed.lease.as_ref().map(|known| &known.spec) != Some(&lease.spec) {
            self.keep(lease);
        }
    }

    fn keep(&mut self, lease: Lease) {
        self.observed = Observed { lease: Some(lease), at: self.clock.monotonic() };
    }

    fn lease(&self, current: Lease, now: Timestamp) -> Lease {
        let held = holder(&current) == self.config.identity;
        let spec = current.spec.unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        let is_new = current.metadata.resource_version.is_none();
        let seconds = i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..current.metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.identity.clone()),
                lease_duration_seconds: Some(seconds),
                acquire_time: if held { spec.acquire_time } else { Some(MicroTime(now)) },
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(if held || is_new { transitions } else { transitions + 1 }),
                ..spec
            }),
        }
    }

    /// Lets the next one begin at once. A failure only makes it wait for the lease to expire.
    async fn release(&mut self) {
        let Some(mut lease) = self.observed.lease.take() else { return };
        if holder(&lease) != self.config.identity {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let leases = self.client.api::<Lease>(&self.config.namespace);
        if let Err(error) = leases.update(&lease).await {
            tracing::debug!(lease = self.config.name, %error, "lease could not be released");
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;
    use clock::Clock;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use http::{Method, Request, Response};
    use meta::{Reason, Status};

    use super::*;
    use crate::{ObjectList, Transport, WatchStream};

    /// The runtime's time.
    #[derive(Debug)]
    struct Paused;

    impl Clock for Paused {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn monotonic(&self) -> Instant {
            tokio::time::Instant::now().into_std()
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            tokio::time::sleep(duration).boxed()
        }
    }

    /// A server that gives the lease, and does not answer as it should when it is renewed.
    struct Slow {
        reads: AtomicU32,
        renewals: AtomicU32,
        how: How,
    }

    #[derive(Clone, Copy)]
    enum How {
        /// The first renewal late, and then nothing any more.
        Late,
        /// The first renewal never, and then all is well.
        Never,
        /// The first renewal with a conflict, and then all is well.
        Conflict,
    }

    const LATE: Duration = Duration::from_secs(4);

    fn server(how: How) -> Arc<Slow> {
        Arc::new(Slow { reads: AtomicU32::default(), renewals: AtomicU32::default(), how })
    }

    fn slow(how: How) -> Client {
        Client::new(server(how))
    }

    impl Transport for Slow {
        fn call(
            &self,
            request: Request<Bytes>,
        ) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
            let body = match *request.method() {
                Method::GET => {
                    self.reads.fetch_add(1, Ordering::Relaxed);
                    r#"{"metadata":{"name":"l"},"spec":{"holderIdentity":"me"}}"#.to_owned()
                }
                _ => String::from_utf8_lossy(request.body()).into_owned(),
            };
            let renewal = match *request.method() {
                Method::PUT => self.renewals.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            let how = self.how;
            async move {
                match (renewal, how) {
                    (0, _) | (2.., How::Never | How::Conflict) => {}
                    (1, How::Conflict) => {
                        let status = Status::failure(Reason::Conflict, "it has changed");
                        let body = serde_json::to_vec(&status).unwrap();
                        return Ok(Response::builder().status(409).body(body.into()).unwrap());
                    }
                    (1, How::Late) => tokio::time::sleep(LATE).await,
                    (1, How::Never) => std::future::pending().await,
                    (2.., How::Late) => return Err(ClientError::transport("it is gone")),
                }
                Ok(Response::new(body.into()))
            }
            .boxed()
        }

        fn list<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
            async { Err(ClientError::transport("nobody lists")) }.boxed()
        }

        fn watch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
            async { Err(ClientError::transport("nobody watches")) }.boxed()
        }
    }

    /// The renewal took effect when it was asked for, and others take the lease 15 s after that.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_answered_late_ends_before_its_lease_does() {
        let config = LeaderElection::new("l", "me".to_owned());
        let clock: SharedClock = Arc::new(Paused);
        let begun = tokio::time::Instant::now();
        let (client, work) = (slow(How::Late), std::future::pending());
        let led = lead(&config, &client, &clock, &Shutdown::new(), work).await;
        assert_eq!(led, Err(LeaseLost));
        let (led, asked) = (begun.elapsed(), config.retry_period);
        assert!(led > LATE, "it went on while the answer was on its way: {led:?}");
        assert!(led <= asked + config.renew_deadline, "{led:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_is_not_answered_is_followed_by_another() {
        let config = LeaderElection::new("l", "me".to_owned());
        let clock: SharedClock = Arc::new(Paused);
        let work = tokio::time::sleep(10 * config.renew_deadline);
        let led = lead(&config, &slow(How::Never), &clock, &Shutdown::new(), work).await;
        assert_eq!(led, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_read_again_only_when_somebody_else_wrote_into_it() {
        let slow_renewals = IntCounter::new("slow", "Slow.").unwrap();
        let config = LeaderElection {
            slow_renewals: Some(slow_renewals.clone()),
            ..LeaderElection::new("l", "me".to_owned())
        };
        let clock: SharedClock = Arc::new(Paused);
        let server = server(How::Conflict);
        let client = Client::new(server.clone());
        let work = tokio::time::sleep(10 * config.renew_deadline);
        let led = lead(&config, &client, &clock, &Shutdown::new(), work).await;
        assert_eq!(led, Ok(()));
        assert!(server.renewals.load(Ordering::Relaxed) > 40);
        assert_eq!(server.reads.load(Ordering::Relaxed), 2);
        assert_eq!(slow_renewals.get(), 1);
    }

    #[test]
    fn times_have_to_fit() {
        let check = |lease, renew, retry| {
            let seconds = Duration::from_secs;
            let config = LeaderElection {
                lease_duration: seconds(lease),
                renew_deadline: seconds(renew),
                retry_period: seconds(retry),
                ..LeaderElection::new("l", "me".to_owned())
            };
            config.check()
        };
        assert_eq!(check(15, 10, 2), Ok(()));
        assert_eq!(check(10, 10, 2), Err(LeaderElectionError::Lease));
        assert_eq!(check(15, 2, 2), Err(LeaderElectionError::Renew));
        assert_eq!(check(15, 10, 0), Err(LeaderElectionError::Zero));
    }
}
