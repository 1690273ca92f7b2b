//! Which server had which address, from when to when: who must answer for an address at a time
//! in the past can be told.
//!
//! It is written in the transaction that gives or takes the address. An IPv6 address is known once
//! the MAC address is; the other ones that a guest takes in its prefix (RFC 8981) are not told
//! here.

use std::net::IpAddr;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction,
    DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use super::entity::{address_history, port};
use super::moment;

/// Brings the history in line with what `port` has now.
///
/// # Errors
/// The database fails.
pub async fn follow(
    transaction: &DatabaseTransaction,
    port: &port::Model,
    now: i64,
) -> Result<(), DbErr> {
    let open = address_history::Entity::find()
        .filter(address_history::Column::PortId.eq(port.id))
        .filter(address_history::Column::ReleasedAt.is_null())
        .all(transaction)
        .await?;
    let server = port.server_id.filter(|_| port.deleted_at.is_none());
    let held: Vec<String> = [&port.ipv4, &port.ipv6]
        .into_iter()
        .flatten()
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .map(|address| address.to_string())
        .collect();
    let stays = |row: &address_history::Model| {
        server == Some(row.server_id)
            && row.network_id == port.network_id
            && held.contains(&row.address)
    };
    for row in open.iter().filter(|row| !stays(row)) {
        let mut row = row.clone().into_active_model();
        row.released_at = ActiveValue::Set(Some(now));
        row.update(transaction).await?;
    }
    let Some(server_id) = server else {
        return Ok(());
    };
    for address in &held {
        let known = open
            .iter()
            .find(|row| stays(row) && row.address == *address);
        match known {
            Some(row) if row.mac == port.mac => {}
            Some(row) if row.mac.is_none() => {
                let mut row = row.clone().into_active_model();
                row.mac = ActiveValue::Set(port.mac.clone());
                row.update(transaction).await?;
            }
            other => {
                // The same address behind another MAC address is another use of it.
                if let Some(row) = other {
                    let mut row = row.clone().into_active_model();
                    row.released_at = ActiveValue::Set(Some(now));
                    row.update(transaction).await?;
                }
                begin(transaction, port, server_id, address.clone(), now).await?;
            }
        }
    }
    Ok(())
}

async fn begin(
    transaction: &DatabaseTransaction,
    port: &port::Model,
    server_id: i64,
    address: String,
    now: i64,
) -> Result<(), DbErr> {
    let row = address_history::ActiveModel {
        id: ActiveValue::NotSet,
        address: ActiveValue::Set(address),
        network_id: ActiveValue::Set(port.network_id),
        server_id: ActiveValue::Set(server_id),
        port_id: ActiveValue::Set(port.id),
        mac: ActiveValue::Set(port.mac.clone()),
        user_id: ActiveValue::Set(port.user_id.clone()),
        project_id: ActiveValue::Set(port.project_id.clone()),
        bound_at: ActiveValue::Set(now),
        released_at: ActiveValue::Set(None),
    };
    row.insert(transaction).await?;
    Ok(())
}

/// A NIC is no more: what it had, it has no longer.
///
/// # Errors
/// The database fails.
pub async fn end(transaction: &DatabaseTransaction, port_id: i64, now: i64) -> Result<(), DbErr> {
    address_history::Entity::update_many()
        .col_expr(address_history::Column::ReleasedAt, Expr::value(now))
        .filter(address_history::Column::PortId.eq(port_id))
        .filter(address_history::Column::ReleasedAt.is_null())
        .exec(transaction)
        .await?;
    Ok(())
}

/// A server that Ganeti never heard of had nothing.
///
/// # Errors
/// The database fails.
pub async fn forget_server(transaction: &DatabaseTransaction, server_id: i64) -> Result<(), DbErr> {
    address_history::Entity::delete_many()
        .filter(address_history::Column::ServerId.eq(server_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// What is to be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question {
    /// Of this address only.
    pub address: Option<IpAddr>,
    /// Of this server only.
    pub server_id: Option<i64>,
    /// What was so at this time (microseconds since 1970).
    pub at: Option<i64>,
}

/// The rows that answer `question`, the oldest first, beginning after the one with the id `after`.
///
/// # Errors
/// The database fails.
pub async fn find(
    database: &impl ConnectionTrait,
    question: Question,
    after: i64,
    limit: u64,
) -> Result<Vec<address_history::Model>, DbErr> {
    let mut wanted = Condition::all().add(address_history::Column::Id.gt(after));
    if let Some(address) = question.address {
        let text = address.to_canonical().to_string();
        wanted = wanted.add(address_history::Column::Address.eq(text));
    }
    if let Some(server) = question.server_id {
        wanted = wanted.add(address_history::Column::ServerId.eq(server));
    }
    if let Some(at) = question.at {
        wanted = wanted.add(address_history::Column::BoundAt.lte(at)).add(
            Condition::any()
                .add(address_history::Column::ReleasedAt.is_null())
                .add(address_history::Column::ReleasedAt.gt(at)),
        );
    }
    address_history::Entity::find()
        .filter(wanted)
        .order_by_asc(address_history::Column::Id)
        .limit(limit)
        .all(database)
        .await
}

/// A row for programs.
pub fn view(row: &address_history::Model) -> Value {
    json!({
        "id": row.id.to_string(),
        "address": row.address,
        "network_id": row.network_id.to_string(),
        "server_id": row.server_id.to_string(),
        "port_id": row.port_id.to_string(),
        "mac_address": row.mac,
        "user_id": row.user_id,
        "tenant_id": row.project_id,
        "bound": moment::iso_micros(row.bound_at),
        "released": row.released_at.map(moment::iso_micros),
    })
}
