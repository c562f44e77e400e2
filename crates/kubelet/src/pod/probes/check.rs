//! One probe of a container.

use std::time::Duration;

use cri::{Code, ContainerId};
use k8s_openapi::api::core::v1::{Container, Probe};

use crate::http_get::{self, Get};
use crate::kubelet::Kubelet;
use crate::pod::probes::grpc;

/// What of a probe's output goes into an event: upstream `maxProbeMessageLength`.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// It failed, and this is its output.
    Failure(String),
    /// It could not be done.
    Error(String),
}

/// Probes once.
pub(crate) async fn check(
    kubelet: &Kubelet,
    id: &ContainerId,
    container: &Container,
    probe: &Probe,
    pod_ip: &str,
) -> Outcome {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1);
    let timeout = Duration::from_secs(seconds);
    let clock = &*kubelet.deps.clock;
    if let Some(exec) = &probe.exec {
        return command(kubelet, id, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let get = match Get::of(action, container, pod_ip) {
            Ok(get) => get,
            Err(error) => return Outcome::Error(error),
        };
        return match get.send(clock, timeout).await {
            Ok((200..=399, _)) => Outcome::Success,
            Ok((code, _)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
            Err(error) => Outcome::Failure(error),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = match http_get::port(&action.port, container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        let host = http_get::host(action.host.as_deref(), pod_ip);
        let to = http_get::authority(&host, port);
        return tokio::select! {
            connected = http_get::connect(&host, port) => match connected {
                Ok(_) => Outcome::Success,
                Err(error) => Outcome::Failure(error),
            },
            () = clock.sleep(timeout) => Outcome::Failure(format!("dial tcp {to}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Error(format!("invalid port number: {}", action.port));
        };
        let service = action.service.as_deref().unwrap_or_default();
        return tokio::select! {
            outcome = grpc::check(pod_ip, port, service) => outcome,
            () = clock.sleep(timeout) => Outcome::Failure(format!(
                "timeout: health rpc did not complete within {seconds}s"
            )),
        };
    }
    Outcome::Error(format!("missing probe handler for {}", container.name))
}

async fn command(
    kubelet: &Kubelet,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Outcome {
    match kubelet.deps.runtime.exec_sync(id, command, timeout).await {
        Ok(ran) => {
            if ran.exit_code == 0 {
                return Outcome::Success;
            }
            let mut output = [ran.stdout, ran.stderr].concat();
            output.truncate(OUTPUT_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code() == Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Outcome::Error(error.to_string()),
    }
}
