//! A web server, as a user would bring it: a Deployment and a Service of Debian's nginx.

use serde_json::Value;

use crate::harness::Harness;
use crate::images;

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: nginx-deployment
  labels: {app: nginx}
spec:
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: nginx
        image: nginx:1
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: nginx-http}
spec:
  type: LoadBalancer
  selector: {app: nginx}
  ports: [{port: 80}]
";

#[test]
fn nginx_is_deployed_served_scaled_updated_rolled_back_and_removed() {
    let harness = Harness::start();
    harness.cluster.import(&images::nginx("1", "first\n")).unwrap();
    harness.cluster.import(&images::nginx("2", "second\n")).unwrap();
    harness.cluster.import(&images::busybox()).unwrap();
    let kubectl = |args: &str| {
        let words: Vec<&str> = args.split(' ').collect();
        harness.cluster.exec("kubectl", &words).unwrap()
    };
    let manifest = harness.cluster.scratch().join("nginx.yaml");
    std::fs::write(&manifest, MANIFEST).unwrap();
    let manifest = manifest.display().to_string();

    assert_eq!(
        kubectl(&format!("apply -f {manifest}")),
        "deployment.apps/nginx-deployment created\nservice/nginx-http created\n"
    );
    kubectl("rollout status deployment/nginx-deployment --timeout=60s");
    let unchanged = kubectl(&format!("apply -f {manifest}"));
    assert!(unchanged.contains("deployment.apps/nginx-deployment unchanged"), "{unchanged}");
    let pods = harness.ready_pods("app=nginx", 2);
    assert_ne!(pods[0]["status"]["podIP"], pods[1]["status"]["podIP"]);
    let wide = kubectl("get pods -l app=nginx -o wide");
    assert_eq!(wide.lines().filter(|line| line.contains("node-1")).count(), 2, "{wide}");

    serves(&harness, "first\n");
    let pod = kubectl("run client --image=busybox:1 --restart=Never --command -- sleep 600");
    assert_eq!(pod, "pod/client created\n");
    harness.ready_pod("client");
    assert_eq!(kubectl("exec client -- wget -qO- http://nginx-http"), "first\n");
    assert_eq!(
        kubectl("exec client -- wget -qO- http://nginx-http.default.svc.cluster.local"),
        "first\n"
    );

    kubectl("scale deployment nginx-deployment --replicas=3");
    harness.ready_pods("app=nginx", 3);
    kubectl("set image deployment/nginx-deployment nginx=nginx:2");
    kubectl("rollout status deployment/nginx-deployment --timeout=60s");
    harness.ready_pods("app=nginx", 3);
    serves(&harness, "second\n");
    kubectl("rollout undo deployment/nginx-deployment");
    kubectl("rollout status deployment/nginx-deployment --timeout=60s");
    harness.ready_pods("app=nginx", 3);
    serves(&harness, "first\n");
    let history = kubectl("rollout history deployment/nginx-deployment");
    assert!(history.contains("\n2 ") && history.contains("\n3 "), "{history}");

    kubectl(&format!("delete -f {manifest}"));
    harness.ready_pods("app=nginx", 0);
}

/// Waits until every address of the service answers with this body.
fn serves(harness: &Harness, body: &str) {
    let service = harness.until("the service has a load balancer's address", || {
        let service = harness.get("/api/v1/namespaces/default/services/nginx-http");
        let has_address = service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string();
        has_address.then_some(service)
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cluster_ip = text(&service["spec"]["clusterIP"]);
    let balanced = text(&service["status"]["loadBalancer"]["ingress"][0]["ip"]);
    let node_port =
        u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
    let is_served = |answer: std::io::Result<String>| answer.is_ok_and(|answer| answer == body);
    harness.until("the cluster address answers", || {
        is_served(harness.fetch(&cluster_ip, 80, "/")).then_some(())
    });
    harness.until("the node port answers", || {
        is_served(harness.fetch_from_outside("192.168.77.2", node_port, "/")).then_some(())
    });
    harness.until("the load balancer answers", || {
        is_served(harness.fetch_from_outside(&balanced, 80, "/")).then_some(())
    });
}
