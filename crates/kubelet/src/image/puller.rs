//! How many images are pulled at once and how often, and the attempts with one pair of credentials
//! after the other.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clock::SharedClock;
use cri::{Code, CriError, ImageService, ImageSpec, PodSandboxConfig};
use tokio::sync::Semaphore;

use super::ImagesConfig;
use super::keyring::TrackedAuth;
use crate::kubelet::lock;

/// Lets pulls begin.
pub(crate) struct Puller {
    places: Option<Semaphore>,
    bucket: Option<Mutex<Bucket>>,
    clock: SharedClock,
}

/// Tokens, one of which each pull takes, with which time fills it.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    per_second: f64,
    most: f64,
}

/// An image that was pulled.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// Its identifier.
    pub(crate) id: String,
    /// How long it took, without waiting for other pulls.
    pub(crate) took: Duration,
    /// What the registry took.
    pub(crate) used: Option<TrackedAuth>,
}

impl Puller {
    pub(crate) fn new(config: &ImagesConfig, clock: &SharedClock) -> Self {
        let places = config.max_parallel_pulls;
        let places = places.map(|most| Semaphore::new(usize::try_from(most.max(1)).unwrap_or(1)));
        let bucket = (config.registry_qps > 0).then(|| {
            let most = f64::from(config.registry_burst.max(1));
            Mutex::new(Bucket {
                tokens: most,
                filled: clock.monotonic(),
                per_second: f64::from(config.registry_qps),
                most,
            })
        });
        Self { places, bucket, clock: clock.clone() }
    }

    /// Pulls with each of the credentials until it succeeds; without any, as nobody. The error is
    /// what is told to users.
    pub(crate) async fn pull(
        &self,
        images: &dyn ImageService,
        spec: &ImageSpec,
        credentials: &[TrackedAuth],
        sandbox: &PodSandboxConfig,
    ) -> Result<Pulled, String> {
        // Closed by nobody.
        let _place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let begun = self.clock.monotonic();
        let mut attempts: Vec<Option<&TrackedAuth>> = credentials.iter().map(Some).collect();
        if attempts.is_empty() {
            attempts.push(None);
        }
        let mut failures: Vec<String> = Vec::new();
        for tracked in attempts {
            let auth = tracked.map(|tracked| &tracked.auth);
            let failure = if self.may_begin() {
                match images.pull_image(spec, auth, Some(sandbox)).await {
                    Ok(id) => {
                        let took = self.clock.monotonic().saturating_duration_since(begun);
                        return Ok(Pulled { id, took, used: tracked.cloned() });
                    }
                    Err(error) => told(&error),
                }
            } else {
                "pull QPS exceeded".to_owned()
            };
            if !failures.contains(&failure) {
                failures.push(failure);
            }
        }
        Err(match failures.as_slice() {
            [only] => only.clone(),
            all => format!("[{}]", all.join(", ")),
        })
    }

    fn may_begin(&self) -> bool {
        let Some(bucket) = &self.bucket else { return true };
        let now = self.clock.monotonic();
        let mut bucket = lock(bucket);
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.filled = now;
        bucket.tokens = (bucket.tokens + passed * bucket.per_second).min(bucket.most);
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// A code that says nothing is left out, as upstream does.
fn told(error: &CriError) -> String {
    match error.code() {
        Code::Unknown => error.message().to_owned(),
        _ => error.to_string(),
    }
}
