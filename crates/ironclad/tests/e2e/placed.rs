//! What the node does for pods beside running them: ports, identities, and refusing what does not
//! fit.

use std::net::UdpSocket;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clock::Clock as _;
use http::Method;
use serde_json::{Value, json};
use testkit::{EXTENSION_IMAGE, Options, extension_image};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Harness, IRONCLAD, collection, pod, pod_path, server};

/// A pod of this node, whatever the scheduler thinks, with a port of the node.
fn with_port(name: &str, ip: &str, protocol: &str) -> Value {
    let mut pod = server(name);
    pod["spec"]["nodeName"] = json!("node-1");
    pod["spec"]["containers"][0]["ports"] = json!([
        { "containerPort": 8080, "hostPort": 54323, "hostIP": ip, "protocol": protocol }]);
    pod
}

/// Sends a datagram and gives the answer.
fn datagram(to: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"?", to)?;
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Asks for the host name from an address of one's own choice.
fn loopback_from(from: &str, to: &str) -> std::io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(from.parse().map_err(std::io::Error::other)?)?;
        let mut stream = socket.connect(to.parse().map_err(std::io::Error::other)?).await?;
        stream.write_all(b"GET /hostname HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    })
}

/// \[sig-network\] HostPort validates that there is no conflict between pods with same hostPort but
/// different hostIP and protocol; \[sig-apps\] StatefulSet Should recreate evicted statefulset: the
/// node refuses the second pod with a port
#[test]
fn ports_of_the_node_are_taken_by_address_and_protocol() {
    let harness = Harness::start();
    harness.create("pods", &with_port("loopback", "127.0.0.1", "TCP"));
    harness.create("pods", &with_port("address", "192.168.77.2", "TCP"));
    harness.create("pods", &with_port("datagrams", "192.168.77.2", "UDP"));
    for name in ["loopback", "address", "datagrams"] {
        harness.ready_pod(name);
    }
    for (address, name) in [("127.0.0.1", "loopback"), ("192.168.77.2", "address")] {
        let answer = harness.until(&format!("{name} answers"), || {
            harness.fetch(address, 54323, "/hostname").ok().filter(|answer| !answer.is_empty())
        });
        assert_eq!(answer, name);
    }
    assert_eq!(harness.fetch_from_outside("192.168.77.2", 54323, "/hostname").unwrap(), "address");
    // A program that has bound itself to the node's address reaches the port of the loopback device.
    let answer = harness.cluster.host().run(|| loopback_from("192.168.77.2:0", "127.0.0.1:54323"));
    assert!(answer.unwrap().ends_with("\r\n\r\nloopback"));
    harness.until("a datagram is answered", || {
        let answer = harness.cluster.host().outside(|| datagram("192.168.77.2:54323")).unwrap();
        answer.ok().filter(|answer| answer == "datagrams")
    });
    harness.create("pods", &with_port("second", "192.168.77.2", "TCP"));
    let refused = harness.until("the second one is refused", || {
        let pod = harness.get(&pod_path("second"));
        (pod["status"]["phase"] == "Failed").then_some(pod)
    });
    assert_eq!(refused["status"]["reason"], "NodePorts");
    harness.delete(&pod_path("second"));
    harness.until("it goes", || (!harness.exists(&pod_path("second"))).then_some(()));
    harness.delete(&pod_path("address"));
    harness.until("the port is free", || (!harness.exists(&pod_path("address"))).then_some(()));
    harness.create("pods", &with_port("second", "192.168.77.2", "TCP"));
    harness.ready_pod("second");
}

/// \[sig-auth\] ServiceAccounts should mount an API token into pods; should mount projected service
/// account token; should allow opting out of API token automount; ServiceAccountIssuerDiscovery:
/// the API is reached from the pod with what is mounted
#[test]
fn a_pod_has_the_token_of_its_account() {
    let harness = Harness::start();
    let mut own = server("own");
    own["spec"]["volumes"] = json!([{ "name": "t", "projected": { "sources": [
        { "serviceAccountToken": { "path": "token", "audience": "vault",
                                   "expirationSeconds": 600 } }] } }]);
    own["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "t", "mountPath": "/t" }]);
    harness.create("pods", &own);
    let mut without = server("without");
    without["spec"]["automountServiceAccountToken"] = json!(false);
    harness.create("pods", &without);
    let pod = harness.ready_pod("own");
    let read = |name: &str, path: &str| {
        let address = harness.ready_pod(name)["status"]["podIP"].as_str().unwrap().to_owned();
        harness.fetch(&address, 8080, &format!("/file?{path}")).unwrap()
    };
    let mounted = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = read("own", &format!("{mounted}/token"));
    assert_eq!(read("own", &format!("{mounted}/namespace")), "default");
    assert!(read("own", &format!("{mounted}/ca.crt")).starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(read("without", &format!("{mounted}/token")).contains("No such file"));
    let review = |token: &str, audiences: Value| {
        let review = json!({ "spec": { "token": token, "audiences": audiences } });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        harness.request(Method::POST, path, Some(&review)).unwrap()["status"].clone()
    };
    let status = review(&token, json!([]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["own"]));
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["node-1"]));
    let other = read("own", "/t/token");
    assert_eq!(review(&other, json!(["vault"]))["audiences"], json!(["vault"]));
    assert_ne!(review(&other, json!([]))["authenticated"], true, "it is for others");
}

/// \[sig-auth\] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service
/// account issuer: a program in a pod finds the issuer's keys and verifies a token with them
#[test]
fn a_pod_verifies_tokens_with_the_keys_of_their_issuer() {
    let harness = Harness::start();
    harness.cluster.import(&extension_image().unwrap()).unwrap();
    let discover = |name: &str, audience: &str| {
        let mut client = pod(name, &["discover", "/t/token", audience]);
        let spec = &mut client["spec"];
        spec["restartPolicy"] = json!("Never");
        spec["containers"][0]["image"] = json!(EXTENSION_IMAGE);
        spec["volumes"] = json!([{ "name": "t", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "audience": "oidc-discovery-test" } }] } }]);
        spec["containers"][0]["volumeMounts"] = json!([{ "name": "t", "mountPath": "/t" }]);
        harness.create("pods", &client);
        let ended = harness.until(&format!("{name} has ended"), || {
            let pod = harness.get(&pod_path(name));
            let state = &pod["status"]["containerStatuses"][0]["state"];
            state["terminated"]["exitCode"].as_i64()
        });
        (ended, harness.text(&format!("{}/log", pod_path(name))))
    };
    let subject = "system:serviceaccount:default:default\n";
    assert_eq!(discover("client", "oidc-discovery-test"), (0, subject.to_owned()));
    let (code, said) = discover("other", "somebody-else");
    assert_eq!(code, 1);
    assert!(said.starts_with("it is for others"), "{said}");
}

/// \[sig-network\] Networking Granular Checks: Pods should function for node-pod communication:
/// http; a pod on the node's network reaches the others
#[test]
fn the_node_and_its_pods_reach_each_other() {
    let harness = Harness::start();
    harness.create("pods", &server("pod"));
    let mut node = server("node");
    node["spec"]["hostNetwork"] = json!(true);
    node["spec"]["containers"][0]["args"] = json!(["serve", "8090"]);
    harness.create("pods", &node);
    let address =
        |name: &str| harness.ready_pod(name)["status"]["podIP"].as_str().unwrap().to_owned();
    let (pod, node) = (address("pod"), address("node"));
    assert_eq!(node, "192.168.77.2");
    let path = |to: &str, port: u16| format!("/fetch?{to}:{port}/hostname");
    assert_eq!(harness.fetch(&pod, 8080, "/hostname").unwrap(), "pod");
    assert_eq!(harness.fetch(&node, 8090, &path(&pod, 8080)).unwrap(), "pod");
    let host = harness.fetch(&node, 8090, "/hostname").unwrap();
    assert_eq!(harness.fetch(&pod, 8080, &path(&node, 8090)).unwrap(), host);
}

/// Trust bundles, which have to be switched on, are files of pods.
#[test]
fn a_trust_bundle_is_read_from_a_volume() {
    let mut options = Options::new(IRONCLAD);
    options.args = vec![
        "--feature-gates=ClusterTrustBundle=true,ClusterTrustBundleProjection=true".to_owned(),
        "--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true".to_owned(),
    ];
    let harness = Harness::with(options);
    let roots = format!("{}/kube-root-ca.crt", collection("configmaps"));
    let pem = harness.until("the roots are there", || {
        let roots = harness.request(Method::GET, &roots, None).ok()?;
        roots["data"]["ca.crt"].as_str().map(str::to_owned)
    });
    let bundle = json!({ "metadata": { "name": "roots" }, "spec": { "trustBundle": pem } });
    let bundles = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
    harness.request(Method::POST, bundles, Some(&bundle)).unwrap();
    let mut reading = server("reading");
    reading["spec"]["volumes"] = json!([{ "name": "v", "projected": { "sources": [
        { "clusterTrustBundle": { "name": "roots", "path": "roots.pem" } }] } }]);
    reading["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    harness.create("pods", &reading);
    let address = harness.ready_pod("reading")["status"]["podIP"].as_str().unwrap().to_owned();
    let read = harness.fetch(&address, 8080, "/file?/v/roots.pem").unwrap();
    assert_eq!(read.trim(), pem.trim());
}

/// A signer of the test's own: what it answers to a request, in PEM and in times.
fn issue(request: &Value) -> Value {
    let now = clock::SystemClock.now().as_second();
    let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(now + seconds).unwrap();
    let told = |seconds: i64| jiff::Timestamp::from_second(now + seconds).unwrap().to_string();
    let der = STANDARD.decode(request["spec"]["stubPKCS10Request"].as_str().unwrap()).unwrap();
    let mut params = rcgen::CertificateSigningRequestParams::from_der(&der.into()).unwrap();
    params.params.not_before = at(0);
    params.params.not_after = at(7200);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let chain = params.signed_by(&rcgen::Issuer::new(authority, key)).unwrap().pem();
    json!({ "status": {
        "certificateChain": chain, "notBefore": told(0), "notAfter": told(7200),
        "beginRefreshAt": told(3600),
        "conditions": [{ "type": "Issued", "status": "True", "reason": "Issued",
                         "message": "by the test", "lastTransitionTime": told(0) }] } })
}

/// Certificates of pods, which have to be switched on: the server takes the node's request, and the
/// pod has the key to what a signer answers.
#[test]
fn a_pod_waits_for_its_certificate() {
    let mut options = Options::new(IRONCLAD);
    options.args = vec![
        "--feature-gates=PodCertificateRequest=true".to_owned(),
        "--runtime-config=certificates.k8s.io/v1beta1/podcertificaterequests=true".to_owned(),
    ];
    let harness = Harness::with(options);
    let mut certified = server("certified");
    certified["spec"]["volumes"] = json!([{ "name": "v", "projected": { "sources": [
        { "podCertificate": { "signerName": "example.com/signer", "keyType": "ECDSAP256",
                              "credentialBundlePath": "both.pem" } }] } }]);
    certified["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "v", "mountPath": "/v" }]);
    harness.create("pods", &certified);
    let requests = collection("certificates.k8s.io/v1beta1/podcertificaterequests");
    let request = harness.until("the node asks", || {
        let list = harness.get(&requests);
        list["items"].as_array()?.first().cloned()
    });
    let name = request["metadata"]["name"].as_str().unwrap();
    let answer = issue(&request);
    let signed = harness.patch(&format!("{requests}/{name}/status"), &answer);
    let address = harness.ready_pod("certified")["status"]["podIP"].as_str().unwrap().to_owned();
    let both = harness.fetch(&address, 8080, "/file?/v/both.pem").unwrap();
    assert!(both.starts_with("-----BEGIN PRIVATE KEY-----"), "{both}");
    assert!(both.ends_with(signed["status"]["certificateChain"].as_str().unwrap()));
}
