//! What is told once: kept encrypted, found by a secret that is not kept, gone when it was told
//! or its time is over.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr,
    EntityTrait, QueryFilter,
};

use super::caller::digest;
use super::fault::Fault;
use super::sealed;
use crate::model::entity::one_shot;
use crate::model::moment;

/// What it is: the same secret for another kind finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the OS definition of a new server asks for.
    Parameters,
    /// The first password of a server.
    Password,
    /// Where a console is.
    Console,
}

fn key(kind: Kind, secret: &str) -> String {
    digest(&format!("{kind:?}:{secret}"))
}

/// A new secret of 256 bits, fit for a path.
///
/// # Errors
/// There is no randomness.
pub fn secret() -> Result<String, Fault> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(Fault::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// Keeps `text` for who knows `secret`.
///
/// # Errors
/// The database fails.
pub async fn put(
    database: &impl ConnectionTrait,
    kind: Kind,
    secret: &str,
    server_id: i64,
    text: &str,
    life: Duration,
) -> Result<(), Fault> {
    let now = moment::now();
    let life = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
    one_shot::ActiveModel {
        digest: ActiveValue::Set(key(kind, secret)),
        server_id: ActiveValue::Set(server_id),
        sealed: ActiveValue::Set(sealed::seal(secret, text)?.into()),
        created_at: ActiveValue::Set(now),
        expires_at: ActiveValue::Set(now.saturating_add(life)),
    }
    .insert(database)
    .await?;
    Ok(())
}

/// Tells it, and forgets it: of any number who ask at once, one gets it.
///
/// # Errors
/// The database fails.
pub async fn take(
    database: &impl ConnectionTrait,
    kind: Kind,
    secret: &str,
) -> Result<Option<String>, Fault> {
    let found = one_shot::Entity::find_by_id(key(kind, secret))
        .filter(one_shot::Column::ExpiresAt.gt(moment::now()))
        .one(database)
        .await?;
    let Some(row) = found else { return Ok(None) };
    if !forget(database, kind, secret).await? {
        return Ok(None);
    }
    sealed::open(secret, row.sealed.as_str().unwrap_or_default())
}

/// Forgets it; whether it was there.
///
/// # Errors
/// The database fails.
pub async fn forget(
    database: &impl ConnectionTrait,
    kind: Kind,
    secret: &str,
) -> Result<bool, DbErr> {
    let done = one_shot::Entity::delete_by_id(key(kind, secret))
        .exec(database)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Forgets all that a server was to be told.
///
/// # Errors
/// The database fails.
pub async fn forget_server(database: &impl ConnectionTrait, server_id: i64) -> Result<(), DbErr> {
    one_shot::Entity::delete_many()
        .filter(one_shot::Column::ServerId.eq(server_id))
        .exec(database)
        .await?;
    Ok(())
}

/// Forgets all whose time is over.
///
/// # Errors
/// The database fails.
pub async fn forget_expired(database: &DatabaseConnection) -> Result<(), DbErr> {
    one_shot::Entity::delete_many()
        .filter(one_shot::Column::ExpiresAt.lte(moment::now()))
        .exec(database)
        .await?;
    Ok(())
}
