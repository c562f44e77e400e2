//! From the text of a manifest to the pod that runs.

use std::fmt;
use std::path::Path;

use api::Typed;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use meta::GroupVersionKind;
use schema::FieldValidation;
use serde_json::{Value, json};

/// The pod's uid, by which its mirror pod knows it.
pub(super) const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";
/// When the file was read.
pub(super) const SEEN: &str = "kubernetes.io/config.seen";
const UID_LEN_MAX: usize = 128;

/// Why a manifest is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("couldn't parse as pod({0}), please check config file")]
    Decode(String),
    #[error("invalid pod: {0}")]
    Invalid(String),
    #[error("static pods may not reference {0}")]
    Reference(&'static str),
}

/// Where a manifest comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    File(&'a Path),
    Url(&'a str),
}

impl Origin<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Url(_) => "http",
        }
    }

    /// What of it is part of a pod's uid.
    fn identity(self, node_name: &str) -> String {
        match self {
            Self::File(path) => format!("host:{node_name}file:{}", path.display()),
            Self::Url(url) => format!("url:{url}"),
        }
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// The pod of a manifest, as the node `node_name` runs it.
pub(super) fn read(
    bytes: &[u8],
    origin: Origin<'_>,
    node_name: &str,
    now: Timestamp,
) -> Result<Pod, ManifestError> {
    let pod = decode("Pod", bytes)?;
    expect_kind(&pod, "Pod")?;
    finish(pod, origin, node_name, now)
}

/// The pods of a manifest that may be a list of them.
pub(super) fn read_all(
    bytes: &[u8],
    origin: Origin<'_>,
    node_name: &str,
    now: Timestamp,
) -> Result<Vec<Pod>, ManifestError> {
    if !decode("PodList", bytes).is_ok_and(|list| text(&list["kind"]) == "PodList") {
        return Ok(vec![read(bytes, origin, node_name, now)?]);
    }
    let mut list = decode("PodList", bytes)?;
    expect_kind(&list, "PodList")?;
    let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    items.into_iter().map(|pod| finish(pod, origin, node_name, now)).collect()
}

fn decode(kind: &str, bytes: &[u8]) -> Result<Value, ManifestError> {
    let failed = |error: String| ManifestError::Decode(error);
    let gvk = GroupVersionKind::new("", "v1", kind);
    let ty = schema::registry().kind(&gvk).ok_or_else(|| failed("no such kind".to_owned()))?;
    let decoded = schema::decode_yaml(ty, bytes, FieldValidation::Ignore);
    Ok(decoded.map_err(|error| failed(error.to_string()))?.value)
}

fn expect_kind(object: &Value, wanted: &str) -> Result<(), ManifestError> {
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    if (version, kind) == ("v1", wanted) {
        return Ok(());
    }
    let why = format!("no kind {kind:?} is registered for version {version:?}");
    Err(ManifestError::Decode(why))
}

fn finish(
    mut pod: Value,
    origin: Origin<'_>,
    node_name: &str,
    now: Timestamp,
) -> Result<Pod, ManifestError> {
    let gvk = GroupVersionKind::new("", "v1", "Pod");
    if text(&pod["metadata"]["name"]).is_empty() {
        return Err(ManifestError::Invalid("name is needed for the pod".to_owned()));
    }
    schema::apply_defaults(&gvk, &mut pod);
    complete(&mut pod, origin, node_name, now)?;
    let findings = validation::validate_create(&gvk, &pod);
    if !findings.is_empty() {
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(ManifestError::Invalid(format!("[{}]", findings.join(", "))));
    }
    if let Some(what) = reference(&pod["spec"]) {
        return Err(ManifestError::Reference(what));
    }
    let read = Pod::from_json(pod.to_string().as_bytes());
    read.map_err(|error| ManifestError::Decode(error.to_string()))
}

fn complete(
    pod: &mut Value,
    origin: Origin<'_>,
    node_name: &str,
    now: Timestamp,
) -> Result<(), ManifestError> {
    let mut uid = text(&pod["metadata"]["uid"]).to_owned();
    if uid.is_empty() {
        uid = hash(format!("{pod}{}", origin.identity(node_name)).as_bytes());
    }
    // It becomes the name of a directory.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uid.len() > UID_LEN_MAX || !uid.bytes().all(is_plain) {
        return Err(ManifestError::Invalid(format!("uid {uid:?} is not one")));
    }
    let name = format!("{}-{}", text(&pod["metadata"]["name"]), node_name.to_lowercase());
    let metadata = &mut pod["metadata"];
    metadata["name"] = name.into();
    if text(&metadata["namespace"]).is_empty() {
        metadata["namespace"] = "default".into();
    }
    metadata["uid"] = uid.as_str().into();
    metadata["annotations"][HASH] = uid.into();
    metadata["annotations"][SOURCE] = origin.name().into();
    metadata["annotations"][SEEN] = now.to_string().into();
    pod["spec"]["nodeName"] = node_name.into();
    // What is wrong with the node does not end the pod.
    let toleration = json!({ "operator": "Exists", "effect": "NoExecute" });
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(list) if list.contains(&toleration) => {}
        Some(list) => list.push(toleration),
        None => pod["spec"]["tolerations"] = json!([toleration]),
    }
    pod["status"] = json!({ "phase": "Pending" });
    Ok(())
}

/// FNV-1a, 128 bits.
pub(super) fn hash(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    let hash =
        bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// The first object of the API that the pod refers to, which may not be there when it starts.
fn reference(spec: &Value) -> Option<&'static str> {
    if !text(&spec["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    let containers = || items(&spec["initContainers"]).chain(items(&spec["containers"]));
    let from = |whole: &str, key: &str| {
        containers().any(|container| {
            items(&container["envFrom"]).any(|from| from.get(whole).is_some())
                || items(&container["env"]).any(|env| env["valueFrom"].get(key).is_some())
        })
    };
    let volumes = || items(&spec["volumes"]);
    let in_volumes = |kind: &str| volumes().any(|volume| volume.get(kind).is_some());
    let projected = |kind: &str| {
        volumes().flat_map(|v| items(&v["projected"]["sources"])).any(|s| s.get(kind).is_some())
    };
    let has_items = |list: &str| items(&spec[list]).next().is_some();
    let names_secret = || volumes().any(names_secret);
    let found: [(bool, &'static str); 14] = [
        (
            has_items("imagePullSecrets") || from("secretRef", "secretKeyRef") || names_secret(),
            "secrets",
        ),
        (in_volumes("secret"), "secrets (via secret volumes)"),
        (projected("secret"), "secrets (via projected volumes)"),
        (from("configMapRef", "configMapKeyRef"), "configmaps"),
        (in_volumes("configMap"), "configmaps (via configmap volumes)"),
        (projected("configMap"), "configmaps (via projected volumes)"),
        (has_items("resourceClaims"), "resourceclaims"),
        (in_volumes("csi"), "csidrivers (via CSI volumes)"),
        (in_volumes("glusterfs"), "endpoints (via glusterFS volumes)"),
        (in_volumes("persistentVolumeClaim"), "persistentvolumeclaims"),
        (in_volumes("ephemeral"), "persistentvolumeclaims (via ephemeral volumes)"),
        (projected("serviceAccountToken"), "serviceaccounts (via projected volumes)"),
        (projected("clusterTrustBundle"), "clustertrustbundles"),
        (projected("podCertificate"), "podcertificates"),
    ];
    found.into_iter().find_map(|(is_there, what)| is_there.then_some(what))
}

/// Whether the source of a volume, or the volume of a driver, has a secret of its own.
fn names_secret(volume: &Value) -> bool {
    let mut sources = volume.as_object().into_iter().flat_map(|fields| fields.values());
    sources.any(|source| {
        ["secretRef", "nodePublishSecretRef"].iter().any(|field| source.get(field).is_some())
            || volume.get("azureFile").is_some()
    })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(extra: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: \
             [{{name: c, image: x}}]\n{extra}"
        )
    }

    fn pod(text: &str) -> Result<Pod, String> {
        read(text.as_bytes(), Origin::File(Path::new("/m/web.yaml")), "node", Timestamp::UNIX_EPOCH)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_the_node() {
        let made = pod(&manifest("")).unwrap().to_tree().unwrap();
        let metadata = &made["metadata"];
        assert_eq!(
            (&metadata["name"], &metadata["namespace"]),
            (&json!("web-node"), &json!("default"))
        );
        assert_eq!(made["spec"]["nodeName"], "node");
        assert_eq!(
            made["spec"]["tolerations"],
            json!([{ "operator": "Exists", "effect": "NoExecute" }])
        );
        assert_eq!(made["spec"]["restartPolicy"], "Always", "defaults are given");
        let annotations = &metadata["annotations"];
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations["kubernetes.io/config.seen"], "1970-01-01T00:00:00Z");
        assert_eq!(annotations["kubernetes.io/config.hash"], metadata["uid"]);
        assert_eq!(metadata["uid"].as_str().unwrap().len(), 32);
    }

    #[test]
    fn host_file_and_content_make_the_uid() {
        let uid = |text: &str, file: &str, node: &str| {
            let now = Timestamp::UNIX_EPOCH;
            read(text.as_bytes(), Origin::File(Path::new(file)), node, now)
                .unwrap()
                .metadata
                .uid
                .unwrap()
        };
        let first = uid(&manifest(""), "/a", "n");
        assert_eq!(uid(&manifest("# a word\n"), "/a", "n"), first);
        assert_ne!(uid(&manifest("  hostNetwork: true\n"), "/a", "n"), first);
        assert_ne!(uid(&manifest(""), "/b", "n"), first);
        assert_ne!(uid(&manifest(""), "/a", "m"), first);
        let own = manifest("").replace("{name: web}", "{name: web, uid: mine-1}");
        assert_eq!(uid(&own, "/a", "n"), "mine-1");
        assert!(pod(&own.replace("mine-1", "../../etc")).is_err());
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for (text, why) in [
            ("a: [", "couldn't parse as pod("),
            ("apiVersion: v1\nkind: Service\n", "couldn't parse as pod("),
            ("apiVersion: v1\nkind: Pod\n", "invalid pod: name is needed for the pod"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
                "invalid pod: [spec.containers: Required value",
            ),
            (
                &manifest("  ephemeralContainers: [{name: e, image: x}]\n"),
                "invalid pod: [spec.ephemeralContainers: Forbidden: cannot be set on create",
            ),
        ] {
            let error = pod(text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn references_to_objects_of_the_api_are_refused() {
        let volume = |source: &str| format!("  volumes: [{{name: v, {source}}}]\n");
        let projected = |source: &str| volume(&format!("projected: {{sources: [{{{source}}}]}}"));
        for (extra, what) in [
            ("  serviceAccountName: a\n".to_owned(), "serviceaccounts"),
            ("  imagePullSecrets: [{name: a}]\n".to_owned(), "secrets"),
            (
                "  initContainers: [{name: i, image: x, envFrom: [{secretRef: {name: a}}]}]\n"
                    .into(),
                "secrets",
            ),
            (
                "  initContainers: [{name: i, image: x, env: [{name: A, valueFrom: \
                 {configMapKeyRef: {name: a, key: k}}}]}]\n"
                    .into(),
                "configmaps",
            ),
            (volume("secret: {secretName: a}"), "secrets (via secret volumes)"),
            (volume("configMap: {name: a}"), "configmaps (via configmap volumes)"),
            (volume("persistentVolumeClaim: {claimName: a}"), "persistentvolumeclaims"),
            (projected("secret: {name: a}"), "secrets (via projected volumes)"),
            (projected("configMap: {name: a}"), "configmaps (via projected volumes)"),
            (
                projected("serviceAccountToken: {path: a, expirationSeconds: 3600}"),
                "serviceaccounts (via projected volumes)",
            ),
        ] {
            let error = pod(&manifest(&extra)).unwrap_err();
            assert_eq!(error, format!("static pods may not reference {what}"), "{extra}");
        }
        assert!(pod(&manifest(&volume("hostPath: {path: /a}"))).is_ok());
    }
}
