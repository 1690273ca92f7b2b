//! Intents: what a user wants of Ganeti, committed before Ganeti is asked.
//!
//! An intent is `pending` until its job is known, then `submitted`; `refused` when Ganeti said
//! no, `dropped` when it was given up before anything was sent. A process that works on one has
//! claimed it for a time; when that has passed, any process may finish the work: it first looks
//! for a job with the intent's mark in its reason trail, so nothing is asked twice.

use std::collections::BTreeSet;

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait,
    QueryFilter, QuerySelect,
};

use super::request::Request;
use crate::model::entity::intent;
use crate::model::{database, moment};

/// The kind that makes a server, and the one that gives it a NIC: what they made is taken back
/// when they fail.
pub const CREATE: &str = "create";
pub const CONNECT: &str = "connect";
/// The kind that gives a server labels or takes them: the wish for them ends when it fails.
pub const LABEL: &str = "label";

/// The kind that removes a server: it waits for no other wish.
pub const REMOVE: &str = "remove";
/// The most servers that are looked up in one statement.
const CHUNK: usize = 500;

pub const PENDING: &str = "pending";
pub const SUBMITTED: &str = "submitted";
pub const REFUSED: &str = "refused";
pub const DROPPED: &str = "dropped";

/// Writes an intent down.
///
/// # Errors
/// The database fails.
pub async fn write(
    database: &impl ConnectionTrait,
    backend_id: i64,
    kind: &str,
    server_id: Option<i64>,
    port_id: Option<i64>,
    request: &Request,
) -> Result<intent::Model, DbErr> {
    let request = serde_json::to_value(request).map_err(|error| DbErr::Json(error.to_string()))?;
    intent::ActiveModel {
        id: ActiveValue::NotSet,
        backend_id: ActiveValue::Set(backend_id),
        kind: ActiveValue::Set(kind.to_owned()),
        server_id: ActiveValue::Set(server_id),
        port_id: ActiveValue::Set(port_id),
        request: ActiveValue::Set(request),
        state: ActiveValue::Set(PENDING.to_owned()),
        job_id: ActiveValue::Set(None),
        attempts: ActiveValue::Set(0),
        error: ActiveValue::Set(None),
        claimed_until: ActiveValue::Set(0),
        created_at: ActiveValue::Set(moment::now()),
        submitted_at: ActiveValue::Set(None),
    }
    .insert(database)
    .await
}

/// Claims a pending intent for `micros` microseconds by the clock of the database; false: it is not pending, or somebody else has it.
///
/// # Errors
/// The database fails.
pub async fn claim(connection: &impl ConnectionTrait, id: i64, micros: i64) -> Result<bool, DbErr> {
    let done = intent::Entity::update_many()
        .col_expr(
            intent::Column::ClaimedUntil,
            database::clock_in(connection, micros),
        )
        .col_expr(
            intent::Column::Attempts,
            Expr::col(intent::Column::Attempts).add(1),
        )
        .col_expr(intent::Column::Error, Expr::value(None::<String>))
        .filter(intent::Column::Id.eq(id))
        .filter(intent::Column::State.eq(PENDING))
        .filter(Expr::col(intent::Column::ClaimedUntil).lt(database::clock(connection)))
        .exec(connection)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Claims a pending intent that nobody is at, also one that waits for another attempt, for `micros`
/// microseconds by the clock of the database; false: it is not pending, or somebody is at it.
///
/// # Errors
/// The database fails.
pub async fn take_over(
    connection: &impl ConnectionTrait,
    id: i64,
    micros: i64,
) -> Result<bool, DbErr> {
    // Whoever is at it has taken the error of the attempt before away.
    let idle = Condition::any()
        .add(Expr::col(intent::Column::ClaimedUntil).lt(database::clock(connection)))
        .add(intent::Column::Error.is_not_null());
    let done = intent::Entity::update_many()
        .col_expr(
            intent::Column::ClaimedUntil,
            database::clock_in(connection, micros),
        )
        .filter(intent::Column::Id.eq(id))
        .filter(intent::Column::State.eq(PENDING))
        .filter(idle)
        .exec(connection)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Lets a claimed intent go, to be tried again in `micros` microseconds.
///
/// # Errors
/// The database fails.
pub async fn release(
    connection: &impl ConnectionTrait,
    id: i64,
    micros: i64,
    error: &str,
) -> Result<(), DbErr> {
    intent::Entity::update_many()
        .col_expr(
            intent::Column::ClaimedUntil,
            database::clock_in(connection, micros),
        )
        .col_expr(intent::Column::Error, Expr::value(error))
        .filter(intent::Column::Id.eq(id))
        .filter(intent::Column::State.eq(PENDING))
        .exec(connection)
        .await?;
    Ok(())
}

/// Ends a pending intent without a job; false: it was not pending any more.
///
/// # Errors
/// The database fails.
pub async fn end(
    database: &impl ConnectionTrait,
    id: i64,
    state: &str,
    error: &str,
) -> Result<bool, DbErr> {
    let done = intent::Entity::update_many()
        .col_expr(intent::Column::State, Expr::value(state))
        .col_expr(intent::Column::Error, Expr::value(error))
        .filter(intent::Column::Id.eq(id))
        .filter(intent::Column::State.eq(PENDING))
        .exec(database)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Writes down the job that an intent became.
///
/// # Errors
/// The database fails.
pub async fn submitted(database: &impl ConnectionTrait, id: i64, job_id: i64) -> Result<(), DbErr> {
    intent::Entity::update_many()
        .col_expr(intent::Column::State, Expr::value(SUBMITTED))
        .col_expr(intent::Column::JobId, Expr::value(job_id))
        .col_expr(intent::Column::SubmittedAt, Expr::value(moment::now()))
        .filter(intent::Column::Id.eq(id))
        .exec(database)
        .await?;
    Ok(())
}

/// Notes of a creation that its job was refused, as the name is another instance's: nothing was
/// made.
///
/// # Errors
/// The database fails.
pub async fn never_carried_out(
    database: &impl ConnectionTrait,
    server_id: i64,
    job: u64,
) -> Result<(), DbErr> {
    let Ok(job) = i64::try_from(job) else {
        return Ok(());
    };
    intent::Entity::update_many()
        .col_expr(intent::Column::State, Expr::value(REFUSED))
        .col_expr(
            intent::Column::Error,
            Expr::value("the cluster has another instance of this name"),
        )
        .filter(intent::Column::ServerId.eq(server_id))
        .filter(intent::Column::Kind.eq(CREATE))
        .filter(intent::Column::JobId.eq(job))
        .filter(intent::Column::State.eq(SUBMITTED))
        .exec(database)
        .await?;
    Ok(())
}

/// Those of `servers` of which nothing was ever made: every intent to create them was refused, or
/// given up before it was sent. A server without such an intent was not made by an intent.
///
/// # Errors
/// The database fails.
pub async fn never_made(
    database: &impl ConnectionTrait,
    servers: impl Iterator<Item = i64>,
) -> Result<BTreeSet<i64>, DbErr> {
    let mut never = BTreeSet::new();
    let servers: Vec<i64> = servers.collect();
    for chunk in servers.chunks(CHUNK) {
        let creations = intent::Entity::find()
            .select_only()
            .column(intent::Column::ServerId)
            .column(intent::Column::State)
            .filter(intent::Column::Kind.eq(CREATE))
            .filter(intent::Column::ServerId.is_in(chunk.iter().copied()))
            .into_tuple::<(Option<i64>, String)>()
            .all(database)
            .await?;
        let mut made = BTreeSet::new();
        for (server, state) in creations {
            let Some(server) = server else { continue };
            match state.as_str() {
                REFUSED | DROPPED => never.insert(server),
                _ => made.insert(server),
            };
        }
        never.retain(|server| !made.contains(server));
    }
    Ok(never)
}

/// The intent, and when it was written, that a text in a reason trail is the mark of, or the mark
/// of a part of its work.
pub fn of_mark(prefix: &str, text: &str) -> Option<(i64, i64)> {
    let mut words = text
        .strip_prefix("snf-central:")?
        .strip_prefix(prefix)?
        .strip_prefix(':')?
        .split(':');
    let number = |text: Option<&str>| text?.parse::<i64>().ok();
    Some((number(words.next())?, number(words.next())?))
}

/// The mark of an intent in the reason trail of its job.
pub fn mark(prefix: &str, intent: &intent::Model) -> String {
    // The time makes it unique also where a database was made anew.
    format!("snf-central:{prefix}:{}:{}", intent.id, intent.created_at)
}
