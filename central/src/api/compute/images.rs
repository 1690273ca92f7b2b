//! Images as the compute service shows them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};

use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::links;
use crate::api::page::Parameters;
use crate::model::entity::image;
use crate::model::moment;

fn brief(caller: &Caller, image: &image::Model) -> Value {
    json!({
        "id": image.id,
        "name": image.name,
        "links": links::of(caller, "/compute/v2.0/images", &image.id),
    })
}

/// An image with everything the compute service says of it.
pub fn view(caller: &Caller, image: &image::Model) -> Value {
    json!({
        "id": image.id,
        "name": image.name,
        "links": links::of(caller, "/compute/v2.0/images", &image.id),
        "status": match image.deleted_at {
            Some(_) => "DELETED",
            None => image.status.as_str(),
        },
        "progress": 100,
        "created": moment::iso(image.created_at),
        "updated": moment::iso(image.updated_at),
        "user_id": image.user_id,
        "tenant_id": image.project_id,
        "public": image.public,
        "minDisk": image.min_disk,
        "minRam": image.min_ram,
        "OS-EXT-IMG-SIZE:size": image.size,
        "metadata": image.properties,
        "is_snapshot": false,
    })
}

/// A page of them; none: nothing has changed since the time that is asked about.
async fn all(
    api: &Context,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<Option<Vec<image::Model>>, Fault> {
    let since = parameters.changes_since()?;
    let mut query = image::Entity::find()
        .order_by_asc(image::Column::Name)
        .order_by_asc(image::Column::Id);
    query = match since {
        Some(since) => query
            .filter(find::images(caller))
            .filter(image::Column::UpdatedAt.gte(since)),
        None => query.filter(find::visible_images(caller)),
    };
    if let Some(marker) = parameters.get("marker") {
        let column = image::Column::Name;
        query = query.filter(find::after_image(api.database(), caller, column, marker).await?);
    }
    if let Some(name) = parameters.get("name") {
        query = query.filter(image::Column::Name.eq(name));
    }
    if let Some(status) = parameters.get("status") {
        query = query.filter(image::Column::Status.eq(status.to_ascii_uppercase()));
    }
    let images = query.limit(parameters.limit()?).all(api.database()).await?;
    Ok((since.is_none() || !images.is_empty()).then_some(images))
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let Some(images) = all(&api, &caller, &parameters).await? else {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    };
    let views: Vec<Value> = images.iter().map(|image| brief(&caller, image)).collect();
    Ok(Json(json!({"images": views})).into_response())
}

pub async fn detail(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let Some(images) = all(&api, &caller, &parameters).await? else {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    };
    let views: Vec<Value> = images.iter().map(|image| view(&caller, image)).collect();
    Ok(Json(json!({"images": views})).into_response())
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let image = find::image(api.database(), &caller, &id).await?;
    Ok(Json(json!({"image": view(&caller, &image)})))
}
