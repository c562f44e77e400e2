//! Having the image of a container on the node.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use client::EventType;
use cri::{AuthConfig, Code, Image, ImageSpec, PodSandboxConfig};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::kubelet::Kubelet;
use crate::pod::container_status::StartError;
use crate::pod::crash_backoff::{CrashBackoff, go_duration};
use crate::pod::spec::{self, Kind};

/// Failed pulls of one pod: since when each image fails, and why.
#[derive(Debug, Default)]
pub(crate) struct PullFailures {
    backoff: CrashBackoff,
    last: HashMap<String, (Timestamp, String)>,
}

impl PullFailures {
    /// How much of the back-off of an image is left, and why it failed.
    fn waiting(&self, image: &str, now: Timestamp) -> Option<(Duration, &str)> {
        let (since, why) = self.last.get(image)?;
        let (_, left) = self.backoff.waiting(image, *since, now)?;
        Some((left, why))
    }

    /// The least of what is left of all back-offs.
    pub(crate) fn wake_after(&self, now: Timestamp) -> Option<Duration> {
        self.last.keys().filter_map(|image| Some(self.waiting(image, now)?.0)).min()
    }

    fn failed(&mut self, image: &str, why: &str, now: Timestamp) {
        self.backoff.next(image, now, now);
        self.last.insert(image.to_owned(), (now, why.to_owned()));
    }

    fn succeeded(&mut self, image: &str) {
        self.last.remove(image);
    }
}

/// Makes sure that the image of a container is present, by its pull policy.
pub(crate) async fn ensure(
    kubelet: &Kubelet,
    pod: &Pod,
    container: (Kind, &Container),
    sandbox: &PodSandboxConfig,
    failures: &mut PullFailures,
) -> Result<Image, StartError> {
    let (kind, container) = container;
    let image = container.image.as_deref().unwrap_or_default();
    let event = |event_type, reason, text: &str| {
        kubelet.container_event(pod, (kind, &container.name), event_type, reason, text);
    };
    let images = &kubelet.deps.images;
    let present = match images.image_status(&ImageSpec::from(image)).await {
        Ok(present) => present,
        Err(error) if error.code() == Code::InvalidArgument => {
            let message = format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name \
                 {image:?}: invalid reference format"
            );
            event(EventType::Warning, "InspectFailed", &message);
            return Err(StartError { reason: "InvalidImageName", message });
        }
        Err(error) => {
            let message = format!("Failed to inspect image {image:?}: {error}");
            event(EventType::Warning, "InspectFailed", &message);
            return Err(StartError { reason: "ImageInspectError", message });
        }
    };
    match (container.image_pull_policy.as_deref().unwrap_or("IfNotPresent"), present) {
        ("Never", None) => {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            event(EventType::Warning, "ErrImageNeverPull", &message);
            return Err(StartError { reason: "ErrImageNeverPull", message });
        }
        ("Always", _) | (_, None) => {}
        (_, Some(found)) => {
            let text = format!(
                "Container image {image:?} already present on machine and can be accessed by the \
                 pod"
            );
            event(EventType::Normal, "Pulled", &text);
            return Ok(found);
        }
    }
    pull_or_wait(kubelet, pod, (kind, container), sandbox, failures).await
}

/// Pulls, unless the image is in back-off.
async fn pull_or_wait(
    kubelet: &Kubelet,
    pod: &Pod,
    (kind, container): (Kind, &Container),
    sandbox: &PodSandboxConfig,
    failures: &mut PullFailures,
) -> Result<Image, StartError> {
    let image = container.image.as_deref().unwrap_or_default();
    let event = |event_type, reason, text: &str| {
        kubelet.container_event(pod, (kind, &container.name), event_type, reason, text);
    };
    let now = kubelet.deps.clock.now();
    if let Some((_, why)) = failures.waiting(image, now) {
        let text = format!("Back-off pulling image {image:?}");
        event(EventType::Normal, "BackOff", &text);
        let message = format!("{text}: ErrImagePull: {why}");
        return Err(StartError { reason: "ImagePullBackOff", message });
    }
    event(EventType::Normal, "Pulling", &format!("Pulling image {image:?}"));
    match pull(kubelet, pod, image, sandbox).await {
        Ok(pulled) => {
            failures.succeeded(image);
            let took = kubelet.deps.clock.now().duration_since(now);
            let took = Duration::try_from(took).unwrap_or_default();
            let took = go_duration(Duration::from_millis(
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ));
            let text = format!(
                "Successfully pulled image {image:?} in {took} ({took} including waiting). \
                 Image size: {} bytes.",
                pulled.size
            );
            event(EventType::Normal, "Pulled", &text);
            Ok(pulled)
        }
        Err(why) => {
            failures.failed(image, &why, kubelet.deps.clock.now());
            let text = format!("Failed to pull image {image:?}: {why}");
            event(EventType::Warning, "Failed", &text);
            Err(StartError { reason: "ErrImagePull", message: why })
        }
    }
}

async fn pull(
    kubelet: &Kubelet,
    pod: &Pod,
    image: &str,
    sandbox: &PodSandboxConfig,
) -> Result<Image, String> {
    let spec = ImageSpec::from(image);
    let images = &kubelet.deps.images;
    let mut credentials: Vec<Option<AuthConfig>> =
        pull_secrets(kubelet, pod, image).await.into_iter().map(Some).collect();
    credentials.push(None);
    let mut last = String::new();
    for auth in credentials {
        match images.pull_image(&spec, auth.as_ref(), Some(sandbox)).await {
            Ok(id) => {
                let by_id = images.image_status(&ImageSpec::from(id.as_str())).await;
                let found = by_id.map_err(|error| error.to_string())?;
                return found.ok_or_else(|| format!("pulled image {id:?} is not present"));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Credentials of the pod's pull secrets for the image's registry.
async fn pull_secrets(kubelet: &Kubelet, pod: &Pod, image: &str) -> Vec<AuthConfig> {
    let registry = registry(image);
    let mut found = Vec::new();
    for reference in spec::spec(pod).image_pull_secrets.iter().flatten() {
        let secrets = &kubelet.volumes.secrets;
        let secret = secrets.get(spec::namespace(pod), &reference.name, spec::uid(pod)).await;
        // A secret that is absent is no error, as upstream's.
        let Ok(Some(secret)) = secret else { continue };
        let data = secret.data.as_ref();
        if let Some(config) = data.and_then(|data| data.get(".dockerconfigjson")) {
            found.extend(credentials(&config.0, &registry));
        }
    }
    found
}

/// The registry of an image reference.
fn registry(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first.to_owned(),
        _ => "docker.io".to_owned(),
    }
}

#[derive(serde::Deserialize)]
struct DockerConfig {
    auths: HashMap<String, DockerAuth>,
}

#[derive(serde::Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

fn credentials(config: &[u8], wanted: &str) -> Vec<AuthConfig> {
    let Ok(config) = serde_json::from_slice::<DockerConfig>(config) else { return Vec::new() };
    let same = |server: &str| {
        let host = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        host == wanted || (wanted == "docker.io" && host.ends_with("docker.io"))
    };
    let mut found: Vec<(String, DockerAuth)> =
        config.auths.into_iter().filter(|(server, _)| same(server)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
        .into_iter()
        .map(|(server, auth)| {
            let decoded = base64::engine::general_purpose::STANDARD.decode(&auth.auth).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let (username, password) =
                pair.map_or((auth.username, auth.password), |(u, p)| (u.into(), p.into()));
            AuthConfig {
                username,
                password,
                server_address: server,
                identity_token: auth.identitytoken,
                ..AuthConfig::default()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = br#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dTpw"},
            "r.example:5000":{"username":"a","password":"b"}}}"#;
        let hub = credentials(config, &registry("library/nginx"));
        assert_eq!((hub[0].username.as_str(), hub[0].password.as_str()), ("u", "p"));
        let own = credentials(config, &registry("r.example:5000/x/y:1"));
        assert_eq!(own[0].username, "a");
        assert!(credentials(config, "other").is_empty());
        assert!(credentials(b"x", "other").is_empty());
    }
}
