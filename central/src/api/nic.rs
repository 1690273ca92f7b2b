//! The rows of a NIC: its port, and the address that it holds.

use std::net::Ipv4Addr;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    PaginatorTrait, QueryFilter, QuerySelect,
};

use super::caller::Caller;
use super::fault::Fault;
use super::find;
use crate::dispatch::nics;
use crate::ganeti::addresses::{self, AddressError, Holder};
use crate::ganeti::request::Nic;
use crate::model::entity::{address, network, port, subnet};
use crate::model::{history, moment};

/// The most NICs a server may have: Ganeti's own limit.
pub const NICS: usize = 8;

/// Makes sure that a server may have one more NIC; its row is locked by the caller.
///
/// # Errors
/// 413: it has as many as it may have.
pub async fn one_more(transaction: &DatabaseTransaction, server_id: i64) -> Result<(), Fault> {
    let count = port::Entity::find()
        .filter(port::Column::ServerId.eq(server_id))
        .filter(port::Column::DeletedAt.is_null())
        .count(transaction)
        .await?;
    if count >= NICS as u64 {
        return Err(Fault::over_limit(format!(
            "server {server_id} has {count} NICs: a server has at most {NICS}"
        )));
    }
    Ok(())
}

/// A NIC to be made.
pub struct WantedNic {
    pub network: String,
    pub address: Option<Ipv4Addr>,
}

/// Puts a port that exists, and is on no server, on a new one.
///
/// # Errors
/// It is not the caller's, or in use.
pub async fn adopt(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    server_id: i64,
    index: Option<i32>,
    id: &str,
) -> Result<Nic, Fault> {
    let port = find::port_for_change(transaction, caller, id).await?;
    if let Some(server) = port.server_id {
        return Err(Fault::conflict(format!("port {id} is on server {server}")));
    }
    // A port outlives its network only where something went wrong: then it is of no use.
    let network = port.network_id.to_string();
    find::usable_network(transaction, caller, &network).await?;
    let nic = Nic {
        port_id: port.id,
        network_id: port.network_id,
        address: port.ipv4.clone(),
    };
    let mut row = port.into_active_model();
    row.server_id = ActiveValue::Set(Some(server_id));
    row.state = ActiveValue::Set(nics::BUILD.to_owned());
    row.nic_index = ActiveValue::Set(index);
    let now = moment::now();
    row.updated_at = ActiveValue::Set(now);
    let port = row.update(transaction).await?;
    history::follow(transaction, &port, now).await?;
    Ok(nic)
}

/// A port of the caller's, on a server or on none, without an address.
fn new_port(
    caller: &Caller,
    network_id: i64,
    server_id: Option<i64>,
    index: Option<i32>,
    now: i64,
) -> port::ActiveModel {
    let state = match server_id {
        Some(_) => nics::BUILD,
        None => nics::DOWN,
    };
    port::ActiveModel {
        id: ActiveValue::NotSet,
        name: ActiveValue::Set(String::new()),
        user_id: ActiveValue::Set(caller.user_id.clone()),
        project_id: ActiveValue::Set(caller.project_id.clone()),
        network_id: ActiveValue::Set(network_id),
        server_id: ActiveValue::Set(server_id),
        state: ActiveValue::Set(state.to_owned()),
        nic_index: ActiveValue::Set(index),
        mac: ActiveValue::Set(None),
        ipv4: ActiveValue::Set(None),
        ipv6: ActiveValue::Set(None),
        firewall: ActiveValue::Set(None),
        floating: ActiveValue::Set(false),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    }
}

/// The floating IP of the caller's with this address in a pool, locked.
///
/// # Errors
/// 403: no address is named, or it is not one that the caller's project holds: an address of a pool
/// is had by holding it, and counts as a floating IP.
async fn held_in_pool(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    pool: &network::Model,
    wanted: Option<Ipv4Addr>,
) -> Result<address::Model, Fault> {
    let held = match wanted {
        Some(wanted) => {
            address::Entity::find()
                .filter(address::Column::NetworkId.eq(pool.id))
                .filter(address::Column::Address.eq(wanted.to_string()))
                .filter(address::Column::Floating.eq(true))
                .filter(address::Column::Live.eq(true))
                .filter(address::Column::ProjectId.eq(caller.project_id.as_str()))
                .lock_exclusive()
                .one(transaction)
                .await?
        }
        None => None,
    };
    held.ok_or_else(|| {
        Fault::forbidden(format!(
            "network {} is a pool of floating IPs: a NIC there needs the address of a floating IP \
             of yours (fixed_ip), or attach the floating IP",
            pool.id
        ))
    })
}

/// A NIC of a server, or a port for one that is to come, with its address.
///
/// # Errors
/// The network is not there, or takes no more; no address is left; it is a pool of floating IPs
/// and the address is not one of the caller's.
pub async fn insert(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    server_id: Option<i64>,
    index: Option<i32>,
    wanted: &WantedNic,
) -> Result<Nic, Fault> {
    let network = find::usable_network(transaction, caller, &wanted.network).await?;
    if network.floating_ip_pool {
        let held = held_in_pool(transaction, caller, &network, wanted.address).await?;
        return insert_floating(transaction, caller, server_id, index, held).await;
    }
    let v4 = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.eq(network.id))
        .filter(subnet::Column::IpVersion.eq(4))
        .filter(subnet::Column::Live.eq(true))
        .one(transaction)
        .await?;
    let now = moment::now();
    let port = new_port(caller, network.id, server_id, index, now)
        .insert(transaction)
        .await?;
    let port_id = port.id;
    let address = match v4 {
        Some(subnet) => {
            let holder = Holder {
                user_id: &caller.user_id,
                project_id: &caller.project_id,
                port_id: Some(port_id),
                floating: false,
            };
            let taken = addresses::take(transaction, &subnet, wanted.address, &holder)
                .await
                .map_err(refusal)?;
            let mut row = port.into_active_model();
            row.ipv4 = ActiveValue::Set(Some(taken.address.clone()));
            let port = row.update(transaction).await?;
            history::follow(transaction, &port, now).await?;
            Some(taken.address)
        }
        None => match wanted.address {
            Some(address) => {
                return Err(Fault::field(
                    "fixed_ip",
                    address,
                    "the network has no IPv4 subnet",
                ));
            }
            None => None,
        },
    };
    Ok(Nic {
        port_id,
        network_id: network.id,
        address,
    })
}

/// What a user is told who gets no address.
pub fn refusal(error: AddressError) -> Fault {
    match error {
        AddressError::Database(error) => error.into(),
        AddressError::Outside { .. } => Fault::bad_request(error.to_string()),
        AddressError::Exhausted(_) | AddressError::Taken(_) | AddressError::Gone(_) => {
            Fault::conflict(error.to_string())
        }
        AddressError::BadSubnet(..) => Fault::internal(error),
    }
}

/// A port with a floating IP, on a server or on none.
///
/// # Errors
/// It is attached.
pub async fn insert_floating(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    server_id: Option<i64>,
    index: Option<i32>,
    address: address::Model,
) -> Result<Nic, Fault> {
    if let Some(port) = address.port_id {
        return Err(Fault::conflict(format!(
            "address {} is attached to port {port}",
            address.address
        )));
    }
    // The address outlives neither its pool nor a drain of it.
    let pool = address.network_id.to_string();
    find::usable_network(transaction, caller, &pool).await?;
    let now = moment::now();
    let port = port::ActiveModel {
        ipv4: ActiveValue::Set(Some(address.address.clone())),
        floating: ActiveValue::Set(true),
        ..new_port(caller, address.network_id, server_id, index, now)
    };
    let port = port.insert(transaction).await?;
    history::follow(transaction, &port, now).await?;
    let nic = Nic {
        port_id: port.id,
        network_id: port.network_id,
        address: Some(address.address.clone()),
    };
    let mut row = address.into_active_model();
    row.port_id = ActiveValue::Set(Some(port.id));
    row.updated_at = ActiveValue::Set(now);
    row.update(transaction).await?;
    Ok(nic)
}
