//! A cluster with the tests' image, and requests to its API in a line each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, Credentials, KubeConfig, Remote};
use http::Method;
use serde_json::{Value, json};
use testkit::{Cluster, Options, POD_IMAGE, pod_image};

/// Long enough for a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const IRONCLAD: &str = env!("CARGO_BIN_EXE_ironclad");

/// A running cluster and what it takes to speak to it.
pub(crate) struct Harness {
    pub(crate) cluster: Cluster,
}

impl Harness {
    pub(crate) fn start() -> Self {
        Self::with(Options::new(IRONCLAD))
    }

    pub(crate) fn with(options: Options) -> Self {
        let cluster = Cluster::start(options).unwrap();
        cluster.import(&pod_image().unwrap()).unwrap();
        Self { cluster }
    }

    /// Sends a request as the administrator.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let answer = self.bytes(method, path, body)?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    pub(crate) fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, ClientError> {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        self.send(method, path, content_type, body)
    }

    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Option<&Value>,
    ) -> Result<Bytes, ClientError> {
        self.send_as(None, (method, path), content_type, body)
    }

    pub(crate) fn send_as(
        &self,
        credentials: Option<Credentials>,
        (method, path): (Method, &str),
        content_type: &'static str,
        body: Option<&Value>,
    ) -> Result<Bytes, ClientError> {
        let kubeconfig = self.cluster.kubeconfig();
        let (path, body) = (path.to_owned(), body.map(ToString::to_string).unwrap_or_default());
        self.cluster.host().run(move || {
            let mut config = KubeConfig::load(&kubeconfig).unwrap();
            if let Some(credentials) = credentials {
                config.credentials = credentials;
            }
            let remote = Remote::new(&config, "e2e", Arc::new(clock::SystemClock)).unwrap();
            let client = Client::new(Arc::new(remote));
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let answer = client.request(method, &path, content_type, Bytes::from(body));
            runtime.block_on(answer)
        })
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path, None).unwrap()
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        match self.request(Method::GET, path, None) {
            Ok(_) => true,
            // A kind that is not served yet is no object of which something could be said.
            Err(ClientError::Status(status)) if status.code == 404 => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Creates an object in the namespace `default`, at `pods` or `apps/v1/deployments`.
    pub(crate) fn create(&self, resource: &str, object: &Value) -> Value {
        let path = collection(resource);
        // The first pods of a namespace may come before its service account.
        let created = self.until(&format!("{resource} is created"), || {
            match self.request(Method::POST, &path, Some(object)) {
                Err(error) if error.to_string().contains("serviceaccount") => None,
                result => Some(result),
            }
        });
        created.unwrap()
    }

    pub(crate) fn delete(&self, path: &str) {
        self.request(Method::DELETE, path, None).unwrap();
    }

    /// Asks until there is an answer.
    pub(crate) fn until<T>(&self, what: &str, ask: impl Fn() -> Option<T>) -> T {
        let pause = Duration::from_millis(20);
        for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
            if let Some(answer) = ask() {
                return answer;
            }
            pause_for(pause);
        }
        panic!("waited for: {what}\n{}\n{}", self.describe(), self.cluster.log());
    }

    /// Waits until a pod is Ready, and gives it.
    pub(crate) fn ready_pod(&self, name: &str) -> Value {
        self.until(&format!("pod {name} is Ready"), || {
            let pod = self.request(Method::GET, &pod_path(name), None).ok()?;
            is_ready(&pod).then_some(pod)
        })
    }

    /// Waits until `count` pods with a label are Ready, and gives them.
    pub(crate) fn ready_pods(&self, selector: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} pods with {selector} are Ready"), || {
            let list = self.get(&format!("{}?labelSelector={selector}", collection("pods")));
            let pods = list["items"].as_array().unwrap().clone();
            (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
        })
    }

    /// Fetches from a server, as a program on the node would. A container that runs and has no
    /// readiness probe is Ready before it listens, so a refused connection is tried again.
    pub(crate) fn fetch(&self, address: &str, port: u16, path: &str) -> std::io::Result<String> {
        let to = SocketAddr::from((address.parse::<Ipv4Addr>().unwrap(), port));
        let path = path.to_owned();
        self.cluster.host().run(move || {
            for _ in 0..200 {
                match fetch(to, &path) {
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        pause_for(Duration::from_millis(20));
                    }
                    result => return result,
                }
            }
            fetch(to, &path)
        })
    }

    /// Fetches from a server, as a client outside the cluster would.
    pub(crate) fn fetch_from_outside(
        &self,
        address: &str,
        port: u16,
        path: &str,
    ) -> std::io::Result<String> {
        let to = SocketAddr::from((address.parse::<Ipv4Addr>().unwrap(), port));
        self.cluster.host().outside(|| fetch(to, path)).unwrap()
    }

    fn describe(&self) -> String {
        let pods = self.request(Method::GET, "/api/v1/pods", None);
        let events = self.request(Method::GET, "/api/v1/events", None);
        let mut text = String::new();
        for event in events.iter().flat_map(|list| list["items"].as_array().into_iter().flatten()) {
            text.push_str(&format!(
                "event {} {}: {}\n",
                event["involvedObject"]["name"], event["reason"], event["message"]
            ));
        }
        for pod in pods.iter().flat_map(|list| list["items"].as_array().into_iter().flatten()) {
            text.push_str(&format!("pod {}: {}\n", pod["metadata"]["name"], pod["status"]));
        }
        text
    }
}

fn fetch(to: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

pub(crate) fn collection(resource: &str) -> String {
    match resource.rsplit_once('/') {
        None => format!("/api/v1/namespaces/default/{resource}"),
        Some((group_version, plural)) => {
            format!("/apis/{group_version}/namespaces/default/{plural}")
        }
    }
}

pub(crate) fn pod_path(name: &str) -> String {
    format!("{}/{name}", collection("pods"))
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A pod of one container that runs the tests' program with these arguments.
pub(crate) fn pod(name: &str, args: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": POD_IMAGE, "args": args }],
        },
    })
}

/// The same, serving on a port.
pub(crate) fn server(name: &str) -> Value {
    pod(name, &["serve", "8080"])
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, whose clock is real")]
pub(crate) fn pause_for(duration: Duration) {
    std::thread::sleep(duration);
}
