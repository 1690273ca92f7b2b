//! Bringing a network into a cluster, when the first NIC there needs it.

use std::collections::HashSet;
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter,
};
use serde_json::{Value, json};

use super::naming::Naming;
use super::rapi::{Rapi, RapiError};
use super::request;
use crate::model::database::{self, insert_once};
use crate::model::entity::{backend, backend_network, network, subnet};

/// Known to us, not to the cluster.
pub const ABSENT: &str = "ABSENT";
/// Jobs are on their way.
pub const PENDING: &str = "PENDING";
/// Connected: NICs can be there.
pub const ACTIVE: &str = "ACTIVE";
/// The cluster could not add it.
pub const ERROR: &str = "ERROR";
/// Removed from the cluster.
pub const DELETED: &str = "DELETED";

/// How long we wait for another process that is bringing the same network in.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time that a claim holds before another process may begin anew, in microseconds.
const LEASE: i64 = 60_000_000;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why a network could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// RAPI failed.
    #[error(transparent)]
    Rapi(#[from] RapiError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// There is no such network.
    #[error("network {0} is gone")]
    Gone(i64),
    /// Somebody else is at it and does not get on.
    #[error("network {0} is being brought into the cluster by another process")]
    Busy(i64),
}

/// Makes sure the network is in the cluster or on its way; returns the jobs to wait for.
///
/// # Errors
/// See [`NetworkError`].
pub async fn ensure(
    database: &DatabaseConnection,
    naming: &Naming,
    rapi: &Rapi,
    backend: &backend::Model,
    network_id: i64,
) -> Result<Vec<i64>, NetworkError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let row = row(database, network_id, backend.id).await?;
        match row.state.as_str() {
            ACTIVE => return Ok(Vec::new()),
            PENDING if !jobs(&row).is_empty() => return Ok(jobs(&row)),
            _ => {}
        }
        if claim(database, &row).await? {
            let result = bring(database, naming, rapi, backend, network_id, &row).await;
            if result.is_err() {
                unclaim(database, row.id).await?;
            }
            return result;
        }
        if tokio::time::Instant::now() > deadline {
            return Err(NetworkError::Busy(network_id));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn bring(
    database: &DatabaseConnection,
    naming: &Naming,
    rapi: &Rapi,
    backend: &backend::Model,
    network_id: i64,
    row: &backend_network::Model,
) -> Result<Vec<i64>, NetworkError> {
    let network = network::Entity::find_by_id(network_id)
        .filter(network::Column::DeletedAt.is_null())
        .one(database)
        .await?
        .ok_or(NetworkError::Gone(network_id))?;
    let subnets = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.eq(network_id))
        .filter(subnet::Column::Live.eq(true))
        .all(database)
        .await?;
    let name = naming.network(network_id);
    // A lost answer or a lost database: the cluster may have it already.
    let existing = rapi.network(&name).await?;
    let connected = existing.as_ref().map(groups_of).unwrap_or_default();
    let reason = format!("snf-central:{}:network:{network_id}", naming.prefix());
    let mut submitted = Vec::new();
    let add_job = match existing {
        Some(_) => None,
        None => {
            let add = request::network_add(naming, &network, &subnets, backend.mac_index);
            let body = add.body.as_ref();
            let job = rapi
                .submit(add.method.into(), &add.path, &[], body, &reason)
                .await?;
            Some(job)
        }
    };
    for group in rapi.groups().await? {
        if connected.contains(&group) {
            continue;
        }
        let connect = request::network_connect(naming, &network, &group, add_job);
        let body = connect.body.as_ref();
        let job = rapi
            .submit(connect.method.into(), &connect.path, &[], body, &reason)
            .await?;
        submitted.push(job);
    }
    let state = if submitted.is_empty() {
        ACTIVE
    } else {
        PENDING
    };
    backend_network::Entity::update_many()
        .col_expr(backend_network::Column::State, Expr::value(state))
        .col_expr(backend_network::Column::Jobs, Expr::value(json!(submitted)))
        .col_expr(backend_network::Column::ClaimedUntil, Expr::value(0_i64))
        .filter(backend_network::Column::Id.eq(row.id))
        // A message of these very jobs may have been quicker than we are.
        .filter(backend_network::Column::JobId.lt(submitted.first().copied().unwrap_or(i64::MAX)))
        .exec(database)
        .await?;
    unclaim(database, row.id).await?;
    tracing::info!(network = %name, backend = %backend.name, jobs = ?submitted,
        "network is brought into the cluster");
    Ok(submitted)
}

/// The row of this network in this cluster, made if it is not there.
///
/// # Errors
/// The database fails.
pub async fn row(
    database: &impl ConnectionTrait,
    network_id: i64,
    backend_id: i64,
) -> Result<backend_network::Model, DbErr> {
    let find = || {
        backend_network::Entity::find()
            .filter(backend_network::Column::NetworkId.eq(network_id))
            .filter(backend_network::Column::BackendId.eq(backend_id))
    };
    if let Some(row) = find().one(database).await? {
        return Ok(row);
    }
    let new = backend_network::ActiveModel {
        id: ActiveValue::NotSet,
        network_id: ActiveValue::Set(network_id),
        backend_id: ActiveValue::Set(backend_id),
        state: ActiveValue::Set(ABSENT.to_owned()),
        jobs: ActiveValue::Set(json!([])),
        claimed_until: ActiveValue::Set(0),
        job_id: ActiveValue::Set(0),
        job_rank: ActiveValue::Set(0),
        job_time: ActiveValue::Set(0),
        job_opcode: ActiveValue::Set(None),
    };
    let key = [
        backend_network::Column::NetworkId,
        backend_network::Column::BackendId,
    ];
    insert_once(database, new, key).await?;
    find()
        .one(database)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound(format!("network {network_id} in {backend_id}")))
}

/// Claims the bringing in, for [`LEASE`]. The network is locked meanwhile, so that its subnets are
/// not being changed: from now on they are fixed.
async fn claim(database: &DatabaseConnection, row: &backend_network::Model) -> Result<bool, DbErr> {
    let transaction = database::write(database).await?;
    let network = network::Entity::find_by_id(row.network_id);
    database::lock_for_reading(&transaction, network)
        .one(&transaction)
        .await?;
    let over = Expr::col(backend_network::Column::ClaimedUntil).lt(database::clock(database));
    let done = backend_network::Entity::update_many()
        .col_expr(
            backend_network::Column::ClaimedUntil,
            database::clock_in(database, LEASE),
        )
        .filter(backend_network::Column::Id.eq(row.id))
        .filter(over)
        .exec(&transaction)
        .await?;
    transaction.commit().await?;
    Ok(done.rows_affected == 1)
}

async fn unclaim(database: &DatabaseConnection, id: i64) -> Result<(), DbErr> {
    backend_network::Entity::update_many()
        .col_expr(backend_network::Column::ClaimedUntil, Expr::value(0_i64))
        .filter(backend_network::Column::Id.eq(id))
        .exec(database)
        .await?;
    Ok(())
}

fn jobs(row: &backend_network::Model) -> Vec<i64> {
    row.jobs
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .collect()
}

/// The node groups that `GET /2/networks/N` says it is connected to.
fn groups_of(network: &Value) -> HashSet<String> {
    network
        .get("group_list")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.get(0)?.as_str()?.to_owned()))
        .collect()
}
