//! The rows of a NIC: its port, and the address that it holds.

use std::net::Ipv4Addr;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    QueryFilter,
};

use super::caller::Caller;
use super::fault::Fault;
use super::find;
use crate::dispatch::nics;
use crate::ganeti::addresses::{self, AddressError, Holder};
use crate::ganeti::request::Nic;
use crate::model::entity::{address, port, subnet};
use crate::model::{history, moment};

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

/// A NIC of a server, or a port for one that is to come, with its address.
///
/// # Errors
/// The network is not there, or takes no more; no address is left.
pub async fn insert(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    server_id: Option<i64>,
    index: Option<i32>,
    wanted: &WantedNic,
) -> Result<Nic, Fault> {
    let network = find::usable_network(transaction, caller, &wanted.network).await?;
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
        AddressError::Exhausted(_) | AddressError::Taken(_) => Fault::conflict(error.to_string()),
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
    address: address::Model,
) -> Result<Nic, Fault> {
    if let Some(port) = address.port_id {
        return Err(Fault::conflict(format!(
            "address {} is attached to port {port}",
            address.address
        )));
    }
    let now = moment::now();
    let port = port::ActiveModel {
        ipv4: ActiveValue::Set(Some(address.address.clone())),
        floating: ActiveValue::Set(true),
        ..new_port(caller, address.network_id, server_id, None, now)
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
