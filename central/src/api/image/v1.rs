//! Glance v1, as kamaki speaks it: what is written comes in headers; lists are without anything around them.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};

use super::register::{self, Wanted};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::page::Parameters;
use crate::model::entity::image;
use crate::model::moment;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(list))
        .route("/images", get(list).post(create))
        .route("/images/detail", get(detail))
        .route(
            "/images/{id}",
            get(data).head(head).put(update).delete(delete),
        )
}

async fn all(
    api: &Context,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<Vec<image::Model>, Fault> {
    let mut query = image::Entity::find()
        .filter(find::visible_images(caller))
        .order_by_asc(image::Column::CreatedAt)
        .order_by_asc(image::Column::Id);
    if let Some(name) = parameters.get("name") {
        query = query.filter(image::Column::Name.eq(name));
    }
    if let Some(format) = parameters.get("disk_format") {
        query = query.filter(image::Column::Format.eq(format));
    }
    if let Some(least) = parameters.number("size_min")? {
        query = query.filter(image::Column::Size.gte(least));
    }
    if let Some(most) = parameters.number("size_max")? {
        query = query.filter(image::Column::Size.lte(most));
    }
    if let Some(marker) = parameters.get("marker") {
        let column = image::Column::CreatedAt;
        query = query.filter(find::after_image(api.database(), caller, column, marker).await?);
    }
    Ok(query.limit(parameters.limit()?).all(api.database()).await?)
}

fn brief(image: &image::Model) -> Value {
    json!({
        "id": image.id,
        "name": image.name,
        "status": available(image),
        "size": image.size,
        "disk_format": image.format,
        "container_format": "bare",
    })
}

/// Glance v1 has other names for the states than compute.
fn available(image: &image::Model) -> &'static str {
    match image.status.as_str() {
        "ACTIVE" => "available",
        "SAVING" => "saving",
        _ => "error",
    }
}

fn full(image: &image::Model) -> Value {
    json!({
        "id": image.id,
        "name": image.name,
        "status": available(image),
        "size": image.size,
        "disk_format": image.format,
        "container_format": "bare",
        "checksum": image.checksum,
        "location": image.source,
        "owner": image.project_id,
        "is_public": image.public,
        "created_at": moment::iso(image.created_at),
        "updated_at": moment::iso(image.updated_at),
        "deleted_at": "",
        "properties": image.properties,
    })
}

async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let images = all(&api, &caller, &parameters).await?;
    Ok(Json(images.iter().map(brief).collect()))
}

async fn detail(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let images = all(&api, &caller, &parameters).await?;
    Ok(Json(images.iter().map(full).collect()))
}

async fn create(
    State(api): State<Context>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<(StatusCode, HeaderMap), Fault> {
    let wanted = Wanted::of_headers(&headers)?;
    let image = register::register(&api, &caller, wanted).await?;
    Ok((StatusCode::OK, described(&image)))
}

async fn update(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<(StatusCode, HeaderMap), Fault> {
    let wanted = Wanted::of_headers(&headers)?;
    let replace = headers
        .get("x-glance-registry-purge-props")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let image = register::change(&api, &caller, &id, wanted, replace).await?;
    Ok((StatusCode::OK, described(&image)))
}

async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    register::remove(&api, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn data(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    find::image(api.database(), &caller, &id).await?;
    Err(Fault::not_implemented("the data of images is not here"))
}

/// What v1 says of one image, it says in headers.
async fn head(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<HeaderMap, Fault> {
    let image = find::image(api.database(), &caller, &id).await?;
    Ok(described(&image))
}

/// An image in headers.
fn described(image: &image::Model) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let full = full(image);
    let properties = image.properties.as_object();
    let fields = full
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "properties")
        .map(|(name, value)| (format!("x-image-meta-{}", name.replace('_', "-")), value))
        .chain(properties.into_iter().flatten().map(|(name, value)| {
            let name = name.to_ascii_lowercase().replace('_', "-");
            (format!("x-image-meta-property-{name}"), value)
        }));
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // What no header can hold is left out.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(&text),
        ) {
            headers.insert(name, value);
        }
    }
    headers
}
