//! `/servers/{id}/metadata`: keys and values that users hang on a server.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QueryOrder,
};
use serde_json::{Map, Value, json};

use crate::api::body::{Body, Field, Object};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::dialect::Dialect;
use crate::api::fault::Fault;
use crate::api::find;
use crate::model::database;
use crate::model::entity::server_metadata;

/// The most entries a server may have.
pub const ENTRIES: usize = 128;
const KEY_LIMIT: usize = 255;
const VALUE_LIMIT: usize = 4096;

/// Refuses more entries than a server may have.
fn few(entries: usize) -> Result<(), Fault> {
    if entries > ENTRIES {
        return Err(Fault::over_limit(format!(
            "metadata: {entries} entries: at most {ENTRIES}"
        )));
    }
    Ok(())
}

/// Reads `{key: value, …}`.
pub fn parse(object: &Object<'_>) -> Result<Vec<(String, String)>, Fault> {
    few(object.len())?;
    object
        .fields()
        .map(|(key, value)| {
            if key.is_empty()
                || key.chars().count() > KEY_LIMIT
                || key.chars().any(char::is_control)
            {
                return Err(Fault::field(
                    "metadata",
                    key,
                    "a key has 1 to 255 characters, none of them a control character",
                ));
            }
            Ok((key.to_owned(), text(&value)?))
        })
        .collect()
}

fn text(field: &Field<'_>) -> Result<String, Fault> {
    let text = field.string()?;
    if text.chars().count() > VALUE_LIMIT {
        return Err(field.refuse("longer than 4096 characters"));
    }
    if text.contains('\0') {
        return Err(field.refuse("has a NUL character"));
    }
    Ok(text.to_owned())
}

/// Adds entries, or gives those that are there other values.
pub async fn put(
    transaction: &DatabaseTransaction,
    server_id: i64,
    entries: Vec<(String, String)>,
) -> Result<(), Fault> {
    for (name, value) in entries {
        let key = [
            server_metadata::Column::ServerId,
            server_metadata::Column::Name,
        ];
        server_metadata::Entity::insert(server_metadata::ActiveModel {
            server_id: ActiveValue::Set(server_id),
            name: ActiveValue::Set(name),
            value: ActiveValue::Set(value),
        })
        .on_conflict(
            OnConflict::columns(key)
                .update_column(server_metadata::Column::Value)
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await?;
    }
    Ok(())
}

async fn entries(
    database: &impl ConnectionTrait,
    server_id: i64,
) -> Result<Map<String, Value>, Fault> {
    Ok(server_metadata::Entity::find()
        .filter(server_metadata::Column::ServerId.eq(server_id))
        .order_by_asc(server_metadata::Column::Name)
        .all(database)
        .await?
        .into_iter()
        .map(|entry| (entry.name, json!(entry.value)))
        .collect())
}

fn changed(dialect: Dialect) -> StatusCode {
    match dialect {
        Dialect::OpenStack => StatusCode::OK,
        Dialect::Cyclades => StatusCode::CREATED,
    }
}

pub async fn all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let metadata = entries(api.database(), server.id).await?;
    Ok(Json(json!({"metadata": metadata})))
}

async fn change(
    api: &Context,
    caller: &Caller,
    id: &str,
    body: &Body,
    replace: bool,
) -> Result<Value, Fault> {
    let new = parse(&body.member("metadata")?)?;
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, caller, id).await?;
    if replace {
        server_metadata::Entity::delete_many()
            .filter(server_metadata::Column::ServerId.eq(server.id))
            .exec(&transaction)
            .await?;
    }
    put(&transaction, server.id, new).await?;
    let metadata = entries(&transaction, server.id).await?;
    few(metadata.len())?;
    transaction.commit().await?;
    Ok(json!({"metadata": metadata}))
}

pub async fn merge(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let metadata = change(&api, &caller, &id, &body, false).await?;
    Ok((changed(caller.dialect), Json(metadata)))
}

pub async fn replace(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    Ok(Json(change(&api, &caller, &id, &body, true).await?))
}

pub async fn one(
    State(api): State<Context>,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let entry = server_metadata::Entity::find_by_id((server.id, key.clone()))
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::not_found("metadata", &key))?;
    let map = Map::from_iter([(entry.name, json!(entry.value))]);
    Ok(Json(json!({"meta": map})))
}

pub async fn set(
    State(api): State<Context>,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let meta = body.member("meta")?;
    let new = parse(&meta)?;
    if new.len() != 1 || new.first().is_none_or(|(name, _)| *name != key) {
        return Err(Fault::field(
            "meta",
            &key,
            "the body must have this key and no other",
        ));
    }
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    let map: Map<String, Value> = new
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    put(&transaction, server.id, new).await?;
    few(entries(&transaction, server.id).await?.len())?;
    transaction.commit().await?;
    Ok((changed(caller.dialect), Json(json!({"meta": map}))))
}

pub async fn remove(
    State(api): State<Context>,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    let done = server_metadata::Entity::delete_by_id((server.id, key.clone()))
        .exec(&transaction)
        .await?;
    if done.rows_affected == 0 {
        return Err(Fault::not_found("metadata", &key));
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
