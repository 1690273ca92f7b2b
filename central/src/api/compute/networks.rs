//! Networks and floating IPs as older clients find them, at the compute service.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::network::floating_ips;
use crate::model::entity::{address, network, port, subnet};

async fn view(api: &Context, network: &network::Model) -> Result<Value, Fault> {
    let subnets = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.eq(network.id))
        .filter(subnet::Column::Live.eq(true))
        .all(api.database())
        .await?;
    let range = |version| {
        subnets
            .iter()
            .find(|subnet| subnet.ip_version == version)
            .map(|subnet| subnet.cidr.as_str())
    };
    Ok(json!({
        "id": network.id.to_string(),
        "label": network.name,
        "cidr": range(4),
        "cidr_v6": range(6),
        "project_id": network.project_id,
    }))
}

pub async fn list(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let networks = network::Entity::find()
        .filter(find::visible_networks(&caller))
        .filter(network::Column::DeletedAt.is_null())
        .order_by_asc(network::Column::Id)
        .all(api.database())
        .await?;
    let subnets = subnet::Entity::find()
        .filter(subnet::Column::Live.eq(true))
        .filter(subnet::Column::NetworkId.is_in(networks.iter().map(|network| network.id)))
        .all(api.database())
        .await?;
    let views: Vec<Value> = networks
        .iter()
        .map(|network| {
            let range = |version| {
                subnets
                    .iter()
                    .find(|subnet| subnet.network_id == network.id && subnet.ip_version == version)
                    .map(|subnet| subnet.cidr.as_str())
            };
            json!({
                "id": network.id.to_string(),
                "label": network.name,
                "cidr": range(4),
                "cidr_v6": range(6),
                "project_id": network.project_id,
            })
        })
        .collect();
    Ok(Json(json!({"networks": views})))
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let network = find::network(api.database(), &caller, &id).await?;
    Ok(Json(json!({"network": view(&api, &network).await?})))
}

fn floating_view(address: &address::Model, port: Option<&port::Model>) -> Value {
    let server = port.and_then(|port| port.server_id);
    json!({
        "id": address.id.to_string(),
        "ip": address.address,
        "instance_id": server.map(|id| id.to_string()),
        "fixed_ip": null,
        "pool": address.network_id.to_string(),
    })
}

pub async fn floating_ips(
    State(api): State<Context>,
    caller: Caller,
) -> Result<Json<Value>, Fault> {
    let views: Vec<Value> = floating_ips::all(api.database(), &caller)
        .await?
        .iter()
        .map(|(address, port)| floating_view(address, port.as_ref()))
        .collect();
    Ok(Json(json!({"floating_ips": views})))
}

pub async fn floating_ip(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let address = floating_ips::by_id(api.database(), &caller, &id).await?;
    let port = floating_ips::port_of(api.database(), &address).await?;
    Ok(Json(
        json!({"floating_ip": floating_view(&address, port.as_ref())}),
    ))
}

pub async fn allocate(
    State(api): State<Context>,
    caller: Caller,
    body: Option<Body>,
) -> Result<Json<Value>, Fault> {
    let pool = match &body {
        Some(body) => body.object()?.get("pool").map(|field| field.reference()),
        None => None,
    }
    .transpose()?;
    let address = floating_ips::allocate(&api, &caller, pool.as_deref(), None).await?;
    Ok(Json(json!({"floating_ip": floating_view(&address, None)})))
}

pub async fn release(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    floating_ips::release(&api, &caller, &id).await?;
    Ok(StatusCode::ACCEPTED)
}

pub async fn pools(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let pools: Vec<Value> = network::Entity::find()
        .filter(find::visible_networks(&caller))
        .filter(network::Column::FloatingIpPool.eq(true))
        .filter(network::Column::DeletedAt.is_null())
        .order_by_asc(network::Column::Id)
        .all(api.database())
        .await?
        .iter()
        .map(|network| json!({"name": network.id.to_string()}))
        .collect();
    Ok(Json(json!({"floating_ip_pools": pools})))
}
