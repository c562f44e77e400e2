//! Several managers on one API: one works, and another goes on when it ends.

use std::sync::Arc;
use std::time::Duration;

use client::LeaderElection;
use serde_json::{Value, json};
use stdx::shutdown::Shutdown;
use tokio::time::Instant;

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, manage, namespace};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/manager";
const SETS: &str = "/apis/apps/v1/namespaces/n/replicasets";

/// A manager that competes for the lease.
struct Manager {
    shutdown: Shutdown,
    /// Ends its tasks when it has crashed.
    crash: Shutdown,
    task: futures::future::BoxFuture<'static, ()>,
}

impl Manager {
    fn start(api: &MemoryApi, identity: &str) -> Self {
        let (shutdown, crash) = (Shutdown::new(), Shutdown::new());
        let (api, identity) = (api.clone(), identity.to_owned());
        let (stop, killed) = (shutdown.clone(), crash.clone());
        let task = stdx::task::spawn("manager", async move {
            let election = LeaderElection {
                lease_duration: Duration::from_secs(2),
                renew_deadline: Duration::from_millis(1500),
                retry_period: Duration::from_millis(100),
                ..LeaderElection::new("manager", identity)
            };
            election.check().unwrap();
            let client = api.client();
            let clock: clock::SharedClock = Arc::new(clock::SystemClock);
            let both = killed.child();
            let work = async {
                let ends = async {
                    stop.begun().await;
                    both.begin();
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    _ = manage(&api, both.clone()) => {}
                    () = ends => {}
                }
            };
            tokio::select! {
                _ = client::lead(&election, &client, &clock, &stop, work) => {}
                () = killed.begun() => {}
            }
        });
        Self { shutdown, crash, task: Box::pin(async move { drop(task.await) }) }
    }

    /// Ends it without a word.
    async fn crash(self) {
        self.crash.begin();
        self.task.await;
    }
}

fn lease(api: &MemoryApi) -> Value {
    api.get(LEASE).unwrap_or_default()["spec"].clone()
}

fn leads(api: &MemoryApi, identity: &str) -> bool {
    lease(api)["holderIdentity"] == identity
}

fn set(api: &MemoryApi, name: &str) {
    let labels = json!({ "set": name });
    api.create(
        SETS,
        json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": name },
            "spec": { "replicas": 3, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "c" }] } } } }),
    );
}

fn pods_of(api: &MemoryApi, name: &str) -> usize {
    api.list(PODS).iter().filter(|pod| pod["metadata"]["labels"]["set"] == name).count()
}

fn told(api: &MemoryApi, text: &str) -> bool {
    api.list("/api/v1/namespaces/kube-system/events")
        .iter()
        .any(|event| event["reason"] == "LeaderElection" && event["message"] == text)
}

#[tokio::test]
async fn a_manager_that_ends_lets_the_next_one_begin_at_once() {
    let api = MemoryApi::default();
    namespace(&api);
    let first = Manager::start(&api, "first");
    api.eventually("the first leads", |api| leads(api, "first")).await;
    set(&api, "one");
    api.eventually("and works", |api| pods_of(api, "one") == 3).await;
    let second = Manager::start(&api, "second");
    api.eventually("that is told", |api| told(api, "first became leader")).await;
    let began = Instant::now();
    first.shutdown.begin();
    first.task.await;
    set(&api, "two");
    api.eventually("the second leads", |api| leads(api, "second")).await;
    assert!(began.elapsed() < Duration::from_millis(1500), "it need not wait for the lease to end");
    api.eventually("and works", |api| pods_of(api, "two") == 3).await;
    assert_eq!(pods_of(&api, "one"), 3);
    assert_eq!(lease(&api)["leaseTransitions"], 1);
    assert!(told(&api, "first stopped leading"));
    second.shutdown.begin();
    second.task.await;
    assert_eq!(lease(&api)["holderIdentity"], "");
}

#[tokio::test]
async fn a_manager_that_crashes_is_followed_when_its_lease_is_over() {
    let api = MemoryApi::default();
    namespace(&api);
    let first = Manager::start(&api, "first");
    api.eventually("the first leads", |api| leads(api, "first")).await;
    let second = Manager::start(&api, "second");
    set(&api, "one");
    api.eventually("it works", |api| pods_of(api, "one") == 3).await;
    first.crash().await;
    let began = Instant::now();
    set(&api, "two");
    api.eventually("the second leads", |api| leads(api, "second")).await;
    assert!(began.elapsed() > Duration::from_secs(1), "the lease was held until it was over");
    api.eventually("and works", |api| pods_of(api, "two") == 3).await;
    assert_eq!(pods_of(&api, "one"), 3);
    second.shutdown.begin();
    second.task.await;
}

/// Each of its controllers waited for lists that nobody asked for any more.
#[tokio::test(start_paused = true)]
async fn a_manager_that_is_told_to_end_while_it_starts_ends() {
    let api = MemoryApi::default();
    let shutdown = Shutdown::new();
    shutdown.begin();
    let ended = tokio::time::timeout(Duration::from_secs(60), manage(&api, shutdown));
    ended.await.expect("it ends").unwrap();
}
