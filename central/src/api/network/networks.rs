//! Networks.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr,
    EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use crate::api::admission;
use crate::api::authorization::Privilege;
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::dialect::Dialect;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::links;
use crate::api::page::Parameters;
use crate::api::quota::{self, Amounts};
use crate::ganeti::pools;
use crate::model::entity::{address, network, port, subnet};
use crate::model::{database, moment};

fn view(caller: &Caller, network: &network::Model, subnets: &[i64]) -> Value {
    let status = match (network.deleted_at, network.drained, caller.dialect) {
        (Some(_), _, _) => "DELETED",
        (None, true, Dialect::Cyclades) => "SNF:DRAINED",
        _ => "ACTIVE",
    };
    let ids: Vec<String> = subnets.iter().map(i64::to_string).collect();
    json!({
        "id": network.id.to_string(),
        "name": network.name,
        "links": links::of(caller, "/network/v2.0/networks", &network.id),
        "user_id": network.user_id,
        "tenant_id": network.project_id,
        "project_id": network.project_id,
        "shared_to_project": false,
        "type": network.kind,
        "status": status,
        "public": network.public,
        "shared": network.public,
        "router:external": network.external_router,
        "admin_state_up": true,
        "subnets": ids,
        "SNF:floating_ip_pool": network.floating_ip_pool,
        "port_security_enabled": true,
        "deleted": network.deleted_at.is_some(),
        "created": moment::iso(network.created_at),
        "updated": moment::iso(network.updated_at),
        "created_at": moment::iso(network.created_at),
        "updated_at": moment::iso(network.updated_at),
    })
}

async fn subnets_of(
    database: &impl ConnectionTrait,
    networks: &[network::Model],
) -> Result<HashMap<i64, Vec<i64>>, DbErr> {
    let ids: Vec<i64> = networks.iter().map(|network| network.id).collect();
    let pairs: Vec<(i64, i64)> = subnet::Entity::find()
        .select_only()
        .column(subnet::Column::NetworkId)
        .column(subnet::Column::Id)
        .filter(subnet::Column::NetworkId.is_in(ids))
        .filter(subnet::Column::Live.eq(true))
        .order_by_asc(subnet::Column::Id)
        .into_tuple()
        .all(database)
        .await?;
    let mut map: HashMap<i64, Vec<i64>> = HashMap::new();
    for (network, subnet) in pairs {
        map.entry(network).or_default().push(subnet);
    }
    Ok(map)
}

async fn one(
    database: &impl ConnectionTrait,
    caller: &Caller,
    network: &network::Model,
) -> Result<Value, Fault> {
    let subnets = subnets_of(database, std::slice::from_ref(network)).await?;
    let ids = subnets.get(&network.id).map_or(&[][..], Vec::as_slice);
    Ok(json!({"network": view(caller, network, ids)}))
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let since = parameters.changes_since()?;
    let mut query = network::Entity::find()
        .filter(find::visible_networks(&caller))
        .order_by_asc(network::Column::Id);
    query = match since {
        Some(since) => query.filter(network::Column::UpdatedAt.gte(since)),
        None => query.filter(network::Column::DeletedAt.is_null()),
    };
    if let Some(name) = parameters.get("name") {
        query = query.filter(network::Column::Name.eq(name));
    }
    if let Some(id) = parameters.get("id") {
        query = query.filter(network::Column::Id.eq(id.parse::<i64>().unwrap_or(0)));
    }
    for (parameter, column) in [
        ("router:external", network::Column::ExternalRouter),
        ("shared", network::Column::Public),
        ("public", network::Column::Public),
        ("SNF:floating_ip_pool", network::Column::FloatingIpPool),
    ] {
        if let Some(value) = parameters.flag(parameter)? {
            query = query.filter(column.eq(value));
        }
    }
    for parameter in ["tenant_id", "project_id"] {
        if let Some(project) = parameters.get(parameter) {
            query = query.filter(network::Column::ProjectId.eq(project));
        }
    }
    if let Some(marker) = parameters.number("marker")? {
        query = query.filter(network::Column::Id.gt(marker));
    }
    let networks = query.limit(parameters.limit()?).all(api.database()).await?;
    if since.is_some() && networks.is_empty() {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let subnets = subnets_of(api.database(), &networks).await?;
    let views: Vec<Value> = networks
        .iter()
        .map(|network| {
            let ids = subnets.get(&network.id).map_or(&[][..], Vec::as_slice);
            view(&caller, network, ids)
        })
        .collect();
    Ok(Json(json!({"networks": views})).into_response())
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let network = find::network(api.database(), &caller, &id).await?;
    Ok(Json(one(api.database(), &caller, &network).await?))
}

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let wanted = body.member("network")?;
    let name = match wanted.get("name") {
        Some(field) => field.text(255)?.to_owned(),
        None => String::new(),
    };
    let kind = match wanted.get("type") {
        None => "MAC_FILTERED".to_owned(),
        Some(field) => match field.string()? {
            kind @ ("MAC_FILTERED" | "IP_LESS_ROUTED" | "PHYSICAL_VLAN" | "CUSTOM") => {
                if !api.config().network_types.iter().any(|known| known == kind) {
                    caller.role.require(Privilege::AnyNetworkType)?;
                }
                kind.to_owned()
            }
            _ => {
                return Err(
                    field.refuse("must be MAC_FILTERED, IP_LESS_ROUTED, PHYSICAL_VLAN or CUSTOM")
                );
            }
        },
    };
    if kind == "PHYSICAL_VLAN" && api.config().bridges.is_empty() {
        return Err(Fault::forbidden(
            "network.type: PHYSICAL_VLAN: not offered: networks.bridges names no bridge",
        ));
    }
    admission::creation(&api).await?;
    let now = moment::now();
    let transaction = database::write(api.database()).await?;
    let one_more = Amounts {
        private_networks: 1,
        ..Amounts::default()
    };
    quota::take(&transaction, &caller, &one_more).await?;
    let row = network::ActiveModel {
        id: ActiveValue::NotSet,
        name: ActiveValue::Set(name),
        user_id: ActiveValue::Set(Some(caller.user_id.clone())),
        project_id: ActiveValue::Set(Some(caller.project_id.clone())),
        kind: ActiveValue::Set(kind.clone()),
        mode: ActiveValue::Set("bridged".to_owned()),
        link: ActiveValue::Set(String::new()),
        mac_prefix: ActiveValue::Set(pools::COMMON_MAC_PREFIX.to_owned()),
        tags: ActiveValue::Set(json!([])),
        public: ActiveValue::Set(false),
        external_router: ActiveValue::Set(false),
        floating_ip_pool: ActiveValue::Set(false),
        drained: ActiveValue::Set(false),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    }
    .insert(&transaction)
    .await?;
    let id = row.id;
    let mut row = row.into_active_model();
    let config = api.config();
    match kind.as_str() {
        "MAC_FILTERED" => {
            let prefix = pools::mac_prefix(&transaction, id).await?;
            row.mac_prefix = ActiveValue::Set(prefix.ok_or_else(|| none_left("MAC prefix"))?);
            row.link = ActiveValue::Set(config.mac_filtered_bridge.clone());
        }
        "PHYSICAL_VLAN" => {
            let bridge = pools::bridge(&transaction, id, &config.bridges).await?;
            row.link = ActiveValue::Set(bridge.ok_or_else(|| none_left("bridge"))?);
        }
        "IP_LESS_ROUTED" => {
            row.mode = ActiveValue::Set("routed".to_owned());
            row.link = ActiveValue::Set(format!("{}-link-{id}", config.names.prefix()));
        }
        _ => row.link = ActiveValue::Set(config.custom_bridge.clone()),
    }
    let network = row.update(&transaction).await?;
    let body = one(&transaction, &caller, &network).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(body)))
}

fn none_left(what: &str) -> Fault {
    Fault::unavailable(format!("no {what} is left for another network"))
}

pub async fn rename(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let wanted = body.member("network")?;
    let name = wanted.required("name")?.text(255)?.to_owned();
    let transaction = database::write(api.database()).await?;
    let mut row = find::own_network(&transaction, &caller, &id)
        .await?
        .into_active_model();
    row.name = ActiveValue::Set(name);
    row.updated_at = ActiveValue::Set(moment::now());
    let network = row.update(&transaction).await?;
    let body = one(&transaction, &caller, &network).await?;
    transaction.commit().await?;
    Ok(Json(body))
}

/// Locks the subnets of a network: nobody takes an address of them before the transaction ends.
async fn lock_subnets(transaction: &DatabaseTransaction, network_id: i64) -> Result<(), DbErr> {
    subnet::Entity::find()
        .filter(subnet::Column::NetworkId.eq(network_id))
        .filter(subnet::Column::Live.eq(true))
        .order_by_asc(subnet::Column::Id)
        .lock_exclusive()
        .all(transaction)
        .await?;
    Ok(())
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let transaction = database::write(api.database()).await?;
    let network = find::own_network(&transaction, &caller, &id).await?;
    let used = port::Entity::find()
        .filter(port::Column::NetworkId.eq(network.id))
        .filter(port::Column::DeletedAt.is_null())
        .one(&transaction)
        .await?;
    if let Some(port) = used {
        return Err(Fault::conflict(format!(
            "network {id} is in use by port {}",
            port.id
        )));
    }
    lock_subnets(&transaction, network.id).await?;
    let held = address::Entity::find()
        .filter(address::Column::NetworkId.eq(network.id))
        .filter(address::Column::Live.eq(true))
        .one(&transaction)
        .await?;
    if let Some(address) = held {
        return Err(Fault::conflict(format!(
            "network {id} is in use by address {}",
            address.address
        )));
    }
    let now = moment::now();
    subnet::Entity::update_many()
        .col_expr(subnet::Column::Live, Expr::value(None::<bool>))
        .col_expr(subnet::Column::UpdatedAt, Expr::value(now))
        .col_expr(subnet::Column::DeletedAt, Expr::value(now))
        .filter(subnet::Column::NetworkId.eq(network.id))
        .filter(subnet::Column::Live.eq(true))
        .exec(&transaction)
        .await?;
    pools::release(&transaction, network.id).await?;
    let mut row = network.into_active_model();
    row.updated_at = ActiveValue::Set(now);
    row.deleted_at = ActiveValue::Set(Some(now));
    row.update(&transaction).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
