//! Since when it is noted which tokens in Secrets are used: a ConfigMap that is always there.
//!
//! Upstream: `pkg/controlplane/controller/legacytokentracking`.

use std::time::Duration;

use authn::UserInfo;
use futures::StreamExt;
use meta::Status;
use serde_json::{Value, json};

use crate::bootstrap;
use crate::handle::Handle;

const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
/// Before a watch that has ended is begun anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the ConfigMap whenever somebody takes it away or spoils it, until shutdown.
pub(crate) async fn run(handle: Handle) {
    let server = handle.server.clone();
    let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    let path = format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3D{NAME}");
    while !server.shutdown.is_begun() {
        match handle.watch(&user, &path).await {
            Ok(mut events) => {
                repair(&handle).await;
                while let Some(Ok(_)) = events.next().await {
                    repair(&handle).await;
                }
            }
            Err(status) => tracing::warn!(%status, "tracking of tokens cannot be watched"),
        }
        tokio::select! {
            () = server.clock.sleep(PAUSE) => {}
            () = server.shutdown.begun() => return,
        }
    }
}

async fn repair(handle: &Handle) {
    if let Err(status) = ensure(handle).await {
        tracing::warn!(%status, "tracking of tokens cannot be written");
    }
}

/// Makes the ConfigMap, unless there is one with a day in it.
pub(crate) async fn ensure(handle: &Handle) -> Result<(), Status> {
    let server = &handle.server;
    let known = server.find("", "configmaps", "kube-system", NAME);
    let known = known.and_then(|map| map.decode::<Value>().ok());
    let since = known.as_ref().and_then(|map| map["data"]["since"].as_str());
    if since.is_some_and(|since| since.parse::<jiff::civil::Date>().is_ok()) {
        return Ok(());
    }
    let today = server.clock.now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": NAME, "namespace": "kube-system"}, "data": {"since": today}});
    bootstrap::put(handle, CONFIG_MAPS, &map).await
}
