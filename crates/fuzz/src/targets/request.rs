//! Requests to a server in this process: method, path, query, headers and body, a line each.
//!
//! Nothing is written: every request is a dry run, or refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use apiserver::{ApiServer, Config, Deps, Handle, Pki};
use authn::UserInfo;
use bytes::Bytes;
use clock::SystemClock;
use http::{Method, Request, Uri};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use stdx::shutdown::Shutdown;
use store::{LogStore, Options};
use tokio::runtime::Runtime;

use super::Target;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "/api/v1",
        "/apis/apps/v1",
        "/namespaces/default",
        "/pods",
        "/deployments",
        "/configmaps",
        "/a",
        "/status",
        "/scale",
        "/log",
        "/watch",
        "?",
        "&",
        "limit=1",
        "continue=",
        "resourceVersion=0",
        "resourceVersionMatch=Exact",
        "labelSelector=",
        "fieldSelector=metadata.name%3Da",
        "timeoutSeconds=1",
        "dryRun=All",
        "fieldManager=m",
        "force=true",
        "fieldValidation=Strict",
        "propagationPolicy=Orphan",
        "pretty=true",
        "%00",
        "%zz",
        "/openapi/v3",
        "/apis",
        "/version",
        "/healthz?verbose",
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        ";as=Table;g=meta.k8s.io;v=v1",
        ";as=PartialObjectMetadataList",
        "k8s\u{0}",
        "{\"metadata\":{\"name\":\"a\"}}",
    ],
    // Answers may be documents of all groups; the server's own tasks run in between.
    memory_per_byte: 4096,
    memory_base: 64 << 20,
    nanos_per_byte: 1_000_000,
    time_base: std::time::Duration::from_secs(5),
    ..Target::new("request", seeds, run)
};

struct Running {
    runtime: Runtime,
    handle: Handle,
    /// The server lives as long as this.
    _shutdown: Shutdown,
}

static SERVER: LazyLock<Running> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let shutdown = Shutdown::new();
    let handle = runtime.block_on(start(shutdown.clone()));
    Running { runtime, handle, _shutdown: shutdown }
});

async fn start(shutdown: Shutdown) -> Handle {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let (pem, key) = (|| certificate.clone().into(), || key.serialize_pem().into());
    let pki = Pki {
        proxy_client_certificate: pem(),
        proxy_client_key: key(),
        front_proxy_ca: pem(),
        kubelet_client_certificate: pem(),
        kubelet_client_key: key(),
        kubelet_ca: pem(),
        serving_certificate: pem(),
        serving_key: key(),
        client_ca: pem(),
        service_account_key: key(),
        ..Pki::default()
    };
    let bind = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let config = Config::new(bind, IpAddr::from([192, 0, 2, 1]), pki);
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).expect("a store");
    let deps = Deps {
        store: Arc::new(store),
        clock: Arc::new(SystemClock),
        metrics: telemetry::Registry::new(),
    };
    ApiServer::start(config, deps, shutdown).await.expect("a server").0
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "GET\n/api/v1/namespaces/default/pods?limit=5&labelSelector=a%3Db\n\napplication/json\n",
        "GET\n/apis/apps/v1/deployments?fieldSelector=metadata.name%3Da\n\napplication/json;as=Table;g=meta.k8s.io;v=v1\n",
        "POST\n/api/v1/namespaces/default/configmaps\napplication/json\napplication/json\n{\"metadata\":{\"name\":\"a\"},\"data\":{\"b\":\"c\"}}",
        "POST\n/api/v1/namespaces/default/pods\napplication/yaml\n\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n",
        "PATCH\n/api/v1/namespaces/default?fieldManager=m\napplication/apply-patch+yaml\n\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {a: b}}\n",
        "PATCH\n/api/v1/namespaces/default\napplication/json-patch+json\n\n[{\"op\":\"add\",\"path\":\"/metadata/labels/a\",\"value\":\"b\"}]",
        "DELETE\n/api/v1/namespaces/default/pods/a?propagationPolicy=Orphan\napplication/json\n\n{\"gracePeriodSeconds\":1}",
        "GET\n/apis\n\napplication/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList\n",
        "POST\n/apis/authorization.k8s.io/v1/selfsubjectaccessreviews\napplication/json\n\n{\"spec\":{\"nonResourceAttributes\":{\"path\":\"/\",\"verb\":\"get\"}}}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn run(input: &[u8]) {
    let mut lines = input.splitn(5, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, path, content, accept, body) = (line(), line(), line(), line(), line());
    let Ok(method) = Method::from_bytes(method) else { return };
    let separator = if path.contains(&b'?') { "&" } else { "?" };
    // Watches and logs go on until they are told to stop, and CONNECT leaves the server.
    let path = [path, separator.as_bytes(), b"dryRun=All"].concat();
    if ["watch", "follow", "proxy", "exec", "attach", "portforward", "pprof"]
        .iter()
        .any(|word| path.windows(word.len()).any(|window| window == word.as_bytes()))
    {
        return;
    }
    let Ok(uri) = Uri::try_from(path) else { return };
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", content)
        .header("accept", accept)
        .body(Bytes::copy_from_slice(body));
    let Ok(request) = request else { return };
    let server = &*SERVER;
    let user = UserInfo::new("admin", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    server.runtime.block_on(async {
        let response = server.handle.call(&user, request).await;
        drop(response.into_body().collect().await);
    });
}
