//! Letting go of what a server or a NIC that is no more had.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QuerySelect,
};

use crate::ganeti::intent;
use crate::model::entity::{address, intent as intent_row, port, server, volume};
use crate::model::{database, history, moment};

/// Frees everything that a removed server had.
///
/// # Errors
/// The database fails.
pub async fn clear(
    transaction: &DatabaseTransaction,
    server_id: i64,
    now: i64,
) -> Result<(), DbErr> {
    let ports: Vec<i64> = port::Entity::find()
        .select_only()
        .column(port::Column::Id)
        .filter(port::Column::ServerId.eq(server_id))
        .filter(port::Column::DeletedAt.is_null())
        .into_tuple()
        .all(transaction)
        .await?;
    for port in ports {
        clear_port(transaction, port, now).await?;
    }
    volume::Entity::update_many()
        .col_expr(volume::Column::Status, Expr::value("DELETED"))
        .col_expr(volume::Column::UpdatedAt, Expr::value(now))
        .col_expr(volume::Column::DeletedAt, Expr::value(now))
        .filter(volume::Column::ServerId.eq(server_id))
        .filter(volume::Column::DeletedAt.is_null())
        .exec(transaction)
        .await?;
    intent_row::Entity::update_many()
        .col_expr(intent_row::Column::State, Expr::value(intent::DROPPED))
        .col_expr(intent_row::Column::Error, Expr::value("the server is gone"))
        .filter(intent_row::Column::ServerId.eq(server_id))
        .filter(intent_row::Column::State.eq(intent::PENDING))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Ends the row of a server that nothing was ever made of, and the intent to remove it.
///
/// # Errors
/// The database fails.
pub async fn end_never_made(
    database: &DatabaseConnection,
    intent_id: i64,
    server_id: i64,
) -> Result<(), DbErr> {
    let transaction = database::write(database).await?;
    let reason = "nothing was ever made of this server";
    if !intent::end(&transaction, intent_id, intent::DROPPED, reason).await? {
        return Ok(());
    }
    let now = moment::now();
    clear(&transaction, server_id, now).await?;
    server::Entity::update_many()
        .col_expr(server::Column::Task, Expr::value(None::<String>))
        .col_expr(server::Column::TaskIntent, Expr::value(None::<i64>))
        .col_expr(server::Column::TaskJob, Expr::value(None::<i64>))
        .col_expr(server::Column::UpdatedAt, Expr::value(now))
        .col_expr(server::Column::DeletedAt, Expr::value(now))
        .filter(server::Column::Id.eq(server_id))
        .filter(server::Column::DeletedAt.is_null())
        .exec(&transaction)
        .await?;
    transaction.commit().await?;
    tracing::info!(server = server_id, %reason, "removed without asking its cluster");
    Ok(())
}

/// Ends a NIC that is no more, and frees its addresses.
///
/// # Errors
/// The database fails.
pub async fn clear_port(
    transaction: &DatabaseTransaction,
    port_id: i64,
    now: i64,
) -> Result<(), DbErr> {
    clear_addresses(transaction, port_id, now).await?;
    history::end(transaction, port_id, now).await?;
    port::Entity::update_many()
        .col_expr(port::Column::State, Expr::value("DELETED"))
        .col_expr(port::Column::UpdatedAt, Expr::value(now))
        .col_expr(port::Column::DeletedAt, Expr::value(now))
        .filter(port::Column::Id.eq(port_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Frees the addresses that a NIC holds: a floating one stays its owner's.
///
/// # Errors
/// The database fails.
pub async fn clear_addresses(
    transaction: &DatabaseTransaction,
    port_id: i64,
    now: i64,
) -> Result<(), DbErr> {
    address::Entity::update_many()
        .col_expr(address::Column::PortId, Expr::value(None::<i64>))
        .col_expr(address::Column::UpdatedAt, Expr::value(now))
        .filter(address::Column::PortId.eq(port_id))
        .filter(address::Column::Floating.eq(true))
        .exec(transaction)
        .await?;
    address::Entity::update_many()
        .col_expr(address::Column::Live, Expr::value(None::<bool>))
        .col_expr(address::Column::UpdatedAt, Expr::value(now))
        .col_expr(address::Column::DeletedAt, Expr::value(now))
        .filter(address::Column::PortId.eq(port_id))
        .filter(address::Column::Floating.eq(false))
        .filter(address::Column::Live.eq(true))
        .exec(transaction)
        .await?;
    Ok(())
}
