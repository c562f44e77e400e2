//! Devices of a node: given to pods that the administrator places there, and broken at times.

use serde_json::json;

use super::{Admin, HOME};

const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
/// Whose they are, and where.
const DRIVER: &str = "example.com";
const NODE: &str = "node-0";
const SLICE: &str = "devices";

impl Admin {
    pub(super) fn make_slice(&self) {
        let slice = json!({ "metadata": { "name": SLICE }, "spec": { "driver": DRIVER,
            "nodeName": NODE, "pool": { "name": NODE, "generation": 1, "resourceSliceCount": 1 },
            "devices": [{ "name": "device-0" }, { "name": "device-1" }] } });
        self.write("POST", SLICES, &slice);
    }

    /// Breaks a device, mends all, or gives one to a pod.
    pub(super) fn device(&self, number: usize) {
        let what = self.dice().below(4);
        if what < 2 {
            return self.break_device(number, what == 0);
        }
        let name = format!("device-{number}");
        let claims = format!("/apis/resource.k8s.io/v1/namespaces/{HOME}/resourceclaims");
        let pods = format!("/api/v1/namespaces/{HOME}/pods");
        let claim = json!({ "metadata": { "name": name }, "spec": { "devices": {
            "requests": [{ "name": "r", "exactly": { "deviceClassName": "any" } }] } } });
        self.world.write("admin", "POST", &claims, &claim).ok();
        let pod = json!({ "metadata": { "name": name }, "spec": { "nodeName": NODE,
            "containers": [{ "name": "c", "image": "image-0" }],
            "resourceClaims": [{ "name": "d", "resourceClaimName": name }] } });
        let pod = self.world.write("admin", "POST", &pods, &pod).unwrap_or_default();
        let uid = match what {
            2 if pod["metadata"]["uid"].is_string() => pod["metadata"]["uid"].clone(),
            // Of a pod that was there before.
            _ => "00000000-0000-4000-9000-000000000000".into(),
        };
        let status = json!({ "status": {
            "allocation": { "devices": { "results": [{ "request": "r", "driver": DRIVER,
                "pool": NODE, "device": name }] } },
            "reservedFor": [{ "resource": "pods", "name": name, "uid": uid }] } });
        self.write("MERGE", &format!("{claims}/{name}/status"), &status);
    }

    fn break_device(&self, number: usize, is_broken: bool) {
        let device = |of: usize| {
            let mut device = json!({ "name": format!("device-{of}") });
            if is_broken && of == number {
                device["taints"] = json!([{ "key": "broken", "effect": "NoExecute" }]);
            }
            device
        };
        let change = json!({ "spec": { "devices": [device(0), device(1)] } });
        self.write("MERGE", &format!("{SLICES}/{SLICE}"), &change);
    }
}
