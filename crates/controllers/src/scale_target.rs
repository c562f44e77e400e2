//! The scale of anything that has one, through its subresource.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use api::Typed;
use client::{Client, ClientError, ResourcePath};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use meta::{GroupVersion, GroupVersionResource};
use serde_json::Value;

/// Why there is no scale.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("{0} does not implement the scale subresource")]
    NotScalable(String),
    #[error("no matches for kind {kind:?} in version {version:?}")]
    UnknownKind { kind: String, version: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A scale as it was read.
#[derive(Clone, Debug)]
pub(crate) struct ScaleTarget {
    path: String,
    object: Value,
    /// Uid of the object that it is of.
    pub(crate) uid: String,
    /// How many replicas are wanted, and how many there are.
    pub(crate) replicas: i32,
    pub(crate) status_replicas: i32,
    /// The selector of the pods as text; empty when it does not say.
    pub(crate) selector: String,
}

/// Looks scales up.
pub(crate) struct ScaleTargets {
    client: Client,
    /// Resources that have a scale, by version and kind: kinds of custom resources come and go,
    /// but what is known to have a scale is asked for it, and the answer says if it has gone.
    known: Mutex<HashMap<(String, String), GroupVersionResource>>,
}

impl ScaleTargets {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The scale of an object, `None` when there is no such object.
    pub(crate) async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ScaleTarget>, ScaleError> {
        let resource = self.scalable(api_version, kind).await?;
        let path = ResourcePath::new(resource).object(namespace, name, "scale");
        let body = match self.client.request(Method::GET, &path, "", bytes::Bytes::new()).await {
            Err(error) if error.is_not_found() => {
                let kind = (api_version.to_owned(), kind.to_owned());
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
                return Ok(None);
            }
            result => result?,
        };
        let object = Value::from_json(&body).map_err(ClientError::decode)?;
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let number = |pointer: &str| {
            let number = object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
            i32::try_from(number).unwrap_or(i32::MAX)
        };
        Ok(Some(ScaleTarget {
            uid: text("/metadata/uid"),
            replicas: number("/spec/replicas"),
            status_replicas: number("/status/replicas"),
            selector: text("/status/selector"),
            path,
            object,
        }))
    }

    /// Writes the number of replicas, if nothing changed since the scale was read.
    pub(crate) async fn set(&self, target: &ScaleTarget, replicas: i32) -> Result<(), ClientError> {
        let mut object = target.object.clone();
        object["spec"]["replicas"] = replicas.into();
        let body = bytes::Bytes::from(object.to_string());
        self.client.request(Method::PUT, &target.path, "application/json", body).await.map(drop)
    }

    /// A kind's resource, as `plural.group`, whether it has a scale or not.
    pub(crate) async fn group_resource(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Result<String, ScaleError> {
        let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
        let (plural, _) = self.discover(api_version, kind).await?;
        Ok(if group.is_empty() { plural } else { format!("{plural}.{group}") })
    }

    async fn scalable(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Result<GroupVersionResource, ScaleError> {
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (plural, has_scale) = self.discover(api_version, kind).await?;
        if !has_scale {
            let named = if group.is_empty() { plural } else { format!("{plural}.{group}") };
            return Err(ScaleError::NotScalable(named));
        }
        let resource = GroupVersionResource::new(group, version, &*plural);
        let mut cache = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(key, resource.clone());
        Ok(resource)
    }

    /// The plural of a kind, and whether it has a scale.
    async fn discover(&self, api_version: &str, kind: &str) -> Result<(String, bool), ScaleError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let path = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let unknown = || ScaleError::UnknownKind {
            kind: kind.to_owned(),
            version: GroupVersion::new(group, version).to_string(),
        };
        let body = match self.client.request(Method::GET, &path, "", bytes::Bytes::new()).await {
            Err(error) if error.is_not_found() => return Err(unknown()),
            result => result?,
        };
        let list = APIResourceList::from_json(&body).map_err(ClientError::decode)?;
        let is_it = |name: &str, of: &str| !name.contains('/') && of == kind;
        let found = list.resources.iter().find(|found| is_it(&found.name, &found.kind));
        let plural = found.ok_or_else(unknown)?.name.clone();
        let scale = format!("{plural}/scale");
        let has_scale = list.resources.iter().any(|found| found.name == scale);
        Ok((plural, has_scale))
    }
}
