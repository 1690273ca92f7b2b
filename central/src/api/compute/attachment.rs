//! NICs that come to a server and go while it is there.

use sea_orm::{ActiveModelTrait, ActiveValue, EntityTrait, IntoActiveModel};

use super::create;
use super::find;
use super::order::WantedNic;
use super::task::{self, Wish};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::dispatch::machine::{STARTED, STOPPED};
use crate::dispatch::nics;
use crate::ganeti::intent::CONNECT;
use crate::ganeti::request::{self, Nic};
use crate::model::entity::{address, port};
use crate::model::moment;

const PLUG: Wish<'static> = Wish {
    task: "CONNECTING",
    kind: CONNECT,
    allowed: &[STARTED, STOPPED],
};
const UNPLUG: Wish<'static> = Wish {
    task: "DISCONNECTING",
    kind: "disconnect",
    allowed: &[STARTED, STOPPED],
};

/// Gives a server a NIC in a network.
///
/// # Errors
/// The server or the network is not there, or not in a state for it; no address is left.
pub async fn plug(
    api: &Context,
    caller: &Caller,
    server_id: &str,
    wanted: &WantedNic,
    name: &str,
) -> Result<port::Model, Fault> {
    let begun = task::begin(api, caller, server_id, &PLUG)
        .await?
        .ok_or_else(|| Fault::conflict("the server is busy"))?;
    let nic = create::insert_nic(&begun.transaction, caller, &begun.server, None, wanted).await?;
    if !name.is_empty() {
        let row = port::ActiveModel {
            id: ActiveValue::Set(nic.port_id),
            name: ActiveValue::Set(name.to_owned()),
            ..Default::default()
        };
        row.update(&begun.transaction).await?;
    }
    ask(api, begun, &nic).await
}

async fn ask(api: &Context, begun: task::Begun<'_>, nic: &Nic) -> Result<port::Model, Fault> {
    let running = begun.server.state == STARTED;
    let request = request::connect(&api.ganeti().naming, begun.server.id, nic, running);
    begun.ask(api, &request, Some(nic.port_id)).await?;
    port::Entity::find_by_id(nic.port_id)
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::not_found("port", nic.port_id))
}

/// Gives a server a NIC with a floating IP.
///
/// # Errors
/// As [`plug`]; the address is in use.
pub async fn plug_floating(
    api: &Context,
    caller: &Caller,
    server_id: &str,
    floating: &address::Model,
) -> Result<port::Model, Fault> {
    let begun = task::begin(api, caller, server_id, &PLUG)
        .await?
        .ok_or_else(|| Fault::conflict("the server is busy"))?;
    // Read again: now nobody else can be attaching it.
    let address = find::floating_for_change(&begun.transaction, caller, floating.id).await?;
    if let Some(port) = address.port_id {
        return Err(Fault::conflict(format!(
            "address {} is attached to port {port}",
            address.address
        )));
    }
    let now = moment::now();
    let port = port::ActiveModel {
        id: ActiveValue::NotSet,
        name: ActiveValue::Set(String::new()),
        user_id: ActiveValue::Set(caller.user_id.clone()),
        project_id: ActiveValue::Set(caller.project_id.clone()),
        network_id: ActiveValue::Set(address.network_id),
        server_id: ActiveValue::Set(Some(begun.server.id)),
        state: ActiveValue::Set(nics::BUILD.to_owned()),
        nic_index: ActiveValue::Set(None),
        mac: ActiveValue::Set(None),
        ipv4: ActiveValue::Set(Some(address.address.clone())),
        ipv6: ActiveValue::Set(None),
        firewall: ActiveValue::Set(None),
        floating: ActiveValue::Set(true),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    }
    .insert(&begun.transaction)
    .await?;
    let nic = Nic {
        port_id: port.id,
        network_id: port.network_id,
        address: Some(address.address.clone()),
    };
    let mut row = address.into_active_model();
    row.port_id = ActiveValue::Set(Some(port.id));
    row.updated_at = ActiveValue::Set(now);
    row.update(&begun.transaction).await?;
    ask(api, begun, &nic).await
}

/// Takes a NIC from its server; it is gone when Ganeti says so.
///
/// # Errors
/// The server is not in a state for it.
pub async fn unplug(api: &Context, caller: &Caller, port: &port::Model) -> Result<(), Fault> {
    let Some(server_id) = port.server_id else {
        return Err(Fault::conflict(format!("port {} is on no server", port.id)));
    };
    let naming = &api.ganeti().naming;
    let Some(begun) = task::begin(api, caller, &server_id.to_string(), &UNPLUG).await? else {
        return Ok(());
    };
    let running = begun.server.state == STARTED;
    let request = request::disconnect(naming, server_id, port.id, running);
    begun.ask(api, &request, Some(port.id)).await
}
