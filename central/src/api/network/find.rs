//! Looking up what the caller may see of the network.

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect, Select,
};

use crate::api::caller::Caller;
use crate::api::fault::Fault;
use crate::model::entity::{network, port, subnet};

/// The number in a path; anything else names nothing.
pub fn number(what: &str, text: &str) -> Result<i64, Fault> {
    text.parse::<i64>()
        .ok()
        .filter(|id| *id > 0 && !text.starts_with('+'))
        .ok_or_else(|| Fault::not_found(what, text))
}

/// The networks that the caller may see: public ones and those of the project.
pub fn visible(caller: &Caller) -> Condition {
    Condition::any()
        .add(network::Column::Public.eq(true))
        .add(network::Column::ProjectId.eq(caller.project_id.as_str()))
}

/// A network that the caller may see.
pub async fn network(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<network::Model, Fault> {
    let number = number("network", id)?;
    network::Entity::find_by_id(number)
        .filter(visible(caller))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("network", id))
}

/// A network that a NIC can be put into.
pub async fn usable(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<network::Model, Fault> {
    let network = network(database, caller, id).await?;
    if network.deleted_at.is_some() {
        return Err(Fault::not_found("network", id));
    }
    if network.drained {
        return Err(Fault::conflict(format!(
            "network {id} takes no more NICs: it is drained"
        )));
    }
    Ok(network)
}

/// A network of the caller's own, locked for a change.
pub async fn own(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<network::Model, Fault> {
    let number = number("network", id)?;
    let network = network::Entity::find_by_id(number)
        .filter(visible(caller))
        .filter(network::Column::DeletedAt.is_null())
        .lock_exclusive()
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("network", id))?;
    if network.public && !caller.admin {
        return Err(Fault::forbidden(format!("network {id} is public")));
    }
    Ok(network)
}

/// A subnet of a network that the caller may see.
pub async fn subnet(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<(subnet::Model, network::Model), Fault> {
    let number = number("subnet", id)?;
    let missing = || Fault::not_found("subnet", id);
    let subnet = subnet::Entity::find_by_id(number)
        .one(database)
        .await?
        .ok_or_else(missing)?;
    let network = network::Entity::find_by_id(subnet.network_id)
        .filter(visible(caller))
        .one(database)
        .await?
        .ok_or_else(missing)?;
    Ok((subnet, network))
}

/// A port of the caller's project, locked for a change.
pub async fn port_for_change(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<port::Model, Fault> {
    own_port(caller, id)?
        .lock_exclusive()
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("port", id))
}

/// A port of the caller's project.
pub async fn port(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<port::Model, Fault> {
    own_port(caller, id)?
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("port", id))
}

fn own_port(caller: &Caller, id: &str) -> Result<Select<port::Entity>, Fault> {
    Ok(port::Entity::find_by_id(number("port", id)?)
        .filter(port::Column::ProjectId.eq(caller.project_id.as_str()))
        .filter(port::Column::DeletedAt.is_null()))
}
