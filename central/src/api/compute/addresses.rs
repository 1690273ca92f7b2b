//! `/servers/{id}/ips`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::view;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;

async fn addresses(api: &Context, caller: &Caller, id: &str) -> Result<Map<String, Value>, Fault> {
    let server = find::server(api.database(), caller, id).await?;
    let rows = Rows::of(api.database(), std::slice::from_ref(&server)).await?;
    Ok(view::addresses(
        rows.ports(server.id),
        &rows,
        caller.dialect,
    ))
}

pub async fn all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let addresses = addresses(&api, &caller, &id).await?;
    Ok(Json(json!({"addresses": addresses})))
}

pub async fn of_network(
    State(api): State<Context>,
    caller: Caller,
    Path((id, network)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    let mut addresses = addresses(&api, &caller, &id).await?;
    let list = addresses
        .remove(&network)
        .ok_or_else(|| Fault::not_found("network", &network))?;
    let entry = Map::from_iter([(network, list)]);
    // Cyclades calls it `network`; OpenStack has nothing around the entry.
    Ok(Json(match caller.dialect {
        crate::api::dialect::Dialect::OpenStack => Value::Object(entry),
        crate::api::dialect::Dialect::Cyclades => json!({"network": entry}),
    }))
}
