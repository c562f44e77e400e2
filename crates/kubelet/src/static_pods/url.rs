//! The manifest at an address, asked for from time to time: upstream `pkg/kubelet/config/http.go`.
//!
//! What cannot be read, or is no manifest, leaves the pods of the one before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;

use super::files::is_same;
use super::manifest::{self, Origin};
use super::{Source, key};
use crate::config::ManifestUrl;
use crate::http_get::{Get, How};
use crate::kubelet::Kubelet;

/// Upstream's client gives up after this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// As for files: upstream `maxConfigLength`.
const BYTES_MAX: usize = 10 << 20;

/// Follows the address of the configuration, if there is one, until the kubelet ends.
pub(crate) fn follow(kubelet: &Arc<Kubelet>) {
    let Some(url) = kubelet.config.manifest_url.clone() else { return };
    let kubelet = Arc::clone(kubelet);
    drop(stdx::task::spawn("static-pods-url", async move {
        let mut last = Last::default();
        loop {
            if let Err(error) = look(&kubelet, &url, &mut last).await {
                tracing::warn!(url = url.url, error, "manifest of static pods not used");
            }
            tokio::select! {
                () = kubelet.deps.clock.sleep(url.check_frequency) => {}
                () = kubelet.shutdown.begun() => return,
            }
        }
    }));
}

/// What was last read.
#[derive(Default)]
struct Last {
    bytes: Bytes,
    pods: Vec<Arc<Pod>>,
}

async fn look(kubelet: &Arc<Kubelet>, url: &ManifestUrl, last: &mut Last) -> Result<(), String> {
    let bytes = fetch(kubelet, url).await?;
    if bytes.is_empty() {
        *last = Last::default();
        kubelet.static_pods.want(Source::Url, Vec::new());
        kubelet.static_pods.apply(kubelet);
        return Err(format!("zero-length data received from {}", url.url));
    }
    if bytes == last.bytes {
        return Ok(());
    }
    let (node, now) = (&kubelet.config.node_name, kubelet.deps.clock.now());
    let read = manifest::read_all(&bytes, Origin::Url(&url.url), node, now);
    let read = read.map_err(|error| error.to_string())?;
    // Those that are the same as before go on.
    let pods = read.into_iter().map(|pod| {
        let before = last.pods.iter().find(|old| key(old) == key(&pod) && is_same(old, &pod));
        before.cloned().unwrap_or_else(|| Arc::new(pod))
    });
    *last = Last { pods: pods.collect(), bytes };
    kubelet.static_pods.want(Source::Url, last.pods.clone());
    kubelet.static_pods.apply(kubelet);
    Ok(())
}

async fn fetch(kubelet: &Kubelet, url: &ManifestUrl) -> Result<Bytes, String> {
    let address = url.url.parse::<http::Uri>().map_err(|error| error.to_string())?;
    let https = address.scheme_str() == Some("https");
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    let get = Get {
        https,
        host: host.to_owned(),
        port: address.port_u16().unwrap_or(if https { 443 } else { 80 }),
        path: address.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: url.headers.clone(),
    };
    let roots = https.then(stdx::tls::system_authorities).transpose();
    let roots = roots.map_err(|error| error.to_string())?;
    let how = How { roots, body_bytes_max: BYTES_MAX };
    let (code, body) = get.send_as(how, &*kubelet.deps.clock, TIMEOUT).await?;
    if code != 200 {
        return Err(format!("{}: {code}", url.url));
    }
    body.ok_or_else(|| format!("it breaks off, or is longer than {BYTES_MAX} bytes"))
}
