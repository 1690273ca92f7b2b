//! What is read only and much the same everywhere: limits, extensions, zones.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::metadata;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::image::register;
use crate::api::quota::{self, Resource};

/// What the project uses and may use. `-1` is OpenStack's way to say that there is no limit.
pub async fn limits(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let used = quota::usage(api.database(), &caller.project_id, Some(&caller.user_id)).await?;
    let limits = quota::limits(api.database(), &caller.project_id).await?;
    let most = |resource| limits.of(resource).unwrap_or(-1);
    Ok(Json(json!({"limits": {
        "rate": [],
        "absolute": {
            "maxTotalInstances": most(Resource::Servers),
            "maxTotalCores": most(Resource::TotalCpu),
            "maxTotalRAMSize": most(Resource::TotalRam),
            "maxTotalFloatingIps": most(Resource::FloatingIps),
            "totalInstancesUsed": used.servers,
            "totalCoresUsed": used.total_cpu,
            "totalRAMUsed": used.total_ram,
            "totalFloatingIpsUsed": used.floating_ips,
            "maxServerMeta": metadata::ENTRIES,
            "maxImageMeta": register::PROPERTIES,
            "maxTotalKeypairs": most(Resource::Keypairs),
        },
    }})))
}

const EXTENSIONS: &[(&str, &str)] = &[
    ("os-keypairs", "Keypairs"),
    ("os-floating-ips", "FloatingIps"),
    ("os-interface", "AttachInterfaces"),
    ("os-networks", "Networks"),
    ("os-availability-zone", "AvailabilityZone"),
    ("os-extended-status", "ExtendedStatus"),
];

fn extension(alias: &str, name: &str) -> Value {
    json!({
        "alias": alias,
        "name": name,
        "description": name,
        "namespace": "",
        "updated": "2026-11-22T00:00:00Z",
        "links": [],
    })
}

pub async fn extensions(_caller: Caller) -> Json<Value> {
    let all: Vec<Value> = EXTENSIONS
        .iter()
        .map(|(alias, name)| extension(alias, name))
        .collect();
    Json(json!({"extensions": all}))
}

pub async fn one_extension(
    _caller: Caller,
    Path(wanted): Path<String>,
) -> Result<Json<Value>, Fault> {
    EXTENSIONS
        .iter()
        .find(|(alias, _)| *alias == wanted)
        .map(|(alias, name)| Json(json!({"extension": extension(alias, name)})))
        .ok_or_else(|| Fault::not_found("extension", &wanted))
}

/// There is one zone: which cluster a server is in is ours to decide.
pub async fn zones(_caller: Caller) -> Json<Value> {
    Json(json!({"availabilityZoneInfo": [
        {"zoneName": "nova", "zoneState": {"available": true}, "hosts": null},
    ]}))
}

/// Security groups are not offered; every server is in the one that lets all through.
pub async fn security_groups(caller: Caller) -> Json<Value> {
    Json(json!({"security_groups": [{
        "id": "default",
        "name": "default",
        "description": "",
        "tenant_id": caller.project_id,
        "rules": [],
    }]}))
}

/// Those of a server: the same.
pub async fn security_groups_of_server(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    find::server(api.database(), &caller, &id).await?;
    Ok(security_groups(caller).await)
}
