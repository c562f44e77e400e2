//! Having the image of a container on the node.

use std::collections::HashMap;
use std::time::Duration;

use client::EventType;
use cri::{Code, Image, ImageSpec, PodSandboxConfig};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::image::Access;
use crate::image::keyring::{self, Keyring, SecretSource, TrackedAuth};
use crate::kubelet::Kubelet;
use crate::pod::container_status::StartError;
use crate::pod::crash_backoff::{CrashBackoff, go_duration};
use crate::pod::spec::{self, Kind};

/// Failed pulls of one pod: since when each image fails, and why.
#[derive(Debug, Default)]
pub(crate) struct PullFailures {
    backoff: CrashBackoff,
    last: HashMap<String, (Timestamp, StartError)>,
}

impl PullFailures {
    /// How much of the back-off of an image is left, and why it failed.
    fn waiting(&self, image: &str, now: Timestamp) -> Option<(Duration, &StartError)> {
        let (since, why) = self.last.get(image)?;
        let (_, left) = self.backoff.waiting(image, *since, now)?;
        Some((left, why))
    }

    /// The least of what is left of all back-offs.
    pub(crate) fn wake_after(&self, now: Timestamp) -> Option<Duration> {
        self.last.keys().filter_map(|image| Some(self.waiting(image, now)?.0)).min()
    }

    fn failed(&mut self, image: &str, why: &StartError, now: Timestamp) {
        self.backoff.next(image, now, now);
        self.last.insert(image.to_owned(), (now, why.clone()));
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
    let present = match present {
        Some(found) if may_use(kubelet, pod, image, &found).await => Some(found),
        // For this pod it is as if it were not here.
        _ => None,
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

/// Whether the pod may use an image that is here, without asking the registry.
async fn may_use(kubelet: &Kubelet, pod: &Pod, image: &str, found: &Image) -> bool {
    match kubelet.pulled.access(image, &found.id) {
        Access::Everybody => true,
        Access::Unknown => false,
        // What is wrong with its credentials, a pull tells.
        access => credentials(kubelet, pod, image).await.is_ok_and(|own| access.admits(&own)),
    }
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
    let clock = &kubelet.deps.clock;
    if let Some((_, why)) = failures.waiting(image, clock.now()) {
        let text = format!("Back-off pulling image {image:?}");
        event(EventType::Normal, "BackOff", &text);
        let message = format!("{text}: {}: {}", why.reason, why.message);
        return Err(StartError { reason: "ImagePullBackOff", message });
    }
    event(EventType::Normal, "Pulling", &format!("Pulling image {image:?}"));
    let begun = clock.monotonic();
    match pull(kubelet, pod, image, sandbox).await {
        Ok((pulled, took)) => {
            failures.succeeded(image);
            let all = clock.monotonic().saturating_duration_since(begun);
            let (took_text, all) = (printed(took), printed(all));
            let text = format!(
                "Successfully pulled image {image:?} in {took_text} ({all} including waiting). \
                 Image size: {} bytes.",
                pulled.size
            );
            event(EventType::Normal, "Pulled", &text);
            let duration = &kubelet.metrics.image_pull_duration;
            let size = size_class(pulled.size);
            duration.with_label_values(&[size]).observe(took.as_secs_f64());
            Ok(pulled)
        }
        Err(why) => {
            event(EventType::Warning, "Failed", &format!("Failed to pull image {image:?}: {why}"));
            if why.contains("no space left on device") {
                kubelet.disk_full.notify_one();
            }
            let error = pull_error(image, why);
            failures.failed(image, &error, clock.now());
            Err(error)
        }
    }
}

/// A duration in an event, to the millisecond.
fn printed(duration: Duration) -> String {
    go_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// Upstream `evalCRIPullErr`: two reasons that a runtime puts in front of its words.
fn pull_error(image: &str, why: String) -> StartError {
    for (reason, because) in [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ] {
        if let Some(rest) = why.strip_prefix(reason) {
            let message = format!("image pull failed for {image} because {because}{rest}");
            return StartError { reason, message };
        }
    }
    StartError { reason: "ErrImagePull", message: why }
}

/// Upstream `GetImageSizeBucket`: the label of a metric.
fn size_class(bytes: u64) -> &'static str {
    const MB: u64 = 1 << 20;
    const CLASSES: [(u64, &str); 11] = [
        (10 * MB, "0-10MB"),
        (100 * MB, "10MB-100MB"),
        (500 * MB, "100MB-500MB"),
        (1024 * MB, "500MB-1GB"),
        (5 * 1024 * MB, "1GB-5GB"),
        (10 * 1024 * MB, "5GB-10GB"),
        (20 * 1024 * MB, "10GB-20GB"),
        (30 * 1024 * MB, "20GB-30GB"),
        (40 * 1024 * MB, "30GB-40GB"),
        (60 * 1024 * MB, "40GB-60GB"),
        (100 * 1024 * MB, "60GB-100GB"),
    ];
    if bytes == 0 {
        return "N/A";
    }
    CLASSES.iter().find(|(most, _)| bytes <= *most).map_or("GT100GB", |(_, name)| name)
}

/// The image, and how long it took without waiting for others.
async fn pull(
    kubelet: &Kubelet,
    pod: &Pod,
    image: &str,
    sandbox: &PodSandboxConfig,
) -> Result<(Image, Duration), String> {
    let spec = ImageSpec::from(image);
    let images = &kubelet.deps.images;
    let credentials = credentials(kubelet, pod, image).await?;
    let noted = |error: std::io::Error| format!("failed to record the pull of {image:?}: {error}");
    let pulling = kubelet.pulled.begin(image).map_err(noted)?;
    let pulled = kubelet.puller.pull(&**images, &spec, &credentials, sandbox).await?;
    let now = kubelet.deps.clock.now();
    kubelet.pulled.pulled(image, &pulled.id, pulled.used.as_ref(), now).map_err(noted)?;
    drop(pulling);
    let by_id = images.image_status(&ImageSpec::from(pulled.id.as_str())).await;
    let found = by_id.map_err(|error| error.to_string())?;
    let found = found.ok_or_else(|| format!("pulled image {:?} is not present", pulled.id))?;
    Ok((found, pulled.took))
}

/// Those of the pod's pull secrets, and then those of the node.
async fn credentials(
    kubelet: &Kubelet,
    pod: &Pod,
    image: &str,
) -> Result<Vec<TrackedAuth>, String> {
    let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
    for reference in spec::spec(pod).image_pull_secrets.iter().flatten() {
        let secrets = &kubelet.volumes.secrets;
        let secret = secrets.get(spec::namespace(pod), &reference.name, spec::uid(pod)).await;
        let Ok(Some(secret)) = secret else {
            missing.push(reference.name.as_str());
            continue;
        };
        let of = |key| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| &*bytes.0);
        let source = SecretSource {
            uid: secret.metadata.uid.clone().unwrap_or_default(),
            namespace: spec::namespace(pod).to_owned(),
            name: reference.name.clone(),
            ..SecretSource::default()
        };
        let added = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => {
                of(".dockerconfigjson").map(|json| keyring.add_docker_config(json, Some(&source)))
            }
            Some("kubernetes.io/dockercfg") => {
                of(".dockercfg").map(|json| keyring.add_dockercfg(json, Some(&source)))
            }
            _ => None,
        };
        added.transpose().map_err(|error| error.to_string())?;
    }
    if !missing.is_empty() {
        let text = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may \
             not succeed.",
            missing.join(", ")
        );
        let reason = "FailedToRetrieveImagePullSecret";
        kubelet.pod_event(pod, EventType::Warning, reason, &text);
    }
    let mut found = keyring.lookup(image);
    let config = &kubelet.config.images;
    found
        .extend(keyring::of_node(&config.docker_config_dirs, &config.dockercfg_dirs).lookup(image));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_own_reasons_reach_the_status() {
        let error = |why: &str| {
            let StartError { reason, message } = pull_error("a:1", why.to_owned());
            format!("{reason}: {message}")
        };
        assert_eq!(error("not found"), "ErrImagePull: not found");
        assert_eq!(
            error("RegistryUnavailable: no route"),
            "RegistryUnavailable: image pull failed for a:1 because the registry is unavailable: \
             no route"
        );
        assert_eq!(
            error("SignatureValidationFailed"),
            "SignatureValidationFailed: image pull failed for a:1 because the signature \
             validation failed"
        );
    }

    #[test]
    fn the_back_off_doubles_up_to_five_minutes() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut failures = PullFailures::default();
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            failures.failed("a", &pull_error("a", "x".into()), at(now));
            assert_eq!(failures.wake_after(at(now)), Some(Duration::from_secs(expected)));
            now += i64::try_from(expected).unwrap();
            assert_eq!(failures.wake_after(at(now)), None);
        }
        failures.succeeded("a");
        assert_eq!(failures.wake_after(at(now)), None);
    }

    #[test]
    fn images_are_classed_by_size() {
        assert_eq!(
            [0, 1, 11 << 20, 200 << 30].map(size_class),
            ["N/A", "0-10MB", "10MB-100MB", "GT100GB"]
        );
    }
}
