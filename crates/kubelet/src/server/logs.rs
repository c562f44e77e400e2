//! Logs of containers.

mod line;
mod rotation;
mod tail;

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::ContainerState;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use crate::kubelet::Kubelet;
use crate::pod::spec;
use crate::server::parameters::Parameters;
use crate::server::streams::{self, Whom};
use crate::server::{Answer, failure};
use line::Filter;

/// How often a log that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pieces that wait for the client.
const PIECES_MAX: usize = 16;
const PIECE_BYTES: usize = 32 << 10;

/// `/containerLogs`.
pub(super) async fn serve(
    kubelet: &Arc<Kubelet>,
    whom: Whom<'_>,
    parameters: &Parameters,
) -> Answer {
    let (namespace, name, container) = whom;
    let (pod, observed) = match streams::observe(kubelet, namespace, name).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let bad = |message: String| failure(StatusCode::BAD_REQUEST, &message);
    if spec::container(&pod, container).is_none() {
        let message = format!("container {container:?} not found in pod {name:?}");
        return failure(StatusCode::NOT_FOUND, &message);
    }
    let options = match Options::parse(parameters, kubelet.deps.clock.now()) {
        Ok(options) => options,
        Err(message) => return bad(message),
    };
    let status = if parameters.is_set(&["previous"]) {
        let Some(before) = observed.before_latest(container) else {
            return bad(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            ));
        };
        before
    } else {
        match observed.latest(container) {
            Some(latest) if latest.state != ContainerState::Created => latest,
            _ => {
                let why = waiting(&pod, container);
                return bad(format!(
                    "container {container:?} in pod {name:?} is waiting to start: {why}"
                ));
            }
        }
    };
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let reading = Reading {
        kubelet: Arc::clone(kubelet),
        path: PathBuf::from(&status.log_path),
        id: status.id.clone(),
        options,
        sender,
    };
    // It ends when the client leaves, or the log does.
    drop(stdx::task::spawn("container-log", reading.run()));
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece: io::Result<Bytes> = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    let kind = http::HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

/// Why a container has not started, as upstream words it.
fn waiting(pod: &Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let mut all = status
        .into_iter()
        .flat_map(|s| [&s.container_statuses, &s.init_container_statuses])
        .flat_map(|list| list.iter().flatten());
    let found = all.find(|status| status.name == container);
    let waiting = found.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    match waiting.as_deref() {
        Some("ErrImagePull") => "image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
        Some(reason) => reason.to_owned(),
        None => "ContainerCreating".to_owned(),
    }
}

/// What of a log is wanted.
#[derive(Clone, Debug)]
struct Options {
    follow: bool,
    tail: Option<u64>,
    limit: Option<u64>,
    filter: Filter,
}

impl Options {
    fn parse(parameters: &Parameters, now: Timestamp) -> Result<Self, String> {
        let number = |name: &str| match parameters.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => {
                text.parse::<u64>().map(Some).map_err(|_| format!("{name}: invalid value"))
            }
        };
        let seconds = number("sinceSeconds")?.map(Duration::from_secs);
        let since = match parameters.get("sinceTime").filter(|text| !text.is_empty()) {
            Some(_) if seconds.is_some() => {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
            }
            Some(text) => Some(meta::time::parse(text)?),
            None => seconds.map(|ago| now.saturating_sub(ago).unwrap_or(Timestamp::MIN)),
        };
        let stream = match parameters.get("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => return Err(format!("stream: Unsupported value: {other:?}")),
        };
        Ok(Self {
            follow: parameters.is_set(&["follow"]),
            tail: number("tailLines")?,
            limit: number("limitBytes")?,
            filter: Filter { since, stream, timestamps: parameters.is_set(&["timestamps"]) },
        })
    }
}

struct Reading {
    kubelet: Arc<Kubelet>,
    path: PathBuf,
    id: cri::ContainerId,
    options: Options,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Reading {
    async fn run(self) {
        if let Err(error) = self.read().await {
            // A client that left needs no error.
            self.sender.send(Err(error)).await.ok();
        }
    }

    async fn read(&self) -> io::Result<()> {
        let mut file = match File::open(&self.path).await {
            Ok(file) => file,
            // Nothing was written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.options.follow => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.appears().await?,
            Err(error) => return Err(error),
        };
        if let Some(lines) = self.options.tail {
            let start = tail::start_of_last_lines(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let mut left = self.options.limit;
        let mut next_file = None;
        let mut rest = Vec::new();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let ended = self.options.follow && !self.is_running().await;
            let mut moved = false;
            loop {
                let read = file.read(&mut buffer).await?;
                if read == 0 {
                    break;
                }
                moved = true;
                rest.extend_from_slice(&buffer[..read]);
                if !self.send(&mut rest, &mut left).await {
                    return Ok(());
                }
            }
            if !self.options.follow {
                return Ok(());
            }
            if moved {
                continue;
            }
            if let Some(next) = &next_file {
                file = File::open(next).await?;
                next_file = None;
                continue;
            }
            next_file = rotation::next(&file, &self.path).await;
            if next_file.is_some() {
                // The end of this one may have been written since it was read.
                continue;
            }
            if ended || self.sender.is_closed() {
                return Ok(());
            }
            self.kubelet.deps.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn appears(&self) -> io::Result<File> {
        loop {
            match File::open(&self.path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !self.is_running().await || self.sender.is_closed() {
                        return Err(error);
                    }
                }
                result => return result,
            }
            self.kubelet.deps.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn is_running(&self) -> bool {
        let status = self.kubelet.deps.runtime.container_status(&self.id).await;
        status.is_ok_and(|status| status.state == ContainerState::Running)
    }

    /// Sends the whole lines of `rest` and keeps what follows them. Says whether more is wanted.
    async fn send(&self, rest: &mut Vec<u8>, left: &mut Option<u64>) -> bool {
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { return true };
        let mut out = Vec::new();
        for line in rest[..=end].split_inclusive(|byte| *byte == b'\n') {
            self.options.filter.apply(line, &mut out);
        }
        rest.drain(..=end);
        if let Some(left) = left {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(room);
            *left -= out.len() as u64;
        }
        if !out.is_empty() && self.sender.send(Ok(Bytes::from(out))).await.is_err() {
            return false;
        }
        *left != Some(0)
    }
}
