//! The heartbeats of all nodes, spread evenly over their intervals.

use std::sync::Arc;
use std::time::Duration;

use client::{ClientError, Patch};
use futures::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use meta::ObjectKey;
use serde_json::json;
use stdx::shutdown::Shutdown;

use super::fleet::Fleet;
use super::node_object::{LEASES, conditions};
use super::tally::count;

/// Which heartbeat.
#[derive(Clone, Copy)]
enum Beat {
    Lease,
    Status,
}

impl Fleet {
    /// Keeps the nodes alive until `shutdown`.
    pub(crate) async fn run_beats(self: &Arc<Self>, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.begun() => {}
            () = self.every(self.options.lease_interval, Beat::Lease) => {}
            () = self.every(self.options.status_interval, Beat::Status) => {}
        }
    }

    async fn every(&self, interval: Duration, beat: Beat) {
        loop {
            let begun = self.clock.monotonic();
            let all = stream::iter(0..self.options.shape.count);
            all.for_each_concurrent(self.options.in_flight, |index| async move {
                let due = begun + offset(interval, index + 1, self.options.shape.count);
                self.clock.sleep(due.saturating_duration_since(self.clock.monotonic())).await;
                let name = self.options.shape.name(index);
                let Some(uid) = self.nodes.get(&ObjectKey::cluster(name)) else { return };
                let result = match beat {
                    Beat::Lease => self.renew(index, &uid).await,
                    Beat::Status => self.beat(index).await,
                };
                // The next one comes in time for both; a node that is gone has none.
                if let Err(error) = result
                    && !error.is_not_found()
                {
                    count(&self.tally.errors);
                    tracing::warn!(node = self.options.shape.name(index), %error, "no heartbeat");
                }
            })
            .await;
        }
    }

    async fn renew(&self, index: usize, uid: &str) -> Result<(), ClientError> {
        let time = meta::time::rfc3339_micro(self.clock.now());
        let patch = Patch::Merge(json!({ "spec": { "renewTime": time } }));
        let leases = self.client.api::<Lease>(LEASES);
        self.pace.turn().await;
        match leases.patch(&self.options.shape.name(index), &patch).await {
            Err(error) if error.is_not_found() => self.put_lease(index, uid).await?,
            result => drop(result?),
        }
        count(&self.tally.renewed);
        Ok(())
    }

    /// Says that a node is well.
    pub(super) async fn beat(&self, index: usize) -> Result<(), ClientError> {
        let status = json!({ "status": { "conditions": conditions(self.clock.now(), None) } });
        self.pace.turn().await;
        let (nodes, patch) = (self.client.api::<Node>(""), Patch::Strategic(status));
        nodes.patch_subresource(&self.options.shape.name(index), "status", &patch).await.map(drop)
    }
}

/// When the heartbeat of one of many is due within the interval.
fn offset(interval: Duration, index: usize, count: usize) -> Duration {
    let part = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    interval.mul_f64(f64::from(part(index)) / f64::from(part(count.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_fill_the_interval() {
        let second = Duration::from_secs(1);
        assert_eq!(offset(10 * second, 1, 4), Duration::from_millis(2500));
        assert_eq!(offset(10 * second, 4, 4), 10 * second);
    }
}
