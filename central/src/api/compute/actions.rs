//! `POST /servers/{id}/action`: one key, which is the action.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter};

use crate::api::authorization::Purpose;
use crate::api::body::{Body, Field};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::{Fault, Kind};
use crate::api::network::floating_ips;
use crate::api::nic::WantedNic;
use crate::api::quota::{self, Amounts};
use crate::api::task::{self, Wish};
use crate::api::{attachment, console, find};

use crate::dispatch::machine::{STARTED, STOPPED};
use crate::ganeti::request;
use crate::model::entity::{flavor, image, port, server};

pub async fn act(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    // A caller who may not know of the server is not told what is wrong with the body; and every
    // action, consoles included, is refused for a suspended server.
    find::server_for(api.database(), &caller, &id, Purpose::Operate).await?;
    let object = body.object()?;
    if object.len() != 1 {
        return Err(Fault::bad_request(format!(
            "body: {} actions: exactly one is wanted",
            object.len()
        )));
    }
    let Some((name, arguments)) = object.fields().next() else {
        return Err(Fault::bad_request("body: no action"));
    };
    match name {
        "start" | "os-start" => start(&api, &caller, &id).await,
        "shutdown" | "os-stop" => stop(&api, &caller, &id).await,
        "reboot" => reboot(&api, &caller, &id, &arguments).await,
        "addFloatingIp" => add_floating_ip(&api, &caller, &id, &arguments).await,
        "removeFloatingIp" => remove_floating_ip(&api, &caller, &id, &arguments).await,
        "addFixedIp" => add_fixed_ip(&api, &caller, &id, &arguments).await,
        "removeFixedIp" => remove_fixed_ip(&api, &caller, &id, &arguments).await,
        "firewallProfile" => firewall_profile(&api, &caller, &id, &arguments).await,
        "console" => console::cyclades(&api, &caller, &id, &arguments).await,
        "os-getVNCConsole" => console::nova(&api, &caller, &id, &arguments).await,
        "rescue" => rescue(&api, &caller, &id, &arguments, true).await,
        "unrescue" => rescue(&api, &caller, &id, &arguments, false).await,
        "resize" => resize(&api, &caller, &id, &arguments).await,
        "changePassword"
        | "rebuild"
        | "confirmResize"
        | "revertResize"
        | "createImage"
        | "createBackup"
        | "migrate"
        | "os-migrateLive"
        | "evacuate"
        | "pause"
        | "unpause"
        | "suspend"
        | "resume"
        | "lock"
        | "unlock"
        | "shelve"
        | "unshelve"
        | "forceDelete"
        | "restore"
        | "os-getSPICEConsole"
        | "os-getRDPConsole"
        | "os-getConsoleOutput"
        | "create"
        | "delete" => Err(Fault::not_implemented(format!("{name}: not offered"))),
        _ => Err(Fault::field("body", name, "is no action")),
    }
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

async fn start(api: &Context, caller: &Caller, id: &str) -> Result<Response, Fault> {
    let wish = Wish {
        task: task::STARTING,
        kind: "start",
        allowed: &[STOPPED],
    };
    let Some(begun) = task::begin(api, caller, id, &wish).await? else {
        return Ok(accepted());
    };
    take_to_run(&begun, caller).await?;
    let request = request::start(&api.ganeti().naming, begun.server.id);
    begun.ask(api, &request, None).await?;
    Ok(accepted())
}

/// Takes what a server that is stopped needs to run.
async fn take_to_run(begun: &task::Begun<'_>, caller: &Caller) -> Result<(), Fault> {
    let flavor = flavor_of(&begun.transaction, &begun.server).await?;
    let more = Amounts {
        cpu: flavor.vcpus,
        ram: flavor.ram,
        ..Amounts::default()
    };
    quota::take(&begun.transaction, caller, &more).await
}

/// The flavor of a server, also one that is no longer offered.
async fn flavor_of(
    database: &impl ConnectionTrait,
    server: &server::Model,
) -> Result<flavor::Model, Fault> {
    flavor::Entity::find_by_id(server.flavor_id)
        .one(database)
        .await?
        .ok_or_else(|| Fault::internal(format!("server {} has no flavor", server.id)))
}

async fn stop(api: &Context, caller: &Caller, id: &str) -> Result<Response, Fault> {
    let wish = Wish {
        task: "STOPPING",
        kind: "stop",
        allowed: &[STARTED],
    };
    let request = |server: &server::Model| request::stop(&api.ganeti().naming, server.id);
    task::simply(api, caller, id, &wish, request).await?;
    Ok(accepted())
}

async fn reboot(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let hard = match arguments.is_null() {
        true => false,
        false => match arguments.object()?.get("type") {
            None => false,
            Some(field) => match field.string()?.to_ascii_uppercase().as_str() {
                "HARD" => true,
                "SOFT" => false,
                _ => return Err(field.refuse("must be SOFT or HARD")),
            },
        },
    };
    let wish = Wish {
        task: task::REBOOTING,
        kind: "reboot",
        allowed: &[STARTED, STOPPED],
    };
    let Some(begun) = task::begin(api, caller, id, &wish).await? else {
        return Ok(accepted());
    };
    // Ganeti starts an instance that does not run.
    if begun.server.state == STOPPED {
        take_to_run(&begun, caller).await?;
    }
    let request = request::reboot(&api.ganeti().naming, begun.server.id, hard);
    begun.ask(api, &request, None).await?;
    Ok(accepted())
}

/// Other processors and memory; the disk stays as it is.
async fn resize(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let wanted = arguments.object()?.required("flavorRef")?;
    let new = find::flavor(api.database(), caller, &wanted.reference()?).await?;
    let server = find::server(api.database(), caller, id).await?;
    let old = flavor_of(api.database(), &server).await?;
    if new.deleted_at.is_some() {
        return Err(wanted.refuse("is not offered any more"));
    }
    if new.id == old.id {
        return Err(wanted.refuse("is what the server has"));
    }
    if new.disk != old.disk || new.disk_template != old.disk_template {
        return Err(wanted.refuse("has another disk: only processors and memory can change"));
    }
    let wish = Wish {
        task: task::RESIZING,
        kind: "resize",
        allowed: &[STOPPED],
    };
    let Some(begun) = task::begin(api, caller, id, &wish).await? else {
        return Ok(accepted());
    };
    let new = find::flavor_for_resize(&begun.transaction, caller, &wanted.reference()?).await?;
    let old = flavor_of(&begun.transaction, &begun.server).await?;
    let more = Amounts {
        total_cpu: new.vcpus.saturating_sub(old.vcpus),
        total_ram: new.ram.saturating_sub(old.ram),
        ..Amounts::default()
    };
    quota::take(&begun.transaction, caller, &more).await?;
    let request = request::resize(&api.ganeti().naming, begun.server.id, &new);
    begun.ask(api, &request, None).await?;
    Ok(accepted())
}

/// Has a server boot from the rescue image at its next start, or from its disk again.
async fn rescue(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
    begin: bool,
) -> Result<Response, Fault> {
    let Some(image) = api.config().rescue_image.as_deref() else {
        return Err(Fault::new(
            Kind::FeatureNotEnabled,
            "there is no rescue image",
        ));
    };
    if !arguments.is_null()
        && let Some(field) = arguments.object()?.get("rescue_image_ref")
        && !field.is_null()
    {
        return Err(field.refuse("there is one rescue image only: it cannot be chosen"));
    }
    let wish = Wish {
        task: if begin { "RESCUING" } else { "UNRESCUING" },
        kind: if begin { "rescue" } else { "unrescue" },
        allowed: &[STOPPED],
    };
    let Some(begun) = task::begin(api, caller, id, &wish).await? else {
        return Ok(accepted());
    };
    if begun.server.rescue == begin {
        let text = if begin { "is" } else { "is not" };
        let text = format!("server {id} {text} in rescue mode");
        return Err(caller.dialect.wrong_state(text));
    }
    let image = begin.then_some(image);
    let request = request::rescue(&api.ganeti().naming, begun.server.id, image);
    begun.ask(api, &request, None).await?;
    Ok(accepted())
}

/// What the API calls a profile, as the tag calls it; `DISABLED` is no tag.
const PROFILES: &[(&str, Option<&str>)] = &[
    ("ENABLED", Some("protected")),
    ("PROTECTED", Some("limited")),
    ("DISABLED", None),
];

/// Gives a NIC another firewall profile.
async fn firewall_profile(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let arguments = arguments.object()?;
    let wanted = arguments.required("profile")?;
    let name = wanted.string()?;
    let Some((_, profile)) = PROFILES.iter().find(|(known, _)| *known == name) else {
        return Err(wanted.refuse("must be ENABLED, PROTECTED or DISABLED"));
    };
    let nic = arguments.required("nic")?.reference()?;
    let port = find::port(api.database(), caller, &nic).await?;
    if port.server_id.map(|server| server.to_string()).as_deref() != Some(id) {
        return Err(Fault::not_found("NIC", nic));
    }
    let server = find::server(api.database(), caller, id).await?;
    let image = image::Entity::find_by_id(server.image_id.as_str())
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::internal(format!("server {id} has no image")))?;
    let wish = Wish {
        task: "FIREWALLING",
        kind: "firewall",
        allowed: &[STARTED, STOPPED],
    };
    let Some(begun) = task::begin(api, caller, id, &wish).await? else {
        return Ok(accepted());
    };
    // Read again: while the server was not locked, the NIC may have gone.
    let port = find::port_for_change(&begun.transaction, caller, &nic).await?;
    if port.server_id != Some(begun.server.id) {
        return Err(Fault::not_found("NIC", nic));
    }
    let naming = &api.ganeti().naming;
    let request = request::firewall(naming, begun.server.id, &image.os, port.id, *profile);
    begun.ask(api, &request, None).await?;
    Ok(accepted())
}

/// A NIC more, in the network that is named.
async fn add_fixed_ip(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let nic = WantedNic {
        network: arguments.object()?.required("networkId")?.reference()?,
        address: None,
    };
    attachment::plug(api, caller, id, &nic, "").await?;
    Ok(accepted())
}

/// The NIC with this address goes.
async fn remove_fixed_ip(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let field = arguments.object()?.required("address")?;
    let address = field.string()?;
    if address.parse::<std::net::IpAddr>().is_err() {
        return Err(field.refuse("must be an IP address"));
    }
    let server = find::server(api.database(), caller, id).await?;
    let port = port::Entity::find()
        .filter(port::Column::ServerId.eq(server.id))
        .filter(port::Column::DeletedAt.is_null())
        .filter(port::Column::Floating.eq(false))
        .filter(
            Condition::any()
                .add(port::Column::Ipv4.eq(address))
                .add(port::Column::Ipv6.eq(address)),
        )
        .one(api.database())
        .await?
        .ok_or_else(|| {
            Fault::conflict(format!("address {address} is no fixed one of server {id}"))
        })?;
    attachment::unplug(api, caller, &port).await?;
    Ok(accepted())
}

/// The address in `{"address": …}`.
fn address<'a>(arguments: &Field<'a>) -> Result<&'a str, Fault> {
    let field = arguments.object()?.required("address")?;
    let text = field.string()?;
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(_) => Ok(text),
        Err(_) => Err(field.refuse("must be an IPv4 address")),
    }
}

async fn add_floating_ip(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let floating = floating_ips::by_address(api.database(), caller, address(arguments)?).await?;
    attachment::plug_floating(api, caller, id, &floating).await?;
    Ok(accepted())
}

async fn remove_floating_ip(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let address = address(arguments)?;
    let floating = floating_ips::by_address(api.database(), caller, address).await?;
    let port = floating_ips::port_of(api.database(), &floating).await?;
    match port {
        Some(port)
            if port
                .server_id
                .is_some_and(|server| server.to_string() == id) =>
        {
            attachment::unplug(api, caller, &port).await?;
            Ok(accepted())
        }
        _ => Err(Fault::conflict(format!(
            "address {address} is not attached to server {id}"
        ))),
    }
}
