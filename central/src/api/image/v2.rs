//! Glance v2: the registry, without the data.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};

use super::register::{self, Wanted};
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::page::Parameters;
use crate::model::entity::image;
use crate::model::moment;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/images", get(list).post(create))
        .route("/images/{id}", get(show).patch(patch).delete(delete))
        .route("/images/{id}/file", get(file).put(file))
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
        .filter(find::visible_images(&caller))
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
    let image = find::image(api.database(), &caller, &id).await?;
    Ok(Json(view(&image)))
}

async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let wanted = Wanted::of_body(&body.object()?)?;
    let image = register::register(&api, &caller, wanted).await?;
    Ok((StatusCode::CREATED, Json(view(&image))))
}

/// A JSON patch (RFC 6902) of members of the image: `add` and `replace`.
async fn patch(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let mut changes = serde_json::Map::new();
    for entry in body.list("body", 64)? {
        let entry = entry.object()?;
        let operation = entry.required("op")?;
        if !matches!(operation.string()?, "add" | "replace") {
            return Err(operation.refuse("must be add or replace"));
        }
        let path = entry.required("path")?;
        let name = path
            .string()?
            .strip_prefix('/')
            .filter(|name| !name.is_empty() && !name.contains(['/', '~']))
            .ok_or_else(|| path.refuse("must be a member of the image: /name"))?;
        let value = entry.required("value")?;
        changes.insert(name.to_owned(), value.value().clone());
    }
    let body = Body::of(Value::Object(changes));
    let wanted = Wanted::of_body(&body.object()?)?;
    let image = register::change(&api, &caller, &id, wanted, false).await?;
    Ok(Json(view(&image)))
}

async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    register::remove(&api, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn file(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    find::image(api.database(), &caller, &id).await?;
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
