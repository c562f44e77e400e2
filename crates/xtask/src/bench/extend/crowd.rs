//! A crowd of clients of one user, and a client of another: how much longer that one waits.
//!
//! Server, crowd and client are processes of their own. The crowd runs only when nobody
//! else wants to (`SCHED_IDLE`): it stands for other machines, and must not take from the server the
//! time that those would not. A low priority is not enough: who is waked waits for a slice then. For
//! the same reason the client, which does next to nothing, never waits for the server's threads
//! (`SCHED_FIFO`). Both users are service accounts, and so at the same priority level.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use client::{Client, KubeConfig};
use clock::{Clock, SystemClock};
use http::Method;
use serde_json::{Value, json};

use crate::bench::Figure;
use crate::bench::api::{Load, PODS};
use crate::bench::server::{Server, connect, send};

/// Clients of the crowd, each with a connection of its own and one request at a time.
const CROWD: usize = 500;
/// How long each turn lasts, and how many there are with and without the crowd.
const SECONDS: u64 = 8;
const TURNS: usize = 3;
/// Pause of the client between its requests.
const PAUSE: Duration = Duration::from_millis(3);
/// Pods that are read.
const OBJECTS: usize = 500;
const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";

/// A part in the measurement, played by a process of its own.
#[derive(clap::Args)]
pub(crate) struct Role {
    /// Who.
    #[arg(value_parser = ["crowd", "client"])]
    who: String,
    /// What requests do.
    #[arg(value_parser = ["read", "write"])]
    what: String,
    kubeconfig: PathBuf,
    seconds: u64,
}

/// Plays a part and prints what came of it.
pub(crate) fn play(role: &Role) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        match role.who.as_str() {
            "crowd" => crowd(role).await,
            _ => client(role).await,
        }
    })?;
    crate::run::say(&found.to_string());
    Ok(())
}

pub(super) fn measure(server: &Server) -> anyhow::Result<Vec<Figure>> {
    let pid = server.pid();
    server.run(async move |kubeconfig| {
        let load = Load::prepare(&kubeconfig, pid, 16).await?;
        load.create(0..OBJECTS).await?;
        for account in ["crowd", "client"] {
            admit(&kubeconfig, account).await?;
        }
        Ok(())
    })?;
    Ok(vec![compare(server, "read")?, compare(server, "write")?])
}

fn compare(server: &Server, what: &str) -> anyhow::Result<Figure> {
    let (mut alone, mut beside, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let found = spawn(server, "client", what, SECONDS)?.wait()?;
        alone.push(found["p99"].as_f64().context("a figure")?);
        let crowd = spawn(server, "crowd", what, SECONDS + 4)?;
        // Until its connections are there.
        crate::bench::wait(Duration::from_secs(2));
        let found = spawn(server, "client", what, SECONDS)?.wait()?;
        beside.push(found["p99"].as_f64().context("a figure")?);
        rates.push(crowd.wait()?["rate"].as_f64().context("a figure")?);
    }
    let (alone, beside, rate) = (median(alone), median(beside), median(rates));
    let ratio = beside / alone;
    Ok(Figure::new(
        format!("API: p99 of a client's {what} beside {CROWD} clients of another user"),
        format!("{beside:.2} ms, alone {alone:.2} ms, {ratio:.2}×; the crowd has {rate:.0}/s"),
    ))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A service account that may do everything, and its kubeconfig beside the administrator's.
async fn admit(kubeconfig: &Path, account: &str) -> anyhow::Result<()> {
    let admin = connect(kubeconfig)?;
    let post = async |path: &str, body: Value| {
        send(&admin, Method::POST, path, body.to_string().into()).await
    };
    let accounts = "/api/v1/namespaces/bench/serviceaccounts";
    post(accounts, json!({"metadata": {"name": account}})).await?;
    let binding = json!({"metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "bench", "name": account}]});
    post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await?;
    let token = post(&format!("{accounts}/{account}/token"), json!({"spec": {}})).await?;
    let token: Value = serde_json::from_slice(&token)?;
    let token = token["status"]["token"].as_str().context("a token")?;
    let config = KubeConfig::load(kubeconfig).context("the kubeconfig")?;
    let authority = std::str::from_utf8(&config.certificate_authority)?;
    let own = json!({"kind": "Config", "apiVersion": "v1", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": config.server,
            "certificate-authority": authority_file(kubeconfig, authority)?}}],
        "users": [{"name": "c", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
    std::fs::write(kubeconfig.with_file_name(account), own.to_string())?;
    Ok(())
}

fn authority_file(kubeconfig: &Path, pem: &str) -> anyhow::Result<PathBuf> {
    let path = kubeconfig.with_file_name("authority");
    std::fs::write(&path, pem)?;
    Ok(path)
}

/// Somebody who plays a part.
struct Player(std::process::Child);

impl Player {
    fn wait(self) -> anyhow::Result<Value> {
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("what a player prints")
    }
}

fn spawn(server: &Server, who: &str, what: &str, seconds: u64) -> anyhow::Result<Player> {
    let program = std::env::current_exe()?;
    let mut command: Command = testkit::command("chrt");
    command.args(if who == "crowd" { ["--idle", "0"] } else { ["--fifo", "1"] }).arg(program);
    command.args(["bench-role", who, what]).arg(server.kubeconfig().with_file_name(who));
    command.arg(seconds.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(Player(server.on_host(move || command.spawn())?))
}

/// One request: a pod is read, or a config map changed.
async fn ask(client: &Client, what: &str, who: &str, n: usize) -> anyhow::Result<()> {
    let (method, path, body) = match what {
        "read" => (Method::GET, format!("{PODS}/pod-{}", n * 7919 % OBJECTS), Bytes::new()),
        _ => {
            let name = format!("{who}-{}", n % 64);
            let body = json!({"data": {"key": format!("value {n}")}}).to_string();
            (Method::PATCH, format!("{CONFIG_MAPS}/{name}"), body.into())
        }
    };
    send(client, method, &path, body).await?;
    Ok(())
}

async fn prepare(client: &Client, role: &Role) -> anyhow::Result<()> {
    if role.what != "write" {
        return Ok(());
    }
    for n in 0..64 {
        let body = json!({"metadata": {"name": format!("{}-{n}", role.who)}}).to_string();
        match send(client, Method::POST, CONFIG_MAPS, body.into()).await {
            Err(error) if error.is_already_exists() => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// Requests without a pause; those that are turned away count as answered.
async fn crowd(role: &Role) -> anyhow::Result<Value> {
    prepare(&connect(&role.kubeconfig)?, role).await?;
    let (clock, answered) = (SystemClock, Arc::new(AtomicU64::new(0)));
    let begun = clock.monotonic();
    let passed = move || SystemClock.monotonic().saturating_duration_since(begun);
    let until = Duration::from_secs(role.seconds);
    let clients = (0..CROWD).map(|n| {
        let answered = answered.clone();
        async move {
            let client = connect(&role.kubeconfig)?;
            let mut at = n;
            while passed() < until {
                // A refusal is an answer, too.
                ask(&client, &role.what, &role.who, at).await.ok();
                answered.fetch_add(1, Ordering::Relaxed);
                // Other machines would not keep the server from running.
                std::thread::yield_now();
                at += CROWD;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(clients).await?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = answered.load(Ordering::Relaxed) as f64 / passed().as_secs_f64();
    Ok(json!({"rate": rate}))
}

/// Requests with a pause between them; how long they take, in milliseconds.
async fn client(role: &Role) -> anyhow::Result<Value> {
    let client = connect(&role.kubeconfig)?;
    prepare(&client, role).await?;
    let clock = SystemClock;
    let (begun, until) = (clock.monotonic(), Duration::from_secs(role.seconds));
    let mut times = Vec::new();
    while clock.monotonic().saturating_duration_since(begun) < until {
        let asked = clock.monotonic();
        ask(&client, &role.what, &role.who, times.len())
            .await
            .context("a request of the client")?;
        let took = clock.monotonic().saturating_duration_since(asked);
        times.push(took.as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    Ok(json!({"p50": at(50), "p99": at(99), "count": times.len()}))
}
