//! A node that joins from elsewhere: a kubelet in a process of its own, that begins with a bootstrap
//! token and has the rights of a node, no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};
use testkit::{Host, POD_IMAGE};

use crate::harness::{collection, is_ready, pod, pod_path, server};
use crate::parts::{Parts, block_on};
use crate::requests::websocket;

const NODE: &str = "system:node:node-1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const TOKEN: &str = "abcdef.0123456789abcdef";

/// A cluster without a node, whose API server writes down what is asked of it.
struct Cluster {
    parts: Parts,
}

impl Cluster {
    fn start() -> Self {
        let mut parts = Parts::new();
        let path = |name: &str| parts.path(name).display().to_string();
        let (policy, log) = (path("policy"), path("audit"));
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let rules = "omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
        std::fs::write(&policy, format!("{head}{rules}")).unwrap();
        let (ca, key) = (path("server/pki/ca.crt"), path("server/pki/ca.key"));
        parts.start_api_server_with(&[
            "--authorization-mode=Node,RBAC",
            "--anonymous-auth=false",
            "--enable-bootstrap-token-auth",
            "--feature-gates=PodCertificateRequest=true,ClusterTrustBundle=true,\
             ClusterTrustBundleProjection=true",
            "--runtime-config=certificates.k8s.io/v1beta1/podcertificaterequests=true,\
             certificates.k8s.io/v1beta1/clustertrustbundles=true",
            "--audit-policy-file",
            &policy,
            "--audit-log-path",
            &log,
        ]);
        parts.start(
            "controller-manager",
            &["--cluster-signing-cert-file", &ca, "--cluster-signing-key-file", &key],
        );
        parts.start("scheduler", &[]);
        Self { parts }
    }

    fn make(&self, path: &str, object: &Value) {
        self.parts.until(&format!("{} in {path}", object["metadata"]["name"]), || {
            self.parts.request(Method::POST, path, Some(object))
        });
    }

    fn in_default(&self, resource: &str, object: &Value) {
        self.make(&collection(resource), object);
    }

    /// Lets whoever shows the token ask for certificates of nodes, which are approved, and gives a
    /// kubeconfig with it.
    fn invite(&self) -> PathBuf {
        let data = json!({ "token-id": "abcdef", "token-secret": "0123456789abcdef",
                           "usage-bootstrap-authentication": "true" });
        let secret = json!({ "metadata": { "name": "bootstrap-token-abcdef" },
                             "type": "bootstrap.kubernetes.io/token", "stringData": data });
        self.make("/api/v1/namespaces/kube-system/secrets", &secret);
        for role in
            ["node-bootstrapper", "certificates.k8s.io:certificatesigningrequests:nodeclient"]
        {
            let binding = json!({ "metadata": { "name": role },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                             "name": format!("system:{role}") },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
                               "name": "system:bootstrappers" }] });
            self.make(&format!("{RBAC}/clusterrolebindings"), &binding);
        }
        let cluster = json!({ "server": format!("https://{}:6443", Host::ADDRESS),
            "certificate-authority": self.parts.path("server/pki/ca.crt") });
        let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "c", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }] });
        let path = self.parts.path("bootstrap.kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn start_kubelet(&mut self, bootstrap: Option<&PathBuf>) {
        let path = |name: &str| self.parts.path(name).display().to_string();
        let (own, manifests) = (path("kubelet.kubeconfig"), path("manifests"));
        let bootstrap = bootstrap.map(|path| path.display().to_string());
        let mut args = vec!["--kubeconfig", &own, "--pod-manifest-path", &manifests];
        if let Some(bootstrap) = &bootstrap {
            args.extend(["--bootstrap-kubeconfig", bootstrap]);
        }
        self.parts.start_kubelet_with(&args);
    }

    fn pod(&self, name: &str) -> Value {
        self.parts.get(&pod_path(name)).unwrap_or_default()
    }

    fn until_pod(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.parts.until(&format!("{name} {what}"), || Some(self.pod(name)).filter(|pod| is(pod)))
    }

    fn log(&self, pod: &str) -> String {
        let path = format!("{}/log", pod_path(pod));
        let log = self.parts.request(Method::GET, &path, None).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What the API server was asked, oldest first.
    fn audited(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.parts.path("audit")).unwrap();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn exec(&self, pod: &str, command: &[&str]) -> String {
        let words: Vec<String> = command.iter().map(|word| format!("command={word}")).collect();
        let path = format!("{}/exec?stdout=1&{}", pod_path(pod), words.join("&"));
        let kubeconfig = self.parts.path("kubeconfig");
        let messages = self.parts.host.run(move || {
            block_on(async { websocket(&kubeconfig, &path, "v5.channel.k8s.io").await })
        });
        let said = messages.iter().filter(|message| message.first() == Some(&1));
        said.map(|message| String::from_utf8_lossy(&message[1..]).into_owned()).collect()
    }
}

/// A pod that uses nearly everything of the API that a pod can.
fn curious() -> Value {
    let mut curious = server("curious");
    let spec = &mut curious["spec"];
    spec["runtimeClassName"] = json!("own");
    spec["imagePullSecrets"] = json!([{ "name": "credentials" }]);
    spec["volumes"] = json!([
        { "name": "map", "configMap": { "name": "map" } },
        { "name": "secret", "secret": { "secretName": "secret" } },
        { "name": "claim", "persistentVolumeClaim": { "claimName": "claim" } },
        { "name": "mixed", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "audience": "vault" } },
            { "configMap": { "name": "map", "items": [{ "key": "k", "path": "k" }] } },
            { "secret": { "name": "secret", "items": [{ "key": "s", "path": "s" }] } },
            { "clusterTrustBundle": { "name": "roots", "path": "roots" } },
        ] } },
    ]);
    let container = &mut spec["containers"][0];
    container["resources"] = json!({ "requests": { "cpu": "50m", "memory": "16Mi" } });
    container["env"] = json!([
        { "name": "MAP", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "k" } } },
        { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "s" } } },
    ]);
    container["volumeMounts"] = ["map", "secret", "claim", "mixed"]
        .map(|name| json!({ "name": name, "mountPath": format!("/{name}") }))
        .into_iter()
        .collect();
    container["readinessProbe"] =
        json!({ "exec": { "command": ["/testkit-pod", "cat", "/mixed/s"] }, "periodSeconds": 1 });
    curious
}

fn make_what_it_needs(cluster: &Cluster) {
    let class = json!({ "metadata": { "name": "own" }, "handler": "ironclad" });
    cluster.make("/apis/node.k8s.io/v1/runtimeclasses", &class);
    cluster
        .in_default("configmaps", &json!({ "metadata": { "name": "map" }, "data": { "k": "v" } }));
    let secret = json!({ "metadata": { "name": "secret" }, "stringData": { "s": "hidden" } });
    cluster.in_default("secrets", &secret);
    let credentials = json!({ "metadata": { "name": "credentials" },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": "{\"auths\":{}}" } });
    cluster.in_default("secrets", &credentials);
    let volume = json!({ "metadata": { "name": "volume" }, "spec": {
        "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"],
        "hostPath": { "path": cluster.parts.path("volume"), "type": "DirectoryOrCreate" } } });
    cluster.make("/api/v1/persistentvolumes", &volume);
    let claim = json!({ "metadata": { "name": "claim" }, "spec": { "storageClassName": "",
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } } });
    cluster.in_default("persistentvolumeclaims", &claim);
    let roots = std::fs::read_to_string(cluster.parts.path("server/pki/ca.crt")).unwrap();
    let bundle = json!({ "metadata": { "name": "roots" }, "spec": { "trustBundle": roots } });
    cluster.make("/apis/certificates.k8s.io/v1beta1/clustertrustbundles", &bundle);
}

/// Resizes it, changes what it reads, runs a command in it, and adds a container to it.
fn use_the_curious(cluster: &Cluster) {
    let change = json!({ "spec": { "containers": [{ "name": "c",
        "resources": { "requests": { "cpu": "60m", "memory": "16Mi" } } }] } });
    let resize = format!("{}/resize", pod_path("curious"));
    let strategic = "application/strategic-merge-patch+json";
    cluster.parts.patch(strategic, &resize, &change);
    cluster.until_pod("curious", "is resized", |pod| {
        pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == "60m"
    });
    let map = format!("{}/map", collection("configmaps"));
    cluster.parts.request(Method::PATCH, &map, Some(&json!({ "data": { "k": "w" } }))).unwrap();
    cluster.parts.until("the file changes", || {
        (cluster.exec("curious", &["/testkit-pod", "cat", "/mixed/k"]).trim() == "w").then_some(())
    });
    assert!(cluster.log("curious").starts_with("serving on port 8080"));
    let joins = json!({ "spec": { "ephemeralContainers": [
        { "name": "debug", "image": POD_IMAGE, "args": ["print", "joined"] }] } });
    let path = format!("{}/ephemeralcontainers", pod_path("curious"));
    cluster.parts.patch(strategic, &path, &joins);
    cluster.until_pod("curious", "is joined", |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    });
}

/// Pods whose ends the kubelet tells in different ways.
fn run_the_others(cluster: &Cluster) {
    let mut once = pod("once", &["print", "done"]);
    once["spec"]["restartPolicy"] = json!("Never");
    cluster.in_default("pods", &once);
    let mut greedy = pod("greedy", &["fill", "/scratch/file", "8", "wait"]);
    greedy["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }]);
    greedy["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "v", "mountPath": "/scratch" }]);
    cluster.in_default("pods", &greedy);
    let mut refused = server("refused");
    refused["spec"]["nodeName"] = json!("node-1");
    refused["spec"]["nodeSelector"] = json!({ "no": "such-label" });
    cluster.in_default("pods", &refused);
    let mut lacking = server("lacking");
    lacking["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "later" } }]);
    lacking["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "v", "mountPath": "/later" }]);
    cluster.in_default("pods", &lacking);
    let mut certified = server("certified");
    certified["spec"]["volumes"] = json!([{ "name": "v", "projected": { "sources": [
        { "podCertificate": { "signerName": "example.com/signer", "keyType": "ED25519",
                              "credentialBundlePath": "both.pem" } }] } }]);
    certified["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "v", "mountPath": "/v" }]);
    cluster.in_default("pods", &certified);
    cluster.until_pod("once", "has ended", |pod| pod["status"]["phase"] == "Succeeded");
    cluster.until_pod("greedy", "is evicted", |pod| pod["status"]["reason"] == "Evicted");
    cluster.until_pod("refused", "is refused", |pod| pod["status"]["reason"] == "NodeAffinity");
    let requests = collection("certificates.k8s.io/v1beta1/podcertificaterequests");
    cluster.parts.until("a certificate is asked for", || {
        let list = cluster.parts.get(&requests)?;
        list["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(())
    });
    let later = json!({ "metadata": { "name": "later" }, "stringData": { "s": "late" } });
    cluster.in_default("secrets", &later);
    cluster.until_pod("lacking", "has its secret", is_ready);
}

/// The kubelet asks the API server whom a token belongs to and what he may.
fn ask_the_kubelet(cluster: &Cluster) {
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = cluster.parts.request(Method::POST, tokens, Some(&json!({ "spec": {} }))).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    let error = cluster.parts.ask_kubelet("/pods", token).unwrap_err();
    let refused = "Forbidden (user=system:serviceaccount:default:default, verb=get, resource=nodes";
    assert!(error.to_string().starts_with(refused), "{error}");
    let binding = json!({ "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                     "name": "system:kubelet-api-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": "default" }] });
    cluster.make(&format!("{RBAC}/clusterrolebindings"), &binding);
    cluster.in_default("serviceaccounts", &json!({ "metadata": { "name": "reader" } }));
    let tokens = "/api/v1/namespaces/default/serviceaccounts/reader/token";
    let token = cluster.parts.request(Method::POST, tokens, Some(&json!({ "spec": {} }))).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    assert!(cluster.parts.ask_kubelet("/pods", token).is_ok());
}

/// Requests by what they were about, those that the kubelet made.
fn by_sort(events: &[Value]) -> BTreeMap<String, usize> {
    let mut sorts = BTreeMap::new();
    for event in events.iter().filter(|event| event["user"]["username"] == NODE) {
        let of = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, resource) = (text(&event["verb"]), text(&of["resource"]));
        let subresource = text(&of["subresource"]);
        *sorts.entry(format!("{verb} {resource}/{subresource}")).or_insert(0) += 1;
    }
    sorts
}

fn told(event: &Value) -> String {
    let (of, status) = (&event["objectRef"], &event["responseStatus"]);
    format!("{} {} {of}: {status}", event["user"]["username"], event["verb"])
}

#[test]
fn a_node_joins_by_a_token_and_needs_no_right_that_nodes_do_not_have() {
    let mut cluster = Cluster::start();
    let manifests = cluster.parts.path("manifests");
    std::fs::create_dir(&manifests).unwrap();
    std::fs::write(manifests.join("static.yaml"), server("static").to_string()).unwrap();
    let bootstrap = cluster.invite();
    cluster.start_kubelet(Some(&bootstrap));
    cluster.parts.node_is_ready();
    cluster.until_pod("static-node-1", "is shown", is_ready);

    make_what_it_needs(&cluster);
    cluster.in_default("pods", &curious());
    let before = cluster.until_pod("curious", "is Ready", is_ready);
    use_the_curious(&cluster);
    run_the_others(&cluster);
    ask_the_kubelet(&cluster);

    // Without the token now: what it was given is enough.
    std::fs::remove_file(&bootstrap).unwrap();
    cluster.parts.kill("kubelet");
    cluster.start_kubelet(None);
    let later = server("later");
    cluster.in_default("pods", &later);
    cluster.until_pod("later", "is Ready", is_ready);
    let after = cluster.pod("curious");
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id(&after), id(&before), "nothing was started again");

    std::fs::remove_file(manifests.join("static.yaml")).unwrap();
    for name in ["curious", "once", "greedy", "refused", "lacking", "certified", "later"] {
        cluster.parts.request(Method::DELETE, &pod_path(name), None).unwrap();
    }
    cluster.parts.until("all pods are gone", || {
        let list = cluster.parts.get(&collection("pods"))?;
        list["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    judge(&cluster.audited());
}

fn judge(events: &[Value]) {
    let of_kubelet = |event: &&Value| {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        agent.starts_with("kubelet/") || event["user"]["username"] == NODE
    };
    let made: Vec<_> = events.iter().filter(of_kubelet).collect();
    let users: BTreeSet<_> = made.iter().filter_map(|e| e["user"]["username"].as_str()).collect();
    assert_eq!(users, BTreeSet::from(["system:bootstrap:abcdef", NODE]));
    let strange: BTreeSet<_> = made
        .iter()
        .filter(|event| event["user"]["username"] != NODE)
        .filter_map(|event| event["objectRef"]["resource"].as_str())
        .collect();
    assert_eq!(strange, BTreeSet::from(["certificatesigningrequests"]), "with the token");
    let groups = json!(["system:nodes", "system:authenticated"]);
    assert!(made.iter().all(|e| e["user"]["username"] != NODE || e["user"]["groups"] == groups));

    // Not there, there already, or changed meanwhile: what everybody meets.
    let refused: BTreeSet<_> = made
        .iter()
        .filter(|event| {
            let code = event["responseStatus"]["code"].as_i64().unwrap_or_default();
            code >= 400 && !matches!(code, 404 | 409)
        })
        .map(|event| told(event))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");

    let sorts = by_sort(events);
    for sort in [
        "create nodes/",
        "patch nodes/status",
        "create leases/",
        "update leases/",
        "create events/",
        "create pods/",
        "delete pods/",
        "watch pods/",
        "patch pods/status",
        "watch secrets/",
        "watch configmaps/",
        "watch services/",
        "list clustertrustbundles/",
        "get runtimeclasses/",
        "get persistentvolumeclaims/",
        "get persistentvolumes/",
        "create serviceaccounts/token",
        "create podcertificaterequests/",
        "create tokenreviews/",
        "create subjectaccessreviews/",
    ] {
        assert!(sorts.contains_key(sort), "{sort} is not among {sorts:#?}");
    }
}
