//! ServiceAccount: every pod has an account, and a token of it where it wants one.
//!
//! Upstream: `plugin/pkg/admission/serviceaccount`.

use meta::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Request, View};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour, and the seconds by which upstream tells its own requests from others.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub(crate) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        if !request.creates_pod() {
            return Ok(());
        }
        if object["metadata"]["annotations"].get(MIRROR).is_some() {
            return check_mirror(request, object);
        }
        let name = match object["spec"]["serviceAccountName"].as_str() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => "default".to_owned(),
        };
        object["spec"]["serviceAccountName"] = json!(name);
        object["spec"]["serviceAccount"] = json!(name);
        let account = view.get("", "serviceaccounts", request.namespace, &name);
        let Some(account) = account.and_then(|account| account.decode::<Account>().ok()) else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                request.namespace
            );
            return Err(forbidden(request, &why));
        };
        if wants_token(object, &account) {
            mount_token(object);
        }
        if let Some(secrets) = account.image_pull_secrets
            && object["spec"].get("imagePullSecrets").is_none()
        {
            object["spec"]["imagePullSecrets"] = secrets;
        }
        Ok(())
    }
}

/// What counts of a `ServiceAccount`; one is read for every pod.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Option<Value>,
}

/// Pods that mirror files of a node have no identity of their own.
fn check_mirror(request: &Request<'_>, pod: &Value) -> Result<(), Status> {
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err(forbidden(request, "a mirror pod may not reference service accounts"));
    }
    let sources = pod["spec"]["volumes"].as_array().into_iter().flatten();
    for volume in sources {
        if volume.get("secret").is_some() {
            return Err(forbidden(request, "a mirror pod may not reference secrets"));
        }
    }
    Ok(())
}

fn wants_token(pod: &Value, account: &Account) -> bool {
    let of_pod = pod["spec"]["automountServiceAccountToken"].as_bool();
    of_pod.or(account.automount_service_account_token).unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    let volumes = pod["spec"]["volumes"].as_array();
    let existing = volumes.into_iter().flatten().find_map(|volume| {
        volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
    });
    let name = existing.clone().unwrap_or_else(|| volume_name(pod));
    let mut is_used = false;
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            let has = |mount: &Value| mount["mountPath"] == MOUNT_PATH;
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            match mounts.as_array_mut() {
                Some(list) if list.iter().any(has) => continue,
                Some(list) => list.push(mount),
                None => *mounts = Value::Array(vec![mount]),
            }
            is_used = true;
        }
    }
    if is_used && existing.is_none() {
        let volume = token_volume(&name);
        match pod["spec"]["volumes"].as_array_mut() {
            Some(list) => list.push(volume),
            None => pod["spec"]["volumes"] = Value::Array(vec![volume]),
        }
    }
}

/// A suffix from the pod's uid, which is random: plugins have no source of chance of their own.
fn volume_name(pod: &Value) -> String {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let mut number = u64::from_str_radix(uid.get(..8).unwrap_or_default(), 16).unwrap_or_default();
    let base = ALPHABET.len() as u64;
    let mut name = VOLUME_PREFIX.to_owned();
    for _ in 0..5 {
        let at = usize::try_from(number % base).unwrap_or_default();
        name.push(char::from(ALPHABET[at]));
        number /= base;
    }
    name
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mounted_once_into_every_container() {
        let mut pod = json!({"metadata": {"uid": "0123abcd-0"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b",
                "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod);
        let name = pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], json!(name));
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let before = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, before);
    }

    #[test]
    fn the_pod_overrules_its_account() {
        let says = |value: Value| json!({"spec": {"automountServiceAccountToken": value}});
        let account = |value: Value| serde_json::from_value::<Account>(value).unwrap();
        let unwilling = account(json!({"automountServiceAccountToken": false}));
        assert!(wants_token(&says(json!(true)), &unwilling));
        assert!(!wants_token(&json!({"spec": {}}), &unwilling));
        assert!(wants_token(&json!({"spec": {}}), &account(json!({}))));
    }
}
