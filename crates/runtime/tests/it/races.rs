//! What is asked for while something else about the same sandbox is under way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cri::{Code, PodNetwork, PodNetworkError, PodNetworkRequest, PodSandboxFilter, RuntimeService};
use runtime::{Deps, Runtime};
use tokio::sync::Semaphore;

use crate::harness::{Node, config, container, deps, until};

/// A network that takes its time.
struct Slow {
    begun: Semaphore,
    end: Semaphore,
}

#[async_trait]
impl PodNetwork for Slow {
    async fn attach(&self, _: &PodNetworkRequest) -> Result<Vec<IpAddr>, PodNetworkError> {
        self.begun.add_permits(1);
        self.end.acquire().await.unwrap().forget();
        Ok(vec![IpAddr::from([10, 9, 8, 7])])
    }

    async fn detach(&self, _: &PodNetworkRequest) -> Result<(), PodNetworkError> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test]
async fn a_sandbox_is_not_removed_while_it_is_made() {
    let node = Node::new().await;
    let network = Arc::new(Slow { begun: Semaphore::new(0), end: Semaphore::new(0) });
    let deps = Deps { network: Arc::clone(&network) as Arc<dyn PodNetwork>, ..deps() };
    let dir = node.dir.path().join("slow");
    let runtime = Runtime::open(config(&dir, &node.cgroup), deps).await.unwrap();
    let making = {
        let (runtime, config) = (runtime.clone(), node.sandbox_config("p"));
        stdx::task::spawn("make", async move { runtime.run_pod_sandbox(&config).await })
    };
    network.begun.acquire().await.unwrap().forget();
    let id = runtime.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap()[0].id.clone();
    let removing = {
        let (runtime, id) = (runtime.clone(), id.clone());
        stdx::task::spawn("remove", async move { runtime.remove_pod_sandbox(&id).await })
    };
    // Were the order wrong, this would be long enough for it to show.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let directory = dir.join("root/sandboxes").join(id.as_str());
    assert!(directory.join("sandbox.json").exists(), "nothing is removed under somebody's hands");
    network.end.add_permits(1);
    assert!(making.await.unwrap().unwrap().is_ok());
    removing.await.unwrap().unwrap().unwrap();
    assert!(!directory.exists());
    assert!(runtime.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_container_is_not_made_in_a_sandbox_that_is_removed() {
    let node = Node::new().await;
    for round in 0..20 {
        let sandbox = node.sandbox(&format!("p{round}")).await;
        let (runtime, id) = (node.runtime.clone(), sandbox.0.clone());
        let removing =
            stdx::task::spawn("remove", async move { runtime.remove_pod_sandbox(&id).await });
        let config = container("c", &["wait"]);
        let made = node.runtime.create_container(&sandbox.0, &config, &sandbox.1).await;
        if let Ok(id) = &made {
            // Whether it still comes to that is left to chance; what is made is removed.
            node.runtime.start_container(id).await.ok();
        }
        removing.await.unwrap().unwrap().unwrap();
        let left = node.runtime.list_containers(&Default::default()).await.unwrap();
        assert_eq!(left, [], "round {round}, {made:?}");
    }
    let gone = node.runtime.start_container(&"absent".into()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    until("no cgroup is left", || async {
        let pids = std::path::Path::new("/sys/fs/cgroup/pids").join(&node.cgroup[1..]);
        let left = std::fs::read_dir(pids).into_iter().flatten().flatten();
        (!left.into_iter().any(|entry| entry.path().is_dir())).then_some(())
    })
    .await;
}
