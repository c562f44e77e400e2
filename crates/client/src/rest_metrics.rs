//! Metrics of requests to the API server, with upstream's names.
//!
//! Upstream: `component-base/metrics/prometheus/restclient`.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use prometheus::{Error, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::ClientError;

/// All of them; clones count into the same.
#[derive(Clone)]
pub struct RestMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    sent_bytes: HistogramVec,
    received_bytes: HistogramVec,
}

/// From 5 ms to 60 s.
const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// From 64 bytes to 16 MiB.
const BYTES: [f64; 11] = [
    64.0,
    256.0,
    512.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];
/// The code of a request that was not answered.
const UNANSWERED: &str = "<error>";

impl RestMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let histograms = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let metric = HistogramVec::new(opts, &["host", "verb"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, Error>(metric)
        };
        let opts = Opts::new("rest_client_requests_total", "Requests, by the answer's code.");
        let requests = IntCounterVec::new(opts, &["code", "host", "method"])?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Self {
            requests,
            seconds: histograms(
                "rest_client_request_duration_seconds",
                "How long requests took to be answered.",
                &SECONDS,
            )?,
            sent_bytes: histograms(
                "rest_client_request_size_bytes",
                "Bytes of requests' bodies.",
                &BYTES,
            )?,
            received_bytes: histograms(
                "rest_client_response_size_bytes",
                "Bytes of answers that were read whole.",
                &BYTES,
            )?,
        })
    }

    /// One server's part of them.
    pub(crate) fn of(&self, host: &str) -> HostMetrics {
        HostMetrics { all: self.clone(), host: host.to_owned() }
    }
}

/// The metrics of requests to one server.
#[derive(Clone)]
pub(crate) struct HostMetrics {
    all: RestMetrics,
    host: String,
}

impl HostMetrics {
    /// A request is sent.
    pub(crate) fn sent(&self, request: &Request<Bytes>) {
        let labels = [self.host.as_str(), request.method().as_str()];
        self.all.sent_bytes.with_label_values(&labels).observe(size(request.body().len()));
    }

    /// A request was answered, or not.
    pub(crate) fn answered<T>(
        &self,
        method: &Method,
        answer: &Result<Response<T>, ClientError>,
        took: Duration,
    ) {
        let code = match answer {
            Ok(answer) => answer.status().as_str().to_owned(),
            Err(_) => UNANSWERED.to_owned(),
        };
        let labels = [code.as_str(), &self.host, method.as_str()];
        self.all.requests.with_label_values(&labels).inc();
        let labels = [self.host.as_str(), method.as_str()];
        self.all.seconds.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// The body of an answer was read.
    pub(crate) fn received(&self, method: &Method, body: &Bytes) {
        let labels = [self.host.as_str(), method.as_str()];
        self.all.received_bytes.with_label_values(&labels).observe(size(body.len()));
    }
}

fn size(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Client, Credentials, KubeConfig, ListOptions, Remote, ResourcePath};

    use super::*;

    #[test]
    fn requests_are_counted_by_code_and_timed_and_weighed() {
        let metrics = RestMetrics::new(&Registry::new()).unwrap();
        let host = metrics.of("h:6443");
        let request = Request::post("/api").body(Bytes::from_static(b"12345")).unwrap();
        host.sent(&request);
        let answer = Ok(Response::builder().status(409).body(()).unwrap());
        host.answered(request.method(), &answer, Duration::from_millis(7));
        host.received(request.method(), &Bytes::from_static(b"123"));
        assert_eq!(metrics.requests.with_label_values(&["409", "h:6443", "POST"]).get(), 1);
        let sum =
            |metric: &HistogramVec| metric.with_label_values(&["h:6443", "POST"]).get_sample_sum();
        assert_eq!((sum(&metrics.sent_bytes), sum(&metrics.received_bytes)), (5.0, 3.0));
        assert_eq!(sum(&metrics.seconds), 0.007);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_counted() {
        let metrics = RestMetrics::new(&Registry::new()).unwrap();
        let config = KubeConfig {
            // Nobody listens at the discard port.
            server: "https://127.0.0.1:9".to_owned(),
            certificate_authority: Vec::new(),
            tls_server_name: None,
            credentials: Credentials::Anonymous,
        };
        let remote = Remote::new(&config, "test", Arc::new(clock::SystemClock)).unwrap();
        let client = Client::new(Arc::new(remote.measured(&metrics)));
        let pods = ResourcePath::of::<k8s_openapi::api::core::v1::Pod>();
        client.list_page(&pods, "", &ListOptions::all()).await.unwrap_err();
        let counted = metrics.requests.with_label_values(&[UNANSWERED, "127.0.0.1:9", "GET"]);
        assert_eq!(counted.get(), 1);
    }
}
