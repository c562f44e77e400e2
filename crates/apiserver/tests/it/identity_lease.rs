//! The server's own Lease, and those of servers that are gone.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, ManualClock, SystemClock};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::Fixture;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const COMPONENT: &str = "apiserver.kubernetes.io/identity";

async fn leases(server: &Fixture) -> Vec<Value> {
    let path = format!("{LEASES}?labelSelector={COMPONENT}%3Dkube-apiserver");
    let (code, list) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{list}");
    list["items"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_server_renews_its_lease_and_removes_those_of_servers_that_are_gone() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let server = Fixture::start_at(clock.clone()).await;
    let mut own = leases(&server).await;
    assert_eq!(own.len(), 1);
    let own = own.remove(0);
    let name = own["metadata"]["name"].as_str().expect("a name");
    let spec = &own["spec"];
    assert!(spec["holderIdentity"].as_str().expect("a holder").starts_with(&format!("{name}_")));
    assert_eq!(spec["leaseDurationSeconds"], 3600);
    let of_another = |name: &str, component: &str| {
        json!({"metadata": {"name": name, "labels": {COMPONENT: component}},
            "spec": {"holderIdentity": "x", "leaseDurationSeconds": 3600,
                "renewTime": "2020-01-01T00:00:00.000000Z"}})
    };
    for (name, component) in [("apiserver-gone", "kube-apiserver"), ("other", "another")] {
        let (code, _) = server.admin(Method::POST, LEASES, &of_another(name, component)).await;
        assert_eq!(code, StatusCode::CREATED);
    }
    let until = async |what: &str, holds: &dyn Fn(&[Value]) -> bool| {
        for _ in 0..500 {
            clock.advance(Duration::from_secs(10));
            if holds(&leases(&server).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("in vain: {what}: {:?}", leases(&server).await);
    };
    until("its own is renewed, and the other is gone", &|left| {
        left.len() == 1
            && left[0]["spec"]["renewTime"] != spec["renewTime"]
            && left[0]["metadata"]["uid"] == own["metadata"]["uid"]
    })
    .await;
    let other = format!("{LEASES}/other");
    assert_eq!(server.admin(Method::GET, &other, &Value::Null).await.0, StatusCode::OK);
    let (code, _) = server.admin(Method::DELETE, &format!("{LEASES}/{name}"), &Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    until("it comes back when it is taken away", &|left| left.len() == 1).await;
}
