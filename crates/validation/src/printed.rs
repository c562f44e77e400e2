//! How upstream prints its internal structs in findings: all fields, under Go's names.
//!
//! Findings about whole structs quote the internal form and not the one of the API. It has no JSON
//! tags, so what is unset is printed too, and a few structs have another order. Types of `meta` have
//! tags in both forms.

use schema::{Field, Kind, Type};
use serde_json::{Map, Value};

/// JSON with the order of its members.
enum Shown {
    Scalar(String),
    List(Vec<Shown>),
    Struct(Vec<(String, Shown)>),
}

/// A value of a type, such as `core/v1.Taint`, as upstream prints its internal form.
pub fn compact(path: &str, value: &Value) -> String {
    let mut out = String::new();
    write_compact(&of_path(path, value), &mut out);
    out
}

/// A value of the type with one space for each level, as the sides of a diff are.
pub(crate) fn indented(path: &str, value: &Value) -> String {
    let mut out = String::new();
    write_indented(&of_path(path, value), 0, &mut out);
    out
}

/// Lists are lists of the type.
fn of_path(path: &str, value: &Value) -> Shown {
    let table = match path {
        "core/v1.PersistentVolumeSource" => "core/v1.PersistentVolumeSpec",
        other => other,
    };
    let Some(ty) = schema::registry().type_named(table) else {
        return untyped(value);
    };
    match value {
        Value::Null => null(),
        Value::Array(items) => Shown::List(items.iter().map(|item| of_path(path, item)).collect()),
        Value::Object(map) => Shown::Struct(members(path, ty, map)),
        other => untyped(other),
    }
}

fn null() -> Shown {
    Shown::Scalar("null".to_owned())
}

fn members(path: &str, ty: &Type, map: &Map<String, Value>) -> Vec<(String, Shown)> {
    if path.starts_with("meta/") {
        return tagged(ty, map);
    }
    let order = LAYOUTS.iter().find(|(of, _)| *of == path).map(|(_, order)| *order);
    let mut out = Vec::new();
    let mut add = |field: &Field| {
        if let ("metadata", Kind::Struct(reference)) = (&*field.name, &field.kind) {
            // Go embeds it, which puts its members among those around it.
            let empty = Map::new();
            let inner = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
            out.extend(tagged(reference.get(), inner));
            return;
        }
        let value = map.get(&*field.name);
        let shown = if path == "core/v1.PodSpec" && field.name == "securityContext" {
            pod_security_context(map)
        } else {
            member(field, value)
        };
        out.push((go_name(ty.name(), &field.name), shown));
    };
    match order {
        Some(order) => order.iter().filter_map(|name| ty.field(name)).for_each(&mut add),
        None => ty.fields().iter().for_each(&mut add),
    }
    out
}

/// The internal form keeps what a pod shares with its host here, and always has one.
fn pod_security_context(spec: &Map<String, Value>) -> Shown {
    const MOVED: [(&str, &str); 5] = [
        ("hostNetwork", "false"),
        ("hostPID", "false"),
        ("hostIPC", "false"),
        ("shareProcessNamespace", "null"),
        ("hostUsers", "null"),
    ];
    let mut out: Vec<(String, Shown)> = Vec::new();
    for (name, unset) in MOVED {
        let value = spec.get(name).map_or_else(|| unset.to_owned(), Value::to_string);
        out.push((go_name("", name), Shown::Scalar(value)));
    }
    let path = "core/v1.PodSecurityContext";
    let empty = Map::new();
    let own = spec.get("securityContext").and_then(Value::as_object).unwrap_or(&empty);
    if let Some(ty) = schema::registry().type_named(path) {
        out.extend(members(path, ty, own));
    }
    Shown::Struct(out)
}

fn member(field: &Field, value: Option<&Value>) -> Shown {
    match value {
        None | Some(Value::Null) if field.pointer => null(),
        None | Some(Value::Null) => zero(&field.kind),
        Some(value) => of_kind(&field.kind, value),
    }
}

/// What Go prints for a value that was never set.
fn zero(kind: &Kind) -> Shown {
    let text = match kind {
        Kind::String => "\"\"",
        Kind::Bool => "false",
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => "0",
        Kind::Quantity => "\"0\"",
        Kind::Duration => "\"0s\"",
        Kind::Struct(reference) => {
            let ty = reference.get();
            return Shown::Struct(members(&ty.path, ty, &Map::new()));
        }
        _ => "null",
    };
    Shown::Scalar(text.to_owned())
}

fn of_kind(kind: &Kind, value: &Value) -> Shown {
    let one = |name: &str, shown| (name.to_owned(), shown);
    match (kind, value) {
        (Kind::Struct(reference), Value::Object(map)) => {
            let ty = reference.get();
            Shown::Struct(members(&ty.path, ty, map))
        }
        (Kind::List(of), Value::Array(items)) => {
            Shown::List(items.iter().map(|item| of_kind(of, item)).collect())
        }
        (Kind::Map(of), Value::Object(map)) => {
            Shown::Struct(map.iter().map(|(key, value)| one(key, of_kind(of, value))).collect())
        }
        (Kind::SchemaOrBool(_), Value::Bool(allows)) => Shown::Struct(vec![
            one("Allows", Shown::Scalar(allows.to_string())),
            one("Schema", null()),
        ]),
        (Kind::SchemaOrBool(reference), value) => Shown::Struct(vec![
            one("Allows", Shown::Scalar("true".to_owned())),
            one("Schema", of_path(&reference.get().path, value)),
        ]),
        (Kind::SchemaOrArray(reference), value) => {
            let shown = of_path(&reference.get().path, value);
            let (schema, list) = if value.is_array() { (null(), shown) } else { (shown, null()) };
            Shown::Struct(vec![one("Schema", schema), one("JSONSchemas", list)])
        }
        (Kind::SchemaOrStrings(reference), value) => {
            let (schema, list) = if value.is_array() {
                (null(), untyped(value))
            } else {
                (of_path(&reference.get().path, value), null())
            };
            Shown::Struct(vec![one("Schema", schema), one("Property", list)])
        }
        // Kept as the text of its JSON.
        (Kind::FieldsV1, Value::String(text)) => Shown::Scalar(text.clone()),
        (_, value) => untyped(value),
    }
}

/// A type that keeps its tags: what is empty is left out where the tags say so.
fn tagged(ty: &Type, map: &Map<String, Value>) -> Vec<(String, Shown)> {
    let mut out = Vec::new();
    for field in ty.fields() {
        let value = map.get(&*field.name);
        if value.is_none() && (field.omit_empty || field.omit_zero) {
            continue;
        }
        out.push((field.name.to_string(), member(field, value)));
    }
    out
}

fn untyped(value: &Value) -> Shown {
    match value {
        Value::Array(items) => Shown::List(items.iter().map(untyped).collect()),
        Value::Object(map) => {
            Shown::Struct(map.iter().map(|(key, value)| (key.clone(), untyped(value))).collect())
        }
        other => {
            let mut out = Vec::new();
            schema::encode_untyped(other, &mut out);
            Shown::Scalar(String::from_utf8_lossy(&out).into_owned())
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    schema::go_escape(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn write_compact(shown: &Shown, out: &mut String) {
    match shown {
        Shown::Scalar(text) => out.push_str(text),
        Shown::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_compact(item, out);
            }
            out.push(']');
        }
        Shown::Struct(members) => {
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(name));
                out.push(':');
                write_compact(value, out);
            }
            out.push('}');
        }
    }
}

fn write_indented(shown: &Shown, depth: usize, out: &mut String) {
    let line = |out: &mut String, at: usize, depth: usize| {
        out.push_str(if at > 0 { ",\n" } else { "\n" });
        out.extend(std::iter::repeat_n(' ', depth));
    };
    match shown {
        Shown::Scalar(text) => out.push_str(text),
        Shown::List(items) if items.is_empty() => out.push_str("[]"),
        Shown::Struct(members) if members.is_empty() => out.push_str("{}"),
        Shown::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                line(out, at, depth + 1);
                write_indented(item, depth + 1, out);
            }
            line(out, 0, depth);
            out.push(']');
        }
        Shown::Struct(members) => {
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                line(out, at, depth + 1);
                out.push_str(&quoted(name));
                out.push_str(": ");
                write_indented(value, depth + 1, out);
            }
            line(out, 0, depth);
            out.push('}');
        }
    }
}

/// Go's name of a field: the first letter is large, except where Go writes an initialism or has a
/// name of its own.
fn go_name(ty: &str, json: &str) -> String {
    let own = OWN_NAMES.iter().find(|(of, name, _)| *of == ty && *name == json);
    if let Some((_, _, go)) = own {
        return (*go).to_owned();
    }
    if let Some((_, go)) = INITIALISMS.iter().find(|(name, _)| *name == json) {
        return (*go).to_owned();
    }
    if let Some(rest) = json.strip_prefix("x-kubernetes-") {
        let words = rest.split('-').map(capitalized);
        return format!("X{}", words.collect::<String>());
    }
    capitalized(json.trim_start_matches('$'))
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Names that one type has for itself.
const OWN_NAMES: [(&str, &str, &str); 22] = [
    ("DeviceAttribute", "bool", "BoolValue"),
    ("DeviceAttribute", "bools", "BoolValues"),
    ("DeviceAttribute", "int", "IntValue"),
    ("DeviceAttribute", "ints", "IntValues"),
    ("DeviceAttribute", "string", "StringValue"),
    ("DeviceAttribute", "strings", "StringValues"),
    ("DeviceAttribute", "version", "VersionValue"),
    ("DeviceAttribute", "versions", "VersionValues"),
    ("GlusterfsVolumeSource", "endpoints", "EndpointsName"),
    ("GlusterfsPersistentVolumeSource", "endpoints", "EndpointsName"),
    ("RBDVolumeSource", "image", "RBDImage"),
    ("RBDVolumeSource", "monitors", "CephMonitors"),
    ("RBDVolumeSource", "pool", "RBDPool"),
    ("RBDVolumeSource", "user", "RadosUser"),
    ("RBDPersistentVolumeSource", "image", "RBDImage"),
    ("RBDPersistentVolumeSource", "monitors", "CephMonitors"),
    ("RBDPersistentVolumeSource", "pool", "RBDPool"),
    ("RBDPersistentVolumeSource", "user", "RadosUser"),
    ("AzureDiskVolumeSource", "diskURI", "DataDiskURI"),
    ("ISCSIVolumeSource", "chapAuthDiscovery", "DiscoveryCHAPAuth"),
    ("ISCSIVolumeSource", "chapAuthSession", "SessionCHAPAuth"),
    ("JSONSchemaProps", "$schema", "Schema"),
];

/// Words that Go writes in capitals.
const INITIALISMS: [(&str, &str); 53] = [
    ("apiGroup", "APIGroup"),
    ("apiGroups", "APIGroups"),
    ("apiVersion", "APIVersion"),
    ("apiVersions", "APIVersions"),
    ("awsElasticBlockStore", "AWSElasticBlockStore"),
    ("caBundle", "CABundle"),
    ("cel", "CEL"),
    ("cephfs", "CephFS"),
    ("cidr", "CIDR"),
    ("cidrs", "CIDRs"),
    ("csi", "CSI"),
    ("dnsConfig", "DNSConfig"),
    ("dnsPolicy", "DNSPolicy"),
    ("fc", "FC"),
    ("fsGroup", "FSGroup"),
    ("fsGroupChangePolicy", "FSGroupChangePolicy"),
    ("fsGroupPolicy", "FSGroupPolicy"),
    ("fsType", "FSType"),
    ("gcePersistentDisk", "GCEPersistentDisk"),
    ("gmsaCredentialSpec", "GMSACredentialSpec"),
    ("gmsaCredentialSpecName", "GMSACredentialSpecName"),
    ("grpc", "GRPC"),
    ("http", "HTTP"),
    ("httpGet", "HTTPGet"),
    ("httpHeaders", "HTTPHeaders"),
    ("id", "ID"),
    ("ip", "IP"),
    ("ipBlock", "IPBlock"),
    ("ipFamilies", "IPFamilies"),
    ("ipFamilyPolicy", "IPFamilyPolicy"),
    ("ipMode", "IPMode"),
    ("ips", "IPs"),
    ("iqn", "IQN"),
    ("iscsi", "ISCSI"),
    ("iscsiInterface", "ISCSIInterface"),
    ("jsonPatch", "JSONPatch"),
    ("jsonPath", "JSONPath"),
    ("nfs", "NFS"),
    ("os", "OS"),
    ("pdName", "PDName"),
    ("qosClass", "QOSClass"),
    ("rbd", "RBD"),
    ("seLinuxChangePolicy", "SELinuxChangePolicy"),
    ("seLinuxMount", "SELinuxMount"),
    ("seLinuxOptions", "SELinuxOptions"),
    ("sslEnabled", "SSLEnabled"),
    ("storageos", "StorageOS"),
    ("tcpSocket", "TCPSocket"),
    ("tls", "TLS"),
    ("tty", "TTY"),
    ("uid", "UID"),
    ("url", "URL"),
    ("wwids", "WWIDs"),
];

/// Structs whose internal order is not that of the API.
const LAYOUTS: [(&str, &[&str]); 5] = [
    (
        "core/v1.PodSpec",
        &[
            "volumes",
            "initContainers",
            "containers",
            "ephemeralContainers",
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "activeDeadlineSeconds",
            "dnsPolicy",
            "nodeSelector",
            "serviceAccountName",
            "automountServiceAccountToken",
            "nodeName",
            "securityContext",
            "imagePullSecrets",
            "hostname",
            "subdomain",
            "setHostnameAsFQDN",
            "affinity",
            "schedulerName",
            "tolerations",
            "hostAliases",
            "priorityClassName",
            "priority",
            "preemptionPolicy",
            "dnsConfig",
            "readinessGates",
            "runtimeClassName",
            "overhead",
            "enableServiceLinks",
            "topologySpreadConstraints",
            "os",
            "schedulingGates",
            "resourceClaims",
            "resources",
            "hostnameOverride",
            "schedulingGroup",
        ],
    ),
    (
        "core/v1.PodSecurityContext",
        &[
            "seLinuxOptions",
            "windowsOptions",
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "fsGroup",
            "fsGroupChangePolicy",
            "sysctls",
            "seccompProfile",
            "appArmorProfile",
            "seLinuxChangePolicy",
        ],
    ),
    (
        "core/v1.Volume",
        &[
            "name",
            "hostPath",
            "emptyDir",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "gitRepo",
            "secret",
            "nfs",
            "iscsi",
            "glusterfs",
            "persistentVolumeClaim",
            "rbd",
            "quobyte",
            "flexVolume",
            "cinder",
            "cephfs",
            "flocker",
            "downwardAPI",
            "fc",
            "azureFile",
            "configMap",
            "vsphereVolume",
            "azureDisk",
            "photonPersistentDisk",
            "projected",
            "portworxVolume",
            "scaleIO",
            "storageos",
            "csi",
            "ephemeral",
            "image",
        ],
    ),
    (
        "core/v1.PersistentVolumeSource",
        &[
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "hostPath",
            "glusterfs",
            "nfs",
            "rbd",
            "quobyte",
            "iscsi",
            "flexVolume",
            "cinder",
            "cephfs",
            "fc",
            "flocker",
            "azureFile",
            "vsphereVolume",
            "azureDisk",
            "photonPersistentDisk",
            "portworxVolume",
            "scaleIO",
            "local",
            "storageos",
            "csi",
        ],
    ),
    (
        "apiextensions/v1.JSONSchemaProps",
        &[
            "id",
            "$schema",
            "$ref",
            "description",
            "type",
            "nullable",
            "format",
            "title",
            "default",
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
            "multipleOf",
            "enum",
            "maxProperties",
            "minProperties",
            "required",
            "items",
            "allOf",
            "oneOf",
            "anyOf",
            "not",
            "properties",
            "additionalProperties",
            "patternProperties",
            "dependencies",
            "additionalItems",
            "definitions",
            "externalDocs",
            "example",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-map-type",
            "x-kubernetes-validations",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unset_members_are_printed() {
        let taint = json!({"key": "k", "effect": "NoSchedule"});
        assert_eq!(
            compact("core/v1.Taint", &taint),
            r#"{"Key":"k","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
        let port = json!({"port": 1, "protocol": "TCP"});
        assert_eq!(
            compact("core/v1.ServicePort", &json!([port])),
            r#"[{"Name":"","Protocol":"TCP","AppProtocol":null,"Port":1,"TargetPort":0,"NodePort":0}]"#
        );
    }

    #[test]
    fn a_pod_always_has_a_security_context_with_what_it_shares() {
        let spec = json!({"hostNetwork": true, "securityContext": {"fsGroup": 1}});
        let shown = compact("core/v1.PodSpec", &spec);
        let expected = "\"SecurityContext\":{\"HostNetwork\":true,\"HostPID\":false,\
            \"HostIPC\":false,\"ShareProcessNamespace\":null,\"HostUsers\":null,\
            \"SELinuxOptions\":null,";
        assert!(shown.contains(expected), "{shown}");
        assert!(shown.starts_with("{\"Volumes\":null,\"InitContainers\":null,"), "{shown}");
    }

    #[test]
    fn metadata_is_embedded_and_selectors_keep_their_tags() {
        let template = json!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(
            compact("resource/v1.ResourceClaimTemplateSpec", &template),
            r#"{"labels":{"a":"b"},"Spec":{"Devices":{"Requests":null,"Constraints":null,"Config":null}}}"#
        );
        let claim = json!({"selector": {"matchLabels": {"a": "b"}}});
        let shown = indented("core/v1.PersistentVolumeClaimSpec", &claim);
        let expected = "{\n \"AccessModes\": null,\n \"Selector\": {\n  \"matchLabels\": {\n   \
            \"a\": \"b\"\n  }\n },\n";
        assert!(shown.starts_with(expected), "{shown}");
    }
}
