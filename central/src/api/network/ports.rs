//! Ports: the NICs of servers, seen from the network.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use super::floating_ips;
use crate::api::attachment;
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::links;
use crate::api::nic::WantedNic;
use crate::api::page::Parameters;
use crate::model::entity::{port, subnet};
use crate::model::{database, moment};

/// The subnets of networks, by network and family.
pub type Subnets = HashMap<(i64, i32), i64>;

/// Reads the subnets that the ports' addresses are of.
pub async fn subnets(
    database: &impl ConnectionTrait,
    ports: &[port::Model],
) -> Result<Subnets, DbErr> {
    let networks: Vec<i64> = ports.iter().map(|port| port.network_id).collect();
    Ok(subnet::Entity::find()
        .filter(subnet::Column::NetworkId.is_in(networks))
        .filter(subnet::Column::Live.eq(true))
        .all(database)
        .await?
        .into_iter()
        .map(|subnet| ((subnet.network_id, subnet.ip_version), subnet.id))
        .collect())
}

/// The addresses of a port.
pub fn fixed_ips(port: &port::Model, subnets: &Subnets) -> Vec<Value> {
    [(4, &port.ipv4), (6, &port.ipv6)]
        .into_iter()
        .filter_map(|(version, address)| {
            let address = address.as_ref()?;
            let subnet = subnets
                .get(&(port.network_id, version))
                .map(i64::to_string)
                .unwrap_or_default();
            // Cyclades says `subnet`, OpenStack `subnet_id`.
            Some(json!({"ip_address": address, "subnet": subnet, "subnet_id": subnet}))
        })
        .collect()
}

/// A port as JSON.
pub fn view(caller: &Caller, port: &port::Model, subnets: &Subnets) -> Value {
    json!({
        "id": port.id.to_string(),
        "name": port.name,
        "links": links::of(caller, "/network/v2.0/ports", &port.id),
        "user_id": port.user_id,
        "tenant_id": port.project_id,
        "project_id": port.project_id,
        "network_id": port.network_id.to_string(),
        "device_id": port.server_id.map(|id| id.to_string()).unwrap_or_default(),
        "device_owner": port.server_id.map(|_| "vm"),
        "admin_state_up": true,
        "mac_address": port.mac.clone().unwrap_or_default(),
        "status": port.state,
        "fixed_ips": fixed_ips(port, subnets),
        "security_groups": [],
        "created": moment::iso(port.created_at),
        "updated": moment::iso(port.updated_at),
    })
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let mut query = port::Entity::find()
        .filter(port::Column::ProjectId.eq(caller.project_id.as_str()))
        .filter(port::Column::DeletedAt.is_null())
        .order_by_asc(port::Column::Id);
    if let Some(name) = parameters.get("name") {
        query = query.filter(port::Column::Name.eq(name));
    }
    if let Some(device) = parameters.get("device_id") {
        query = query.filter(port::Column::ServerId.eq(device.parse::<i64>().unwrap_or(0)));
    }
    if let Some(network) = parameters.get("network_id") {
        query = query.filter(port::Column::NetworkId.eq(network.parse::<i64>().unwrap_or(0)));
    }
    if let Some(mac) = parameters.get("mac_address") {
        query = query.filter(port::Column::Mac.eq(mac.to_ascii_lowercase()));
    }
    if let Some(status) = parameters.get("status") {
        query = query.filter(port::Column::State.eq(status.to_ascii_uppercase()));
    }
    if let Some(marker) = parameters.number("marker")? {
        query = query.filter(port::Column::Id.gt(marker));
    }
    let ports = query.limit(parameters.limit()?).all(api.database()).await?;
    let subnets = subnets(api.database(), &ports).await?;
    let views: Vec<Value> = ports
        .iter()
        .map(|port| view(&caller, port, &subnets))
        .collect();
    Ok(Json(json!({"ports": views})))
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let port = find::port(api.database(), &caller, &id).await?;
    let subnets = subnets(api.database(), std::slice::from_ref(&port)).await?;
    Ok(Json(json!({"port": view(&caller, &port, &subnets)})))
}

/// A port on a server is a NIC; one on none is kept here, with its address, until a server is
/// made with it: Ganeti does not know NICs by themselves.
pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let wanted = body.member("port")?;
    let network = wanted.required("network_id")?.reference()?;
    let device = wanted
        .get("device_id")
        .filter(|field| field.value().as_str() != Some(""));
    let name = match wanted.get("name") {
        Some(field) => field.text(255)?.to_owned(),
        None => String::new(),
    };
    let address = match wanted.get("fixed_ips") {
        None => None,
        Some(field) => match field.list(1)?.first() {
            None => None,
            Some(entry) => match entry.object()?.get("ip_address") {
                None => None,
                Some(address) => Some(
                    address
                        .string()?
                        .parse::<Ipv4Addr>()
                        .map_err(|_| address.refuse("must be an IPv4 address"))?,
                ),
            },
        },
    };
    let server = match device {
        Some(device) => Some(device.reference()?),
        None => None,
    };
    // An address of a pool of floating IPs is one that the caller holds.
    let held = match address {
        Some(address) => floating_ips::by_address(api.database(), &caller, &address.to_string())
            .await
            .ok()
            .filter(|held| held.network_id.to_string() == network),
        None => None,
    };
    let nic = WantedNic { network, address };
    let port = match (server, held) {
        (Some(server), Some(held)) => {
            attachment::plug_floating(&api, &caller, &server, &held).await?
        }
        (Some(server), None) => attachment::plug(&api, &caller, &server, &nic, &name).await?,
        (None, held) => attachment::prepare(&api, &caller, &nic, held.as_ref(), &name).await?,
    };
    let subnets = subnets(api.database(), std::slice::from_ref(&port)).await?;
    let body = json!({"port": view(&caller, &port, &subnets)});
    Ok((StatusCode::CREATED, Json(body)))
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let port = find::port(api.database(), &caller, &id).await?;
    attachment::unplug(&api, &caller, &port).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn rename(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let name = body.member("port")?.required("name")?.text(255)?.to_owned();
    let transaction = database::write(api.database()).await?;
    let port = find::port_for_change(&transaction, &caller, &id).await?;
    let mut row = port.into_active_model();
    row.name = ActiveValue::Set(name);
    row.updated_at = ActiveValue::Set(moment::now());
    let port = row.update(&transaction).await?;
    transaction.commit().await?;
    let subnets = subnets(api.database(), std::slice::from_ref(&port)).await?;
    Ok(Json(json!({"port": view(&caller, &port, &subnets)})))
}
