//! Following jobs by asking for them.
//!
//! Without a broker this is how states follow, only slower; with one it is for events that got
//! lost. What a job says goes the way that messages go, so a message that comes later, or came
//! before, has no second effect.

use std::collections::HashMap;
use std::sync::Arc;

use agents::message::OpMessage;
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::Value;

use crate::dispatch::outcome::{Asking, RouteError};
use crate::dispatch::{network, op};
use crate::ganeti::intent;
use crate::ganeti::job::{self, Told};
use crate::ganeti::networks;
use crate::ganeti::rapi::{Rapi, RapiError};
use crate::ganeti::submission::Submitter;
use crate::model::entity::{backend, backend_network, intent as intent_row, server, server_tag};
use crate::model::moment;

/// The most jobs that are asked for in one round.
const JOBS: u64 = 500;

/// Asks for the jobs that servers and networks wait for since `patience` microseconds.
///
/// # Errors
/// The database fails. A cluster that does not answer is left for the next round.
pub async fn follow(ganeti: &Arc<Submitter>, patience: i64) -> Result<(), DbErr> {
    let before = moment::now().saturating_sub(patience);
    let waiting = server::Entity::find()
        .filter(server::Column::TaskJob.is_not_null())
        .filter(server::Column::DeletedAt.is_null())
        .filter(server::Column::UpdatedAt.lte(before))
        .order_by_asc(server::Column::UpdatedAt)
        .limit(JOBS)
        .all(&ganeti.database)
        .await?;
    let connecting = backend_network::Entity::find()
        .filter(backend_network::Column::State.eq(networks::PENDING))
        .all(&ganeti.database)
        .await?;
    let mut jobs: HashMap<i64, Vec<i64>> = HashMap::new();
    for server in waiting {
        jobs.entry(server.backend_id)
            .or_default()
            .extend(server.task_job);
    }
    for row in connecting {
        let ids = row.jobs.as_array().into_iter().flatten();
        jobs.entry(row.backend_id)
            .or_default()
            .extend(ids.filter_map(Value::as_i64));
    }
    for row in labelling(&ganeti.database).await? {
        jobs.entry(row.backend_id).or_default().extend(row.job_id);
    }
    for (id, jobs) in jobs {
        let Some(backend) = backend::Entity::find_by_id(id)
            .one(&ganeti.database)
            .await?
        else {
            continue;
        };
        if let Err(error) = of_backend(ganeti, &backend, &jobs).await {
            tracing::warn!(backend = %backend.name, %error, "its jobs cannot be followed");
        }
    }
    Ok(())
}

async fn of_backend(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
    jobs: &[i64],
) -> Result<(), RouteError> {
    let rapi = ganeti.clients.of(backend)?;
    let cluster = backend.cluster.as_deref().unwrap_or_default();
    for id in jobs {
        let answer = rapi.get(&format!("/2/jobs/{id}"), &[]).await?;
        for told in job::tell(&answer, cluster) {
            let result = match told {
                Told::Network(message) => network::apply(ganeti, &message, Asking::Now).await,
                Told::Op(mut message) => {
                    if message.status == "success" {
                        add_parts(&rapi, &mut message).await?;
                    }
                    op::apply(ganeti, &message, Asking::Now).await
                }
            };
            match result {
                Ok(_) => {}
                Err(RouteError::Poison(reason)) => {
                    tracing::warn!(job = id, %reason, "a job that cannot be followed");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// What is asked of Ganeti for labels that are not there, or not gone, yet.
async fn labelling(database: &DatabaseConnection) -> Result<Vec<intent_row::Model>, DbErr> {
    let waiting = server_tag::Entity::find()
        .select_only()
        .column(server_tag::Column::ServerId)
        .distinct()
        .filter(server_tag::Column::Wanted.is_not_null())
        .limit(JOBS)
        .into_tuple::<i64>()
        .all(database)
        .await?;
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    intent_row::Entity::find()
        .filter(intent_row::Column::ServerId.is_in(waiting))
        .filter(intent_row::Column::Kind.eq(intent::LABEL))
        .filter(intent_row::Column::State.eq(intent::SUBMITTED))
        .order_by_desc(intent_row::Column::Id)
        .limit(JOBS)
        .all(database)
        .await
}

/// The parts of the instance that eventd would send along.
async fn add_parts(rapi: &Rapi, message: &mut OpMessage) -> Result<(), RapiError> {
    let parts = [
        "OP_INSTANCE_CREATE",
        "OP_INSTANCE_STARTUP",
        "OP_INSTANCE_SET_PARAMS",
    ];
    if !parts.contains(&message.operation.as_str()) {
        return Ok(());
    }
    if let Some(found) = rapi.instance(&message.instance).await? {
        message.instance_nics = Some(job::nics(&found));
        message.instance_hvparams = found.get("hvparams").and_then(job::boot);
    }
    Ok(())
}
