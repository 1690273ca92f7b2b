//! Making the NICs of a server what Ganeti says they are.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use agents::addr::{self, Ipv6Net, MacAddr};
use agents::message::InstanceNic;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder,
};

use super::removal;
use crate::ganeti::addresses::{self, AddressError, Holder};
use crate::ganeti::naming::Naming;
use crate::model::entity::{address, network, port, server, subnet};
use crate::model::{changes, database, history, moment};

pub const BUILD: &str = "BUILD";
pub const ACTIVE: &str = "ACTIVE";
pub const ERROR: &str = "ERROR";
/// On no server.
pub const DOWN: &str = "DOWN";

/// Which NICs are no more when the instance does not have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Those that it had: one in BUILD may belong to a job that has not run yet.
    Active,
    /// All: no job is on its way.
    All,
}

/// Applies the whole list of NICs that an instance has.
///
/// # Errors
/// The database fails.
pub async fn make_so(
    naming: &Naming,
    transaction: &DatabaseTransaction,
    server: &server::Model,
    nics: &[InstanceNic],
    absent: Absent,
) -> Result<(), DbErr> {
    let ports = port::Entity::find()
        .filter(port::Column::ServerId.eq(server.id))
        .filter(port::Column::DeletedAt.is_null())
        .all(transaction)
        .await?;
    let moved = networks_of(naming, transaction, nics).await?;
    let mut networks: Vec<i64> = ports.iter().map(|port| port.network_id).collect();
    networks.extend(&moved);
    let ranges = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.is_in(networks))
        .filter(subnet::Column::Live.eq(true))
        .all(transaction)
        .await?;
    let range_of = |network: i64, version: i32| {
        ranges
            .iter()
            .find(move |range| range.network_id == network && range.ip_version == version)
    };
    let now = moment::now();
    for port in &ports {
        let stays = nics.iter().any(|nic| port_of(naming, nic) == Some(port.id));
        if !stays && (port.state == ACTIVE || absent == Absent::All) {
            removal::clear_port(transaction, port.id, now).await?;
        }
    }
    let mut done = HashSet::new();
    for (index, nic) in nics.iter().enumerate() {
        // Of two with one name the first is meant.
        let id = port_of(naming, nic).filter(|id| done.insert(*id));
        let Some(port) = id.and_then(|id| ports.iter().find(|port| port.id == id)) else {
            // Somebody plugged it in without us; it is not ours to adopt.
            tracing::warn!(server = server.id, nic = nic.name.as_deref().unwrap_or("(unnamed)"),
                mac = %nic.mac, "a NIC that we do not know");
            continue;
        };
        let network = nic
            .network
            .as_deref()
            .and_then(|name| naming.network_id(name))
            .filter(|network| moved.contains(network))
            .unwrap_or(port.network_id);
        let ip = nic.ip.clone().filter(|ip| !ip.is_empty());
        let floating = hold(transaction, port, range_of(network, 4), ip.as_deref(), now).await?;
        // No tag is a statement as well: the NIC has no firewall.
        let profile = nic.firewall.as_deref().and_then(profile_of_tag);
        let new = port::Model {
            floating,
            network_id: network,
            state: ACTIVE.to_owned(),
            nic_index: i32::try_from(index).ok(),
            mac: Some(nic.mac.to_ascii_lowercase()),
            ipv4: ip,
            ipv6: range_of(network, 6).and_then(|range| by_mac(range, &nic.mac)),
            firewall: profile.map(str::to_owned),
            ..port.clone()
        };
        let mut row: port::ActiveModel = changes::between(port.clone(), &new);
        let new = if row.is_changed() {
            row.updated_at = ActiveValue::Set(now);
            row.update(transaction).await?
        } else {
            new
        };
        history::follow(transaction, &new, now).await?;
    }
    Ok(())
}

fn port_of(naming: &Naming, nic: &InstanceNic) -> Option<i64> {
    nic.name.as_deref().and_then(|name| naming.nic_id(name))
}

/// The networks of ours that the NICs are in and that are there.
async fn networks_of(
    naming: &Naming,
    transaction: &DatabaseTransaction,
    nics: &[InstanceNic],
) -> Result<Vec<i64>, DbErr> {
    let named: Vec<i64> = nics
        .iter()
        .filter_map(|nic| naming.network_id(nic.network.as_deref()?))
        .collect();
    if named.is_empty() {
        return Ok(named);
    }
    let query = network::Entity::find()
        .filter(network::Column::Id.is_in(named))
        .filter(network::Column::DeletedAt.is_null())
        .order_by_asc(network::Column::Id);
    // Locked: a NIC that somebody moved must not come into a network that is being deleted.
    Ok(database::lock_for_reading(transaction, query)
        .all(transaction)
        .await?
        .into_iter()
        .map(|network| network.id)
        .collect())
}

/// Makes `ip` the address that the port holds, and lets go of another one that it held; returns
/// whether it is a floating one. An address that somebody else holds stays his: the port shows
/// it, and a person must see to it.
async fn hold(
    transaction: &DatabaseTransaction,
    port: &port::Model,
    range: Option<&subnet::Model>,
    ip: Option<&str>,
    now: i64,
) -> Result<bool, DbErr> {
    let held = address::Entity::find()
        .filter(address::Column::PortId.eq(port.id))
        .filter(address::Column::Live.eq(true))
        .all(transaction)
        .await?;
    if let Some(same) = held.iter().find(|row| Some(row.address.as_str()) == ip) {
        return Ok(same.floating);
    }
    if !held.is_empty() {
        removal::clear_addresses(transaction, port.id, now).await?;
    }
    let Some((range, ip)) = range.zip(ip.and_then(|ip| ip.parse::<Ipv4Addr>().ok())) else {
        return Ok(false);
    };
    let other = address::Entity::find()
        .filter(address::Column::SubnetId.eq(range.id))
        .filter(address::Column::Number.eq(i64::from(u32::from(ip))))
        .filter(address::Column::Live.eq(true))
        .one(transaction)
        .await?;
    if let Some(other) = other {
        if other.floating && other.port_id.is_none() && other.project_id == port.project_id {
            let mut row = other.into_active_model();
            row.port_id = ActiveValue::Set(Some(port.id));
            row.updated_at = ActiveValue::Set(now);
            row.update(transaction).await?;
            return Ok(true);
        }
        tracing::error!(port = port.id, %ip, "the NIC has an address that somebody else holds");
        return Ok(false);
    }
    let holder = Holder {
        user_id: &port.user_id,
        project_id: &port.project_id,
        port_id: Some(port.id),
        floating: false,
    };
    match addresses::take(transaction, range, Some(ip), &holder).await {
        Ok(_) => Ok(false),
        Err(AddressError::Database(error)) => Err(error),
        Err(error) => {
            tracing::warn!(port = port.id, %ip, %error, "the NIC's address is not held");
            Ok(false)
        }
    }
}

/// Marks the NICs of a server whose creation failed.
///
/// # Errors
/// The database fails.
pub async fn fail(transaction: &DatabaseTransaction, server_id: i64) -> Result<(), DbErr> {
    port::Entity::update_many()
        .col_expr(port::Column::State, Expr::value(ERROR))
        .col_expr(port::Column::UpdatedAt, Expr::value(moment::now()))
        .filter(port::Column::ServerId.eq(server_id))
        .filter(port::Column::DeletedAt.is_null())
        .exec(transaction)
        .await?;
    Ok(())
}

/// The address that a guest with this MAC address takes in the subnet by SLAAC.
pub fn by_mac(subnet: &subnet::Model, mac: &str) -> Option<String> {
    let prefix: Ipv6Net = subnet.cidr.parse().ok()?;
    let mac: MacAddr = mac.parse().ok()?;
    addr::in_prefix(prefix, mac).map(|address| address.to_string())
}

/// The API's name for a firewall profile in a Ganeti tag.
pub fn profile_of_tag(tag: &str) -> Option<&'static str> {
    match tag {
        "protected" => Some("ENABLED"),
        "limited" => Some("PROTECTED"),
        "unprotected" => Some("DISABLED"),
        _ => None,
    }
}
