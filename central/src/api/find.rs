//! Looking up what belongs to the caller. What does not is not there.

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, ModelTrait,
    QueryFilter, QuerySelect, Select,
};

use super::authorization::{self, Privilege, Purpose};
use super::caller::Caller;
use super::fault::Fault;
use crate::model::database;
use crate::model::entity::{address, flavor, image, keypair, network, port, server, subnet};

/// The number in a path; anything else names nothing.
pub fn number(what: &str, text: &str) -> Result<i64, Fault> {
    text.parse::<i64>()
        .ok()
        .filter(|id| *id > 0 && !text.starts_with('+'))
        .ok_or_else(|| Fault::not_found(what, text))
}

/// A server of the caller's project, to be shown; also one that is deleted.
pub async fn server(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<server::Model, Fault> {
    server_for(database, caller, id, Purpose::Show).await
}

/// A server of the caller's project that is not deleted, locked for a change.
pub async fn server_for_change(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<server::Model, Fault> {
    let number = number("server", id)?;
    let server = server::Entity::find_by_id(number)
        .filter(server::Column::ProjectId.eq(caller.project_id.as_str()))
        .filter(server::Column::DeletedAt.is_null())
        .lock_exclusive()
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("server", id))?;
    authorization::permit_server(&server, Purpose::Operate)?;
    Ok(server)
}

/// A server of the caller's project, also one that is deleted, for a purpose.
///
/// # Errors
/// 404; 403: the server is suspended, and the purpose is more than to show it.
pub async fn server_for(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
    purpose: Purpose,
) -> Result<server::Model, Fault> {
    let number = number("server", id)?;
    let server = server::Entity::find_by_id(number)
        .filter(server::Column::ProjectId.eq(caller.project_id.as_str()))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("server", id))?;
    authorization::permit_server(&server, purpose)?;
    Ok(server)
}

/// Refuses a change of what is attached to a suspended server; what is attached to none passes.
///
/// # Errors
/// 403; the database fails.
pub async fn permit_attached(
    database: &impl ConnectionTrait,
    server_id: Option<i64>,
) -> Result<(), Fault> {
    let Some(id) = server_id else {
        return Ok(());
    };
    match server::Entity::find_by_id(id).one(database).await? {
        Some(server) => authorization::permit_server(&server, Purpose::Operate),
        None => Ok(()),
    }
}

/// A floating IP of the caller's project, locked for a change.
pub async fn floating_for_change(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: i64,
) -> Result<address::Model, Fault> {
    address::Entity::find_by_id(id)
        .filter(address::Column::Floating.eq(true))
        .filter(address::Column::Live.eq(true))
        .filter(address::Column::ProjectId.eq(caller.project_id.as_str()))
        .lock_exclusive()
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("floating IP", id))
}

/// A flavor that the caller may use, or has used.
pub async fn flavor(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<flavor::Model, Fault> {
    let number = number("flavor", id)?;
    flavor::Entity::find_by_id(number)
        .one(database)
        .await?
        .filter(|flavor| flavor.public || caller.role.has(Privilege::HiddenFlavors))
        .ok_or_else(|| Fault::not_found("flavor", id))
}

/// A flavor that the caller may make servers of, locked: it stays so until the transaction ends.
///
/// # Errors
/// 404: the caller sees no such flavor. 403: it is closed.
pub async fn open_flavor(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    id: &str,
) -> Result<flavor::Model, Fault> {
    let query = flavor::Entity::find_by_id(number("flavor", id)?);
    let flavor = database::lock_for_reading(transaction, query)
        .one(transaction)
        .await?
        .filter(|flavor| flavor.public || caller.role.has(Privilege::HiddenFlavors))
        .ok_or_else(|| Fault::not_found("flavor", id))?;
    if !flavor.allow_create || flavor.deleted_at.is_some() {
        return Err(Fault::forbidden(format!(
            "flavor {} is not for new servers",
            flavor.id
        )));
    }
    Ok(flavor)
}

/// A flavor that the caller may give a server, locked: it is not deleted until the transaction
/// ends.
pub async fn flavor_for_resize(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    id: &str,
) -> Result<flavor::Model, Fault> {
    let query = flavor::Entity::find_by_id(number("flavor", id)?)
        .filter(flavor::Column::DeletedAt.is_null());
    database::lock_for_reading(transaction, query)
        .one(transaction)
        .await?
        .filter(|flavor| flavor.public || caller.role.has(Privilege::HiddenFlavors))
        .ok_or_else(|| Fault::not_found("flavor", id))
}

/// A keypair of the caller's, locked: it is not deleted until the transaction ends.
pub async fn keypair(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    name: &str,
) -> Result<keypair::Model, Fault> {
    let query = keypair::Entity::find()
        .filter(keypair::Column::UserId.eq(caller.user_id.as_str()))
        .filter(keypair::Column::Name.eq(name));
    database::lock_for_reading(transaction, query)
        .one(transaction)
        .await?
        .ok_or_else(|| Fault::not_found("keypair", name))
}

/// The images that the caller may see, or might before they were deleted.
pub fn images(caller: &Caller) -> Condition {
    Condition::any()
        .add(image::Column::Public.eq(true))
        .add(image::Column::ProjectId.eq(caller.project_id.as_str()))
}

/// The images that the caller may see.
pub fn visible_images(caller: &Caller) -> Condition {
    Condition::all()
        .add(image::Column::DeletedAt.is_null())
        .add(images(caller))
}

/// What comes after the image with the id `marker` in a list that is ordered by `column` and id.
///
/// # Errors
/// 400: the caller sees no such image.
pub async fn after_image(
    database: &impl ConnectionTrait,
    caller: &Caller,
    column: image::Column,
    marker: &str,
) -> Result<Condition, Fault> {
    let last = image::Entity::find_by_id(marker)
        .filter(images(caller))
        .one(database)
        .await?
        .ok_or_else(|| Fault::field("marker", marker, "is no image's id"))?;
    let value = last.get(column);
    Ok(Condition::any().add(column.gt(value.clone())).add(
        Condition::all()
            .add(column.eq(value))
            .add(image::Column::Id.gt(marker)),
    ))
}

/// An image that the caller may see.
pub async fn image(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<image::Model, Fault> {
    image::Entity::find_by_id(id)
        .filter(visible_images(caller))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("image", id))
}

/// An image that the caller may see, locked: it is neither deleted nor withdrawn until the
/// transaction ends.
pub async fn image_for_server(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    id: &str,
) -> Result<image::Model, Fault> {
    let query = image::Entity::find_by_id(id).filter(visible_images(caller));
    database::lock_for_reading(transaction, query)
        .one(transaction)
        .await?
        .ok_or_else(|| Fault::not_found("image", id))
}

/// The networks that the caller may see: public ones and those of the project.
pub fn visible_networks(caller: &Caller) -> Condition {
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
        .filter(visible_networks(caller))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("network", id))
}

/// A network that a NIC can be put into, locked: it is neither deleted nor drained, and no subnet
/// of it comes or goes, before the transaction ends.
pub async fn usable_network(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    id: &str,
) -> Result<network::Model, Fault> {
    let number = number("network", id)?;
    let query = network::Entity::find_by_id(number)
        .filter(visible_networks(caller))
        .filter(network::Column::DeletedAt.is_null());
    let network = database::lock_for_reading(transaction, query)
        .one(transaction)
        .await?
        .ok_or_else(|| Fault::not_found("network", id))?;
    if network.drained {
        return Err(Fault::conflict(format!(
            "network {id} takes no more NICs: it is drained"
        )));
    }
    Ok(network)
}

/// A network of the caller's own, locked for a change.
pub async fn own_network(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<network::Model, Fault> {
    let number = number("network", id)?;
    let network = network::Entity::find_by_id(number)
        .filter(visible_networks(caller))
        .filter(network::Column::DeletedAt.is_null())
        .lock_exclusive()
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("network", id))?;
    if network.public {
        caller.role.require(Privilege::PublicNetworks)?;
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
        .filter(visible_networks(caller))
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
    let port = own_port(caller, id)?
        .lock_exclusive()
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("port", id))?;
    permit_attached(database, port.server_id).await?;
    Ok(port)
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
