//! The server for components of the same process: no socket, no TLS, the same rules.

use std::net::SocketAddr;
use std::sync::Arc;

use authn::UserInfo;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{HeaderMap, Method, Request, Response};
use meta::{Object, ResourceVersion, Status, WatchEvent};

use crate::audit;
use crate::chain;
use crate::context::RequestContext;
use crate::errors;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::resources::Resource;
use crate::server::Server;
use crate::verbs;
use connection::{Body, RequestBody};

/// Objects of a collection, and the version of the list.
pub type Listed = (ResourceVersion, Vec<Arc<Object>>);

/// A way into the server; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) server: Arc<Server>,
    pub(crate) addresses: Arc<[SocketAddr]>,
}

impl Handle {
    /// A request under the given identity: authorization, admission and all, no socket, no TLS.
    ///
    /// Dropping the future may leave a write done or not done, as losing a connection may.
    pub fn call(
        &self,
        user: &UserInfo,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response<Body>> {
        let request = request.map(RequestBody::Whole);
        // Boxed, here and below: callers would otherwise compile the request path once more.
        Box::pin(chain::serve(self.server.clone(), user.clone(), request, None))
    }

    /// The objects of a collection, shared with the cache, and the version of the list.
    ///
    /// # Errors
    /// As a client would get them.
    pub fn list<'a>(
        &'a self,
        user: &'a UserInfo,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<Listed, Status>> {
        Box::pin(self.list_objects(user, path_and_query))
    }

    async fn list_objects(&self, user: &UserInfo, path_and_query: &str) -> Result<Listed, Status> {
        let ctx = self.begin(user, path_and_query).await?;
        let selecting = async {
            let resource = allowed(&ctx)?;
            let request = verbs::list::ListRequest::parse(&ctx, &resource)?;
            let found = verbs::list::select(&ctx, &resource, &request).await?;
            Ok((resource, found))
        };
        let (resource, found) = audit::unless_failed(&ctx, selecting.await).await?;
        audit::listed(&ctx, &resource, &found.objects, &found.meta).await;
        let version = found.meta.resource_version.parse().unwrap_or_default();
        let objects = found
            .objects
            .iter()
            .map(|object| verbs::watch::in_version(&resource, object))
            .collect();
        Ok((ResourceVersion(version), objects))
    }

    /// Changes of a collection, shared with the cache. The stream ends with the server, after the
    /// timeout asked for, or after its first error. Safe to drop at any time.
    ///
    /// # Errors
    /// As a client would get them.
    pub fn watch<'a>(
        &'a self,
        user: &'a UserInfo,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, Status>>, Status>> {
        Box::pin(async move {
            let ctx = self.begin(user, path_and_query).await?;
            let watching = async {
                let resource = allowed(&ctx)?;
                verbs::watch::watch_objects(&ctx, &resource).await
            };
            let stream = audit::unless_failed(&ctx, watching.await).await?;
            Ok(audit::watched(&ctx, stream).await)
        })
    }

    /// The addresses the server listens on, with the ports it was given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A token of a service account, for components that must present one elsewhere.
    ///
    /// # Errors
    /// When the key refuses.
    pub fn sign_token(&self, claims: &authn::Claims) -> Result<String, authn::TokenError> {
        self.server.signer.sign(claims)
    }

    /// A read, of which it is recorded that it begins.
    async fn begin(&self, user: &UserInfo, path_and_query: &str) -> Result<RequestContext, Status> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query = Query::parse(query);
        let info = RequestInfo::parse(&Method::GET, path, &query);
        let server = self.server.clone();
        let mut ctx =
            RequestContext::new(server, user.clone(), Method::GET, info, query, HeaderMap::new());
        ctx.audit = audit::begin_read(&ctx, path_and_query);
        if let Some(audit) = &ctx.audit {
            audit.received().await.map_err(errors::internal)?;
        }
        Ok(ctx)
    }
}

/// What is to be read, if it may be.
fn allowed(ctx: &RequestContext) -> Result<Arc<Resource>, Status> {
    let (server, info) = (&ctx.server, &ctx.info);
    let attributes = info.attributes();
    let decision = server.authorizer.authorize(ctx.subject(), &attributes);
    audit::authorized(ctx, decision.is_allowed(), decision.reason());
    if !decision.is_allowed() {
        return Err(authz::forbidden_status(&ctx.user.name, &attributes, decision.reason()));
    }
    let found = server.resources.get(&info.group, &info.version, &info.resource);
    found.ok_or_else(errors::no_such_resource)
}
