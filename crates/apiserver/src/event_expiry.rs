//! Events live an hour, as upstream's `--event-ttl` has it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use meta::Object;
use serde_json::Value;
use store::{Expect, Revision, Write};

use crate::server::Server;

const LIFE: SignedDuration = SignedDuration::from_hours(1);
const EVERY: Duration = Duration::from_secs(60);

/// Removes old events until the server shuts down.
pub(crate) async fn run(server: Arc<Server>) {
    loop {
        tokio::select! {
            () = server.clock.sleep(EVERY) => {}
            () = server.shutdown.begun() => return,
        }
        if let Err(error) = expire(&server).await {
            tracing::warn!(%error, "old events could not be removed");
        }
    }
}

async fn expire(server: &Server) -> Result<(), store::StoreError> {
    let Some(storage) = server.resources.storage("", "events") else { return Ok(()) };
    let Ok(before) = server.clock.now().checked_sub(LIFE) else { return Ok(()) };
    for event in storage.cache.snapshot(0).map.values() {
        if !is_older(event, before) {
            continue;
        }
        let header = event.header();
        let key = storage.store_key(&header.namespace, &header.name);
        // Whoever touched it meanwhile has given it another hour.
        let expect = Expect::ModRevision(Revision(header.resource_version.0));
        let write = Write::new(key, None, expect);
        server.store.write(write).await?;
    }
    Ok(())
}

/// Whether everything the event says about its time is before `before`.
fn is_older(event: &Object, before: Timestamp) -> bool {
    let Ok(event) = event.decode::<Value>() else { return false };
    [
        "/metadata/creationTimestamp",
        "/lastTimestamp",
        "/firstTimestamp",
        "/eventTime",
        "/series/lastObservedTime",
    ]
    .iter()
    .filter_map(|pointer| event.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok())
    .max()
    .is_some_and(|newest| newest < before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_as_old_as_its_newest_time() {
        let event = |last: &str| {
            let text = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "lastTimestamp": last});
            Object::from_json(text.to_string().into()).unwrap()
        };
        let before: Timestamp = "2026-01-01T06:00:00Z".parse().unwrap();
        assert!(is_older(&event("2026-01-01T05:00:00Z"), before));
        assert!(!is_older(&event("2026-01-01T07:00:00Z"), before));
    }
}
