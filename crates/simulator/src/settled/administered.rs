//! What must hold in the end of what the administrator made.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admin::PART;
use crate::api::Api;
use crate::nodes::text;

/// What does not hold yet of an object.
pub(super) fn administered(api: &Api, collection: &str, object: &Value) -> Option<String> {
    let status = &object["status"];
    let has = |kind: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|one| one["type"] == kind && one["status"] == "True")
    };
    match collection {
        "rbac.authorization.k8s.io/clusterroles" => role(api, object),
        "admissionregistration.k8s.io/validatingadmissionpolicies" => {
            let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
            (!is_seen).then(|| "is not checked".to_owned())
        }
        "certificates.k8s.io/certificatesigningrequests" => {
            (!has("Approved")).then(|| "is not approved".to_owned())
        }
        "networking.k8s.io/servicecidrs" => (!has("Ready")).then(|| "is not ready".to_owned()),
        "/secrets" => secret(object),
        "resource.k8s.io/resourceclaims" => claim(api, object),
        _ => None,
    }
}

/// A Service without a selector: its slices mirror the endpoints that somebody wrote.
pub(super) fn plain(api: &Api, service: &Value) -> Option<String> {
    let (namespace, name) = (&service["metadata"]["namespace"], &service["metadata"]["name"]);
    let endpoints = api.get("/endpoints", text(namespace), text(name));
    let subsets = endpoints.and_then(|of| of["subsets"].as_array()).into_iter().flatten();
    let wanted: BTreeSet<&str> = subsets
        .flat_map(|subset| subset["addresses"].as_array().into_iter().flatten())
        .map(|address| text(&address["ip"]))
        .collect();
    let slices = api.all("discovery.k8s.io/endpointslices").filter(|slice| {
        let meta = &slice["metadata"];
        meta["namespace"] == *namespace && meta["labels"]["kubernetes.io/service-name"] == *name
    });
    let mirrored: Vec<&str> = slices
        .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
        .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
        .map(text)
        .collect();
    let is_same = mirrored.len() == wanted.len() && mirrored.iter().all(|one| wanted.contains(one));
    (!is_same).then(|| format!("slices have {mirrored:?} instead of {wanted:?}"))
}

/// One that is made of others has their rules.
fn role(api: &Api, role: &Value) -> Option<String> {
    if !role["aggregationRule"].is_object() {
        return None;
    }
    let verbs = |role: &Value| -> BTreeSet<String> {
        let rules = role["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| text(&rule["verbs"][0]).to_owned()).collect()
    };
    let parts = api.all("rbac.authorization.k8s.io/clusterroles");
    let parts = parts.filter(|one| one["metadata"]["labels"][PART] == "true");
    let wanted: BTreeSet<String> = parts.flat_map(verbs).collect();
    let present = verbs(role);
    (present != wanted).then(|| format!("has {present:?} instead of {wanted:?}"))
}

/// Tokens for those who join go in their time, those of accounts are signed.
fn secret(secret: &Value) -> Option<String> {
    match text(&secret["type"]) {
        "bootstrap.kubernetes.io/token" => Some("has to go".to_owned()),
        "kubernetes.io/service-account-token" => {
            secret["data"]["token"].is_null().then(|| "has no token".to_owned())
        }
        _ => None,
    }
}

/// Nobody has a claim for a pod that is not there.
fn claim(api: &Api, claim: &Value) -> Option<String> {
    let namespace = text(&claim["metadata"]["namespace"]);
    let mut users = claim["status"]["reservedFor"].as_array()?.iter();
    let lost = users.find(|user| {
        let pod = api.get("/pods", namespace, text(&user["name"]));
        pod.is_none_or(|pod| pod["metadata"]["uid"] != user["uid"])
    })?;
    Some(format!("is kept for {}, which is gone", lost["name"]))
}
