//! The clusters as hosts, for administrators: each is one hypervisor to OpenStack's clients.

use axum::Json;
use axum::extract::{Path, State};
use sea_orm::{EntityTrait, QueryOrder};
use serde_json::{Value, json};

use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::model::entity::backend;

async fn backends(api: &Context) -> Result<Vec<backend::Model>, Fault> {
    Ok(backend::Entity::find()
        .order_by_asc(backend::Column::Id)
        .all(api.database())
        .await?)
}

async fn one(api: &Context, id: &str) -> Result<backend::Model, Fault> {
    let known = backends(api).await?;
    known
        .into_iter()
        .find(|backend| backend.id.to_string() == id || backend.name == id)
        .ok_or_else(|| Fault::not_found("host", id))
}

fn status(backend: &backend::Model) -> &'static str {
    if backend.drained {
        "disabled"
    } else {
        "enabled"
    }
}

fn state(backend: &backend::Model) -> &'static str {
    if backend.offline { "down" } else { "up" }
}

fn brief(backend: &backend::Model) -> Value {
    json!({
        "id": backend.id,
        "hypervisor_hostname": backend.name,
        "state": state(backend),
        "status": status(backend),
    })
}

/// Memory in MiB and disk in GiB, as Nova has them; what is free was measured of late.
fn full(backend: &backend::Model) -> Value {
    let gib = |mib: i64| mib / 1024;
    json!({
        "id": backend.id,
        "hypervisor_hostname": backend.name,
        "state": state(backend),
        "status": status(backend),
        "hypervisor_type": "ganeti",
        "hypervisor_version": 0,
        "host_ip": "",
        "service": {"id": backend.id, "host": backend.name, "disabled_reason": null},
        "vcpus": backend.cpus,
        "vcpus_used": 0,
        "memory_mb": backend.memory_total,
        "memory_mb_used": backend.memory_total.saturating_sub(backend.memory_free),
        "free_ram_mb": backend.memory_free,
        "local_gb": gib(backend.disk_total),
        "local_gb_used": gib(backend.disk_total.saturating_sub(backend.disk_free)),
        "free_disk_gb": gib(backend.disk_free),
        "disk_available_least": gib(backend.disk_free),
        "running_vms": backend.instances,
        "current_workload": 0,
        "cpu_info": "",
    })
}

pub async fn hypervisors(
    State(api): State<Context>,
    _caller: Caller,
) -> Result<Json<Value>, Fault> {
    let all = backends(&api).await?;
    let views: Vec<Value> = all.iter().map(brief).collect();
    Ok(Json(json!({ "hypervisors": views })))
}

pub async fn hypervisors_detail(
    State(api): State<Context>,
    _caller: Caller,
) -> Result<Json<Value>, Fault> {
    let all = backends(&api).await?;
    let views: Vec<Value> = all.iter().map(full).collect();
    Ok(Json(json!({ "hypervisors": views })))
}

pub async fn hypervisor(
    State(api): State<Context>,
    _caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    find::number("host", &id)?;
    let backend = one(&api, &id).await?;
    Ok(Json(json!({ "hypervisor": full(&backend) })))
}

pub async fn hosts(State(api): State<Context>, _caller: Caller) -> Result<Json<Value>, Fault> {
    let all = backends(&api).await?;
    let views: Vec<Value> = all
        .iter()
        .map(|backend| json!({"host_name": backend.name, "service": "compute", "zone": "nova"}))
        .collect();
    Ok(Json(json!({ "hosts": views })))
}

pub async fn host(
    State(api): State<Context>,
    _caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let backend = one(&api, &name).await?;
    let resource = |project: &str, memory: i64, disk: i64| {
        json!({"resource": {
            "project": project,
            "host": backend.name,
            "cpu": backend.cpus,
            "memory_mb": memory,
            "disk_gb": disk / 1024,
        }})
    };
    let used_memory = backend.memory_total.saturating_sub(backend.memory_free);
    let used_disk = backend.disk_total.saturating_sub(backend.disk_free);
    Ok(Json(json!({"host": [
        resource("(total)", backend.memory_total, backend.disk_total),
        resource("(used_now)", used_memory, used_disk),
    ]})))
}

pub async fn services(State(api): State<Context>, _caller: Caller) -> Result<Json<Value>, Fault> {
    let all = backends(&api).await?;
    let views: Vec<Value> = all
        .iter()
        .map(|backend| {
            json!({
                "id": backend.id,
                "binary": "nova-compute",
                "host": backend.name,
                "zone": "nova",
                "status": status(backend),
                "state": state(backend),
                "updated_at": backend.measured_at.map(crate::model::moment::iso),
                "disabled_reason": null,
            })
        })
        .collect();
    Ok(Json(json!({ "services": views })))
}
