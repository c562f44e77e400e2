//! Every part in a process of its own, against an API server reached over HTTPS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use testkit::{Host, POD_IMAGE};

use crate::harness::{is_ready, server};
use crate::parts::Parts;

#[test]
fn a_cluster_of_separate_processes_runs_pods() {
    let mut parts = Parts::new();
    parts.start_api_server();
    let pki = |name: &str| parts.path("server/pki").join(name).display().to_string();
    let (certificate, key) = (pki("apiserver.crt"), pki("apiserver.key"));
    let tls = ["--tls-cert-file", &certificate, "--tls-private-key-file", &key];
    parts.start("controller-manager", &tls);
    parts.start("scheduler", &tls);
    parts.start_kubelet();
    parts.start("proxy", &["--hostname-override", "node-1"]);
    parts.start("dns", &["--bind-address", &format!("{}:53", Host::ADDRESS)]);
    parts.node_is_ready();

    let pods = "/api/v1/namespaces/default/pods";
    parts.until("the pod is created", || parts.request(Method::POST, pods, Some(&server("web"))));
    let pod =
        parts.until("the pod is Ready", || parts.get(&format!("{pods}/web")).filter(is_ready));
    assert_eq!(pod["spec"]["containers"][0]["image"], POD_IMAGE);
    let log = parts.request(Method::GET, &format!("{pods}/web/log"), None).unwrap();
    assert!(log.starts_with(b"serving on port 8080"), "{log:?}");
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" },
                  "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let services = "/api/v1/namespaces/default/services";
    let service = parts.request(Method::POST, services, Some(&service)).unwrap();
    let service: Value = serde_json::from_slice(&service).unwrap();
    let virtual_address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    // Through the API server's proxy to the pod, which asks the service, which is itself.
    let through = format!("{pods}/web:8080/proxy/fetch?{virtual_address}:80/hostname");
    parts.until("the service answers", || {
        parts.request(Method::GET, &through, None).filter(|body| body == "web")
    });
    the_controllers_tell_who_may_know(&parts);
    assert!(parts.request(Method::DELETE, &format!("{pods}/web"), None).is_some());
    parts.until("the pod is gone", || parts.get(&format!("{pods}/web")).is_none().then_some(()));
}

/// Health is told to everybody; metrics to whom the API server lets have them. So does the scheduler.
fn the_controllers_tell_who_may_know(parts: &Parts) {
    let ask = |path: &str, token: &str| parts.ask(10257, path, token);
    assert_eq!(ask("/healthz", "").unwrap(), "ok");
    let code = |path: &str, token: &str| ask(path, token).unwrap_err().status().map(|s| s.code);
    assert_eq!(code("/metrics", ""), Some(401));
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = parts.request(Method::POST, tokens, Some(&json!({ "spec": {} }))).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    assert_eq!(code("/metrics", token), Some(403));
    let binding = json!({
        "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                     "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": "default" }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    parts.request(Method::POST, bindings, Some(&binding)).unwrap();
    let metrics = parts.until("the metrics", || ask("/metrics", token).ok());
    let metrics = String::from_utf8_lossy(&metrics);
    for wanted in [
        "workqueue_adds_total{name=\"statefulset\"}",
        "running_managed_controllers",
        "rest_client_requests_total{code=\"200\",host=\"",
        "rest_client_response_size_bytes_count{host=\"",
        "leader_election_master_status{name=\"kube-controller-manager\"} 1",
        "kubernetes_build_info{",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(wanted), "{wanted}: {metrics}");
    }
    assert_eq!(parts.ask(10259, "/healthz", "").unwrap(), "ok");
    let metrics = parts.ask(10259, "/metrics", token).unwrap();
    let metrics = String::from_utf8_lossy(&metrics);
    for wanted in [
        "scheduler_pending_pods{",
        "leader_election_master_status{name=\"kube-scheduler\"} 1",
        "kubernetes_feature_enabled{name=\"WatchList\"",
        "process_open_fds ",
    ] {
        assert!(metrics.contains(wanted), "{wanted}: {metrics}");
    }
}

/// A kubeconfig of a user that the cluster's authority vouches for.
pub(crate) fn kubeconfig_of(parts: &Parts, user: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(parts.path("server/pki").join(name)).unwrap();
    let authority = read("ca.crt");
    let key = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&authority, key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, user);
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let data = |pem: String| STANDARD.encode(pem);
    let server = format!("https://{}:6443", Host::ADDRESS);
    let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": server,
            "certificate-authority-data": data(authority) } }],
        "users": [{ "name": "c", "user": { "client-certificate-data": data(certificate),
            "client-key-data": data(key.serialize_pem()) } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }] });
    let path = parts.path(&user.replace(':', "-")).display().to_string();
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// The manager itself may hardly do anything: its controllers may, each what its role says.
#[test]
fn controllers_of_their_own_process_act_under_accounts_of_their_own() {
    let mut parts = Parts::new();
    parts.start_api_server();
    let kubeconfig = kubeconfig_of(&parts, "system:kube-controller-manager");
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({ "app": "web" });
    let deployment = json!({ "metadata": { "name": "web" }, "spec": {
        "selector": { "matchLabels": labels }, "replicas": 1, "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
    parts.until("there is a deployment", || {
        parts.request(Method::POST, deployments, Some(&deployment))
    });
    assert!(parts.get(&format!("{accounts}/deployment-controller")).is_none());
    parts.start_as("controller-manager", &kubeconfig, &["--use-service-account-credentials"]);
    parts.until("there is a pod", || {
        let pods = parts.get("/api/v1/namespaces/default/pods")?;
        (pods["items"].as_array()?.len() == 1).then_some(())
    });
    for account in ["deployment-controller", "replicaset-controller", "service-account-controller"]
    {
        assert!(parts.get(&format!("{accounts}/{account}")).is_some(), "{account}");
    }
    let log = parts.log("controller-manager");
    assert!(!log.contains("orbidden"), "{log}");
}

#[test]
fn controllers_that_are_left_out_do_nothing() {
    let mut parts = Parts::new();
    parts.start_api_server();
    let labels = json!({ "app": "web" });
    let spec = json!({ "selector": { "matchLabels": labels }, "replicas": 1,
        "template": { "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } } });
    let (deployments, sets) = (
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/apps/v1/namespaces/default/replicasets",
    );
    for (path, name) in [(deployments, "web"), (sets, "own")] {
        let object = json!({ "metadata": { "name": name }, "spec": spec });
        parts.until(name, || parts.request(Method::POST, path, Some(&object)));
    }
    let (is_wrong, said) =
        parts.run("controller-manager", &["--secure-port=0", "--controllers=*,-no-such-thing"]);
    assert!(!is_wrong && said.contains("no-such-thing"), "{said}");
    let all_but = "--controllers=*,-deployment-controller";
    parts.start("controller-manager", &["--secure-port=0", all_but]);
    parts.until("the set has its pod", || {
        let pods = parts.get("/api/v1/namespaces/default/pods")?;
        (pods["items"].as_array()?.len() == 1).then_some(())
    });
    let is_left_alone = |parts: &Parts| {
        let sets = parts.get(sets).unwrap()["items"].as_array().unwrap().len();
        let deployment = parts.get(&format!("{deployments}/web")).unwrap();
        sets == 1 && deployment["status"]["observedGeneration"].is_null()
    };
    assert!(is_left_alone(&parts));
    parts.kill("controller-manager");
    // The old name is known, too; nobody else works then.
    parts.start("controller-manager", &["--secure-port=0", "--controllers=deployment"]);
    parts.until("the deployment has its set", || {
        let sets = parts.get(sets)?;
        (sets["items"].as_array()?.len() == 2).then_some(())
    });
    let pods = parts.get("/api/v1/namespaces/default/pods").unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), 1);
}
