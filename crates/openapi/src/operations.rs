//! The paths of a resource, and the operations on them.

use meta::GroupVersionKind;
use schema::{Resource, Subresource};
use serde_json::{Map, Value, json};

use crate::Texts;
use crate::schemas::{Dialect, Schemas};

/// Media types of what is sent and answered.
const MEDIA: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCH_MEDIA: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Adds the paths of a resource and its subresources.
pub(crate) fn add_resource(root: &str, resource: &Resource, schemas: &Schemas, paths: &mut Texts) {
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", resource.name);
    let gvk = resource.gvk();
    let has = |verb: &str| resource.verbs.contains(&verb);
    let maker = Maker { schemas, gvk: gvk.clone(), namespaced: resource.namespaced };
    let list_kind = format!("{}List", resource.kind);
    let list = Maker {
        gvk: GroupVersionKind::new(&*resource.group, &*resource.version, list_kind),
        ..maker.clone()
    };
    let mut item = Map::new();
    if has("list") {
        item.insert("get".to_owned(), list.operation("list", &gvk, Body::None));
    }
    if has("create") {
        item.insert("post".to_owned(), maker.operation("post", &gvk, Body::Object));
    }
    if has("deletecollection") {
        item.insert("delete".to_owned(), maker.operation("deletecollection", &gvk, Body::Options));
    }
    add_path(paths, collection.clone(), item, &maker, false);
    if resource.namespaced && has("list") {
        let all = Maker { namespaced: false, ..list.clone() };
        let item = Map::from_iter([("get".to_owned(), all.operation("list", &gvk, Body::None))]);
        add_path(paths, format!("{root}/{}", resource.name), item, &all, false);
    }
    let item = maker.named(&resource.verbs, &gvk);
    add_path(paths, format!("{collection}/{{name}}"), item, &maker, true);
    for sub in &resource.subresources {
        add_subresource(&collection, sub, &maker, paths);
    }
}

fn add_subresource(collection: &str, sub: &Subresource, maker: &Maker<'_>, paths: &mut Texts) {
    let gvk = GroupVersionKind::new(&*sub.group, &*sub.version, &*sub.kind);
    let maker = Maker { gvk: gvk.clone(), ..maker.clone() };
    let mut item = maker.named(&sub.verbs, &gvk);
    if sub.verbs.contains(&"create") {
        item.insert("post".to_owned(), maker.operation("post", &gvk, Body::Object));
    }
    add_path(paths, format!("{collection}/{{name}}/{}", sub.name), item, &maker, true);
}

fn add_path(
    paths: &mut Texts,
    path: String,
    mut item: Map<String, Value>,
    maker: &Maker<'_>,
    named: bool,
) {
    if item.is_empty() {
        return;
    }
    let mut parameters = Vec::new();
    if named {
        parameters.push(maker.parameter("name", "path", "string"));
    }
    if path.contains("{namespace}") {
        parameters.push(maker.parameter("namespace", "path", "string"));
    }
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(parameters));
    }
    paths.insert(path, Value::Object(item).to_string());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Object,
    Options,
    Patch,
}

#[derive(Clone)]
struct Maker<'a> {
    schemas: &'a Schemas,
    /// The kind that is answered.
    gvk: GroupVersionKind,
    namespaced: bool,
}

impl Maker<'_> {
    /// Operations on one object.
    fn named(&self, verbs: &[&str], gvk: &GroupVersionKind) -> Map<String, Value> {
        let table = [
            ("get", "get", Body::None),
            ("update", "put", Body::Object),
            ("patch", "patch", Body::Patch),
            ("delete", "delete", Body::Options),
        ];
        let offered = table.into_iter().filter(|(verb, ..)| verbs.contains(verb));
        offered
            .map(|(_, method, body)| (method.to_owned(), self.operation(method, gvk, body)))
            .collect()
    }

    fn operation(&self, action: &str, gvk: &GroupVersionKind, body: Body) -> Value {
        let mut parameters: Vec<Value> =
            query(action).iter().map(|(name, kind)| self.parameter(name, "query", kind)).collect();
        let answer = if body == Body::Options {
            GroupVersionKind::new("meta.k8s.io", "v1", "Status")
        } else {
            self.gvk.clone()
        };
        let content = |schema: Option<Value>, media: &[&str]| {
            let schema = json!({"schema": schema.unwrap_or_else(|| json!({"type": "object"}))});
            media.iter().map(|media| ((*media).to_owned(), schema.clone())).collect::<Map<_, _>>()
        };
        let answer = self.schemas.kind_reference(&answer);
        let sent = match body {
            Body::None => None,
            Body::Object => self.schemas.kind_reference(&self.gvk),
            Body::Options => {
                let options = GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions");
                self.schemas.kind_reference(&options)
            }
            Body::Patch => Some(json!({"type": "object"})),
        };
        // Custom resources have no protobuf, and no strategic merge patch: the last of each.
        let is_custom = self.schemas.is_custom(gvk);
        let kinds_of = |all: &'static [&'static str]| match is_custom {
            true => &all[..all.len() - 1],
            false => all,
        };
        let answers = kinds_of(&MEDIA);
        let media = if body == Body::Patch { kinds_of(&PATCH_MEDIA) } else { answers };
        let mut operation = json!({
            "description": describe(action, gvk),
            "operationId": self.operation_id(action, gvk),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind":
                {"group": gvk.group, "version": gvk.version, "kind": gvk.kind},
        });
        if self.schemas.dialect() == Dialect::V3 {
            if let Some(sent) = sent {
                operation["requestBody"] = json!({"content": content(Some(sent), media), "required": body != Body::Options});
            }
            operation["responses"] = json!({
                "200": {"description": "OK", "content": content(answer, answers)},
                "401": {"description": "Unauthorized"},
            });
        } else {
            if let Some(sent) = sent {
                parameters.push(json!({"name": "body", "in": "body", "schema": sent,
                    "required": body != Body::Options}));
                operation["consumes"] = json!(media);
            }
            operation["produces"] = json!(answers);
            operation["schemes"] = json!(["https"]);
            operation["responses"] = json!({
                "200": {"description": "OK",
                    "schema": answer.unwrap_or_else(|| json!({"type": "object"}))},
                "401": {"description": "Unauthorized"},
            });
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        operation
    }

    fn parameter(&self, name: &str, place: &str, kind: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "uniqueItems": true});
        if place == "query" {
            let text = self.schemas.description(DELETE_OPTIONS, name);
            parameter["description"] = text.map_or_else(|| describe_parameter(name), Value::String);
        } else {
            parameter["description"] = match name {
                "name" => json!(format!("name of the {}", self.gvk.kind)),
                _ => json!("object name and auth scope, such as for teams and projects"),
            };
        }
        if place == "path" {
            parameter["required"] = json!(true);
        }
        if self.schemas.dialect() == Dialect::V3 {
            parameter["schema"] = json!({"type": kind, "uniqueItems": true});
            parameter.as_object_mut().map(|parameter| parameter.remove("uniqueItems"));
        } else {
            parameter["type"] = json!(kind);
        }
        parameter
    }

    /// Such as `listCoreV1NamespacedPod`.
    fn operation_id(&self, action: &str, gvk: &GroupVersionKind) -> String {
        let verb = match action {
            "post" => "create",
            "put" => "replace",
            "get" => "read",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        let capital = |text: &str| {
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(chars).collect::<String>()
        };
        let group = gvk.group.split('.').next().unwrap_or("");
        let group = if group.is_empty() { "Core".to_owned() } else { capital(group) };
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let all = if !self.namespaced && action == "list" { "ForAllNamespaces" } else { "" };
        let all = if self.gvk.kind.ends_with("List") { all } else { "" };
        format!("{verb}{group}{}{scope}{}{all}", capital(&gvk.version), gvk.kind)
    }
}

/// It has those of the parameters that are options of deletion.
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// What an operation does, in the words by which upstream makes these up from action and kind.
fn describe(action: &str, gvk: &GroupVersionKind) -> String {
    let kind = &gvk.kind;
    match action {
        "list" => format!("list or watch objects of kind {kind}"),
        "post" => format!("create {} {kind}", article(kind)),
        "get" => format!("read the specified {kind}"),
        "put" => format!("replace the specified {kind}"),
        "patch" => format!("partially update the specified {kind}"),
        "delete" => format!("delete {} {kind}", article(kind)),
        "deletecollection" => format!("delete collection of {kind}"),
        _ => String::new(),
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

/// The parameters of which the API's types say nothing, in our words.
fn describe_parameter(name: &str) -> Value {
    json!(match name {
        "pretty" => "Whether the answer is indented for people.",
        "allowWatchBookmarks" => "Whether the watch may send bookmarks.",
        "continue" => "Where the previous page of the list ended.",
        "fieldManager" => "The name under which the fields that are set are managed.",
        "fieldSelector" => "Which objects to answer with, by their fields.",
        "fieldValidation" => "What to do about unknown and repeated fields: Ignore, Warn, Strict.",
        "force" => "Whether to take fields over from other managers. Only for apply patches.",
        "labelSelector" => "Which objects to answer with, by their labels.",
        "limit" => "How many objects a page of the list has at most.",
        "resourceVersion" => "The version of the collection to answer from.",
        "resourceVersionMatch" => "How resourceVersion is meant: Exact or NotOlderThan.",
        "sendInitialEvents" => "Whether the watch begins with the objects that are there.",
        "timeoutSeconds" => "How long the list or the watch lasts at most.",
        "watch" => "Whether to answer with changes instead of a list.",
        _ => "",
    })
}

/// Query parameters of an action.
fn query(action: &str) -> &'static [(&'static str, &'static str)] {
    match action {
        "list" => &[
            ("pretty", "string"),
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        "post" | "put" => &[
            ("pretty", "string"),
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
        ],
        "patch" => &[
            ("pretty", "string"),
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        "delete" | "deletecollection" => &[
            ("pretty", "string"),
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        _ => &[("pretty", "string")],
    }
}
