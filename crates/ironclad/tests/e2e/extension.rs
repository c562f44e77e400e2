//! A server that extends the API, as a pod behind a service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::ClientError;
use http::Method;
use serde_json::{Value, json};
use testkit::{Authority, EXTENSION_IMAGE, extension_image};

use crate::harness::{Harness, collection};

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
/// Where the service is.
const PORT: u16 = 8443;

/// A cluster with the server in it.
pub(crate) struct Extended {
    pub(crate) harness: Harness,
    authority: Authority,
}

impl Extended {
    /// Starts a cluster and the server, and waits until its pod is Ready, which takes an answer over
    /// TLS.
    pub(crate) fn start() -> Self {
        let harness = Harness::start();
        harness.cluster.import(&extension_image().unwrap()).unwrap();
        let authority = Authority::new().unwrap();
        let extended = Self { harness, authority };
        extended.deploy();
        extended
    }

    fn deploy(&self) {
        let (certificate, key) = self.authority.server(&["extension.default.svc"]).unwrap();
        let secret = json!({"metadata": {"name": "keys"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key}});
        self.harness.create("secrets", &secret);
        let labels = json!({"app": "extension"});
        let probe = json!({"httpGet": {"path": "/readyz", "port": 8444, "scheme": "HTTPS"},
            "periodSeconds": 1});
        let container = json!({"name": "c", "image": EXTENSION_IMAGE,
            "args": ["8444", "/keys/tls.crt", "/keys/tls.key"], "readinessProbe": probe,
            "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]});
        let template = json!({"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}]}});
        let deployment = json!({"metadata": {"name": "extension"}, "spec": {"replicas": 1,
            "selector": {"matchLabels": labels}, "template": template}});
        self.harness.create("apps/v1/deployments", &deployment);
        let service = json!({"metadata": {"name": "extension"}, "spec": {"selector": labels,
            "ports": [{"port": PORT, "targetPort": 8444}]}});
        self.harness.create("services", &service);
        self.harness.ready_pods("app=extension", 1);
        self.harness.until("the service has an endpoint", || {
            let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?\
                          labelSelector=kubernetes.io/service-name%3Dextension";
            let list = self.harness.get(slices);
            let ready = &list["items"][0]["endpoints"][0]["conditions"]["ready"];
            (*ready == true).then_some(())
        });
    }

    /// How the API server reaches a path of the server.
    pub(crate) fn client(&self, path: &str) -> Value {
        json!({"caBundle": self.bundle(), "service":
            {"namespace": "default", "name": "extension", "port": PORT, "path": path}})
    }

    pub(crate) fn bundle(&self) -> String {
        STANDARD.encode(&self.authority.pem)
    }

    /// Registers webhooks and waits until a marked object shows that they are asked. `hooks` are each
    /// a name, a path and rules, and what else is to be said.
    pub(crate) fn register(&self, kind: &str, hooks: &[Value]) {
        let marker = hook("marker", &self.client("/marked"), &rule("configmaps", &["CREATE"]));
        let marker = with(marker, "objectSelector", json!({"matchLabels": {"marker": "deny"}}));
        let body = json!({"metadata": {"name": "hooks"},
            "webhooks": hooks.iter().cloned().chain([marker]).collect::<Vec<_>>()});
        let path = format!("{CONFIGURATIONS}/{kind}webhookconfigurations");
        self.harness.request(Method::POST, &path, Some(&body)).unwrap();
        let marked = json!({"metadata": {"generateName": "marker-",
            "labels": {"marker": "deny"}}});
        self.harness.until("the webhooks are asked", || {
            let refused = self.harness.request(Method::POST, CONFIG_MAPS, Some(&marked)).err()?;
            refused.to_string().contains("the object is marked").then_some(())
        });
    }

    pub(crate) fn unregister(&self, kind: &str) {
        self.harness.delete(&format!("{CONFIGURATIONS}/{kind}webhookconfigurations/hooks"));
    }

    pub(crate) fn post(&self, resource: &str, object: &Value) -> Result<Value, ClientError> {
        self.harness.request(Method::POST, &collection(resource), Some(object))
    }

    /// Why a creation is refused.
    pub(crate) fn refused(&self, resource: &str, object: &Value) -> String {
        match self.post(resource, object) {
            Ok(created) => panic!("it was created: {created}"),
            Err(error) => error.to_string(),
        }
    }

    /// What the server has printed.
    pub(crate) fn log(&self) -> String {
        let pods = self.harness.ready_pods("app=extension", 1);
        let name = pods[0]["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/log", crate::harness::pod_path(name));
        let log = self.harness.bytes(Method::GET, &path, None).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }
}

/// A webhook.
pub(crate) fn hook(name: &str, client: &Value, rules: &Value) -> Value {
    json!({"name": format!("{name}.example.com"), "clientConfig": client, "rules": rules,
        "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"], "timeoutSeconds": 5})
}

/// The same, saying something else as well.
pub(crate) fn with(mut hook: Value, field: &str, value: Value) -> Value {
    hook[field] = value;
    hook
}

/// Rules of one resource of any group.
pub(crate) fn rule(resource: &str, operations: &[&str]) -> Value {
    json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource],
        "operations": operations}])
}

pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}
