//! What is read only and much the same everywhere: limits, extensions, zones.

use axum::Json;
use axum::extract::{Path, State};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use serde_json::{Value, json};

use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::model::entity::{flavor, server};

/// What the project uses. `-1` is OpenStack's way to say that there is no limit.
pub async fn limits(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let counts: Vec<(i64, i64)> = server::Entity::find()
        .select_only()
        .column(server::Column::FlavorId)
        .column_as(server::Column::Id.count(), "servers")
        .filter(server::Column::ProjectId.eq(caller.project_id.as_str()))
        .filter(server::Column::DeletedAt.is_null())
        .group_by(server::Column::FlavorId)
        .into_tuple()
        .all(api.database())
        .await?;
    let ids: Vec<i64> = counts.iter().map(|(flavor, _)| *flavor).collect();
    let flavors = flavor::Entity::find()
        .filter(flavor::Column::Id.is_in(ids))
        .all(api.database())
        .await?;
    let mut sums = [0_i64; 3];
    for (id, servers) in counts {
        if let Some(flavor) = flavors.iter().find(|flavor| flavor.id == id) {
            let [instances, cores, ram] = &mut sums;
            *instances = instances.saturating_add(servers);
            *cores = cores.saturating_add(flavor.vcpus.saturating_mul(servers));
            *ram = ram.saturating_add(flavor.ram.saturating_mul(servers));
        }
    }
    let [instances, cores, ram] = sums;
    Ok(Json(json!({"limits": {
        "rate": [],
        "absolute": {
            "maxTotalInstances": -1,
            "maxTotalCores": -1,
            "maxTotalRAMSize": -1,
            "totalInstancesUsed": instances,
            "totalCoresUsed": cores,
            "totalRAMUsed": ram,
            "maxServerMeta": 128,
            "maxImageMeta": 128,
            "maxTotalKeypairs": 100,
            "maxPersonality": 5,
            "maxPersonalitySize": 10240,
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
