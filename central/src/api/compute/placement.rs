//! Finding a cluster for a new server, and taking what it needs there.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use crate::api::fault::Fault;
use crate::ganeti::allocation::{self, Candidate};
use crate::ganeti::guard;
use crate::model::entity::{backend, flavor, server};

/// Chooses a cluster and books the server's memory and disk there, until the cluster is
/// measured again.
///
/// # Errors
/// 503: none can take it.
pub async fn place(
    transaction: &DatabaseTransaction,
    flavor: &flavor::Model,
) -> Result<backend::Model, Fault> {
    let backends = backend::Entity::find()
        .filter(backend::Column::Offline.eq(false))
        .filter(backend::Column::Drained.eq(false))
        // In one order: two that lock several would else wait for each other.
        .order_by_asc(backend::Column::Id)
        .lock_exclusive()
        .all(transaction)
        .await?;
    // A server is made where this database alone gives out names.
    let foreign = guard::foreign(transaction).await?;
    let promised = promised(transaction).await?;
    let candidates: Vec<Candidate> = backends
        .into_iter()
        .filter(|backend| !foreign.contains(&backend.id))
        .map(|backend| Candidate {
            vcpus: promised.get(&backend.id).copied().unwrap_or(0),
            backend,
        })
        .collect();
    let chosen = allocation::choose(&candidates, flavor).ok_or_else(|| {
        Fault::unavailable("no cluster has room for a server of this flavor; try later")
    })?;
    book(transaction, chosen.id, flavor, 1).await?;
    Ok(chosen.clone())
}

/// Takes the memory and the disk of a flavor off what a cluster has (`sign` 1), or gives it back
/// (-1).
pub async fn book(
    transaction: &DatabaseTransaction,
    backend_id: i64,
    flavor: &flavor::Model,
    sign: i64,
) -> Result<(), DbErr> {
    let memory = flavor.ram.saturating_mul(sign);
    let disk = allocation::disk_need(flavor).saturating_mul(sign);
    backend::Entity::update_many()
        .col_expr(
            backend::Column::MemoryFree,
            Expr::col(backend::Column::MemoryFree).sub(memory),
        )
        .col_expr(
            backend::Column::DiskFree,
            Expr::col(backend::Column::DiskFree).sub(disk),
        )
        .col_expr(
            backend::Column::Instances,
            Expr::col(backend::Column::Instances).add(sign),
        )
        .filter(backend::Column::Id.eq(backend_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// The processors that our servers have been promised, by cluster.
async fn promised(database: &impl ConnectionTrait) -> Result<HashMap<i64, i64>, DbErr> {
    let counts: Vec<(i64, i64, i64)> = server::Entity::find()
        .select_only()
        .column(server::Column::BackendId)
        .column(server::Column::FlavorId)
        .column_as(server::Column::Id.count(), "servers")
        .filter(server::Column::DeletedAt.is_null())
        .group_by(server::Column::BackendId)
        .group_by(server::Column::FlavorId)
        .into_tuple()
        .all(database)
        .await?;
    let vcpus: HashMap<i64, i64> = flavor::Entity::find()
        .select_only()
        .column(flavor::Column::Id)
        .column(flavor::Column::Vcpus)
        .into_tuple::<(i64, i64)>()
        .all(database)
        .await?
        .into_iter()
        .collect();
    let mut sums = HashMap::new();
    for (backend, flavor, servers) in counts {
        let each = vcpus.get(&flavor).copied().unwrap_or(0);
        let sum: &mut i64 = sums.entry(backend).or_default();
        *sum = sum.saturating_add(each.saturating_mul(servers));
    }
    Ok(sums)
}
