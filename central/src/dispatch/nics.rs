//! Making the NICs of a server what Ganeti says they are.

use agents::addr::{self, Ipv6Net, MacAddr};
use agents::message::InstanceNic;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter,
};

use super::removal;
use crate::ganeti::naming::Naming;
use crate::model::entity::{port, server, subnet};
use crate::model::moment;

pub const BUILD: &str = "BUILD";
pub const ACTIVE: &str = "ACTIVE";
pub const ERROR: &str = "ERROR";

/// Applies the whole list of NICs that an instance has.
///
/// # Errors
/// The database fails.
pub async fn make_so(
    naming: &Naming,
    transaction: &DatabaseTransaction,
    server: &server::Model,
    nics: &[InstanceNic],
) -> Result<(), DbErr> {
    let ports = port::Entity::find()
        .filter(port::Column::ServerId.eq(server.id))
        .filter(port::Column::DeletedAt.is_null())
        .all(transaction)
        .await?;
    let networks: Vec<i64> = ports.iter().map(|port| port.network_id).collect();
    let ranges = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.is_in(networks))
        .filter(subnet::Column::IpVersion.eq(6))
        .filter(subnet::Column::Live.eq(true))
        .all(transaction)
        .await?;
    let now = moment::now();
    let mut seen = Vec::new();
    for (index, nic) in nics.iter().enumerate() {
        let id = nic.name.as_deref().and_then(|name| naming.nic_id(name));
        let Some(port) = id.and_then(|id| ports.iter().find(|port| port.id == id)) else {
            // Somebody plugged it in without us; it is not ours to adopt.
            tracing::warn!(server = server.id, nic = nic.name.as_deref().unwrap_or("(unnamed)"),
                mac = %nic.mac, "a NIC that we do not know");
            continue;
        };
        seen.push(port.id);
        let range = ranges
            .iter()
            .find(|range| range.network_id == port.network_id);
        let mut row = port.clone().into_active_model();
        row.state = ActiveValue::Set(ACTIVE.to_owned());
        row.nic_index = ActiveValue::Set(i32::try_from(index).ok());
        row.mac = ActiveValue::Set(Some(nic.mac.to_ascii_lowercase()));
        row.ipv4 = ActiveValue::Set(nic.ip.clone().filter(|ip| !ip.is_empty()));
        row.ipv6 = ActiveValue::Set(range.and_then(|range| by_mac(range, &nic.mac)));
        if let Some(profile) = &nic.firewall {
            row.firewall = ActiveValue::Set(profile_of_tag(profile).map(str::to_owned));
        }
        row.updated_at = ActiveValue::Set(now);
        row.update(transaction).await?;
    }
    for port in &ports {
        // One in BUILD may belong to a job that has not run yet.
        if port.state == ACTIVE && !seen.contains(&port.id) {
            removal::clear_port(transaction, port.id, now).await?;
        }
    }
    Ok(())
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
