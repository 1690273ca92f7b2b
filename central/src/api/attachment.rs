//! NICs that come to a server and go while it is there.

use sea_orm::{ActiveModelTrait, ActiveValue, DatabaseTransaction, EntityTrait};

use super::admission;
use super::caller::Caller;
use super::context::Context;
use super::fault::Fault;
use super::find;
use super::nic::{self, WantedNic};
use super::quota::{self, Amounts};
use super::task::{self, Wish};
use crate::dispatch::machine::{STARTED, STOPPED};
use crate::dispatch::removal;
use crate::ganeti::intent::CONNECT;
use crate::ganeti::request::{self, Nic};
use crate::model::entity::{address, port};
use crate::model::{database, moment};

const ONE_PORT: Amounts = Amounts {
    ports: 1,
    ..Amounts::NONE
};
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
    admission::creation(api).await?;
    let begun = task::begin(api, caller, server_id, &PLUG)
        .await?
        .ok_or_else(|| Fault::conflict("the server is busy"))?;
    nic::one_more(&begun.transaction, begun.server.id).await?;
    quota::take(&begun.transaction, caller, &ONE_PORT).await?;
    let server = Some(begun.server.id);
    let nic = nic::insert(&begun.transaction, caller, server, None, wanted).await?;
    rename(&begun.transaction, nic.port_id, name).await?;
    ask(api, begun, &nic).await
}

async fn rename(transaction: &DatabaseTransaction, port: i64, name: &str) -> Result<(), Fault> {
    if !name.is_empty() {
        let row = port::ActiveModel {
            id: ActiveValue::Set(port),
            name: ActiveValue::Set(name.to_owned()),
            ..Default::default()
        };
        row.update(transaction).await?;
    }
    Ok(())
}

/// Plugs a port that exists into a server.
///
/// # Errors
/// As [`plug`]; the port is in use.
pub async fn plug_port(
    api: &Context,
    caller: &Caller,
    server_id: &str,
    port: &str,
) -> Result<port::Model, Fault> {
    let begun = task::begin(api, caller, server_id, &PLUG)
        .await?
        .ok_or_else(|| Fault::conflict("the server is busy"))?;
    nic::one_more(&begun.transaction, begun.server.id).await?;
    let nic = nic::adopt(&begun.transaction, caller, begun.server.id, None, port).await?;
    ask(api, begun, &nic).await
}

/// Makes a port that is on no server yet. In a public network it needs a floating IP: else
/// whoever makes ports would use up everybody's addresses.
///
/// # Errors
/// The network is not there, or public; no address is left; the floating IP is in use.
pub async fn prepare(
    api: &Context,
    caller: &Caller,
    wanted: &WantedNic,
    held: Option<&address::Model>,
    name: &str,
) -> Result<port::Model, Fault> {
    admission::creation(api).await?;
    let transaction = database::write(api.database()).await?;
    let more = Amounts {
        unattached_ports: 1,
        ..ONE_PORT
    };
    quota::take(&transaction, caller, &more).await?;
    let port_id = match held {
        Some(held) => {
            let floating = find::floating_for_change(&transaction, caller, held.id).await?;
            nic::insert_floating(&transaction, caller, None, None, floating)
                .await?
                .port_id
        }
        None => {
            let network = find::usable_network(&transaction, caller, &wanted.network).await?;
            if network.public {
                return Err(Fault::forbidden(format!(
                    "network {} is public: a port on no server needs one of your floating IPs there",
                    network.id
                )));
            }
            nic::insert(&transaction, caller, None, None, wanted)
                .await?
                .port_id
        }
    };
    rename(&transaction, port_id, name).await?;
    transaction.commit().await?;
    port::Entity::find_by_id(port_id)
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::not_found("port", port_id))
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
    admission::creation(api).await?;
    let begun = task::begin(api, caller, server_id, &PLUG)
        .await?
        .ok_or_else(|| Fault::conflict("the server is busy"))?;
    nic::one_more(&begun.transaction, begun.server.id).await?;
    quota::take(&begun.transaction, caller, &ONE_PORT).await?;
    // Read again: now nobody else can be attaching it.
    let address = find::floating_for_change(&begun.transaction, caller, floating.id).await?;
    let server = Some(begun.server.id);
    let nic = nic::insert_floating(&begun.transaction, caller, server, None, address).await?;
    ask(api, begun, &nic).await
}

/// Takes a NIC from its server; it is gone when Ganeti says so.
///
/// # Errors
/// The server is not in a state for it.
pub async fn unplug(api: &Context, caller: &Caller, port: &port::Model) -> Result<(), Fault> {
    let Some(server_id) = port.server_id else {
        return discard(api, caller, port.id).await;
    };
    let naming = &api.ganeti().naming;
    let Some(begun) = task::begin(api, caller, &server_id.to_string(), &UNPLUG).await? else {
        return Ok(());
    };
    // Read again: while the server was not locked, the NIC may have gone.
    let now = find::port_for_change(&begun.transaction, caller, &port.id.to_string()).await?;
    if now.server_id != Some(server_id) {
        return Err(Fault::conflict(format!(
            "port {} is not on server {server_id} any more",
            port.id
        )));
    }
    let running = begun.server.state == STARTED;
    let request = request::disconnect(naming, server_id, port.id, running);
    begun.ask(api, &request, Some(port.id)).await
}

/// Ends a port that is on no server.
async fn discard(api: &Context, caller: &Caller, id: i64) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    let port = find::port_for_change(&transaction, caller, &id.to_string()).await?;
    if let Some(server) = port.server_id {
        return Err(Fault::conflict(format!("port {id} is on server {server}")));
    }
    removal::clear_port(&transaction, id, moment::now()).await?;
    transaction.commit().await?;
    Ok(())
}
