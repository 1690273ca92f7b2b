//! Floating IPs: public addresses that a project holds, and a server has while they are attached.
//!
//! They are not translated: a server that gets one gets a NIC with it.

use std::net::Ipv4Addr;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};

use crate::api::admission;
use crate::api::attachment;
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::dialect::Dialect;
use crate::api::fault::{Fault, Kind};
use crate::api::find;
use crate::api::nic::refusal;
use crate::api::page::Parameters;
use crate::api::quota::{self, Amounts};
use crate::ganeti::addresses::{self, AddressError, Holder};
use crate::model::entity::{address, network, port, subnet};
use crate::model::{database, moment};

fn view(address: &address::Model, port: Option<&port::Model>) -> Value {
    let server = port.and_then(|port| port.server_id);
    json!({
        "id": address.id.to_string(),
        "floating_ip_address": address.address,
        "floating_network_id": address.network_id.to_string(),
        "fixed_ip_address": null,
        "instance_id": server.map(|id| id.to_string()),
        "port_id": port.map(|port| port.id.to_string()),
        "router_id": null,
        "status": if port.is_some() { "ACTIVE" } else { "DOWN" },
        "user_id": address.user_id,
        "tenant_id": address.project_id,
        "project_id": address.project_id,
        "shared_to_project": false,
        "description": "",
        "tags": [],
        "deleted": address.deleted_at.is_some(),
    })
}

fn mine(caller: &Caller) -> sea_orm::Condition {
    sea_orm::Condition::all()
        .add(address::Column::Floating.eq(true))
        .add(address::Column::Live.eq(true))
        .add(address::Column::ProjectId.eq(caller.project_id.as_str()))
}

/// All of the project's, each with the port it is attached to.
pub async fn all(
    database: &impl ConnectionTrait,
    caller: &Caller,
) -> Result<Vec<(address::Model, Option<port::Model>)>, Fault> {
    Ok(address::Entity::find()
        .find_also_related(port::Entity)
        .filter(mine(caller))
        .order_by_asc(address::Column::Id)
        .all(database)
        .await?)
}

/// The one with this id.
pub async fn by_id(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<address::Model, Fault> {
    let number = find::number("floating IP", id)?;
    address::Entity::find_by_id(number)
        .filter(mine(caller))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("floating IP", id))
}

/// The one with this address.
pub async fn by_address(
    database: &impl ConnectionTrait,
    caller: &Caller,
    text: &str,
) -> Result<address::Model, Fault> {
    address::Entity::find()
        .filter(mine(caller))
        .filter(address::Column::Address.eq(text))
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("floating IP", text))
}

/// The port it is attached to.
pub async fn port_of(
    database: &impl ConnectionTrait,
    address: &address::Model,
) -> Result<Option<port::Model>, Fault> {
    Ok(match address.port_id {
        Some(id) => port::Entity::find_by_id(id).one(database).await?,
        None => None,
    })
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let since = parameters.changes_since()?;
    let mut query = address::Entity::find()
        .find_also_related(port::Entity)
        .order_by_asc(address::Column::Id);
    query = match since {
        Some(since) => query
            .filter(address::Column::Floating.eq(true))
            .filter(address::Column::ProjectId.eq(caller.project_id.as_str()))
            .filter(address::Column::UpdatedAt.gte(since)),
        None => query.filter(mine(&caller)),
    };
    if let Some(address) = parameters.get("floating_ip_address") {
        query = query.filter(address::Column::Address.eq(address));
    }
    if let Some(network) = parameters.get("floating_network_id") {
        let id = network.parse::<i64>().unwrap_or(0);
        query = query.filter(address::Column::NetworkId.eq(id));
    }
    if let Some(port) = parameters.get("port_id") {
        let id = port.parse::<i64>().unwrap_or(0);
        query = query.filter(address::Column::PortId.eq(id));
    }
    match parameters.get("status") {
        None => {}
        Some("ACTIVE") => query = query.filter(address::Column::PortId.is_not_null()),
        Some("DOWN") => query = query.filter(address::Column::PortId.is_null()),
        Some(other) => return Err(Fault::field("status", other, "must be ACTIVE or DOWN")),
    }
    if let Some(marker) = parameters.number("marker")? {
        query = query.filter(address::Column::Id.gt(marker));
    }
    let rows = query.limit(parameters.limit()?).all(api.database()).await?;
    if since.is_some() && rows.is_empty() {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let views: Vec<Value> = rows
        .iter()
        .map(|(address, port)| view(address, port.as_ref()))
        .collect();
    Ok(Json(json!({"floatingips": views})).into_response())
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let address = by_id(api.database(), &caller, &id).await?;
    let port = port_of(api.database(), &address).await?;
    Ok(Json(json!({"floatingip": view(&address, port.as_ref())})))
}

/// Takes an address out of a pool for the caller's project: of `network`, or of any.
///
/// # Errors
/// There is no such pool; none is free; the one that is wanted is not.
pub async fn allocate(
    api: &Context,
    caller: &Caller,
    network: Option<&str>,
    wanted: Option<Ipv4Addr>,
) -> Result<address::Model, Fault> {
    admission::creation(api).await?;
    let transaction = database::write(api.database()).await?;
    let one_more = Amounts {
        floating_ips: 1,
        ..Amounts::default()
    };
    quota::take(&transaction, caller, &one_more).await?;
    let mut query = network::Entity::find()
        .filter(network::Column::FloatingIpPool.eq(true))
        .filter(network::Column::Drained.eq(false))
        .filter(network::Column::DeletedAt.is_null())
        .filter(find::visible_networks(caller))
        .order_by_asc(network::Column::Id);
    if let Some(text) = network {
        let id = text.parse::<i64>().unwrap_or(0);
        query = query.filter(
            sea_orm::Condition::any()
                .add(network::Column::Id.eq(id))
                .add(network::Column::Name.eq(text)),
        );
    }
    let pools = query.all(&transaction).await?;
    if let (Some(text), true) = (network, pools.is_empty()) {
        return Err(Fault::not_found("pool of floating IPs", text));
    }
    let holder = Holder {
        user_id: &caller.user_id,
        project_id: &caller.project_id,
        port_id: None,
        floating: true,
    };
    let mut last = Fault::conflict("there is no pool of floating IPs");
    for pool in pools {
        let pool = match find::usable_network(&transaction, caller, &pool.id.to_string()).await {
            Ok(pool) => pool,
            Err(fault) if matches!(fault.kind, Kind::ItemNotFound | Kind::Conflict) => {
                last = fault;
                continue;
            }
            Err(fault) => return Err(fault),
        };
        let range = subnet::Entity::find()
            .filter(subnet::Column::NetworkId.eq(pool.id))
            .filter(subnet::Column::IpVersion.eq(4))
            .filter(subnet::Column::Live.eq(true))
            .one(&transaction)
            .await?;
        let Some(range) = range else { continue };
        match addresses::take(&transaction, &range, wanted, &holder).await {
            Ok(taken) => {
                transaction.commit().await?;
                return Ok(taken);
            }
            Err(
                error @ (AddressError::Exhausted(_)
                | AddressError::Gone(_)
                | AddressError::Outside { .. }
                | AddressError::Taken(_)),
            ) => last = refusal(error),
            Err(error) => return Err(refusal(error)),
        }
    }
    Err(last)
}

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<Response, Fault> {
    let wanted = body.member("floatingip")?;
    let network = match wanted.get("floating_network_id") {
        Some(field) => Some(field.reference()?),
        None => None,
    };
    let address = match wanted.get("floating_ip_address") {
        Some(field) => Some(
            field
                .string()?
                .parse()
                .map_err(|_| field.refuse("must be an IPv4 address"))?,
        ),
        None => None,
    };
    let address = allocate(&api, &caller, network.as_deref(), address).await?;
    let status = match caller.dialect {
        Dialect::OpenStack => StatusCode::CREATED,
        Dialect::Cyclades => StatusCode::OK,
    };
    Ok((status, Json(json!({"floatingip": view(&address, None)}))).into_response())
}

/// Attaches it to the server of a port, or takes it from the one it is on.
pub async fn attach(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let address = by_id(api.database(), &caller, &id).await?;
    let wanted = body.member("floatingip")?;
    if wanted.has("port_id") {
        match wanted.get("port_id") {
            Some(field) => {
                let port = find::port(api.database(), &caller, &field.reference()?).await?;
                let Some(server) = port.server_id else {
                    return Err(field.refuse("is on no server"));
                };
                attachment::plug_floating(&api, &caller, &server.to_string(), &address).await?;
            }
            None => {
                if let Some(port) = port_of(api.database(), &address).await? {
                    attachment::unplug(&api, &caller, &port).await?;
                }
            }
        }
    }
    let address = by_id(api.database(), &caller, &id).await?;
    let port = port_of(api.database(), &address).await?;
    Ok(Json(json!({"floatingip": view(&address, port.as_ref())})))
}

/// Gives an address back to its pool.
///
/// # Errors
/// It is attached.
pub async fn release(api: &Context, caller: &Caller, id: &str) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    let known = by_id(&transaction, caller, id).await?;
    let address = address::Entity::find_by_id(known.id)
        .filter(mine(caller))
        .lock_exclusive()
        .one(&transaction)
        .await?
        .ok_or_else(|| Fault::not_found("floating IP", id))?;
    if let Some(port) = address.port_id {
        return Err(Fault::conflict(format!(
            "address {} is attached to port {port}",
            address.address
        )));
    }
    let now = moment::now();
    address::Entity::update_many()
        .col_expr(address::Column::Live, Expr::value(None::<bool>))
        .col_expr(address::Column::UpdatedAt, Expr::value(now))
        .col_expr(address::Column::DeletedAt, Expr::value(now))
        .filter(address::Column::Id.eq(address.id))
        .exec(&transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    release(&api, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
