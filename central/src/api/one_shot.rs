//! What is told once: kept encrypted, found by a secret that is not kept, gone when it was told
//! or its time is over.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, ConnectionTrait, DatabaseConnection,
    DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait,
};

use super::caller::digest;
use super::fault::Fault;
use super::sealed;
use crate::dispatch::machine;
use crate::model::entity::{one_shot, server};
use crate::model::moment;

/// For how long a server has to be built until its OS definition is taken to have asked, in
/// microseconds.
const BUILT: i64 = 60_000_000;

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
        kind: ActiveValue::Set(Some(format!("{kind:?}"))),
        sealed: ActiveValue::Set(sealed::seal(secret, text)?.into()),
        created_at: ActiveValue::Set(now),
        expires_at: ActiveValue::Set(now.saturating_add(life)),
    }
    .insert(database)
    .await?;
    Ok(())
}

/// Tells it, and forgets it: of any number who ask at once, one gets it. Of a server that is deleted
/// nothing is told.
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
    let server = server::Entity::find_by_id(row.server_id)
        .filter(server::Column::DeletedAt.is_null())
        .one(database)
        .await?;
    if server.is_none() {
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

/// Forgets what is of no use any more: what has expired, all of servers that are deleted, and what
/// the OS definitions of servers that are built have not asked for.
///
/// # Errors
/// The database fails.
pub async fn purge(database: &DatabaseConnection) -> Result<(), DbErr> {
    let now = moment::now();
    let servers = |condition| {
        server::Entity::find()
            .select_only()
            .column(server::Column::Id)
            .filter(condition)
            .into_query()
    };
    let deleted = servers(Condition::all().add(server::Column::DeletedAt.is_not_null()));
    let built = servers(
        Condition::all()
            .add(server::Column::State.ne(machine::BUILD))
            .add(server::Column::UpdatedAt.lt(now.saturating_sub(BUILT))),
    );
    let of_built = Condition::all()
        .add(one_shot::Column::Kind.eq(format!("{:?}", Kind::Parameters)))
        .add(one_shot::Column::ServerId.in_subquery(built));
    let useless = Condition::any()
        .add(one_shot::Column::ExpiresAt.lte(now))
        .add(one_shot::Column::ServerId.in_subquery(deleted))
        .add(of_built);
    one_shot::Entity::delete_many()
        .filter(useless)
        .exec(database)
        .await?;
    Ok(())
}
