//! The transport that calls into the API server of the same process.
//!
//! Requests pass the same authorization and admission as any other; objects are shared with the
//! server's cache.

use apiserver::Handle;
use authn::UserInfo;
use bytes::Bytes;
use client::{ClientError, ObjectList, Transport, WatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};

/// Speaks to the server as one identity.
pub(crate) struct InProcess {
    server: Handle,
    user: UserInfo,
    /// What the component calls itself: who owns the fields that it writes.
    agent: HeaderValue,
}

impl InProcess {
    /// A transport for a component that is `user`.
    pub(crate) fn new(server: Handle, user: UserInfo) -> Self {
        let agent = HeaderValue::from_static(program(&user.name));
        Self { server, user, agent }
    }

    /// A client over it.
    pub(crate) fn client(server: &Handle, user: UserInfo) -> client::Client {
        client::Client::new(std::sync::Arc::new(Self::new(server.clone(), user)))
    }
}

impl Transport for InProcess {
    fn call(
        &self,
        mut request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        async move {
            let (parts, body) = self.server.call(&self.user, request).await.into_parts();
            let body = body.collect().await.map_err(ClientError::Transport)?;
            Ok(Response::from_parts(parts, body))
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
        async move {
            // Pages keep answers small on a wire. Here a list is a snapshot of shared objects,
            // which costs the same whole.
            let whole = without_limit(path_and_query);
            let (resource_version, items) = self.server.list(&self.user, &whole).await?;
            Ok(ObjectList { resource_version, continue_token: String::new(), items })
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
        async move {
            let events = self.server.watch(&self.user, path_and_query).await?;
            Ok(events.map(|event| event.map_err(ClientError::from)).boxed())
        }
        .boxed()
    }
}

/// Upstream's program that is such a user. Controllers of one program have accounts of their own.
fn program(user: &str) -> &'static str {
    match user {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-proxy" => "kube-proxy",
        "system:kube-controller-manager" => "kube-controller-manager",
        "system:serviceaccount:kube-system:coredns" => "coredns",
        user if user.starts_with("system:node:") => "kubelet",
        user if user.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        _ => "ironclad",
    }
}

fn without_limit(path_and_query: &str) -> String {
    let Some((path, query)) = path_and_query.split_once('?') else {
        return path_and_query.to_owned();
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("limit=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::{program, without_limit};

    #[test]
    fn components_are_called_as_upstream_calls_their_programs() {
        assert_eq!(program("system:node:n1"), "kubelet");
        assert_eq!(
            program("system:serviceaccount:kube-system:job-controller"),
            "kube-controller-manager"
        );
        assert_eq!(program("kubernetes-admin"), "ironclad");
    }

    #[test]
    fn only_the_limit_is_dropped() {
        assert_eq!(without_limit("/api/v1/pods?limit=500"), "/api/v1/pods");
        assert_eq!(without_limit("/api/v1/pods?a=b&limit=5&c=d"), "/api/v1/pods?a=b&c=d");
        assert_eq!(without_limit("/api/v1/pods"), "/api/v1/pods");
    }
}
