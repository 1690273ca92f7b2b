//! A server's first password: told once, to who made the server.
//!
//! It is kept encrypted with the token that the server was made with, of which only the hash is
//! in the database: nobody else can read it, not even from a copy of all tables.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sea_orm::DatabaseTransaction;
use serde_json::{Value, json};

use crate::api::authorization::Purpose;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::one_shot::{self, Kind};

fn secret(caller: &Caller, server_id: i64) -> String {
    format!("{server_id}:{}", caller.token.text())
}

/// Keeps the password of a new server.
///
/// # Errors
/// The database fails.
pub async fn keep(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    server_id: i64,
    password: &str,
    life: Duration,
) -> Result<(), Fault> {
    let secret = secret(caller, server_id);
    one_shot::put(
        transaction,
        Kind::Password,
        &secret,
        server_id,
        password,
        life,
    )
    .await
}

pub async fn tell(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server_for(api.database(), &caller, &id, Purpose::Operate).await?;
    let secret = secret(&caller, server.id);
    let password = one_shot::take(api.database(), Kind::Password, &secret)
        .await?
        .ok_or_else(|| Fault::not_found("password of server", &id))?;
    Ok(Json(json!({ "password": password })))
}

/// Forgets it untold.
pub async fn forget(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let server = find::server_for(api.database(), &caller, &id, Purpose::Operate).await?;
    let secret = secret(&caller, server.id);
    if one_shot::forget(api.database(), Kind::Password, &secret).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Fault::not_found("password of server", &id))
    }
}
