//! Exec, attach, port-forward and run.

use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerId, ContainerState, ContainerStatus, CriError, ExecRequest, ExecSession};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use meta::ObjectKey;
use streaming::{Dial, Duplex, Outcome, Process, Purpose, Upgrade, Wanted};
use tokio::sync::mpsc;

use crate::kubelet::Kubelet;
use crate::pod::observed::Observed;
use crate::pod::spec;
use crate::server::parameters::Parameters;
use crate::server::{Answer, Body, failure, text};

/// Sizes of a terminal that wait.
const SIZES_MAX: usize = 8;

/// A container: namespace, pod, name.
pub(super) type Whom<'a> = (&'a str, &'a str, &'a str);

/// `/exec`.
pub(super) async fn exec(
    kubelet: &Arc<Kubelet>,
    whom: Whom<'_>,
    parameters: &Parameters,
    request: Request<Incoming>,
) -> Answer {
    let cmd = parameters.all("command");
    if cmd.is_empty() {
        return failure(StatusCode::BAD_REQUEST, "you must specify a command");
    }
    let tty = parameters.is_set(&["tty"]);
    process(kubelet, whom, parameters, request, Some(cmd), tty).await
}

/// `/attach`.
pub(super) async fn attach(
    kubelet: &Arc<Kubelet>,
    whom: Whom<'_>,
    parameters: &Parameters,
    request: Request<Incoming>,
) -> Answer {
    // Whether there is a terminal is the container's affair.
    let pod = kubelet.pod(&ObjectKey::new(whom.0, whom.1));
    let container = pod.and_then(|pod| spec::container(&pod, whom.2));
    let tty = container.is_some_and(|(_, container)| container.tty == Some(true));
    process(kubelet, whom, parameters, request, None, tty).await
}

async fn process(
    kubelet: &Arc<Kubelet>,
    whom: Whom<'_>,
    parameters: &Parameters,
    request: Request<Incoming>,
    command: Option<Vec<String>>,
    tty: bool,
) -> Answer {
    let wanted = Wanted {
        stdin: parameters.is_set(&["input", "stdin"]),
        stdout: parameters.is_set(&["output", "stdout"]),
        stderr: parameters.is_set(&["error", "stderr"]) && !tty,
        tty,
    };
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return failure(StatusCode::BAD_REQUEST, message);
    }
    let container = match running(kubelet, whom).await {
        Ok(container) => container,
        Err(answer) => return answer,
    };
    let runtime = Arc::clone(&kubelet.deps.runtime);
    upgrade(kubelet, request, Purpose::Process, move |upgrade, io| {
        let start = start(runtime, container.id, command, wanted).boxed();
        streaming::serve_process(upgrade, io, wanted, start).boxed()
    })
}

async fn start(
    runtime: Arc<dyn cri::RuntimeService>,
    id: ContainerId,
    command: Option<Vec<String>>,
    wanted: Wanted,
) -> Result<Process, String> {
    let shown = command.clone().unwrap_or_default().join(" ");
    let attach = command.is_none();
    let request = ExecRequest {
        cmd: command.unwrap_or_default(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let session = if attach {
        runtime.attach(&id, &request).await
    } else {
        runtime.exec(&id, &request).await
    };
    session.map(|session| to_process(session, shown)).map_err(|error| error.to_string())
}

fn to_process(session: ExecSession, command: String) -> Process {
    let resize = session.resize.map(|to| {
        let (sender, mut sizes) = mpsc::channel::<streaming::TerminalSize>(SIZES_MAX);
        // It ends with the connection, which holds the sender.
        drop(stdx::task::spawn("terminal-size", async move {
            while let Some(size) = sizes.recv().await {
                let size = cri::TerminalSize { width: size.width, height: size.height };
                if to.send(size).await.is_err() {
                    return;
                }
            }
        }));
        sender
    });
    let exit = session.exit.map(move |ended| match ended {
        Ok(code) => Outcome::Exited {
            code,
            message: format!(
                "command terminated with non-zero exit code: error executing command [{command}], \
                 exit code {code}"
            ),
        },
        Err(error) => Outcome::Failed(error.to_string()),
    });
    Process {
        stdin: session.stdin,
        stdout: session.stdout,
        stderr: session.stderr,
        resize,
        exit: exit.boxed(),
    }
}

/// `/portForward`.
pub(super) async fn port_forward(
    kubelet: &Arc<Kubelet>,
    (namespace, name): (&str, &str),
    parameters: &Parameters,
    request: Request<Incoming>,
) -> Answer {
    let observed = match observe(kubelet, namespace, name).await {
        Ok((_, observed)) => observed,
        Err(answer) => return answer,
    };
    let Some(sandbox) = observed.ready_sandbox().map(|sandbox| sandbox.id.clone()) else {
        let message = format!("pod {name:?} in namespace {namespace:?} is not running");
        return failure(StatusCode::NOT_FOUND, &message);
    };
    let mut given = parameters.all("port");
    given.extend(parameters.all("ports"));
    let ports = given.iter().flat_map(|list| list.split(',')).map(str::parse);
    let Ok(ports) = ports.collect::<Result<Vec<u16>, _>>() else {
        return failure(StatusCode::BAD_REQUEST, "query parameter \"port\" is not a port");
    };
    let runtime = Arc::clone(&kubelet.deps.runtime);
    let dial: Dial = Arc::new(move |port| {
        let (runtime, sandbox) = (Arc::clone(&runtime), sandbox.clone());
        async move {
            let connected = runtime.port_forward(&sandbox, port).await;
            let connection = connected.map_err(|error| error.message().to_owned())?;
            Ok(Box::new(connection) as Box<dyn Duplex>)
        }
        .boxed()
    });
    upgrade(kubelet, request, Purpose::Ports, move |upgrade, io| {
        async move { streaming::serve_ports(upgrade, io, &ports, dial).await }.boxed()
    })
}

/// `/run`: a command to its end.
pub(super) async fn run(kubelet: &Arc<Kubelet>, whom: Whom<'_>, parameters: &Parameters) -> Answer {
    let container = match running(kubelet, whom).await {
        Ok(container) => container,
        Err(answer) => return answer,
    };
    let command: Vec<String> =
        parameters.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    match kubelet.deps.runtime.exec_sync(&container.id, &command, Duration::ZERO).await {
        Ok(ran) => text([ran.stdout, ran.stderr].concat()),
        Err(error) => internal(&error),
    }
}

type Io = TokioIo<hyper::upgrade::Upgraded>;

/// Switches protocols; `serve` works on the connection as a task that ends with it, or with the
/// kubelet.
fn upgrade(
    kubelet: &Arc<Kubelet>,
    mut request: Request<Incoming>,
    purpose: Purpose,
    serve: impl FnOnce(Upgrade, Io) -> BoxFuture<'static, std::io::Result<()>> + Send + 'static,
) -> Answer {
    let (upgrade, answer) = match Upgrade::negotiate(&request, purpose) {
        Ok(agreed) => agreed,
        Err(refused) => return failure(refused.code(), &refused.to_string()),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let shutdown = kubelet.shutdown.clone();
    drop(stdx::task::spawn("kubelet-stream", async move {
        let io = match upgraded.await {
            Ok(io) => TokioIo::new(io),
            Err(error) => {
                tracing::debug!(%error, "connection not upgraded");
                return;
            }
        };
        tokio::select! {
            served = serve(upgrade, io) => if let Err(error) = served {
                tracing::debug!(%error, "stream ended");
            },
            () = shutdown.begun() => {}
        }
    }));
    answer.map(|()| -> Body { Empty::new().map_err(|never| match never {}).boxed() })
}

/// The pod and what runs of it, or the answer that it is not here.
pub(super) async fn observe(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
) -> Result<(Arc<Pod>, Observed), Answer> {
    let Some(pod) = kubelet.pod(&ObjectKey::new(namespace, name)) else {
        return Err(failure(StatusCode::NOT_FOUND, "pod does not exist"));
    };
    let observed = Observed::read(&*kubelet.deps.runtime, spec::uid(&pod)).await;
    Ok((pod, observed.map_err(|error| internal(&error))?))
}

async fn running(kubelet: &Kubelet, whom: Whom<'_>) -> Result<ContainerStatus, Answer> {
    let (namespace, name, container) = whom;
    let (_, observed) = observe(kubelet, namespace, name).await?;
    let latest = observed.latest(container).filter(|c| c.state == ContainerState::Running);
    latest.cloned().ok_or_else(|| {
        let message = format!("container not found ({container:?})");
        failure(StatusCode::NOT_FOUND, &message)
    })
}

fn internal(error: &CriError) -> Answer {
    failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
}
