//! Messages about operations on instances.

use std::sync::Arc;

use agents::message::OpMessage;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QuerySelect, QueryTrait,
};
use serde_json::Value;

use super::confirmation::{self, Removal};
use super::failure::{self, Failure};
use super::machine::{self, Change, Event};
use super::outcome::{Applied, Asking, RouteError};
use super::retry::{self, Retry};
use super::{cluster, disks, labels, nics, removal};
use crate::ganeti::submission::Submitter;
use crate::ganeti::{intent, job, label};
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
        return advance(ganeti, id, message, status, asking).await;
    }
    let Some((old, backend)) = with_backend(ganeti, id).await? else {
        not_known(message);
        return Ok(Applied::NotOurs);
    };
    let gone = match &backend {
        Some(backend) => {
            if !cluster::is_of(ganeti, backend, &message.cluster, asking).await? {
                return Ok(elsewhere(message, backend));
            }
            is_gone(ganeti, backend, &old, message, status, asking).await?
        }
        None => false,
    };
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
    if status == JobStatus::Error
        && message.operation == "OP_INSTANCE_CREATE"
        && job::name_is_taken(&message.result)
    {
        intent::never_carried_out(&transaction, id, message.job_id).await?;
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
        transaction.commit().await?;
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
    asking: Asking,
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
    let update = server::Entity::update_many()
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
        .filter(known.lt(new));
    let applied = || {
        tracing::info!(instance = %message.instance, job = message.job_id,
            operation = %message.operation, status = %message.status, "applied");
        Applied::Yes
    };
    // In the same statement, whether it is of the server's own cluster.
    let of_cluster = backend::Entity::find()
        .select_only()
        .column(backend::Column::Id)
        .filter(backend::Column::Cluster.eq(message.cluster.as_str()))
        .into_query();
    let done = update
        .clone()
        .filter(server::Column::BackendId.in_subquery(of_cluster))
        .exec(&ganeti.database)
        .await?;
    if done.rows_affected > 0 {
        return Ok(applied());
    }
    let Some((_, backend)) = with_backend(ganeti, id).await? else {
        not_known(message);
        return Ok(Applied::NotOurs);
    };
    if let Some(backend) = backend
        && backend.cluster.as_deref() != Some(message.cluster.as_str())
    {
        if !cluster::is_of(ganeti, &backend, &message.cluster, asking).await? {
            return Ok(elsewhere(message, &backend));
        }
        let done = update.exec(&ganeti.database).await?;
        if done.rows_affected > 0 {
            return Ok(applied());
        }
    }
    Ok(Applied::Stale)
}

/// A server, and the backend that it is in.
async fn with_backend(
    ganeti: &Arc<Submitter>,
    id: i64,
) -> Result<Option<(server::Model, Option<backend::Model>)>, RouteError> {
    let database = &ganeti.database;
    let Some(server) = server::Entity::find_by_id(id).one(database).await? else {
        return Ok(None);
    };
    let backend = backend::Entity::find_by_id(server.backend_id);
    let backend = backend.one(database).await?;
    Ok(Some((server, backend)))
}

fn elsewhere(message: &OpMessage, backend: &backend::Model) -> Applied {
    let (object, job) = (&message.instance, message.job_id);
    cluster::elsewhere(object, &message.cluster, &backend.name, job)
}

fn not_known(message: &OpMessage) {
    tracing::warn!(instance = %message.instance, job = message.job_id,
        "a message about a server that we do not know");
}

/// Returns whether the server of a removal is gone: a removal that succeeded is believed when the cluster
/// says so as well, and one that failed may have failed since there was nothing to remove.
async fn is_gone(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
    server: &server::Model,
    message: &OpMessage,
    status: JobStatus,
    asking: Asking,
) -> Result<bool, RouteError> {
    if message.operation != "OP_INSTANCE_REMOVE" || server.deleted_at.is_some() {
        return Ok(false);
    }
    if asking == Asking::Later {
        return Err(RouteError::MustAsk);
    }
    let rapi = ganeti.clients.of(backend)?;
    let found = rapi.instance(&message.instance).await?;
    if status != JobStatus::Success {
        return Ok(found.is_none());
    }
    let removal = Removal {
        object: &message.instance,
        operation: &message.operation,
        job: message.job_id,
    };
    confirmation::is_gone(&rapi, found.as_ref(), &removal).await
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
