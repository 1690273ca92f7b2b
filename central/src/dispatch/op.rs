//! Messages about operations on instances.

use std::sync::Arc;

use agents::message::OpMessage;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QuerySelect,
};
use serde_json::Value;

use super::failure::{self, Failure};
use super::machine::{self, Change, Event};
use super::outcome::{Applied, Asking, RouteError};
use super::retry::{self, Retry};
use super::{disks, labels, nics, removal};
use crate::ganeti::submission::Submitter;
use crate::ganeti::{intent, label};
use crate::model::entity::{backend, diagnostic, flavor, intent as intent_row, server};
use crate::model::register::{JobStatus, Order};
use crate::model::{changes, database, moment};

/// The most of a job's log line or error that is kept.
const LOG_LIMIT: usize = 2000;
/// How much of what a node says about a deployment is kept, in bytes: some of it is all that an OS
/// definition printed, and a text on MySQL has room for 65535.
const NOTE_LIMIT: usize = 16 << 10;

/// Applies a message about an operation on an instance.
///
/// # Errors
/// See [`RouteError`].
pub async fn apply(
    ganeti: &Arc<Submitter>,
    message: &OpMessage,
    asking: Asking,
) -> Result<Applied, RouteError> {
    let status = JobStatus::parse(&message.status).ok_or_else(|| {
        RouteError::Poison(format!("status: {:?}: not a job's status", message.status))
    })?;
    let Some(id) = ganeti.naming.instance_id(&message.instance) else {
        return Ok(Applied::NotOurs);
    };
    if message.says_dry_run() {
        return Ok(Applied::DryRun);
    }
    if !status.is_final() {
        return advance(ganeti, id, message, status).await;
    }
    let gone = is_gone(ganeti, message, status, id, asking).await?;
    let transaction = database::write(&ganeti.database).await?;
    let found = server::Entity::find_by_id(id)
        .lock_exclusive()
        .one(&transaction)
        .await?;
    let Some(server) = found else {
        not_known(message);
        return Ok(Applied::NotOurs);
    };
    match retry::of(&transaction, &server, message, status).await? {
        Retry::No => {}
        Retry::Done => return Ok(Applied::Stale),
        Retry::Again(intent) => {
            transaction.commit().await?;
            tracing::info!(instance = %message.instance, job = message.job_id, intent,
                "resources were locked by others: the creation is asked for again");
            return Ok(Applied::Yes);
        }
    }
    let shape = shape(message);
    let event = Event {
        order: Order::new(message.job_id, status, message.event_time),
        status,
        opcode: &message.operation,
        has_nics: message.instance_nics.is_some(),
        has_labels: message.tags.iter().any(|tag| label::of_tag(tag).is_some()),
        has_shape: shape.is_some(),
        gone,
    };
    let change = machine::decide(&server, &event);
    if change == Change::default() {
        return Ok(Applied::Stale);
    }
    carry_out(
        ganeti,
        &transaction,
        server,
        &event,
        &change,
        message,
        shape,
    )
    .await?;
    transaction.commit().await?;
    tracing::info!(instance = %message.instance, job = message.job_id,
        operation = %message.operation, status = %message.status, ?change, "applied");
    Ok(Applied::Yes)
}

/// Shows how far a job is that has not ended. Nothing else follows from that (see
/// [`machine::decide`]), so the comparison and the change are one statement.
async fn advance(
    ganeti: &Arc<Submitter>,
    id: i64,
    message: &OpMessage,
    status: JobStatus,
) -> Result<Applied, RouteError> {
    let order = Order::new(message.job_id, status, message.event_time);
    let known = Expr::tuple([
        Expr::col(server::Column::JobId),
        Expr::col(server::Column::JobRank),
        Expr::col(server::Column::JobTime),
    ]);
    let new = Expr::tuple([
        Expr::value(order.job),
        Expr::value(order.rank),
        Expr::value(order.time),
    ]);
    let done = server::Entity::update_many()
        .col_expr(server::Column::JobId, Expr::value(order.job))
        .col_expr(server::Column::JobRank, Expr::value(order.rank))
        .col_expr(server::Column::JobTime, Expr::value(order.time))
        .col_expr(
            server::Column::JobOpcode,
            Expr::value(message.operation.as_str()),
        )
        .col_expr(
            server::Column::JobStatus,
            Expr::value(message.status.as_str()),
        )
        .col_expr(server::Column::JobLog, Expr::value(line(&message.logmsg)))
        .col_expr(server::Column::UpdatedAt, Expr::value(moment::now()))
        .filter(server::Column::Id.eq(id))
        .filter(server::Column::DeletedAt.is_null())
        .filter(known.lt(new))
        .exec(&ganeti.database)
        .await?;
    if done.rows_affected > 0 {
        tracing::info!(instance = %message.instance, job = message.job_id,
            operation = %message.operation, status = %message.status, "applied");
        return Ok(Applied::Yes);
    }
    let is_known = server::Entity::find_by_id(id)
        .select_only()
        .column(server::Column::Id)
        .into_tuple::<i64>()
        .one(&ganeti.database)
        .await?
        .is_some();
    if is_known {
        return Ok(Applied::Stale);
    }
    not_known(message);
    Ok(Applied::NotOurs)
}

fn not_known(message: &OpMessage) {
    tracing::warn!(instance = %message.instance, job = message.job_id,
        "a message about a server that we do not know");
}

/// Whether a removal that failed did so since there was nothing to remove.
async fn is_gone(
    ganeti: &Arc<Submitter>,
    message: &OpMessage,
    status: JobStatus,
    id: i64,
    asking: Asking,
) -> Result<bool, RouteError> {
    let fails = matches!(status, JobStatus::Error | JobStatus::Canceled);
    if message.operation != "OP_INSTANCE_REMOVE" || !fails {
        return Ok(false);
    }
    let Some(server) = server::Entity::find_by_id(id)
        .filter(server::Column::DeletedAt.is_null())
        .one(&ganeti.database)
        .await?
    else {
        return Ok(false);
    };
    let Some(backend) = backend::Entity::find_by_id(server.backend_id)
        .one(&ganeti.database)
        .await?
    else {
        return Ok(false);
    };
    if asking == Asking::Later {
        return Err(RouteError::MustAsk);
    }
    let rapi = ganeti.clients.of(&backend)?;
    Ok(rapi.instance(&message.instance).await?.is_none())
}

async fn carry_out(
    ganeti: &Arc<Submitter>,
    transaction: &DatabaseTransaction,
    server: server::Model,
    event: &Event<'_>,
    change: &Change,
    message: &OpMessage,
    shape: Option<(i64, i64)>,
) -> Result<(), RouteError> {
    let now = moment::now();
    let order = event.order;
    let mut new = server.clone();
    change.write(&mut new, event, &message.status);
    new.updated_at = now;
    if change.job {
        new.job_log = line(&message.logmsg);
    }
    if change.nics
        && let Some(list) = &message.instance_nics
    {
        let absent = nics::Absent::Active;
        nics::make_so(&ganeti.naming, transaction, &server, list, absent).await?;
    }
    // These come with the NICs, and so have their place in the order of events.
    if change.nics
        && let Some(list) = &message.instance_disks
    {
        disks::make_so(&ganeti.naming, transaction, &server, list).await?;
    }
    if change.nics
        && let Some(params) = &message.instance_hvparams
    {
        new.rescue = machine::rescues(params);
    }
    if change.labels {
        let (opcode, tags) = (event.opcode, &message.tags);
        labels::apply(transaction, server.id, opcode, event.status, order, tags).await?;
    }
    if change.shape
        && let Some((vcpus, ram)) = shape
    {
        match flavor_like(transaction, server.flavor_id, vcpus, ram).await? {
            Some(flavor) => new.flavor_id = flavor.id,
            None => {
                let text = format!("resized to {vcpus} processors and {ram} MiB: no such flavor");
                note(transaction, server.id, "WARNING", &text, None, order.time).await?;
            }
        }
    }
    if change.failed {
        nics::fail(transaction, server.id).await?;
        let failure = Failure::of(&message.status, &message.result);
        let text = failure::of_creation(failure, message.job_id);
        let raw = line(&message.result);
        let raw = raw.unwrap_or_else(|| format!("{} {}", message.operation, message.status));
        tracing::error!(server = server.id, job = message.job_id, ?failure, %raw,
            "the creation of the server failed");
        note(
            transaction,
            server.id,
            "ERROR",
            &text,
            Some(raw),
            order.time,
        )
        .await?;
    }
    if matches!(event.status, JobStatus::Error | JobStatus::Canceled) {
        not_connected(transaction, server.id, order.job, now).await?;
    }
    if change.removed {
        new.deleted_at = Some(now);
        removal::clear(transaction, server.id, now).await?;
    }
    let id = server.id;
    server::Entity::update_many()
        .set(changes::between(server, &new))
        .filter(server::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Lets go of the NIC that a failed job was to plug in.
async fn not_connected(
    transaction: &DatabaseTransaction,
    server_id: i64,
    job: i64,
    now: i64,
) -> Result<(), RouteError> {
    let failed = intent_row::Entity::find()
        .filter(intent_row::Column::ServerId.eq(server_id))
        .filter(intent_row::Column::JobId.eq(job))
        .filter(intent_row::Column::Kind.eq(intent::CONNECT))
        .one(transaction)
        .await?;
    if let Some(port) = failed.and_then(|intent| intent.port_id) {
        removal::clear_port(transaction, port, now).await?;
    }
    Ok(())
}

/// Adds a line to what there is to read about a server, unless it is there already: `message` for
/// its users, and `details` for cloud administrators, where the words of the cluster are.
pub async fn note(
    transaction: &DatabaseTransaction,
    server_id: i64,
    level: &str,
    message: &str,
    details: Option<String>,
    time: i64,
) -> Result<(), RouteError> {
    let message = cut(message, NOTE_LIMIT);
    let details = details.map(|details| cut(&details, NOTE_LIMIT).to_owned());
    let known = diagnostic::Entity::find()
        .filter(diagnostic::Column::ServerId.eq(server_id))
        .filter(diagnostic::Column::SourceTime.eq(time))
        .all(transaction)
        .await?;
    if known
        .iter()
        .any(|row| row.message == message && row.details == details)
    {
        return Ok(());
    }
    diagnostic::ActiveModel {
        id: ActiveValue::NotSet,
        server_id: ActiveValue::Set(server_id),
        level: ActiveValue::Set(level.to_owned()),
        source: ActiveValue::Set("ganeti".to_owned()),
        message: ActiveValue::Set(message.to_owned()),
        details: ActiveValue::Set(details),
        created_at: ActiveValue::Set(moment::now()),
        source_time: ActiveValue::Set(Some(time)),
    }
    .insert(transaction)
    .await?;
    Ok(())
}

/// Processors and MiB, if a creation or modification gave the instance both. Those of other
/// operations hold for one start alone, or say nothing at all.
fn shape(message: &OpMessage) -> Option<(i64, i64)> {
    if !message.tells_parameters() {
        return None;
    }
    let params = message.job_fields.get("beparams")?;
    let vcpus = params.get("vcpus")?.as_i64()?;
    let ram = params
        .get("maxmem")
        .or_else(|| params.get("memory"))?
        .as_i64()?;
    Some((vcpus, ram))
}

/// The flavor with these processors and memory that else is like the one the server has.
///
/// # Errors
/// The database fails.
pub async fn flavor_like(
    transaction: &DatabaseTransaction,
    flavor_id: i64,
    vcpus: i64,
    ram: i64,
) -> Result<Option<flavor::Model>, RouteError> {
    let Some(old) = flavor::Entity::find_by_id(flavor_id)
        .one(transaction)
        .await?
    else {
        return Ok(None);
    };
    if old.vcpus == vcpus && old.ram == ram {
        return Ok(Some(old));
    }
    Ok(flavor::Entity::find()
        .filter(flavor::Column::Vcpus.eq(vcpus))
        .filter(flavor::Column::Ram.eq(ram))
        .filter(flavor::Column::Disk.eq(old.disk))
        .filter(flavor::Column::DiskTemplate.eq(old.disk_template))
        .one(transaction)
        .await?)
}

fn line(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(cut(&text, LOG_LIMIT).to_owned())
}

/// The beginning of `text`, of at most `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    let end = text.floor_char_boundary(limit);
    text.get(..end).unwrap_or_default()
}
