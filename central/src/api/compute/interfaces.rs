//! `os-interface`: a server's NICs as Nova shows them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use crate::api::authorization::Purpose;
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::network::ports::{self, Subnets};
use crate::api::nic::WantedNic;
use crate::api::{attachment, find};
use crate::model::entity::port;

fn view(port: &port::Model, subnets: &Subnets) -> Value {
    json!({
        "port_id": port.id.to_string(),
        "net_id": port.network_id.to_string(),
        "mac_addr": port.mac.clone().unwrap_or_default(),
        "port_state": port.state,
        "fixed_ips": ports::fixed_ips(port, subnets),
    })
}

async fn of_server(api: &Context, caller: &Caller, id: &str) -> Result<Vec<port::Model>, Fault> {
    let server = find::server(api.database(), caller, id).await?;
    Ok(port::Entity::find()
        .filter(port::Column::ServerId.eq(server.id))
        .filter(port::Column::DeletedAt.is_null())
        .order_by_asc(port::Column::Id)
        .all(api.database())
        .await?)
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let ports = of_server(&api, &caller, &id).await?;
    let subnets = ports::subnets(api.database(), &ports).await?;
    let views: Vec<Value> = ports.iter().map(|port| view(port, &subnets)).collect();
    Ok(Json(json!({"interfaceAttachments": views})))
}

async fn one(api: &Context, caller: &Caller, id: &str, port: &str) -> Result<port::Model, Fault> {
    of_server(api, caller, id)
        .await?
        .into_iter()
        .find(|known| known.id.to_string() == port)
        .ok_or_else(|| Fault::not_found("port", port))
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path((id, port)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    let port = one(&api, &caller, &id, &port).await?;
    let subnets = ports::subnets(api.database(), std::slice::from_ref(&port)).await?;
    Ok(Json(json!({"interfaceAttachment": view(&port, &subnets)})))
}

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    find::server_for(api.database(), &caller, &id, Purpose::Operate).await?;
    let wanted = body.member("interfaceAttachment")?;
    if let Some(field) = wanted.get("port_id") {
        let port = field.reference()?;
        let port = attachment::plug_port(&api, &caller, &id, &port).await?;
        let subnets = ports::subnets(api.database(), std::slice::from_ref(&port)).await?;
        return Ok(Json(json!({"interfaceAttachment": view(&port, &subnets)})));
    }
    let address = match wanted.get("fixed_ips") {
        None => None,
        Some(field) => match field.list(1)?.first() {
            None => None,
            Some(entry) => {
                let address = entry.object()?.required("ip_address")?;
                let text = address.string()?;
                Some(
                    text.parse()
                        .map_err(|_| address.refuse("must be an IPv4 address"))?,
                )
            }
        },
    };
    let nic = WantedNic {
        network: wanted.required("net_id")?.reference()?,
        address,
    };
    let port = attachment::plug(&api, &caller, &id, &nic, "").await?;
    let subnets = ports::subnets(api.database(), std::slice::from_ref(&port)).await?;
    Ok(Json(json!({"interfaceAttachment": view(&port, &subnets)})))
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path((id, port)): Path<(String, String)>,
) -> Result<StatusCode, Fault> {
    let port = one(&api, &caller, &id, &port).await?;
    attachment::unplug(&api, &caller, &port).await?;
    Ok(StatusCode::ACCEPTED)
}
