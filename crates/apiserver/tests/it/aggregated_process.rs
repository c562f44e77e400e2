//! An aggregated server as a process of its own, which knows nothing but the API: it reads how to
//! tell who asks, asks the API about tokens and about permissions, and dies and comes back.

mod player;

use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use authn::UserInfo;
use base64::Engine as _;
use clock::SystemClock;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use store::{LogStore, Options};

use crate::fixture::{Authority, Fixture, admin};
use crate::over_tls;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.fruit.example.com";
const APPLES: &str = "/apis/fruit.example.com/v1/namespaces/default/apples";

/// The API server, and the other one with what it needs.
struct Orchard {
    server: Fixture,
    /// Of front proxies; not the one of clients.
    proxies: Authority,
    directory: tempfile::TempDir,
    port: u16,
    token: String,
    process: Option<Child>,
}

impl Drop for Orchard {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Orchard {
    async fn start() -> Self {
        let proxies = Authority::new();
        let (certificate, key) = proxies.issue("front-proxy-client", &[]);
        let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
        let authority = proxies.pem.clone();
        let server = Fixture::start_configured(Arc::new(store), |config| {
            config.pki.proxy_client_certificate = certificate.into();
            config.pki.proxy_client_key = key.into();
            config.pki.front_proxy_ca = authority.into();
        })
        .await;
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        server.create(accounts, &json!({"metadata": {"name": "fruit"}})).await;
        let token = server.create(&format!("{accounts}/fruit/token"), &json!({"spec": {}})).await;
        let token = token["status"]["token"].as_str().unwrap().to_owned();
        let port = free_port();
        let directory = tempfile::tempdir().unwrap();
        let mut orchard = Self { server, proxies, directory, port, token, process: None };
        orchard.permit().await;
        orchard.play().await;
        orchard
    }

    /// Lets the other server ask what it has to, and everybody read apples.
    async fn permit(&self) {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let subject = json!([{"kind": "ServiceAccount", "name": "fruit", "namespace": "default"}]);
        let to = |kind: &str, name: &str| {
            json!({"apiGroup": "rbac.authorization.k8s.io",
            "kind": kind, "name": name})
        };
        self.server
            .create(
                &format!("{rbac}/clusterrolebindings"),
                &json!({
            "metadata": {"name": "fruit"}, "subjects": subject,
            "roleRef": to("ClusterRole", "system:auth-delegator")}),
            )
            .await;
        self.server
            .create(
                &format!("{rbac}/namespaces/kube-system/rolebindings"),
                &json!({
            "metadata": {"name": "fruit"}, "subjects": subject,
            "roleRef": to("Role", "extension-apiserver-authentication-reader")}),
            )
            .await;
        self.server
            .create(
                &format!("{rbac}/clusterroles"),
                &json!({
            "metadata": {"name": "eater"}, "rules": [{"apiGroups": ["fruit.example.com"],
                "resources": ["apples"], "verbs": ["get", "list"]}]}),
            )
            .await;
        self.server
            .create(
                &format!("{rbac}/clusterrolebindings"),
                &json!({
            "metadata": {"name": "eater"}, "roleRef": to("ClusterRole", "eater"),
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                "name": "jane"}]}),
            )
            .await;
    }

    /// Starts the process, this program with other arguments, and waits until it serves.
    async fn play(&mut self) {
        let (certificate, key) =
            self.server.authority.issue_for("fruit", &[], &["fruit.default.svc"]);
        let ready = self.directory.path().join("ready");
        std::fs::remove_file(&ready).ok();
        let part = player::Part {
            api: self.server.handle.addresses()[0],
            authority: self.server.authority.pem.clone(),
            token: self.token.clone(),
            port: self.port,
            certificate,
            key,
            ready: ready.clone(),
        };
        let path = self.directory.path().join("part.json");
        std::fs::write(&path, serde_json::to_vec(&part).unwrap()).unwrap();
        let mut command = testkit::command(std::env::current_exe().unwrap());
        command.args(["--exact", "aggregated_process::player::plays_the_other_server"]);
        command.env(player::PART, path).stdout(std::process::Stdio::null());
        self.process = Some(command.spawn().unwrap());
        until("the other server serves", || async { ready.exists() }).await;
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    async fn register(&self) {
        let service = json!({"metadata": {"name": "fruit"},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        self.server.create("/api/v1/namespaces/default/services", &service).await;
        let bundle = base64::engine::general_purpose::STANDARD.encode(&self.server.authority.pem);
        self.server
            .create(
                SERVICES,
                &json!({"metadata": {"name": NAME}, "spec": {
            "group": "fruit.example.com", "version": "v1", "groupPriorityMinimum": 2000,
            "versionPriority": 10, "caBundle": bundle,
            "service": {"namespace": "default", "name": "fruit", "port": self.port}}}),
            )
            .await;
    }

    /// The message of the condition, once it has this reason. The registration is touched, so that
    /// nobody waits for the next look at it.
    async fn condition(&self, reason: &str) -> String {
        let path = format!("{SERVICES}/{NAME}");
        for at in 0..200 {
            let touch = json!({"metadata": {"annotations": {"at": at.to_string()}}});
            let merge = "application/merge-patch+json";
            let (_, found) = self.server.call(&admin(), Method::PATCH, &path, merge, &touch).await;
            let condition = &found["status"]["conditions"][0];
            if condition["reason"] == reason {
                return condition["message"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not become {reason}");
    }

    async fn as_user(&self, name: &str, path: &str) -> (StatusCode, Value) {
        let user = UserInfo::new(name, &["pickers", UserInfo::AUTHENTICATED]);
        self.server.call(&user, Method::GET, path, "", &Value::Null).await
    }

    /// Past the API server, to the other one.
    async fn directly(
        &self,
        identity: Option<(String, String)>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let place = ([127, 0, 0, 1], self.port).into();
        let stream =
            over_tls::connect_to(&self.server.authority.pem, place, "fruit.default.svc", identity);
        over_tls::exchange(stream.await, APPLES, headers).await
    }
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("in vain: {what}");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn who_asks_and_whether_he_may_is_known_on_either_way() {
    let orchard = Orchard::start().await;
    orchard.register().await;
    orchard.condition("Passed").await;
    let (code, seen) = orchard.as_user("jane", APPLES).await;
    assert_eq!(code, StatusCode::OK, "{seen}");
    assert_eq!(
        (&seen["user"], &seen["groups"]),
        (&json!("jane"), &json!(["pickers", "system:authenticated"]))
    );
    let (code, _) = orchard.as_user("joe", APPLES).await;
    assert_eq!(code, StatusCode::FORBIDDEN);

    // On the direct way tokens are asked about, and headers believed of the front proxy alone.
    let bearer = format!("Bearer {}", orchard.token);
    let (code, refused) = orchard.directly(None, &[("authorization", &bearer)]).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(refused["user"], "system:serviceaccount:default:fruit");
    let forged = [("x-remote-user", "jane")];
    assert_eq!(orchard.directly(None, &forged).await.0, StatusCode::UNAUTHORIZED);
    let wrong = Some(orchard.proxies.issue("somebody", &[]));
    assert_eq!(orchard.directly(wrong, &forged).await.0, StatusCode::UNAUTHORIZED);
    let right = Some(orchard.proxies.issue("front-proxy-client", &[]));
    assert_eq!(orchard.directly(right, &forged).await.0, StatusCode::OK);

    let (code, _) = orchard.as_user("jane", &format!("{APPLES}/moved")).await;
    assert_eq!(code, StatusCode::BAD_GATEWAY);
    let path = format!("{APPLES}/endless");
    let endless = orchard.as_user("jane", &path);
    assert!(tokio::time::timeout(Duration::from_millis(300), endless).await.is_err());
    assert_eq!(orchard.as_user("jane", APPLES).await.0, StatusCode::OK, "nobody else is held");
}

#[tokio::test]
async fn a_server_that_dies_is_said_to_be_gone_and_comes_back() {
    let mut orchard = Orchard::start().await;
    orchard.register().await;
    orchard.condition("Passed").await;
    orchard.kill();
    let message = orchard.condition("FailedDiscoveryCheck").await;
    let url = format!("https://localhost:{}/apis/fruit.example.com/v1", orchard.port);
    let told =
        format!("failing or missing response from {url}: Get \"{url}\": dial tcp localhost:");
    assert!(message.starts_with(&told), "{message}");
    let (code, _) = orchard.as_user("jane", APPLES).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    orchard.play().await;
    orchard.condition("Passed").await;
    until("it is asked again", || async {
        orchard.as_user("jane", APPLES).await.0 == StatusCode::OK
    })
    .await;

    let services = "/api/v1/namespaces/default/services";
    let server = &orchard.server;
    server.admin(Method::DELETE, &format!("{services}/fruit"), &Value::Null).await;
    let message = orchard.condition("ServiceNotFound").await;
    assert_eq!(message, "service/fruit in \"default\" is not present");
    server
        .create(
            services,
            &json!({"metadata": {"name": "fruit"},
        "spec": {"ports": [{"name": "https", "port": orchard.port}]}}),
        )
        .await;
    let message = orchard.condition("EndpointsNotFound").await;
    assert_eq!(message, "cannot find endpointslices for service/fruit in \"default\"");
    server
        .create(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            &json!({
        "metadata": {"name": "fruit", "labels": {"kubernetes.io/service-name": "fruit"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 1}],
        "endpoints": [{"addresses": ["192.0.2.9"], "conditions": {"ready": false}}]}),
        )
        .await;
    let message = orchard.condition("MissingEndpoints").await;
    assert_eq!(
        message,
        "endpointslices for service/fruit in \"default\" have no addresses with port name \"https\""
    );
}

#[tokio::test]
async fn its_document_is_part_of_the_whole_until_it_goes() {
    let orchard = Orchard::start().await;
    orchard.register().await;
    orchard.condition("Passed").await;
    let server = &orchard.server;
    let whole = || async { server.admin(Method::GET, "/openapi/v2", &Value::Null).await.1 };
    until("the document is fetched", || async { whole().await["paths"][APPLES].is_object() }).await;
    let document = whole().await;
    assert!(document["definitions"]["fruit.Apple"].is_object());
    assert!(document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"].is_object());
    server.admin(Method::DELETE, &format!("{SERVICES}/{NAME}"), &Value::Null).await;
    until("it is gone", || async { whole().await["definitions"]["fruit.Apple"].is_null() }).await;
}

/// Where the process finds what it is to do.
fn part_path() -> Option<PathBuf> {
    std::env::var_os(player::PART).map(PathBuf::from)
}
