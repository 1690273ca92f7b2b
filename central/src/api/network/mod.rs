//! The network service.

pub mod floating_ips;
mod history;
mod networks;
pub mod ports;
mod subnets;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::caller::{Caller, Mount};
use super::context::Context;
use super::fault::Fault;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(resources))
        .route("/extensions", get(extensions))
        .route("/extensions/{alias}", get(one_extension))
        .route("/networks", get(networks::list).post(networks::create))
        .route("/networks/detail", get(networks::list))
        .route(
            "/networks/{id}",
            get(networks::show)
                .put(networks::rename)
                .delete(networks::delete),
        )
        .route("/subnets", get(subnets::list).post(subnets::create))
        .route(
            "/subnets/{id}",
            get(subnets::show)
                .put(subnets::rename)
                .delete(subnets::delete),
        )
        .route("/address-history", get(history::list))
        .route("/ports", get(ports::list).post(ports::create))
        .route(
            "/ports/{id}",
            get(ports::show).put(ports::rename).delete(ports::delete),
        )
        .route(
            "/floatingips",
            get(floating_ips::list).post(floating_ips::create),
        )
        .route(
            "/floatingips/{id}",
            get(floating_ips::show)
                .put(floating_ips::attach)
                .delete(floating_ips::delete),
        )
}

/// None: but clients ask for them before they make a port, and take a 404 for a failure.
async fn extensions(_caller: Caller) -> Json<Value> {
    Json(json!({"extensions": []}))
}

async fn one_extension(_caller: Caller, Path(alias): Path<String>) -> Fault {
    Fault::not_found("extension", &alias)
}

async fn resources(mount: Mount) -> Json<Value> {
    let resource = |name: &str, collection: &str| {
        json!({
            "name": name,
            "collection": collection,
            "links": [{"rel": "self", "href": mount.url(&format!("/network/v2.0/{collection}"))}],
        })
    };
    Json(json!({"resources": [
        resource("network", "networks"),
        resource("subnet", "subnets"),
        resource("port", "ports"),
        resource("floatingip", "floatingips"),
    ]}))
}
