//! `/servers/{id}/ips`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, json};

use super::detail;
use super::view::Addresses;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::dialect::Dialect;
use crate::api::fault::Fault;

pub async fn all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let server = detail::one(api.database(), &caller, &id).await?;
    let addresses = Addresses::new(&server, caller.dialect);
    Ok(Json(json!({"addresses": addresses})).into_response())
}

pub async fn of_network(
    State(api): State<Context>,
    caller: Caller,
    Path((id, network)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let server = detail::one(api.database(), &caller, &id).await?;
    let addresses = Addresses::new(&server, caller.dialect);
    let list = addresses
        .of(&network)
        .ok_or_else(|| Fault::not_found("network", &network))?;
    let entry = Map::from_iter([(network, json!(list))]);
    // Cyclades calls it `network`; OpenStack has nothing around the entry.
    Ok(match caller.dialect {
        Dialect::OpenStack => Json(json!(entry)),
        Dialect::Cyclades => Json(json!({"network": entry})),
    }
    .into_response())
}
