//! Objects of custom resources between the version that is stored and the one that is asked for.
//!
//! Without a webhook that is a matter of the name, and done where objects are printed. With one the
//! objects of a list are sent together, one review for each version they are stored in.

use std::sync::Arc;

use bytes::Bytes;
use custom::Review;
use meta::{Object, Status};
use serde_json::Value;

use super::kind::{CustomKind, CustomVersion};
use crate::errors;
use crate::render;
use crate::resources::Resource;
use crate::server::Server;
use crate::webhook;

/// The objects in the version of the resource, when a webhook is needed for that; otherwise as they
/// are.
pub(crate) async fn presented(
    server: &Server,
    resource: &Resource,
    objects: Vec<Arc<Object>>,
) -> Result<Vec<Arc<Object>>, Status> {
    let Some(version) = resource.custom.as_ref().filter(|version| version.kind.hook.is_some())
    else {
        return Ok(objects);
    };
    let foreign = |object: &Object| !object.json().starts_with(version.head.as_bytes());
    let mut values = Vec::new();
    for object in objects.iter().filter(|object| foreign(object)) {
        values.push(object.decode::<Value>().map_err(errors::internal)?);
    }
    if values.is_empty() {
        return Ok(objects);
    }
    let mut converted = ask(server, version, values).await?.into_iter();
    let mut out = Vec::with_capacity(objects.len());
    for object in objects {
        match foreign(&object).then(|| converted.next()).flatten() {
            Some(value) => {
                out.push(Arc::new(Object::new(header(&object, &value), encoded(&value))))
            }
            None => out.push(object),
        }
    }
    Ok(out)
}

/// One object in the version of the resource, when a webhook is needed for that.
pub(crate) async fn presented_one(
    server: &Server,
    resource: &Resource,
    object: Arc<Object>,
) -> Result<Arc<Object>, Status> {
    let objects = presented(server, resource, vec![object.clone()]).await?;
    Ok(objects.into_iter().next().unwrap_or(object))
}

/// A stored object in the version of the resource.
pub(crate) async fn from_storage(
    server: &Server,
    version: &CustomVersion,
    object: Value,
) -> Result<Value, Status> {
    converted(server, &version.kind, &version.name, object).await
}

/// An object of the resource in the version that is stored.
pub(crate) async fn to_storage(
    server: &Server,
    version: &CustomVersion,
    object: &Value,
) -> Result<Value, Status> {
    let kind = &version.kind;
    let stored = kind.definition.stored().map_or(&*version.name, |stored| &stored.name);
    converted(server, kind, stored, object.clone()).await
}

async fn converted(
    server: &Server,
    kind: &Arc<CustomKind>,
    wanted: &str,
    mut object: Value,
) -> Result<Value, Status> {
    let api_version = format!("{}/{wanted}", kind.definition.spec.group);
    if object["apiVersion"] == *api_version {
        return Ok(object);
    }
    if kind.hook.is_none() {
        return by_name(kind, wanted, object);
    }
    let version =
        CustomVersion { kind: kind.clone(), name: wanted.to_owned(), head: String::new() };
    let version_before = object["metadata"]["resourceVersion"].take();
    let plain = serde_json::from_slice(&encoded(&object)).map_err(errors::internal)?;
    let mut converted = ask(server, &version, vec![plain]).await?;
    let mut converted = converted.pop().unwrap_or_default();
    if !version_before.is_null() {
        converted["metadata"]["resourceVersion"] = version_before;
    }
    Ok(converted)
}

/// An object in another version of the same content.
pub(crate) fn by_name(kind: &CustomKind, wanted: &str, mut object: Value) -> Result<Value, Status> {
    custom::by_name(&mut object, &format!("{}/{wanted}", kind.definition.spec.group));
    if let Some(version) = kind.version(wanted) {
        version.accept(&mut object).map_err(errors::unexpected)?;
    }
    Ok(object)
}

/// The text of an object in the version of the resource; the same when it is in that already.
pub(crate) fn versioned(version: &CustomVersion, json: &Bytes) -> Bytes {
    if json.starts_with(version.head.as_bytes()) || version.kind.hook.is_some() {
        return json.clone();
    }
    let Ok(object) = serde_json::from_slice(json) else { return json.clone() };
    by_name(&version.kind, &version.name, object).map_or(json.clone(), |object| encoded(&object))
}

fn encoded(object: &Value) -> Bytes {
    render::encode(custom::wire(), object)
}

/// Labels are the webhook's to change; what else is selected by stays.
fn header(object: &Object, converted: &Value) -> meta::Header {
    let mut header = object.header().clone();
    let labels = converted.pointer("/metadata/labels").and_then(Value::as_object);
    header.labels = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()))
        .collect();
    header
}

/// Has objects converted, whatever their versions.
async fn ask(
    server: &Server,
    version: &CustomVersion,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let wanted = version.api_version();
    let mut sources: Vec<String> = objects
        .iter()
        .filter_map(|object| object["apiVersion"].as_str().map(str::to_owned))
        .collect();
    sources.sort();
    sources.dedup();
    for source in sources {
        let at: Vec<usize> =
            (0..objects.len()).filter(|at| objects[*at]["apiVersion"] == *source).collect();
        let originals: Vec<Value> = at.iter().map(|at| objects[*at].clone()).collect();
        let converted = review(server, version, &wanted, &source, &originals).await;
        let converted = converted.map_err(errors::unexpected)?;
        for (at, mut object) in at.into_iter().zip(converted) {
            if let Some(compiled) = version.kind.version(&version.name) {
                compiled.accept(&mut object).map_err(errors::unexpected)?;
            }
            objects[at] = object;
        }
    }
    Ok(objects)
}

/// Asks the webhook of a kind for objects that are all of one version.
pub(super) async fn review(
    server: &Server,
    version: &CustomVersion,
    wanted: &str,
    source: &str,
    objects: &[Value],
) -> Result<Vec<Value>, String> {
    let (Some(hook), Some(converter)) = (&version.kind.hook, version.kind.definition.converter())
    else {
        return Ok(objects.to_vec());
    };
    let uid = uuid::Uuid::new_v4().to_string();
    let understood = &converter.conversion_review_versions;
    let review =
        Review::new(understood, &uid, wanted, objects).map_err(|error| error.to_string())?;
    let kind = format!("{source}, Kind={}", version.kind.names().kind);
    let answer = webhook::post(server, hook, review.body.clone().into()).await;
    let answer = answer.map_err(|why| format!("conversion webhook for {kind} failed: {why}"))?;
    review.read(&answer, objects, &kind).map_err(|error| error.to_string())
}
