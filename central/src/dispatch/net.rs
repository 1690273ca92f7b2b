//! Messages of the hooks about an instance's NICs. They have no job and so no order: they fill in
//! what nobody has told us yet, and never overwrite what a job did.

use std::sync::Arc;

use agents::message::NetMessage;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter,
};

use super::nics;
use super::outcome::{Applied, RouteError};
use crate::ganeti::submission::Submitter;
use crate::model::entity::{port, subnet};
use crate::model::{database, history, moment};

/// Applies a message about an instance's NICs.
///
/// # Errors
/// See [`RouteError`].
pub async fn apply(ganeti: &Arc<Submitter>, message: &NetMessage) -> Result<Applied, RouteError> {
    let Some(id) = ganeti.naming.instance_id(&message.instance) else {
        return Ok(Applied::NotOurs);
    };
    let transaction = database::write(&ganeti.database).await?;
    let mut applied = Applied::Stale;
    for nic in &message.nics {
        let Some(port_id) = nic
            .name
            .as_deref()
            .and_then(|name| ganeti.naming.nic_id(name))
        else {
            continue;
        };
        let found = port::Entity::find_by_id(port_id)
            .filter(port::Column::ServerId.eq(id))
            .filter(port::Column::DeletedAt.is_null())
            .filter(port::Column::Mac.is_null())
            .one(&transaction)
            .await?;
        let Some(port) = found else { continue };
        let range = subnet::Entity::find()
            .filter(subnet::Column::NetworkId.eq(port.network_id))
            .filter(subnet::Column::IpVersion.eq(6))
            .filter(subnet::Column::Live.eq(true))
            .one(&transaction)
            .await?;
        let mut row = port.into_active_model();
        row.mac = ActiveValue::Set(Some(nic.mac.to_ascii_lowercase()));
        row.ipv6 = ActiveValue::Set(range.and_then(|range| nics::by_mac(&range, &nic.mac)));
        let now = moment::now();
        row.updated_at = ActiveValue::Set(now);
        let port = row.update(&transaction).await?;
        history::follow(&transaction, &port, now).await?;
        applied = Applied::Yes;
    }
    transaction.commit().await?;
    Ok(applied)
}
