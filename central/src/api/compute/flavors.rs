//! Flavors: the sizes of servers.

use axum::Json;
use axum::extract::{Path, State};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use crate::api::authorization::Privilege;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::links;
use crate::api::page::Parameters;
use crate::model::entity::flavor;

fn brief(caller: &Caller, flavor: &flavor::Model) -> Value {
    json!({
        "id": flavor.id.to_string(),
        "name": flavor.name,
        "links": links::of(caller, "/compute/v2.0/flavors", &flavor.id),
    })
}

fn full(caller: &Caller, flavor: &flavor::Model) -> Value {
    json!({
        "id": flavor.id.to_string(),
        "name": flavor.name,
        "links": links::of(caller, "/compute/v2.0/flavors", &flavor.id),
        "ram": flavor.ram,
        "disk": flavor.disk,
        "vcpus": flavor.vcpus,
        // libcloud cannot do without it.
        "swap": "",
        "rxtx_factor": 1.0,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "OS-FLV-DISABLED:disabled": flavor.deleted_at.is_some(),
        "os-flavor-access:is_public": flavor.public,
        "SNF:disk_template": flavor.disk_template,
        "SNF:volume_type": 1,
        "SNF:allow_create": flavor.allow_create,
        "SNF:flavor-access": [],
    })
}

async fn all(
    api: &Context,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<Vec<flavor::Model>, Fault> {
    let mut query = flavor::Entity::find()
        .filter(flavor::Column::DeletedAt.is_null())
        .order_by_asc(flavor::Column::Id);
    if !caller.role.has(Privilege::HiddenFlavors) {
        query = query.filter(flavor::Column::Public.eq(true));
    }
    // OpenStack clients say `None` for "public or not".
    for name in ["is_public", "SNF:is_public"] {
        if parameters.get(name) != Some("None")
            && let Some(public) = parameters.flag(name)?
        {
            query = query.filter(flavor::Column::Public.eq(public));
        }
    }
    if let Some(marker) = parameters.number("marker")? {
        query = query.filter(flavor::Column::Id.gt(marker));
    }
    if let Some(ram) = parameters.number("minRam")? {
        query = query.filter(flavor::Column::Ram.gte(ram));
    }
    if let Some(disk) = parameters.number("minDisk")? {
        query = query.filter(flavor::Column::Disk.gte(disk));
    }
    let limit = usize::try_from(parameters.limit()?).unwrap_or(usize::MAX);
    let mut flavors = query.all(api.database()).await?;
    flavors.truncate(limit);
    Ok(flavors)
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let flavors = all(&api, &caller, &parameters).await?;
    let views: Vec<Value> = flavors
        .iter()
        .map(|flavor| brief(&caller, flavor))
        .collect();
    Ok(Json(json!({"flavors": views})))
}

pub async fn detail(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let flavors = all(&api, &caller, &parameters).await?;
    let views: Vec<Value> = flavors.iter().map(|flavor| full(&caller, flavor)).collect();
    Ok(Json(json!({"flavors": views})))
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let flavor = find::flavor(api.database(), &caller, &id).await?;
    Ok(Json(json!({"flavor": full(&caller, &flavor)})))
}

pub async fn extra_specs(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let flavor = find::flavor(api.database(), &caller, &id).await?;
    let specs = json!({"ganeti:disk_template": flavor.disk_template});
    Ok(Json(json!({"extra_specs": specs})))
}
