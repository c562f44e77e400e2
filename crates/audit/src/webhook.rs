//! Events for another server: lists of them, posted over HTTP.
//!
//! Whatever goes wrong is tried again, a few times; then the events of that delivery are lost and
//! counted. A number of deliveries are under way at once and no more, so that a server that does not
//! answer costs the queue and them.
//!
//! Upstream: `apiserver/plugin/pkg/audit/webhook`, `apiserver/pkg/util/webhook`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::SharedClock;
use connection::outbound::Stream;
use connection::{Body, outbound};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::backend::{Entry, Message};
use crate::buffer::{self, Batch, Throttle};
use crate::metrics::Metrics;
use crate::options::{Mode, TruncateOptions, WebhookOptions, WebhookTarget};
use crate::print;

const PLUGIN: &str = "webhook";
/// Upstream's number of tries, the growth of the waits between them, and their random part.
const TRIES: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;
/// Upstream's limit of one try.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Deliveries under way at once.
const AT_ONCE: u32 = 16;
/// The longest answer that is read; it is only looked at for its code.
const ANSWER: usize = 64 << 10;
/// Bytes of a delivery when events are not limited: what most servers take.
const BATCH_BYTES: usize = 10 << 20;

/// Why a webhook cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Its URL makes no sense.
    #[error("{url:?} is not the URL of a server")]
    Url {
        /// What it is.
        url: String,
    },
    /// Certificates or keys that are none.
    #[error("the {what} is not usable")]
    Tls {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Starts the task that delivers; it ends when everything is delivered, or lost.
pub(crate) fn start(
    options: WebhookOptions,
    receiver: mpsc::Receiver<Message>,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> Result<JoinHandle<Option<()>>, TargetError> {
    let delivery = Arc::new(Delivery {
        target: Target::new(options.target)?,
        initial_backoff: options.initial_backoff,
        truncate: options.truncate,
        metrics: metrics.clone(),
        clock: clock.clone(),
    });
    let batch = match options.mode {
        Mode::Batch => options.batch,
        // Every request has a delivery of its own.
        Mode::Blocking | Mode::BlockingStrict => {
            crate::options::BatchOptions { max_size: 1, throttle: false, ..options.batch }
        }
    };
    Ok(stdx::task::spawn("audit webhook", run(delivery, batch, receiver)))
}

async fn run(
    delivery: Arc<Delivery>,
    options: crate::options::BatchOptions,
    mut receiver: mpsc::Receiver<Message>,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE as usize));
    let mut throttle = Throttle::new(&options, &*delivery.clock);
    loop {
        let Batch { entries, is_last } =
            buffer::collect(&mut receiver, &options, &delivery.clock).await;
        if !entries.is_empty() {
            if let Some(throttle) = &mut throttle {
                throttle.accept(&delivery.clock).await;
            }
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let delivery = delivery.clone();
            drop(stdx::task::spawn("audit delivery", async move {
                delivery.deliver(entries).await;
                drop(place);
            }));
        }
        if is_last {
            // All of them are free when nothing is under way.
            drop(places.acquire_many(AT_ONCE).await);
            return;
        }
    }
}

struct Delivery {
    target: Target,
    initial_backoff: Duration,
    truncate: TruncateOptions,
    metrics: Arc<Metrics>,
    clock: SharedClock,
}

impl Delivery {
    /// Posts events, in as many lists as they need.
    async fn deliver(&self, entries: Vec<Entry>) {
        let most = if self.truncate.enabled { self.truncate.max_batch_size } else { BATCH_BYTES };
        let (mut list, mut within) = (Vec::new(), Vec::new());
        for entry in entries {
            let mut item = Vec::new();
            if let Err(error) = print::item(&entry.event, &self.truncate, &mut item) {
                self.metrics.lost(error.plugin(PLUGIN), 1, &error.to_string());
                entry.finish(false);
                continue;
            }
            if !within.is_empty() && list.len() + item.len() > most {
                self.post(std::mem::take(&mut list), std::mem::take(&mut within)).await;
            }
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(&item);
            within.push(entry);
        }
        if !within.is_empty() {
            self.post(list, within).await;
        }
    }

    async fn post(&self, items: Vec<u8>, entries: Vec<Entry>) {
        let head = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
        let body = Bytes::from([&head[..], &items, b"]}\n"].concat());
        drop(items);
        let sent = self.try_often(&body).await;
        if let Err(why) = &sent {
            self.metrics.lost(PLUGIN, entries.len(), why);
        }
        entries.into_iter().for_each(|entry| entry.finish(sent.is_ok()));
    }

    async fn try_often(&self, body: &Bytes) -> Result<(), String> {
        let mut wait = self.initial_backoff;
        let mut tries = 0;
        loop {
            let tried = tokio::select! {
                tried = self.target.post(body.clone()) => tried,
                () = self.clock.sleep(TIMEOUT) => Err("context deadline exceeded".to_owned()),
            };
            tries += 1;
            if tried.is_ok() || tries == TRIES {
                return tried;
            }
            self.clock.sleep(wait.mul_f64(1.0 + rand::random_range(0.0..JITTER))).await;
            wait = wait.mul_f64(FACTOR);
        }
    }
}

/// A server, ready to be called.
struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    token: Option<String>,
    token_file: Option<PathBuf>,
}

impl Target {
    fn new(given: WebhookTarget) -> Result<Self, TargetError> {
        let wrong = || TargetError::Url { url: given.url.clone() };
        let url: Uri = given.url.parse().map_err(|_| wrong())?;
        let host = url.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let is_plain = match url.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(wrong()),
        };
        let tls = if is_plain {
            None
        } else {
            let name = given.tls_server_name.clone().unwrap_or_else(|| host.clone());
            Some((Arc::new(tls(&given)?), ServerName::try_from(name).map_err(|_| wrong())?))
        };
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self {
            port: url.port_u16().unwrap_or(if is_plain { 80 } else { 443 }),
            authority: url.authority().map(ToString::to_string).unwrap_or_default(),
            path,
            host,
            tls,
            token: given.token,
            token_file: given.token_file,
        })
    }

    /// One request; an answer with success is all that is wanted.
    async fn post(&self, body: Bytes) -> Result<(), String> {
        let show = |error: &(dyn std::error::Error + 'static)| telemetry::Chain(error).to_string();
        let place = format!("{}:{}", self.host, self.port);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| format!("dial tcp {place}: {error}"))?;
        stream.set_nodelay(true).ok();
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                let stream = connector.connect(name.clone(), stream).await;
                Box::new(stream.map_err(|error| format!("{place}: {}", show(&error)))?)
            }
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, format!("kube-apiserver/{}", telemetry::VERSION));
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body)).map_err(|error| show(&error))?;
        let answer = outbound::send(stream, request).await.map_err(|error| show(&error))?;
        let code = answer.status();
        let read = Limited::new(answer.into_body(), ANSWER).collect().await;
        if code.is_success() {
            // The events are taken, whatever it says about that.
            return Ok(());
        }
        read.map_err(|error| error.to_string())?;
        Err(format!("the server answered {code}"))
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Some(text.trim().to_owned()))
    }
}

fn tls(given: &WebhookTarget) -> Result<rustls::ClientConfig, TargetError> {
    let unusable =
        |what, source: Box<dyn std::error::Error + Send + Sync>| TargetError::Tls { what, source };
    let authority = |error| unusable("certificate authority", error);
    let certificates = |pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, _> {
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()
    };
    let mut roots = rustls::RootCertStore::empty();
    for found in certificates(&given.certificate_authority).map_err(|e| authority(e.into()))? {
        roots.add(found).map_err(|error| authority(error.into()))?;
    }
    if roots.is_empty() {
        return Err(authority("there is no certificate in it".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS configuration", error.into()))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &given.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let client = |error| unusable("client certificate", error);
    let chain = certificates(certificate).map_err(|error| client(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| client(error.into()))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| client(error.into()))
}

#[cfg(test)]
mod tests {
    use clock::{Clock, ManualClock};
    use jiff::Timestamp;
    use tokio::sync::oneshot;

    use super::*;

    fn target(url: &str) -> WebhookTarget {
        WebhookTarget { url: url.to_owned(), ..WebhookTarget::default() }
    }

    #[tokio::test]
    async fn tries_are_further_and_further_apart_and_there_are_five() {
        // Nobody listens on a port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", free.local_addr().unwrap());
        drop(free);
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let registry = telemetry::Registry::new();
        let metrics = Arc::new(Metrics::new(&registry, clock.clone()));
        let mut options = WebhookOptions::new(target(&url));
        options.batch.max_size = 1;
        let (sender, receiver) = mpsc::channel(1);
        let shared: SharedClock = clock.clone();
        drop(start(options, receiver, &shared, &metrics).unwrap());
        let mut entry = crate::backend::tests::entry();
        Arc::get_mut(&mut entry.event).unwrap().request_object = None;
        let (stored, mut heard) = oneshot::channel();
        entry.stored = Some(stored);
        assert!(sender.send(Message::Entry(entry)).await.is_ok());
        let is_stored = loop {
            if let Ok(is_stored) = heard.try_recv() {
                break is_stored;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            clock.advance(Duration::from_millis(500));
        };
        assert!(!is_stored);
        // 10 s, 15 s, 22.5 s and 33.75 s, and up to a fifth more.
        let took = clock.now().as_second();
        assert!((81..=120).contains(&took), "{took}");
    }

    #[test]
    fn what_is_no_address_is_told_before_anything_starts() {
        for url in ["", "localhost", "ftp://localhost/x", "http:///x"] {
            assert!(matches!(Target::new(target(url)), Err(TargetError::Url { .. })), "{url}");
        }
        // Without an authority nobody could be believed.
        assert!(matches!(Target::new(target("https://h/x")), Err(TargetError::Tls { .. })));
        let plain = Target::new(target("http://[::1]:81/a?b=c")).unwrap();
        let found = (plain.host.as_str(), plain.port, plain.path.as_str());
        assert_eq!(found, ("::1", 81, "/a?b=c"));
    }
}
