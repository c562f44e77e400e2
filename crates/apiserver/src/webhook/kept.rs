//! Connections to a webhook that are used again: a handshake costs more than all else of a call.
//!
//! A connection is used again for the address that it leads to, so that a pod that is no endpoint
//! any more is not asked. It goes with the configuration of its webhook.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use connection::Body;
use connection::outbound::{Serial, Shared};
use http::{Request, Response};
use hyper::body::Incoming;

/// Idle connections of one webhook; there are no more than calls were under way at once.
const IDLE: usize = 16;
/// How long a connection is kept idle; upstream's.
const FOR: Duration = Duration::from_secs(90);

/// Where a connection leads.
pub(super) type Address = (String, u16);

/// The idle connections of a webhook.
#[derive(Default)]
pub(super) struct Kept(Mutex<Vec<Idle>>);

struct Idle {
    address: Address,
    since: Instant,
    sender: Sender,
}

/// A connection.
pub(super) enum Sender {
    /// For one request at a time.
    Serial(Serial),
    /// For many; whoever takes it leaves a copy.
    Shared(Shared),
}

impl Sender {
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Serial(sender) => sender.send(request).await,
            Self::Shared(sender) => sender.send(request).await,
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Serial(sender) => sender.is_closed(),
            Self::Shared(sender) => sender.is_closed(),
        }
    }
}

impl Kept {
    /// A connection to an address, if there is one.
    pub(super) fn take(&self, address: &Address, now: Instant) -> Option<Sender> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |one: &Idle| now.saturating_duration_since(one.since) < FOR;
        idle.retain(|one| is_fresh(one) && !one.sender.is_closed());
        // The one that was used last: those that are not needed grow old.
        let at = idle.iter().rposition(|one| one.address == *address)?;
        if let Sender::Shared(sender) = &idle[at].sender {
            let sender = sender.clone();
            idle[at].since = now;
            return Some(Sender::Shared(sender));
        }
        Some(idle.remove(at).sender)
    }

    /// Keeps a connection whose last answer was read.
    pub(super) fn put(&self, address: Address, sender: Sender, now: Instant) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there =
            |one: &Idle| one.address == address && matches!(one.sender, Sender::Shared(_));
        if sender.is_closed() || (matches!(sender, Sender::Shared(_)) && idle.iter().any(is_there))
        {
            return;
        }
        if idle.len() == IDLE {
            idle.remove(0);
        }
        idle.push(Idle { address, since: now, sender });
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}
