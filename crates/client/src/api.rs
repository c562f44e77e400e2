//! Requests about one resource, typed or not.

use std::marker::PhantomData;
use std::sync::Arc;

use api::Typed;
use bytes::Bytes;
use http::{Method, Request};
use k8s_openapi::{Metadata, Resource};
use meta::{GroupVersionResource, Object, ResourceVersion, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::refusal::refused;
use crate::{ClientError, ListOptions, ObjectList, Patch, Transport, WatchStream};

/// How often an update begins again after a conflict: client-go's `retry.DefaultRetry`.
const UPDATE_TRIES: u32 = 5;

/// What a created object is called.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Its name: the server's choice where only the beginning was given.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
}

/// Where a resource is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourcePath {
    gvr: GroupVersionResource,
}

impl ResourcePath {
    /// The path of a resource known at run time.
    pub fn new(gvr: GroupVersionResource) -> Self {
        Self { gvr }
    }

    /// The path of a typed resource.
    pub fn of<K: Resource>() -> Self {
        Self::new(GroupVersionResource::new(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT))
    }

    /// The resource.
    pub fn gvr(&self) -> &GroupVersionResource {
        &self.gvr
    }

    /// The collection, in one namespace or, with an empty one, in all.
    pub fn collection(&self, namespace: &str) -> String {
        let GroupVersionResource { group, version, resource } = &self.gvr;
        let mut path = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        if !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(resource);
        path
    }

    /// One object, or a subresource of it.
    pub fn object(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = self.collection(namespace);
        path.push('/');
        path.push_str(name);
        if !subresource.is_empty() {
            path.push('/');
            path.push_str(subresource);
        }
        path
    }
}

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Grace period; `None` leaves it to the kind.
    pub grace_period_secs: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<ResourceVersion>,
    /// What happens to dependents; `None` leaves it to the kind.
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    fn body(&self) -> Value {
        let mut body = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
        if let Some(seconds) = self.grace_period_secs {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = self.resource_version {
            body["preconditions"]["resourceVersion"] = version.to_string().into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = format!("{propagation:?}").into();
        }
        body
    }
}

/// A connection to the API server under one identity. Clones share it.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl Client {
    /// A client over a transport.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Requests about a typed resource, in one namespace or, with an empty one, in all (or for a
    /// cluster-scoped kind).
    pub fn api<K: Resource>(&self, namespace: &str) -> Api<K> {
        self.dynamic(ResourcePath::of::<K>(), namespace)
    }

    /// Requests about a resource known at run time; `T` is what its objects are read as.
    pub fn dynamic<T>(&self, path: ResourcePath, namespace: &str) -> Api<T> {
        Api { client: self.clone(), path, namespace: namespace.to_owned(), kind: PhantomData }
    }

    /// Lists one page by path, as it comes.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn list_page(
        &self,
        path: &ResourcePath,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, ClientError> {
        let url = path.collection(namespace) + &options.list_query();
        self.transport.list(&url).await
    }

    /// Watches by path.
    ///
    /// # Errors
    /// Any failure to start the watch; later ones come through the stream.
    pub async fn watch(
        &self,
        path: &ResourcePath,
        namespace: &str,
        options: &ListOptions,
        from: ResourceVersion,
        timeout_seconds: u32,
    ) -> Result<WatchStream, ClientError> {
        let url = path.collection(namespace) + &options.watch_query(from, timeout_seconds);
        self.transport.watch(&url).await
    }

    /// Sends a request with a JSON body and gives the body of a successful answer.
    ///
    /// # Errors
    /// [`ClientError::Status`] for every code of 400 and above.
    pub async fn request(
        &self,
        method: Method,
        path_and_query: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path_and_query)
            .header("accept", "application/json");
        if !body.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(body).map_err(ClientError::transport)?;
        let response = self.transport.call(request).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let (parts, body) = response.into_parts();
        Err(refused(&method, path_and_query, &parts, &body))
    }
}

/// Requests about one resource in one namespace (or in all, or cluster-scoped).
pub struct Api<K> {
    client: Client,
    path: ResourcePath,
    namespace: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> Api<K> {
    /// Deletes an object. The answer, which is the object or a status, is not read.
    ///
    /// # Errors
    /// Any failure of the request, such as [`ClientError::is_not_found`].
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<(), ClientError> {
        let path = self.path.object(&self.namespace, name, "");
        let body = Bytes::from(options.body().to_string());
        self.client.request(Method::DELETE, &path, "application/json", body).await.map(drop)
    }

    /// Deletes every object that the options select.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn delete_collection(
        &self,
        options: &DeleteOptions,
        select: &ListOptions,
    ) -> Result<(), ClientError> {
        let path = self.path.collection(&self.namespace) + &select.list_query();
        let body = Bytes::from(options.body().to_string());
        self.client.request(Method::DELETE, &path, "application/json", body).await.map(drop)
    }

    /// Lists objects as they are shared, without decoding them.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn list_objects(&self, options: &ListOptions) -> Result<ObjectList, ClientError> {
        self.client.list_page(&self.path, &self.namespace, options).await
    }
}

impl<K: Typed> Api<K> {
    /// Reads an object.
    ///
    /// # Errors
    /// Any failure of the request, such as [`ClientError::is_not_found`].
    pub async fn get(&self, name: &str) -> Result<K, ClientError> {
        self.send(Method::GET, name, "", "", Bytes::new()).await
    }

    /// Reads an object, or `None` when it does not exist.
    ///
    /// # Errors
    /// Any other failure of the request.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, ClientError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists and decodes, page by page.
    ///
    /// # Errors
    /// Any failure of a request.
    pub async fn list(&self, options: &ListOptions) -> Result<Vec<K>, ClientError> {
        let mut options = options.clone();
        let mut all = Vec::new();
        loop {
            let page = self.list_objects(&options).await?;
            for object in &page.items {
                all.push(K::of(object).map_err(ClientError::decode)?);
            }
            if page.continue_token.is_empty() {
                return Ok(all);
            }
            options.continue_token = page.continue_token;
        }
    }

    /// Patches an object.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn patch(&self, name: &str, patch: &Patch) -> Result<K, ClientError> {
        self.patch_subresource(name, "", patch).await
    }

    /// Patches a subresource, such as `status`.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn patch_subresource(
        &self,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<K, ClientError> {
        let body = Bytes::from(patch.body().to_string());
        self.send(Method::PATCH, name, subresource, patch.content_type(), body).await
    }

    /// Merges `change` (RFC 7386) into the object as it is now, and replaces it, through a
    /// subresource or not: for identities that may update but not patch, as upstream's controllers.
    ///
    /// A uid in the change's metadata must be the object's; without a resource version in it, a
    /// conflict is answered by beginning again, a few times.
    ///
    /// # Errors
    /// Any failure of a request; [`ClientError::is_conflict`] also when the uid is another one.
    pub async fn merge_update(
        &self,
        name: &str,
        subresource: &str,
        change: &Value,
    ) -> Result<K, ClientError> {
        let is_pinned = change["metadata"]["resourceVersion"].is_string();
        let mut tries = UPDATE_TRIES;
        loop {
            tries -= 1;
            let path = self.path.object(&self.namespace, name, "");
            let current = self.client.request(Method::GET, &path, "", Bytes::new()).await?;
            let mut object: Value = decode(&current)?;
            let uid = &change["metadata"]["uid"];
            if uid.is_string() && *uid != object["metadata"]["uid"] {
                let text = format!("{name:?} is another object of the same name");
                return Err(Status::failure(meta::Reason::Conflict, text).into());
            }
            merge(&mut object, change);
            match self
                .send(Method::PUT, name, subresource, "application/json", encode(&object)?)
                .await
            {
                Err(error) if error.is_conflict() && !is_pinned && tries > 0 => {}
                result => return result,
            }
        }
    }

    /// As [`Api::merge_update`], but into an object as it is known, and against that version: one
    /// request instead of two.
    ///
    /// # Errors
    /// Any failure of the request; [`ClientError::is_conflict`] when the object has changed since,
    /// or is another one.
    pub async fn merge_known(
        &self,
        known: &K,
        subresource: &str,
        change: &Value,
    ) -> Result<K, ClientError> {
        let mut object = known.to_tree().map_err(ClientError::Encode)?;
        merge(&mut object, change);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let body = encode(&object)?;
        self.send(Method::PUT, &name, subresource, "application/json", body).await
    }

    async fn send(
        &self,
        method: Method,
        name: &str,
        subresource: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<K, ClientError> {
        let path = self.path.object(&self.namespace, name, subresource);
        let answer = self.client.request(method, &path, content_type, body).await?;
        decode(&answer)
    }
}

impl<K: Typed> Api<K> {
    /// Creates an object.
    ///
    /// # Errors
    /// Any failure of the request, such as [`ClientError::is_already_exists`].
    pub async fn create(&self, object: &K) -> Result<K, ClientError> {
        decode(&self.post(object).await?)
    }

    /// Creates an object for somebody who only asks what it is called: the rest of the answer is
    /// not read.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn create_unread(&self, object: &K) -> Result<Created, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            metadata: Created,
        }
        let answer = self.post(object).await?;
        let answer: Answer = meta::read_json(&answer).map_err(ClientError::decode)?;
        Ok(answer.metadata)
    }

    async fn post(&self, object: &K) -> Result<Bytes, ClientError> {
        let path = self.path.collection(&self.namespace);
        self.client.request(Method::POST, &path, "application/json", encode(object)?).await
    }

    /// Posts to a subresource whose body and answer have types of their own, such as `token`.
    ///
    /// # Errors
    /// Any failure of the request.
    pub async fn create_subresource<B: Typed, A: Typed>(
        &self,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<A, ClientError> {
        let path = self.path.object(&self.namespace, name, subresource);
        let body = encode(body)?;
        let answer = self.client.request(Method::POST, &path, "application/json", body).await?;
        decode(&answer)
    }
}

impl<K> Api<K>
where
    K: Typed + Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
{
    /// Replaces an object; its resource version says which version the change is based on.
    ///
    /// # Errors
    /// Any failure of the request, such as [`ClientError::is_conflict`].
    pub async fn update(&self, object: &K) -> Result<K, ClientError> {
        self.update_subresource("", object).await
    }

    /// Replaces the status of an object.
    ///
    /// # Errors
    /// Any failure of the request, such as [`ClientError::is_conflict`].
    pub async fn update_status(&self, object: &K) -> Result<K, ClientError> {
        self.update_subresource("status", object).await
    }

    /// Replaces through a subresource that takes the whole object, such as `finalize`.
    ///
    /// # Errors
    /// Any failure of the request, such as [`ClientError::is_conflict`].
    pub async fn update_subresource(
        &self,
        subresource: &str,
        object: &K,
    ) -> Result<K, ClientError> {
        let name = object.metadata().name.as_deref().unwrap_or_default();
        self.send(Method::PUT, name, subresource, "application/json", encode(object)?).await
    }
}

/// RFC 7386: null removes, objects are merged, everything else replaces.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(members) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(object) = target.as_object_mut() else { return };
    for (key, value) in members {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

pub(crate) fn encode<T: Typed>(object: &T) -> Result<Bytes, ClientError> {
    object.to_json().map(Bytes::from).map_err(ClientError::Encode)
}

fn decode<T: Typed>(bytes: &[u8]) -> Result<T, ClientError> {
    T::from_json(bytes).map_err(ClientError::decode)
}

/// A list's items as objects: what a remote transport makes of an answer.
pub(crate) fn decode_list(body: &Bytes) -> Result<ObjectList, ClientError> {
    #[derive(Deserialize)]
    struct List<'a> {
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a serde_json::value::RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        #[serde(default)]
        resource_version: String,
        #[serde(default, rename = "continue")]
        continue_token: String,
    }
    let list: List<'_> = serde_json::from_slice(body).map_err(ClientError::decode)?;
    let resource_version =
        ResourceVersion(list.metadata.resource_version.parse().map_err(ClientError::decode)?);
    let items = list
        .items
        .unwrap_or_default()
        .into_iter()
        .map(|raw| Object::from_json(body.slice_ref(raw.get().as_bytes())).map(Arc::new))
        .collect::<Result<_, _>>()
        .map_err(ClientError::decode)?;
    Ok(ObjectList { resource_version, continue_token: list.metadata.continue_token, items })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let pods = ResourcePath::of::<Pod>();
        assert_eq!(pods.collection(""), "/api/v1/pods");
        assert_eq!(pods.object("n", "a", "status"), "/api/v1/namespaces/n/pods/a/status");
        assert_eq!(ResourcePath::of::<Node>().object("", "a", ""), "/api/v1/nodes/a");
        let deployments = ResourcePath::of::<Deployment>();
        assert_eq!(deployments.collection("n"), "/apis/apps/v1/namespaces/n/deployments");
    }

    #[test]
    fn delete_options_print_only_what_is_set() {
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            uid: Some("u".into()),
            ..Default::default()
        };
        assert_eq!(
            options.body(),
            json!({"apiVersion": "v1", "kind": "DeleteOptions",
                   "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"})
        );
    }

    #[test]
    fn a_merge_removes_replaces_and_descends() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut object, &json!({"a": {"b": null, "e": {"f": null, "g": 3}}, "d": [2]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": {"g": 3}}, "d": [2]}));
    }

    #[test]
    fn a_list_shares_the_bytes_of_the_answer() {
        let body = Bytes::from_static(
            br#"{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"a"}}]}"#,
        );
        let list = decode_list(&body).unwrap();
        assert_eq!(list.resource_version, ResourceVersion(5));
        assert_eq!(list.items[0].header().name, "a");
        let null = Bytes::from_static(br#"{"metadata":{"resourceVersion":"5"},"items":null}"#);
        assert!(decode_list(&null).unwrap().items.is_empty());
    }
}
