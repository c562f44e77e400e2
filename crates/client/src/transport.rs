//! What carries requests to the server.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use meta::{Object, ResourceVersion, WatchEvent};

use crate::ClientError;

/// The events of one watch, in the order of their resource versions.
///
/// It ends without an error when the server's time for the watch is over. Dropping it ends the
/// watch.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ClientError>>;

/// One page of a list.
#[derive(Debug)]
pub struct ObjectList {
    /// The version at which the list was read: watch from here.
    pub resource_version: ResourceVersion,
    /// The token for the next page, empty on the last one.
    pub continue_token: String,
    /// The objects.
    pub items: Vec<Arc<Object>>,
}

/// Carries requests to the API server under one identity.
///
/// Paths begin at `/api` or `/apis` and carry their query. Every future may be dropped at any
/// time; a write may then have happened or not, as over any network.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and reads the whole answer, whatever its code.
    fn call(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, ClientError>>;

    /// Reads a list, or one page of it.
    fn list<'a>(
        &'a self,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<ObjectList, ClientError>>;

    /// Starts a watch.
    fn watch<'a>(
        &'a self,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<WatchStream, ClientError>>;
}
