//! For whom a kubelet may ask for tokens: those that the pod's volumes name.
//!
//! Upstream: `validateNodeServiceAccountAudience`.

use meta::Status;
use serde_json::Value;

use super::Write;

/// The verb of those who may ask for any.
const VERB: &str = "request-serviceaccounts-token-audience";

pub(super) fn check(write: &Write<'_>, pod: &Value) -> Result<(), Status> {
    let audiences = write.object["spec"]["audiences"].as_array();
    let audience = match audiences.map_or(&[][..], Vec::as_slice) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return write.refuse("node may only request 0 or 1 audiences"),
    };
    if is_used(write, pod, audience) {
        return Ok(());
    }
    let user = write.request.user;
    let namespace = write.request.namespace;
    let account = write.request.name;
    let asked = authz::Attributes::resource(VERB, "", audience, namespace, account);
    if write.view.may(user, &asked) {
        return Ok(());
    }
    write.refuse(format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request \
         tokens for this audience",
        user.name
    ))
}

fn is_used(write: &Write<'_>, pod: &Value, audience: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.into_iter().any(|volume| {
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        let mut tokens = sources.filter_map(|source| source.get("serviceAccountToken"));
        tokens.any(|token| token["audience"].as_str().unwrap_or_default() == audience)
            || driver(write, volume, pod).is_some_and(|name| asks_for(write, &name, audience))
    })
}

/// The CSI driver behind a volume.
fn driver(write: &Write<'_>, volume: &Value, pod: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(name) = text(&volume["csi"]["driver"]) {
        return Some(name);
    }
    let claim = match text(&volume["persistentVolumeClaim"]["claimName"]) {
        Some(claim) => claim,
        None if volume.get("ephemeral").is_some() => {
            let part = |value: &Value| text(value).unwrap_or_default();
            format!("{}-{}", part(&pod["metadata"]["name"]), part(&volume["name"]))
        }
        None => return None,
    };
    let find = |resource: &str, namespace: &str, name: &str| -> Option<Value> {
        write.view.get("", resource, namespace, name)?.decode().ok()
    };
    let claim = find("persistentvolumeclaims", write.request.namespace, &claim)?;
    let volume = find("persistentvolumes", "", &text(&claim["spec"]["volumeName"])?)?;
    text(&volume["spec"]["csi"]["driver"])
}

fn asks_for(write: &Write<'_>, driver: &str, audience: &str) -> bool {
    let found = write.view.get("storage.k8s.io", "csidrivers", "", driver);
    let found = found.and_then(|driver| driver.decode::<Value>().ok()).unwrap_or_default();
    let requests = found["spec"]["tokenRequests"].as_array().into_iter().flatten();
    requests.into_iter().any(|r| r["audience"].as_str().unwrap_or_default() == audience)
}
