//! Following jobs by asking for them.
//!
//! Without a broker this is how states follow, only slower; with one it is for events that got
//! lost. What a job says goes the way that messages go, so a message that comes later, or came
//! before, has no second effect.

use std::collections::HashMap;
use std::sync::Arc;

use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::Value;

use crate::dispatch::route::RouteError;
use crate::dispatch::{network, op};
use crate::ganeti::job::{self, Told};
use crate::ganeti::networks;
use crate::ganeti::rapi::{Rapi, RapiError};
use crate::ganeti::submission::Submitter;
use crate::model::entity::{backend, backend_network, server};
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
                Told::Network(message) => network::apply(ganeti, &message).await,
                Told::Op(mut message) => {
                    if message.status == "success" {
                        message.instance_nics =
                            nics_after(&rapi, &message.operation, &message.instance).await?;
                    }
                    op::apply(ganeti, &message).await
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

/// The NICs, where eventd would send them along.
async fn nics_after(
    rapi: &Rapi,
    operation: &str,
    instance: &str,
) -> Result<Option<Vec<agents::message::InstanceNic>>, RapiError> {
    match operation {
        "OP_INSTANCE_CREATE" | "OP_INSTANCE_STARTUP" | "OP_INSTANCE_SET_PARAMS" => Ok(rapi
            .instance(instance)
            .await?
            .map(|found| job::nics(&found))),
        _ => Ok(None),
    }
}
