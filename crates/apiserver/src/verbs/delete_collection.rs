//! DELETE of every object that a selector selects.

use http::Response;
use meta::Status;

use super::list::{ListRequest, select};
use super::{delete, object_form, table_options};
use crate::context::WriteRequest;
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
    let group_resource = resource.group_resource();
    for object in &found.objects {
        let header = object.header();
        let deleted =
            delete::delete_object(ctx, resource, &header.namespace, &header.name, &options).await;
        match deleted {
            Err(status) if status != errors::not_found(&group_resource, &header.name) => {
                return Err(status);
            }
            _ => {}
        }
    }
    Ok(render::list(resource, &found.objects, &found.meta, form, table_options(ctx)))
}
