//! What happens to objects between the client and the store.

use meta::{GroupVersionKind, Reason, Status};
use serde_json::{Value, json};

use crate::storage::DEFAULT_CLASS;

use super::{Api, Asked, Target, failure};

/// Nothing is created where there is no namespace, or in one that goes.
pub(super) fn namespace_is_open(api: &Api, target: &Target) -> Result<(), Box<Status>> {
    if target.namespace.is_empty() {
        return Ok(());
    }
    let Some(namespace) = api.get("/namespaces", "", &target.namespace) else {
        let text = format!("namespaces {:?} not found", target.namespace);
        return Err(failure(Reason::NotFound, text));
    };
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let text = "unable to create new content in namespace because it is being terminated";
    let mut status = Status::failure(Reason::Forbidden, text);
    let details = json!({ "causes": [{ "reason": "NamespaceTerminating", "message": text,
        "field": "metadata.namespace" }] });
    status.details = serde_json::from_value(details).ok();
    Err(Box::new(status))
}

/// What strategies and admission plugins put into new objects.
pub(super) fn prepare(
    api: &Api,
    gvk: &GroupVersionKind,
    target: &Target,
    object: &mut Value,
) -> Result<(), Box<Status>> {
    match gvk.kind.as_str() {
        "Namespace" => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"]["phase"] = "Active".into();
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        "Pod" => pod(api, target, object)?,
        "Job" => job(object),
        "PersistentVolumeClaim" => {
            object["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
            object["status"]["phase"] = "Pending".into();
            let class = &mut object["spec"]["storageClassName"];
            if class.is_null() {
                *class = DEFAULT_CLASS.into();
            }
        }
        "PersistentVolume" => {
            let finalizers = object["metadata"]["finalizers"].as_array().cloned();
            let mut finalizers = finalizers.unwrap_or_default();
            finalizers.push("kubernetes.io/pv-protection".into());
            object["metadata"]["finalizers"] = finalizers.into();
            object["status"]["phase"] = "Pending".into();
        }
        "Service" => {
            // Never given twice: uids are counted.
            let number = api.uids;
            let address = format!("10.43.{}.{}", number / 250 % 250, number % 250 + 1);
            if object["spec"]["clusterIP"].is_null() {
                object["spec"]["clusterIP"] = address.as_str().into();
                object["spec"]["clusterIPs"] = json!([address]);
                object["spec"]["ipFamilies"] = json!(["IPv4"]);
                object["spec"]["ipFamilyPolicy"] = "SingleStack".into();
            }
        }
        _ => {}
    }
    Ok(())
}

fn pod(api: &Api, target: &Target, pod: &mut Value) -> Result<(), Box<Status>> {
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
    if api.get("/serviceaccounts", &target.namespace, &account).is_none() {
        let text = format!("error looking up service account {}/{account}", target.namespace);
        return Err(failure(Reason::Forbidden, text));
    }
    pod["spec"]["serviceAccountName"] = account.into();
    pod["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
    let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let mut tolerations = tolerations;
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let has = |one: &Value| one["key"] == key && one["effect"] != "NoSchedule";
        if !tolerations.iter().any(has) {
            tolerations.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300 }));
        }
    }
    pod["spec"]["tolerations"] = tolerations.into();
    Ok(())
}

fn job(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let uid = job["metadata"]["uid"].clone();
    let name = job["metadata"]["name"].clone();
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels[key] = value.clone();
    }
    job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid;
}

/// Counts a new object in the quotas that limit its kind, or refuses it.
pub(super) fn charge(
    api: &mut Api,
    asked: Asked<'_>,
    gvk: &GroupVersionKind,
    object: &Value,
) -> Result<(), Box<Status>> {
    if gvk.kind != "Pod" {
        return Ok(());
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let quotas: Vec<Value> = api
        .all("/resourcequotas")
        .filter(|quota| quota["metadata"]["namespace"] == *namespace)
        .cloned()
        .collect();
    for quota in &quotas {
        let hard = number(&quota["status"]["hard"]["pods"]);
        let used = number(&quota["status"]["used"]["pods"]);
        let (Some(hard), Some(used)) = (hard, used) else {
            let name = &quota["metadata"]["name"];
            let text = format!("status unknown for quota: {name}, resources: pods");
            return Err(failure(Reason::Forbidden, text));
        };
        if used + 1 > hard {
            let text = format!("exceeded quota: requested: pods=1, used: {used}, limited: {hard}");
            return Err(failure(Reason::Forbidden, text));
        }
    }
    for quota in quotas {
        let mut next = quota.clone();
        let used = number(&quota["status"]["used"]["pods"]).unwrap_or(0) + 1;
        next["status"]["used"]["pods"] = used.to_string().into();
        let name = quota["metadata"]["name"].as_str().unwrap_or_default();
        let target =
            Target::parse(&format!("/api/v1/namespaces/{namespace}/resourcequotas/{name}"));
        api.settle(Asked { by: "apiserver", ..asked }, &target, &quota, next);
    }
    Ok(())
}

/// A quantity that is a number of things.
pub(crate) fn number(text: &Value) -> Option<i64> {
    text.as_str()?.parse::<meta::Quantity>().ok().map(|quantity| quantity.value())
}
