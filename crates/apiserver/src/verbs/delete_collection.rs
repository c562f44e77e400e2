//! DELETE of every object that a selector selects.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Response;
use meta::{Object, Status};

use super::delete::DeleteOptions;
use super::list::{ListRequest, select};
use super::{delete, object_form, table_options};
use crate::context::{RequestContext, WriteRequest};
use crate::errors;
use crate::render;
use crate::resources::Resource;
use connection::Body;

pub(crate) async fn delete_collection(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let options = delete::options(request)?;
    let list = ListRequest::parse(ctx, resource)?;
    let found = select(ctx, resource, &list).await?;
    delete_objects(ctx, resource, &found.objects, &options).await?;
    Ok(render::list(resource, &found.objects, &found.meta, form, table_options(ctx)))
}

/// Deletes several at once, so that they are committed together. After a failure no other is
/// begun, but those under way are finished.
pub(crate) async fn delete_objects(
    ctx: &RequestContext,
    resource: &Resource,
    objects: &[Arc<Object>],
    options: &DeleteOptions,
) -> Result<(), Status> {
    let mut outcome = Ok(());
    let mut under_way = FuturesUnordered::new();
    for object in objects {
        if under_way.len() >= ctx.server.config.delete_collection_workers {
            outcome = under_way.next().await.unwrap_or(Ok(()));
        }
        if outcome.is_err() {
            break;
        }
        under_way.push(delete_one(ctx, resource, object, options));
    }
    while let Some(next) = under_way.next().await {
        outcome = outcome.and(next);
    }
    outcome
}

async fn delete_one(
    ctx: &RequestContext,
    resource: &Resource,
    object: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let header = object.header();
    let deleted =
        delete::delete_object(ctx, resource, &header.namespace, &header.name, options).await;
    match deleted {
        // Somebody was faster.
        Err(status) if status == errors::not_found(&resource.group_resource(), &header.name) => {
            Ok(())
        }
        other => other.map(drop),
    }
}
