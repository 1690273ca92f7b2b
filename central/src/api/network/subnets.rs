//! Subnets: one of each family to a network.

use std::net::{Ipv4Addr, Ipv6Addr};

use agents::addr::{Ipv4Net, Ipv6Net};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, DatabaseTransaction, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use crate::api::body::{Body, Field, Object};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::links;
use crate::api::page::Parameters;
use crate::api::quota::{self, Amounts};
use crate::ganeti::networks;
use crate::model::entity::{address, backend_network, network, subnet};
use crate::model::{database, moment};

fn view(caller: &Caller, subnet: &subnet::Model, network: &network::Model) -> Value {
    let pools: Vec<Value> = subnet
        .pools
        .as_array()
        .into_iter()
        .flatten()
        .map(|pool| json!({"start": pool.get(0), "end": pool.get(1)}))
        .collect();
    let mut view = json!({
        "id": subnet.id.to_string(),
        "name": subnet.name,
        "links": links::of(caller, "/network/v2.0/subnets", &subnet.id),
        "network_id": subnet.network_id.to_string(),
        "tenant_id": network.project_id,
        "project_id": network.project_id,
        "user_id": network.user_id,
        "public": network.public,
        "gateway_ip": subnet.gateway,
        "ip_version": subnet.ip_version,
        "cidr": subnet.cidr,
        "enable_dhcp": subnet.dhcp,
        "dns_nameservers": subnet.dns,
        "host_routes": subnet.host_routes,
        "allocation_pools": pools,
        "deleted": subnet.deleted_at.is_some(),
    });
    if let (6, Some(map)) = (subnet.ip_version, view.as_object_mut()) {
        map.insert("enable_slaac".to_owned(), json!(subnet.slaac));
        let mode = subnet.slaac.then_some("slaac");
        map.insert("ipv6_address_mode".to_owned(), json!(mode));
        map.insert("ipv6_ra_mode".to_owned(), json!(mode));
    }
    view
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let since = parameters.changes_since()?;
    let seen = Query::select()
        .column(network::Column::Id)
        .from(network::Entity)
        .cond_where(find::visible_networks(&caller))
        .to_owned();
    let mut query = subnet::Entity::find()
        .find_also_related(network::Entity)
        .filter(subnet::Column::NetworkId.in_subquery(seen))
        .order_by_asc(subnet::Column::Id);
    query = match since {
        Some(since) => query.filter(subnet::Column::UpdatedAt.gte(since)),
        None => query.filter(subnet::Column::Live.eq(true)),
    };
    if let Some(id) = parameters.number("network_id")? {
        query = query.filter(subnet::Column::NetworkId.eq(id));
    }
    if let Some(name) = parameters.get("name") {
        query = query.filter(subnet::Column::Name.eq(name));
    }
    if let Some(version) = parameters.number("ip_version")? {
        query = query.filter(subnet::Column::IpVersion.eq(version));
    }
    if let Some(cidr) = parameters.get("cidr") {
        query = query.filter(subnet::Column::Cidr.eq(cidr));
    }
    if let Some(marker) = parameters.number("marker")? {
        query = query.filter(subnet::Column::Id.gt(marker));
    }
    let subnets = query.limit(parameters.limit()?).all(api.database()).await?;
    if since.is_some() && subnets.is_empty() {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let views: Vec<Value> = subnets
        .iter()
        .filter_map(|(subnet, network)| Some(view(&caller, subnet, network.as_ref()?)))
        .collect();
    Ok(Json(json!({"subnets": views})).into_response())
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let (subnet, network) = find::subnet(api.database(), &caller, &id).await?;
    Ok(Json(json!({"subnet": view(&caller, &subnet, &network)})))
}

/// A subnet as the body describes it.
struct Wanted {
    name: String,
    version: i32,
    cidr: String,
    gateway: Option<String>,
    dhcp: bool,
    slaac: bool,
    dns: Value,
    routes: Value,
    pools: Value,
}

impl Wanted {
    fn parse(body: &Object<'_>) -> Result<Self, Fault> {
        let cidr = body.required("cidr")?;
        let text = cidr.string()?;
        let version = match body.get("ip_version") {
            Some(field) => field.integer(4..=6)?,
            None if text.contains(':') => 6,
            None => 4,
        };
        let name = match body.get("name") {
            Some(field) => field.text(255)?.to_owned(),
            None => String::new(),
        };
        let flag = |name: &str, default: bool| match body.get(name) {
            Some(field) => field.boolean(),
            None => Ok(default),
        };
        let mut wanted = Self {
            name,
            version: 4,
            cidr: String::new(),
            gateway: None,
            dhcp: flag("enable_dhcp", true)?,
            slaac: flag("enable_slaac", true)?,
            dns: json!([]),
            routes: json!([]),
            pools: json!([]),
        };
        match version {
            4 => wanted.v4(body, &cidr)?,
            6 => wanted.v6(body, &cidr)?,
            _ => return Err(Fault::field("subnet.ip_version", version, "must be 4 or 6")),
        }
        let family = wanted.version;
        wanted.dns = addresses(body, "dns_nameservers", family)?;
        wanted.routes = routes(body)?;
        Ok(wanted)
    }

    fn v4(&mut self, body: &Object<'_>, cidr: &Field<'_>) -> Result<(), Fault> {
        let net: Ipv4Net = cidr
            .string()?
            .parse()
            .map_err(|_| cidr.refuse("must be an IPv4 prefix, as 192.0.2.0/24"))?;
        if !(16..=29).contains(&net.prefix_len()) {
            return Err(cidr.refuse("must have a length from /16 to /29"));
        }
        if net.addr() != net.network() {
            return Err(cidr.refuse(&format!("has host bits: {} is meant", net.trunc())));
        }
        let inside = |field: &Field<'_>| -> Result<Ipv4Addr, Fault> {
            let address: Ipv4Addr = field
                .string()?
                .parse()
                .map_err(|_| field.refuse("must be an IPv4 address"))?;
            if net.contains(&address) {
                Ok(address)
            } else {
                Err(field.refuse(&format!("is not in {net}")))
            }
        };
        let gateway = match (body.get("gateway_ip"), body.has("gateway_ip")) {
            (Some(field), _) => Some(inside(&field)?),
            (None, true) => None,
            (None, false) => net.hosts().next(),
        };
        let mut pools: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
        if let Some(field) = body.get("allocation_pools") {
            for pool in field.list(32)? {
                let object = pool.object()?;
                let start = inside(&object.required("start")?)?;
                let end = inside(&object.required("end")?)?;
                if start > end {
                    return Err(pool.refuse("starts after its end"));
                }
                if let Some(gateway) = gateway
                    && (start..=end).contains(&gateway)
                {
                    return Err(Fault::conflict(format!(
                        "{}: the gateway {gateway} is inside",
                        pool.path()
                    )));
                }
                if pools.iter().any(|(from, to)| start <= *to && *from <= end) {
                    return Err(Fault::conflict(format!("{}: overlaps", pool.path())));
                }
                pools.push((start, end));
            }
        }
        self.version = 4;
        self.slaac = false;
        self.cidr = net.to_string();
        self.gateway = gateway.map(|gateway| gateway.to_string());
        self.pools = pools
            .iter()
            .map(|(start, end)| json!([start.to_string(), end.to_string()]))
            .collect();
        Ok(())
    }

    fn v6(&mut self, body: &Object<'_>, cidr: &Field<'_>) -> Result<(), Fault> {
        let net: Ipv6Net = cidr
            .string()?
            .parse()
            .map_err(|_| cidr.refuse("must be an IPv6 prefix, as 2001:db8::/64"))?;
        if net.prefix_len() != 64 {
            return Err(cidr.refuse("must be a /64: guests make their addresses themselves"));
        }
        if net.addr() != net.network() {
            return Err(cidr.refuse(&format!("has host bits: {} is meant", net.trunc())));
        }
        let gateway = match (body.get("gateway_ip"), body.has("gateway_ip")) {
            (Some(field), _) => {
                let address: Ipv6Addr = field
                    .string()?
                    .parse()
                    .map_err(|_| field.refuse("must be an IPv6 address"))?;
                if !net.contains(&address) {
                    return Err(field.refuse(&format!("is not in {net}")));
                }
                Some(address)
            }
            (None, true) => None,
            (None, false) => net.hosts().nth(1),
        };
        if body
            .get("allocation_pools")
            .is_some_and(|field| field.value().as_array().is_none_or(|list| !list.is_empty()))
        {
            return Err(Fault::bad_request(
                "subnet.allocation_pools: IPv6 addresses are not allocated",
            ));
        }
        self.version = 6;
        self.cidr = net.to_string();
        self.gateway = gateway.map(|gateway| gateway.to_string());
        Ok(())
    }
}

fn addresses(body: &Object<'_>, name: &str, family: i32) -> Result<Value, Fault> {
    let Some(field) = body.get(name) else {
        return Ok(json!([]));
    };
    let mut list = Vec::new();
    for entry in field.list(8)? {
        let text = entry.string()?;
        let good = match family {
            4 => text.parse::<Ipv4Addr>().is_ok(),
            _ => text.parse::<Ipv6Addr>().is_ok(),
        };
        if !good {
            return Err(entry.refuse(&format!("must be an IPv{family} address")));
        }
        list.push(json!(text));
    }
    Ok(Value::Array(list))
}

fn routes(body: &Object<'_>) -> Result<Value, Fault> {
    let Some(field) = body.get("host_routes") else {
        return Ok(json!([]));
    };
    let mut list = Vec::new();
    for entry in field.list(32)? {
        let route = entry.object()?;
        let destination = route.required("destination")?;
        let hop = route.required("nexthop")?;
        destination
            .string()?
            .parse::<agents::addr::IpNet>()
            .map_err(|_| destination.refuse("must be a prefix"))?;
        hop.string()?
            .parse::<std::net::IpAddr>()
            .map_err(|_| hop.refuse("must be an address"))?;
        list.push(json!({"destination": destination.value(), "nexthop": hop.value()}));
    }
    Ok(Value::Array(list))
}

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let object = body.member("subnet")?;
    let network_id = object.required("network_id")?.reference()?;
    let wanted = Wanted::parse(&object)?;
    let transaction = database::write(api.database()).await?;
    let one_more = Amounts {
        subnets: 1,
        ..Amounts::NONE
    };
    quota::take(&transaction, &caller, &one_more).await?;
    let network = find::own_network(&transaction, &caller, &network_id).await?;
    if is_in_a_cluster(&transaction, network.id).await? {
        return Err(Fault::conflict(format!(
            "network {} is in use: its subnets cannot be changed any more",
            network.id
        )));
    }
    let now = moment::now();
    let row = subnet::ActiveModel {
        id: ActiveValue::NotSet,
        network_id: ActiveValue::Set(network.id),
        name: ActiveValue::Set(wanted.name),
        ip_version: ActiveValue::Set(wanted.version),
        cidr: ActiveValue::Set(wanted.cidr),
        gateway: ActiveValue::Set(wanted.gateway),
        dhcp: ActiveValue::Set(wanted.dhcp),
        slaac: ActiveValue::Set(wanted.slaac),
        dns: ActiveValue::Set(wanted.dns),
        host_routes: ActiveValue::Set(wanted.routes),
        pools: ActiveValue::Set(wanted.pools),
        live: ActiveValue::Set(Some(true)),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    };
    let subnet = row.insert(&transaction).await.map_err(|error| {
        if database::is_duplicate(&error) {
            Fault::conflict(format!(
                "network {} has an IPv{} subnet already",
                network.id, wanted.version
            ))
        } else {
            error.into()
        }
    })?;
    transaction.commit().await?;
    let body = json!({"subnet": view(&caller, &subnet, &network)});
    Ok((StatusCode::CREATED, Json(body)))
}

/// Returns whether a cluster has the network, or is being given it, so that its subnets are fixed.
/// The row of the network is locked by the caller: [`networks::ensure`] claims under its lock.
async fn is_in_a_cluster(
    transaction: &DatabaseTransaction,
    network_id: i64,
) -> Result<bool, Fault> {
    let there = Condition::any()
        .add(backend_network::Column::State.is_not_in([networks::ABSENT, networks::DELETED]))
        .add(Expr::col(backend_network::Column::ClaimedUntil).gte(database::clock(transaction)));
    Ok(backend_network::Entity::find()
        .filter(backend_network::Column::NetworkId.eq(network_id))
        .filter(there)
        .one(transaction)
        .await?
        .is_some())
}

/// A subnet that is not deleted, locked for a change; its network is the caller's and locked.
async fn live_for_change(
    transaction: &DatabaseTransaction,
    id: &str,
) -> Result<subnet::Model, Fault> {
    subnet::Entity::find_by_id(find::number("subnet", id)?)
        .filter(subnet::Column::Live.eq(true))
        .lock_exclusive()
        .one(transaction)
        .await?
        .ok_or_else(|| Fault::not_found("subnet", id))
}

pub async fn rename(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let wanted = body.member("subnet")?;
    let name = wanted.required("name")?.text(255)?.to_owned();
    let (_, network) = find::subnet(api.database(), &caller, &id).await?;
    let transaction = database::write(api.database()).await?;
    find::own_network(&transaction, &caller, &network.id.to_string()).await?;
    let subnet = live_for_change(&transaction, &id).await?;
    let mut row = subnet.into_active_model();
    row.name = ActiveValue::Set(name);
    row.updated_at = ActiveValue::Set(moment::now());
    let subnet = row.update(&transaction).await?;
    transaction.commit().await?;
    Ok(Json(json!({"subnet": view(&caller, &subnet, &network)})))
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let (subnet, network) = find::subnet(api.database(), &caller, &id).await?;
    if subnet.live.is_none() {
        return Err(Fault::not_found("subnet", &id));
    }
    let transaction = database::write(api.database()).await?;
    find::own_network(&transaction, &caller, &network.id.to_string()).await?;
    let subnet = live_for_change(&transaction, &id).await?;
    let used = address::Entity::find()
        .filter(address::Column::SubnetId.eq(subnet.id))
        .filter(address::Column::Live.eq(true))
        .one(&transaction)
        .await?;
    if used.is_some() || is_in_a_cluster(&transaction, network.id).await? {
        return Err(Fault::conflict(format!("subnet {id} is in use")));
    }
    let now = moment::now();
    subnet::Entity::update_many()
        .col_expr(subnet::Column::Live, Expr::value(None::<bool>))
        .col_expr(subnet::Column::UpdatedAt, Expr::value(now))
        .col_expr(subnet::Column::DeletedAt, Expr::value(now))
        .filter(subnet::Column::Id.eq(subnet.id))
        .exec(&transaction)
        .await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
