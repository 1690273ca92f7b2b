//! Looking up what belongs to the caller. What does not is not there.

use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};

use crate::api::caller::Caller;
use crate::api::fault::Fault;
use crate::model::entity::{address, flavor, image, keypair, server};

/// The number in a path; anything else names nothing.
pub fn number(what: &str, text: &str) -> Result<i64, Fault> {
    text.parse::<i64>()
        .ok()
        .filter(|id| *id > 0 && !text.starts_with('+'))
        .ok_or_else(|| Fault::not_found(what, text))
}

/// A server of the caller's project, also one that is deleted.
pub async fn server(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<server::Model, Fault> {
    let number = number("server", id)?;
    server::Entity::find_by_id(number)
        .filter(server::Column::ProjectId.eq(caller.project_id.as_str()))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("server", id))
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
    if server.suspended {
        return Err(Fault::forbidden(
            "the server is suspended by its administrator",
        ));
    }
    Ok(server)
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
        .filter(|flavor| flavor.public || caller.admin)
        .ok_or_else(|| Fault::not_found("flavor", id))
}

/// A keypair of the caller's.
pub async fn keypair(
    database: &impl ConnectionTrait,
    caller: &Caller,
    name: &str,
) -> Result<keypair::Model, Fault> {
    keypair::Entity::find()
        .filter(keypair::Column::UserId.eq(caller.user_id.as_str()))
        .filter(keypair::Column::Name.eq(name))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("keypair", name))
}

/// The images that the caller may see.
pub fn visible_images(caller: &Caller) -> Condition {
    Condition::all()
        .add(image::Column::DeletedAt.is_null())
        .add(
            Condition::any()
                .add(image::Column::Public.eq(true))
                .add(image::Column::ProjectId.eq(caller.project_id.as_str())),
        )
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
