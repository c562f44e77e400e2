//! The `ServiceCIDR` that every cluster has, made from the configuration.
//!
//! It is made when it is missing, and never brought in line: what services have of it would be out
//! of range. Upstream: `pkg/controlplane/controller/defaultservicecidr`.

use std::time::Duration;

use http::Method;
use meta::{Reason, Status};
use serde_json::{Value, json};

use super::GROUP;
use crate::bootstrap::{send, send_as};
use crate::events::{EventRecorder, Finding, Regarding};
use crate::handle::Handle;

/// What it is called.
pub(crate) const NAME: &str = "kubernetes";
const PATH: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const API_VERSION: &str = "networking.k8s.io/v1";
const CONTROLLER: &str = "kubernetes-service-cidr-controller";
const ERROR: &str = "KubernetesDefaultServiceCIDRError";
/// Upstream's interval.
const EVERY: Duration = Duration::from_secs(10);

/// Makes it, unless it is there.
pub(crate) async fn ensure(handle: &Handle) -> Result<(), Status> {
    let object = json!({"kind": "ServiceCIDR", "apiVersion": API_VERSION,
        "metadata": {"name": NAME}, "spec": {"cidrs": configured(handle)}});
    match send(handle, Method::POST, PATH, &object).await {
        Err(status) if status.is(Reason::AlreadyExists) => Ok(()),
        outcome => outcome,
    }
}

/// Makes it whenever it is missing, and says of it that it is ready or what is wrong with it, until
/// shutdown.
pub(crate) async fn run(handle: Handle) {
    let server = &handle.server;
    let mut controller = Controller {
        recorder: EventRecorder::new(CONTROLLER),
        told_mismatch: false,
        told_not_ready: false,
    };
    loop {
        controller.sync(&handle).await;
        tokio::select! {
            () = server.clock.sleep(EVERY) => {}
            () = server.shutdown.begun() => return,
        }
    }
}

struct Controller {
    recorder: EventRecorder,
    /// Each of these is told once in the life of a process.
    told_mismatch: bool,
    told_not_ready: bool,
}

impl Controller {
    async fn sync(&mut self, handle: &Handle) {
        if read(handle).is_none()
            && let Err(status) = ensure(handle).await
        {
            tracing::warn!(%status, "the default ServiceCIDR cannot be made");
            let note = "The default ServiceCIDR can not be created".to_owned();
            return self.tell(handle, &Value::Null, ERROR, note).await;
        }
        if let Some(range) = read(handle) {
            self.sync_status(handle, &range).await;
        }
    }

    async fn sync_status(&mut self, handle: &Handle, range: &Value) {
        if range["metadata"].get("deletionTimestamp").is_some() {
            return;
        }
        let configured = json!(configured(handle));
        if range["spec"]["cidrs"] != configured {
            if !std::mem::replace(&mut self.told_mismatch, true) {
                let note = format!(
                    "The default ServiceCIDR {} does not match the controller flag configurations \
                     {}",
                    list(&range["spec"]["cidrs"]),
                    list(&configured)
                );
                self.tell(handle, range, "KubernetesDefaultServiceCIDRInconsistent", note).await;
            }
            return;
        }
        let conditions = range["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
        let text = |field: &str| {
            ready.and_then(|ready| ready[field].as_str()).unwrap_or_default().to_owned()
        };
        match text("status").as_str() {
            "True" => {}
            // Somebody else has said so, who would be told otherwise again and again.
            "False" => {
                if !std::mem::replace(&mut self.told_not_ready, true) {
                    let note = format!("Configuration matches, but {}", text("message"));
                    self.tell(handle, range, &text("reason"), note).await;
                }
            }
            _ => {
                if let Err(status) = set_ready(handle).await {
                    tracing::warn!(%status, "the default ServiceCIDR cannot be made ready");
                    let note =
                        "The default ServiceCIDR Status can not be set to Ready=True".to_owned();
                    self.tell(handle, range, ERROR, note).await;
                }
            }
        }
    }

    async fn tell(&mut self, handle: &Handle, range: &Value, reason: &str, note: String) {
        let about = Regarding { api_version: API_VERSION, kind: "ServiceCIDR", object: range };
        let found = Finding { reason: reason.to_owned(), action: "", note };
        self.recorder.warn_core(handle, &about, found).await;
    }
}

fn read(handle: &Handle) -> Option<Value> {
    handle.server.find(GROUP, "servicecidrs", "", NAME)?.decode().ok()
}

fn configured(handle: &Handle) -> [String; 1] {
    let (base, prefix) = handle.server.config.service_cluster_ip_range;
    [format!("{base}/{prefix}")]
}

async fn set_ready(handle: &Handle) -> Result<(), Status> {
    let now = meta::time::rfc3339(handle.server.clock.now());
    let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": now,
        "message": "Kubernetes default Service CIDR is ready"});
    let applied = json!({"kind": "ServiceCIDR", "apiVersion": API_VERSION,
        "metadata": {"name": NAME}, "status": {"conditions": [condition]}});
    let path = format!("{PATH}/{NAME}/status?fieldManager={CONTROLLER}&force=true");
    send_as(handle, Method::PATCH, &path, "application/apply-patch+yaml", &applied).await
}

/// Texts as Go prints a slice of them.
fn list(texts: &Value) -> String {
    let texts: Vec<&str> =
        texts.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("[{}]", texts.join(" "))
}
