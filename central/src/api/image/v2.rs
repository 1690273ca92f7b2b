//! Glance v2, read only.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};

use crate::api::caller::Caller;
use crate::api::compute::{visible_image, visible_images};
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::page::Parameters;
use crate::model::entity::image;
use crate::model::moment;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/images", get(list))
        .route("/images/{id}", get(show))
        .route("/images/{id}/file", get(file))
        .route("/schemas/image", get(schema))
}

fn view(image: &image::Model) -> Value {
    let mut view = json!({
        "id": image.id,
        "name": image.name,
        "status": image.status.to_lowercase(),
        "visibility": if image.public { "public" } else { "private" },
        "owner": image.project_id,
        "size": image.size,
        "disk_format": if image.format.is_empty() { "raw" } else { &image.format },
        "container_format": "bare",
        "checksum": image.checksum,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": false,
        "tags": [],
        "created_at": moment::iso(image.created_at),
        "updated_at": moment::iso(image.updated_at),
        "self": format!("/v2/images/{}", image.id),
        "file": format!("/v2/images/{}/file", image.id),
        "schema": "/v2/schemas/image",
    });
    if let (Some(map), Some(properties)) = (view.as_object_mut(), image.properties.as_object()) {
        for (name, value) in properties {
            map.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    view
}

async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let mut query = image::Entity::find()
        .filter(visible_images(&caller))
        .order_by_asc(image::Column::Id);
    if let Some(name) = parameters.get("name") {
        query = query.filter(image::Column::Name.eq(name));
    }
    if let Some(status) = parameters.get("status") {
        query = query.filter(image::Column::Status.eq(status.to_ascii_uppercase()));
    }
    match parameters.get("visibility") {
        Some("public") => query = query.filter(image::Column::Public.eq(true)),
        Some("private" | "shared") => query = query.filter(image::Column::Public.eq(false)),
        _ => {}
    }
    if let Some(marker) = parameters.get("marker") {
        query = query.filter(image::Column::Id.gt(marker));
    }
    let limit = parameters.limit()?;
    let images = query.limit(limit).all(api.database()).await?;
    let mut body = json!({
        "images": images.iter().map(view).collect::<Vec<_>>(),
        "first": "/v2/images",
        "schema": "/v2/schemas/images",
    });
    let full = u64::try_from(images.len()).unwrap_or(0) == limit;
    if let (true, Some(last), Some(map)) = (full, images.last(), body.as_object_mut()) {
        let next = format!("/v2/images?limit={limit}&marker={}", last.id);
        map.insert("next".to_owned(), json!(next));
    }
    Ok(Json(body))
}

async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let image = visible_image(api.database(), &caller, &id).await?;
    Ok(Json(view(&image)))
}

async fn file(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    visible_image(api.database(), &caller, &id).await?;
    Err(Fault::not_implemented("the data of images is not here"))
}

async fn schema(_caller: Caller) -> Json<Value> {
    let text = json!({"type": "string"});
    let number = json!({"type": ["integer", "null"]});
    Json(json!({
        "name": "image",
        "properties": {
            "id": text, "name": text, "status": text, "visibility": text,
            "disk_format": text, "container_format": text,
            "size": number, "min_disk": number, "min_ram": number,
            "created_at": text, "updated_at": text,
        },
        "additionalProperties": {"type": "string"},
    }))
}
