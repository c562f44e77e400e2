//! An administrator, who does what few people do, so that every controller has something to do.

mod devices;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clock::Clock;
use jiff::ToSpan;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::nodes::text;
use crate::world::World;

/// Where the administrator's objects with a namespace are.
const HOME: &str = "a";
/// How many there are of a kind.
const NAMES: usize = 2;
/// What somebody who wants to be a node sends.
const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHwMIGWAgEAMDQxFTATBgNVBAoMDHN5c3RlbTpub2RlczEbMBkGA1UEAwwSc3lz
dGVtOm5vZGU6bm9kZS0wMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETwuxIffi
Xp9JQxst/oWWdU+xPn5+wPBxQmhrDoflvDKC09qqP2rrhuNCIo5MnsRLqHmrYC9f
L2VAjOPd5kSHxqAAMAoGCCqGSM49BAMCA0kAMEYCIQCIYXyaW6CV9PdMUhfco3Bu
Rz4qW22tY9vFTLQT0cFpGgIhANc40W8x16SYCkhMSMTWDPAdlDd2kSwQSGN806Tk
+90a
-----END CERTIFICATE REQUEST-----
";

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ATTRIBUTES: &str = "/apis/storage.k8s.io/v1/volumeattributesclasses";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// The label of roles that are part of the one that is made of others.
pub(crate) const PART: &str = "example.com/part";

/// The administrator.
pub(crate) struct Admin {
    world: Arc<World>,
    dice: Mutex<Dice>,
}

impl Admin {
    /// One who makes what is there from the beginning.
    pub(crate) fn start(world: &Arc<World>, seed: u64) -> Self {
        let admin = Self { world: Arc::clone(world), dice: Mutex::new(Dice::new(seed, 4)) };
        let sum = json!({ "metadata": { "name": "sum" }, "aggregationRule": {
            "clusterRoleSelectors": [{ "matchLabels": { PART: "true" } }] } });
        admin.write("POST", RBAC, &sum);
        let info = json!({ "metadata": { "name": "cluster-info" }, "data": { "kubeconfig": "-" } });
        admin.write("POST", "/api/v1/namespaces/kube-public/configmaps", &info);
        admin.make_slice();
        admin
    }

    /// Does one thing, with a chance in thousandths.
    pub(crate) fn look(&self, chance: u64) {
        if self.dice().chance(chance) {
            self.act();
        }
    }

    fn act(&self) {
        let (what, name, exists) = {
            let mut dice = self.dice();
            (dice.below(11), dice.below(NAMES), dice.chance(600))
        };
        match what {
            0 => self.part(name, exists),
            1 => self.policy(name, exists),
            2 => self.request(),
            3 => self.range(name, exists),
            4 => self.balancer(exists),
            5 => self.endpoints(exists),
            6 => self.attributes(name, exists),
            7 => self.token(name),
            8 => self.account_token(name, exists),
            9 => self.resize(),
            _ => self.device(name),
        }
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, method: &str, path: &str, body: &Value) {
        let refused = self.world.write("admin", method, path, body).err();
        let refused = refused.map(|status| format!(" is refused: {}", status.message));
        self.world.trace(&format!("admin: {method} {path}{}", refused.unwrap_or_default()));
    }

    /// Makes an object, changes the one that is there, or deletes it.
    fn keep(&self, path: &str, name: &str, exists: bool, body: Value) {
        let one = format!("{path}/{name}");
        if !exists {
            return self.write("DELETE", &one, &json!({}));
        }
        let mut made = body.clone();
        made["metadata"]["name"] = name.into();
        if self.world.write("admin", "POST", path, &made).is_err() {
            self.write("MERGE", &one, &body);
        }
    }

    fn part(&self, name: usize, exists: bool) {
        let verb = ["get", "list", "watch"][self.dice().below(3)];
        let role = json!({ "metadata": { "labels": { PART: "true" } },
            "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": [verb] }] });
        self.keep(RBAC, &format!("part-{name}"), exists, role);
    }

    fn policy(&self, name: usize, exists: bool) {
        let most = self.dice().below(9);
        let policy = json!({ "spec": { "validations": [
                { "expression": format!("object.spec.replicas <= {most}") }],
            "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"],
                "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"] }] } } });
        self.keep(POLICIES, &format!("policy-{name}"), exists, policy);
    }

    /// Somebody asks to become a node.
    fn request(&self) {
        let name = self.dice().below(8);
        let request = json!({ "metadata": { "name": format!("request-{name}") },
            "spec": { "request": STANDARD.encode(REQUEST), "username": "system:node:node-0",
                "groups": ["system:nodes"], "usages": ["digital signature", "client auth"],
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet" } });
        self.write("POST", REQUESTS, &request);
    }

    fn range(&self, name: usize, exists: bool) {
        let range = json!({ "spec": { "cidrs": [format!("10.{}.0.0/24", 50 + name)] } });
        self.keep(RANGES, &format!("range-{name}"), exists, range);
    }

    fn balancer(&self, exists: bool) {
        let services = format!("/api/v1/namespaces/{HOME}/services");
        let service = json!({ "spec": { "type": "LoadBalancer", "selector": { "app": "none" },
            "ports": [{ "port": 80, "nodePort": 30080 }] } });
        self.keep(&services, "balancer", exists, service);
    }

    /// Endpoints that are not pods.
    fn endpoints(&self, exists: bool) {
        let (service, number) = {
            let mut dice = self.dice();
            (dice.chance(800), dice.below(5))
        };
        let path = |resource: &str| format!("/api/v1/namespaces/{HOME}/{resource}");
        let plain = json!({ "spec": { "ports": [{ "port": 80 }] } });
        self.keep(&path("services"), "plain", service, plain);
        let addresses: Vec<Value> =
            (0..=number).map(|number| json!({ "ip": format!("192.0.2.{}", number + 1) })).collect();
        let endpoints =
            json!({ "subsets": [{ "addresses": addresses, "ports": [{ "port": 80 }] }] });
        self.keep(&path("endpoints"), "plain", exists, endpoints);
    }

    fn attributes(&self, name: usize, exists: bool) {
        let class = json!({ "driverName": "remote.example.com", "parameters": { "a": "b" } });
        self.keep(ATTRIBUTES, &format!("class-{name}"), exists, class);
    }

    /// A token for those who join, for half a minute.
    fn token(&self, name: usize) {
        let end = self.world.clock.now().checked_add(30.seconds()).unwrap_or_default();
        let id = format!("token{name}");
        let data = |text: &str| STANDARD.encode(text);
        let secret = json!({ "metadata": { "name": format!("bootstrap-token-{id}") },
            "type": "bootstrap.kubernetes.io/token",
            "data": { "token-id": data(&id), "token-secret": data("0123456789abcdef"),
                "usage-bootstrap-signing": data("true"),
                "expiration": data(&meta::time::rfc3339(end)) } });
        self.write("POST", "/api/v1/namespaces/kube-system/secrets", &secret);
    }

    /// A token of an account that is there, or is not.
    fn account_token(&self, name: usize, exists: bool) {
        let account = if exists { "default" } else { "nobody" };
        let secret = json!({ "metadata": { "name": format!("account-token-{name}"),
                "annotations": { "kubernetes.io/service-account.name": account } },
            "type": "kubernetes.io/service-account-token" });
        let secrets = format!("/api/v1/namespaces/{HOME}/secrets");
        if self.world.write("admin", "POST", &secrets, &secret).is_err() {
            self.write("DELETE", &format!("{secrets}/account-token-{name}"), &json!({}));
        }
    }

    /// Wants more of a claim.
    fn resize(&self) {
        let claims: Vec<Value> = {
            let api = self.world.api();
            let bound = |claim: &&Value| claim["status"]["phase"] == "Bound";
            api.all("/persistentvolumeclaims").filter(bound).cloned().collect()
        };
        let Some(claim) = self.dice().pick(&claims).cloned() else { return };
        let (namespace, name) = (&claim["metadata"]["namespace"], &claim["metadata"]["name"]);
        let path =
            format!("/api/v1/namespaces/{}/persistentvolumeclaims/{}", text(namespace), text(name));
        let more = self.dice().below(7) + 2;
        let change =
            json!({ "spec": { "resources": { "requests": { "storage": format!("{more}Gi") } } } });
        self.write("MERGE", &path, &change);
    }
}
