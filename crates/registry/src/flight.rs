//! One download of a layer at a time, whoever needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::Digest;
use tokio::sync::OwnedMutexGuard;

type Locks = Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>;

/// The layers that are on their way. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Flights(Locks);

/// Held while a layer is on its way.
pub(crate) struct Flight {
    locks: Locks,
    layer: Digest,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Flights {
    /// Waits until nobody else brings this layer. Whoever waited looks whether it is there now.
    pub(crate) async fn board(&self, layer: &Digest) -> Flight {
        let lock = Arc::clone(lock(&self.0).entry(layer.clone()).or_default());
        let guard = Some(lock.lock_owned().await);
        Flight { locks: Arc::clone(&self.0), layer: layer.clone(), guard }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut locks = lock(&self.locks);
        // One of them is the map's; the others wait.
        if locks.get(&self.layer).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.layer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_flies_at_a_time_and_nothing_is_left() {
        let flights = Flights::default();
        let layer = Digest::of(b"a");
        let first = flights.board(&layer).await;
        let mut second = Box::pin(flights.board(&layer));
        assert!((&mut second).now_or_never().is_none());
        flights.board(&Digest::of(b"b")).await;
        drop(first);
        drop(second.await);
        assert!(lock(&flights.0).is_empty());
    }
}
