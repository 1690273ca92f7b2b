//! Messages about operations on networks.

use std::sync::Arc;

use agents::message::NetworkMessage;
use sea_orm::{ActiveModelTrait, ActiveValue, EntityTrait, IntoActiveModel, QuerySelect};
use serde_json::{Value, json};

use super::cluster;
use super::confirmation::{self, Removal};
use super::outcome::{Applied, Asking, RouteError};
use crate::ganeti::networks;
use crate::ganeti::submission::Submitter;
use crate::model::database;
use crate::model::entity::{backend_network, network};
use crate::model::register::{JobStatus, Order};

/// Applies a message about an operation on a network.
///
/// # Errors
/// See [`RouteError`].
pub async fn apply(
    ganeti: &Arc<Submitter>,
    message: &NetworkMessage,
    asking: Asking,
) -> Result<Applied, RouteError> {
    let status = JobStatus::parse(&message.status).ok_or_else(|| {
        RouteError::Poison(format!("status: {:?}: not a job's status", message.status))
    })?;
    let Some(id) = ganeti.naming.network_id(&message.network) else {
        return Ok(Applied::NotOurs);
    };
    let Some(backend) = cluster::find(ganeti, &message.cluster, asking).await? else {
        // A network may be in any cluster: one that is not known yet can be made known, and then
        // the dead letter is put back.
        return Err(RouteError::Poison(format!(
            "cluster: {:?}: no backend of this name",
            message.cluster
        )));
    };
    if network::Entity::find_by_id(id)
        .one(&ganeti.database)
        .await?
        .is_none()
    {
        tracing::warn!(network = %message.network, "a message about a network that we do not know");
        return Ok(Applied::NotOurs);
    }
    let known = networks::row(&ganeti.database, id, backend.id).await?;
    if message.operation == "OP_NETWORK_REMOVE"
        && status == JobStatus::Success
        && known.state != networks::DELETED
    {
        if asking == Asking::Later {
            return Err(RouteError::MustAsk);
        }
        let rapi = ganeti.clients.of(&backend)?;
        let found = rapi.network(&message.network).await?;
        let removal = Removal {
            object: &message.network,
            operation: &message.operation,
            job: message.job_id,
        };
        if !confirmation::is_gone(&rapi, found.as_ref(), &removal).await? {
            return Ok(Applied::Stale);
        }
    }
    let transaction = database::write(&ganeti.database).await?;
    let Some(row) = backend_network::Entity::find_by_id(known.id)
        .lock_exclusive()
        .one(&transaction)
        .await?
    else {
        return Ok(Applied::NotOurs);
    };
    let order = Order::new(message.job_id, status, message.event_time);
    let known = Order {
        job: row.job_id,
        rank: row.job_rank,
        time: row.job_time,
    };
    let jobs = remaining(&row.jobs, order.job, status);
    let newer = order > known;
    let state = state_after(&message.operation, status, jobs.is_empty()).filter(|_| newer);
    let jobs = json!(jobs);
    if !newer && jobs == row.jobs {
        return Ok(Applied::Stale);
    }
    let mut changed = row.clone().into_active_model();
    if newer {
        changed.job_id = ActiveValue::Set(order.job);
        changed.job_rank = ActiveValue::Set(order.rank);
        changed.job_time = ActiveValue::Set(order.time);
        changed.job_opcode = ActiveValue::Set(Some(message.operation.clone()));
    }
    if let Some(state) = state {
        changed.state = ActiveValue::Set(state.to_owned());
    } else if row.state == networks::PENDING
        && jobs.as_array().is_some_and(Vec::is_empty)
        && row.jobs != jobs
        && status == JobStatus::Success
    {
        // The last of several connections, though not the one with the highest number.
        changed.state = ActiveValue::Set(networks::ACTIVE.to_owned());
    }
    changed.jobs = ActiveValue::Set(jobs);
    changed.update(&transaction).await?;
    transaction.commit().await?;
    tracing::info!(network = %message.network, backend = %backend.name, job = message.job_id,
        operation = %message.operation, status = %message.status, "applied");
    Ok(Applied::Yes)
}

/// The jobs still to be waited for.
fn remaining(jobs: &Value, job: i64, status: JobStatus) -> Vec<i64> {
    jobs.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .filter(|waiting| !(status.is_final() && *waiting == job))
        .collect()
}

fn state_after(operation: &str, status: JobStatus, last: bool) -> Option<&'static str> {
    let fails = matches!(status, JobStatus::Error | JobStatus::Canceled);
    match (operation, status) {
        ("OP_NETWORK_ADD" | "OP_NETWORK_DISCONNECT", JobStatus::Success) => Some(networks::PENDING),
        ("OP_NETWORK_CONNECT", JobStatus::Success) if last => Some(networks::ACTIVE),
        ("OP_NETWORK_REMOVE", JobStatus::Success) => Some(networks::DELETED),
        // The next NIC that needs it asks again, for what is missing only.
        ("OP_NETWORK_ADD" | "OP_NETWORK_CONNECT", _) if fails => Some(networks::ERROR),
        _ => None,
    }
}
