//! A server on a free port with keys of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use apiserver::{ApiServer, Config, Deps, Handle, Pki};
use authn::UserInfo;
use bytes::Bytes;
use clock::{ManualClock, SharedClock, SystemClock};
use http::{Method, Request, StatusCode};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use serde_json::Value;
use stdx::shutdown::Shutdown;
use store::{LogStore, Options};

/// A running server; it ends with the test.
pub(crate) struct Fixture {
    pub(crate) handle: Handle,
    pub(crate) authority: Authority,
    shutdown: Shutdown,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("the fixture works");
        let mut params = CertificateParams::new(vec![]).expect("the fixture works");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = params.self_signed(&key).expect("the fixture works").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key of somebody.
    pub(crate) fn issue(&self, name: &str, groups: &[&str]) -> (String, String) {
        self.issue_for(name, groups, &["localhost", "127.0.0.1"])
    }

    /// The same for hosts of these names.
    pub(crate) fn issue_for(
        &self,
        name: &str,
        groups: &[&str],
        hosts: &[&str],
    ) -> (String, String) {
        let key = KeyPair::generate().expect("the fixture works");
        let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the fixture works");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("the fixture works");
        (certificate.pem(), key.serialize_pem())
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock))
            .expect("the fixture works");
        Self::start_on(Arc::new(store)).await
    }

    pub(crate) async fn start_on(store: Arc<dyn store::Store>) -> Self {
        Self::start_with(store, Arc::new(SystemClock)).await
    }

    /// With a clock that the test moves.
    pub(crate) async fn start_at(clock: Arc<ManualClock>) -> Self {
        let store =
            LogStore::volatile(&Options::default(), clock.clone()).expect("the fixture works");
        Self::start_with(Arc::new(store), clock).await
    }

    /// On a store, with a clock that both of them have.
    pub(crate) async fn start_with(store: Arc<dyn store::Store>, clock: SharedClock) -> Self {
        Self::start_all(store, clock, |_| {}).await
    }

    /// With another configuration.
    pub(crate) async fn start_configured(
        store: Arc<dyn store::Store>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::start_all(store, Arc::new(SystemClock), change).await
    }

    async fn start_all(
        store: Arc<dyn store::Store>,
        clock: SharedClock,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let authority = Authority::new();
        let (mut config, deps) = Self::parts_of(&authority, store, clock);
        change(&mut config);
        let shutdown = Shutdown::new();
        let (handle, _) =
            ApiServer::start(config, deps, shutdown.clone()).await.expect("the fixture works");
        Self { handle, authority, shutdown }
    }

    fn parts_of(
        authority: &Authority,
        store: Arc<dyn store::Store>,
        clock: SharedClock,
    ) -> (Config, Deps) {
        let (serving_certificate, serving_key) = authority.issue("kube-apiserver", &[]);
        let (kubelet_certificate, kubelet_key) =
            authority.issue("kube-apiserver-kubelet-client", &["system:masters"]);
        let (proxy_certificate, proxy_key) = authority.issue("front-proxy-client", &[]);
        let pki = Pki {
            proxy_client_certificate: proxy_certificate.into(),
            proxy_client_key: proxy_key.into(),
            front_proxy_ca: authority.pem.clone().into(),
            kubelet_client_certificate: kubelet_certificate.into(),
            kubelet_client_key: kubelet_key.into(),
            kubelet_ca: authority.pem.clone().into(),
            serving_certificate: serving_certificate.into(),
            serving_key: serving_key.into(),
            client_ca: authority.pem.clone().into(),
            service_account_key: KeyPair::generate()
                .expect("the fixture works")
                .serialize_pem()
                .into(),
            ..Pki::default()
        };
        let bind = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let config = Config::new(bind, IpAddr::from([192, 0, 2, 1]), pki);
        (config, Deps { store, clock, metrics: telemetry::Registry::new() })
    }

    /// An administrator's request and its answer.
    pub(crate) async fn admin(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        self.call(&admin(), method, path, "application/json", body).await
    }

    pub(crate) async fn call(
        &self,
        user: &UserInfo,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(bytes)
            .expect("the fixture works");
        let response = self.handle.call(user, request).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.expect("the fixture works");
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Creates something that must succeed.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Value {
        let (code, answer) = self.admin(Method::POST, path, object).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        answer
    }
}

/// What a server is started with.
pub(crate) fn parts(store: Arc<dyn store::Store>) -> (Config, Deps) {
    Fixture::parts_of(&Authority::new(), store, Arc::new(SystemClock))
}

pub(crate) fn admin() -> UserInfo {
    UserInfo::new("admin", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED])
}
