//! `postStart` and `preStop`.

use std::time::Duration;

use cri::ContainerId;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::http_get::{self, Get};
use crate::kubelet::Kubelet;

/// How long a hook's request may take; its command may take as long as it likes.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a hook to its end; the error is what went wrong, for the log and the event.
///
/// Safe to drop: a command that runs is ended.
pub(crate) async fn run(
    kubelet: &Kubelet,
    id: &ContainerId,
    container: &Container,
    hook: &LifecycleHandler,
    pod_ip: &str,
) -> Result<(), String> {
    let clock = &*kubelet.deps.clock;
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let ran = kubelet.deps.runtime.exec_sync(id, &command, Duration::ZERO).await;
        let ran = ran.map_err(|error| error.to_string())?;
        if ran.exit_code == 0 {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        let code = ran.exit_code;
        return Err(format!("command '{}' exited with {code}: {output}", command.join(" ")));
    }
    if let Some(action) = &hook.http_get {
        let get = Get::of(action, container, pod_ip)?;
        let (code, body) = get.send(clock, HTTP_TIMEOUT).await?;
        return match code {
            200..=399 => Ok(()),
            _ => Err(format!("HTTP lifecycle hook ({}) failed: {code} {body}", get.path)),
        };
    }
    if let Some(action) = &hook.tcp_socket {
        let port = http_get::port(&action.port, container)?;
        let host = http_get::host(action.host.as_deref(), pod_ip);
        return http_get::connect(&host, port).await.map(drop);
    }
    if let Some(sleep) = &hook.sleep {
        clock.sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("invalid handler: it has no action".to_owned())
}
