//! `/servers/{id}/tags`: labels that users give their servers.
//!
//! They are kept here only. Ganeti's own tags steer agents, and are not for users to write.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder,
};
use serde_json::{Value, json};

use super::find;
use crate::api::body::{Body, Field};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::model::entity::{server, server_tag};
use crate::model::{database, moment};

/// The most tags a server may have, and the most characters of one.
const TAGS: usize = 50;
const LENGTH: usize = 60;

fn checked(field: &str, tag: &str) -> Result<String, Fault> {
    let fits = !tag.is_empty()
        && tag.chars().count() <= LENGTH
        && !tag.chars().any(|c| c.is_control() || c == '/' || c == ',');
    if fits {
        Ok(tag.to_owned())
    } else {
        Err(Fault::field(
            field,
            tag,
            "must have 1 to 60 characters, none of them / or , or a control character",
        ))
    }
}

/// Reads a list of tags.
///
/// # Errors
/// 400 naming the field; 413: too many.
pub fn parse(field: &Field<'_>) -> Result<Vec<String>, Fault> {
    let list = field.list(usize::MAX)?;
    if list.len() > TAGS {
        return Err(too_many());
    }
    list.iter()
        .map(|entry| checked(entry.path(), entry.string()?))
        .collect()
}

fn too_many() -> Fault {
    Fault::over_limit(format!("tags: a server has at most {TAGS}"))
}

async fn of(database: &impl ConnectionTrait, server_id: i64) -> Result<Vec<String>, Fault> {
    Ok(server_tag::Entity::find()
        .filter(server_tag::Column::ServerId.eq(server_id))
        .order_by_asc(server_tag::Column::Tag)
        .all(database)
        .await?
        .into_iter()
        .map(|row| row.tag)
        .collect())
}

/// Gives a server tags; those that it has stay.
///
/// # Errors
/// The database fails.
pub async fn put(
    transaction: &DatabaseTransaction,
    server_id: i64,
    tags: Vec<String>,
) -> Result<(), Fault> {
    for tag in tags {
        let row = server_tag::ActiveModel {
            server_id: ActiveValue::Set(server_id),
            tag: ActiveValue::Set(tag),
        };
        let key = [server_tag::Column::ServerId, server_tag::Column::Tag];
        server_tag::Entity::insert(row)
            .on_conflict(OnConflict::columns(key).do_nothing_on(key).to_owned())
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(())
}

async fn touch(transaction: DatabaseTransaction, server: server::Model) -> Result<(), Fault> {
    let mut row = server.into_active_model();
    row.updated_at = ActiveValue::Set(moment::now());
    row.update(&transaction).await?;
    transaction.commit().await?;
    Ok(())
}

fn list(tags: &[String]) -> Json<Value> {
    // Nothing is on its way to anywhere.
    let statuses: Vec<&str> = tags.iter().map(|_| "ACTIVE").collect();
    Json(json!({"tags": tags, "statuses": statuses}))
}

pub async fn all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    Ok(list(&of(api.database(), server.id).await?))
}

pub async fn replace(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    find::server(api.database(), &caller, &id).await?;
    let tags = parse(&body.object()?.required("tags")?)?;
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    server_tag::Entity::delete_many()
        .filter(server_tag::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
    put(&transaction, server.id, tags).await?;
    let tags = of(&transaction, server.id).await?;
    touch(transaction, server).await?;
    Ok(list(&tags))
}

pub async fn remove_all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    let done = server_tag::Entity::delete_many()
        .filter(server_tag::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
    if done.rows_affected == 0 {
        return Err(Fault::not_found("tags of server", &id));
    }
    touch(transaction, server).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn has(
    database: &impl ConnectionTrait,
    server: &server::Model,
    tag: &str,
) -> Result<bool, Fault> {
    let found = server_tag::Entity::find_by_id((server.id, tag.to_owned()))
        .one(database)
        .await?;
    Ok(found.is_some())
}

pub async fn one(
    State(api): State<Context>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    if !has(api.database(), &server, &tag).await? {
        return Err(Fault::not_found("tag", &tag));
    }
    let status = [("tag-status", HeaderValue::from_static("ACTIVE"))];
    Ok((StatusCode::NO_CONTENT, status).into_response())
}

pub async fn add(
    State(api): State<Context>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    let tag = checked("tag", &tag)?;
    if has(&transaction, &server, &tag).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let count = server_tag::Entity::find()
        .filter(server_tag::Column::ServerId.eq(server.id))
        .count(&transaction)
        .await?;
    if count >= u64::try_from(TAGS).unwrap_or(u64::MAX) {
        return Err(too_many());
    }
    put(&transaction, server.id, vec![tag.clone()]).await?;
    let mut url = reqwest::Url::parse(&caller.url("/")).map_err(Fault::internal)?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty()
            .extend(["compute", "v2.0", "servers", &id, "tags", &tag]);
    }
    touch(transaction, server).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, url.to_string())]).into_response())
}

pub async fn remove(
    State(api): State<Context>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    let done = server_tag::Entity::delete_by_id((server.id, tag.clone()))
        .exec(&transaction)
        .await?;
    if done.rows_affected == 0 {
        return Err(Fault::not_found("tag", &tag));
    }
    touch(transaction, server).await?;
    Ok(StatusCode::NO_CONTENT)
}
