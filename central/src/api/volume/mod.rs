//! The volume service: the root disks of servers, which come and go with them.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use super::body::Body;
use super::caller::{Caller, Mount};
use super::context::Context;
use super::fault::Fault;
use super::find;
use super::links;
use super::page::Parameters;
use super::quota::{self, Resource};
use super::roots;
use crate::model::entity::{flavor, server, volume};
use crate::model::{database, moment};

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(version))
        .route("/volumes", get(list).post(create))
        .route("/volumes/detail", get(detail))
        .route("/volumes/{id}", get(show).put(rename).delete(delete))
        .route("/volumes/{id}/metadata", get(metadata))
        .route("/volumes/{id}/action", post(act))
        .route("/types", get(types))
        .route("/types/{id}", get(one_type))
        .route("/snapshots", get(no_snapshots))
        .route("/snapshots/detail", get(no_snapshots))
        .route("/limits", get(limits))
}

async fn version(mount: Mount) -> Json<Value> {
    Json(json!({"versions": roots::volume_versions(&mount)}))
}

/// A volume with the server that it is the disk of and that one's flavor.
struct Disk {
    volume: volume::Model,
    server: Option<server::Model>,
    template: Option<String>,
}

/// The servers and flavors of volumes, with two statements however many there are.
async fn disks(api: &Context, volumes: Vec<volume::Model>) -> Result<Vec<Disk>, Fault> {
    let servers = server::Entity::find()
        .filter(server::Column::Id.is_in(volumes.iter().map(|volume| volume.server_id)))
        .all(api.database())
        .await?;
    let flavors = flavor::Entity::find()
        .filter(flavor::Column::Id.is_in(servers.iter().map(|server| server.flavor_id)))
        .all(api.database())
        .await?;
    Ok(volumes
        .into_iter()
        .map(|volume| {
            let server = servers
                .iter()
                .find(|server| server.id == volume.server_id)
                .cloned();
            let template = server.as_ref().and_then(|server| {
                let flavor = flavors
                    .iter()
                    .find(|flavor| flavor.id == server.flavor_id)?;
                Some(flavor.disk_template.clone())
            });
            Disk {
                volume,
                server,
                template,
            }
        })
        .collect())
}

fn status(volume: &volume::Model) -> String {
    match volume.status.as_str() {
        // Cinder writes it with a hyphen.
        "IN_USE" => "in-use".to_owned(),
        other => other.to_lowercase(),
    }
}

fn brief(caller: &Caller, volume: &volume::Model) -> Value {
    json!({
        "id": volume.id.to_string(),
        "name": volume.name,
        "display_name": volume.name,
        "links": links::of(caller, "/volume/v3/volumes", &volume.id),
    })
}

fn full(caller: &Caller, disk: &Disk) -> Value {
    let volume = &disk.volume;
    let server = volume.server_id.to_string();
    let attachments = if volume.deleted_at.is_some() {
        json!([])
    } else {
        json!([{
            "id": volume.id.to_string(),
            "attachment_id": volume.id.to_string(),
            "volume_id": volume.id.to_string(),
            "server_id": server,
            "device_index": volume.disk_index,
            "device": "",
            "host_name": null,
            "attached_at": moment::iso(volume.created_at),
        }])
    };
    let image = disk.server.as_ref().map(|server| server.image_id.clone());
    json!({
        "id": volume.id.to_string(),
        "name": volume.name,
        "display_name": volume.name,
        "description": "",
        "display_description": "",
        "links": links::of(caller, "/volume/v3/volumes", &volume.id),
        "status": status(volume),
        "size": volume.size,
        "created_at": moment::iso(volume.created_at),
        "updated_at": moment::iso(volume.updated_at),
        "metadata": {},
        "snapshot_id": null,
        "source_volid": null,
        "image_id": image,
        "attachments": attachments,
        "volume_type": disk.template,
        "availability_zone": "nova",
        "bootable": if volume.disk_index == 0 { "true" } else { "false" },
        "encrypted": false,
        "multiattach": false,
        "deleted": volume.deleted_at.is_some(),
        "delete_on_termination": true,
        "user_id": volume.user_id,
        "tenant_id": volume.project_id,
        "os-vol-tenant-attr:tenant_id": volume.project_id,
        "shared_to_project": false,
    })
}

async fn page(
    api: &Context,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<Option<Vec<volume::Model>>, Fault> {
    let since = parameters.changes_since()?;
    let mut query = volume::Entity::find()
        .filter(volume::Column::ProjectId.eq(caller.project_id.as_str()))
        .order_by_asc(volume::Column::Id);
    query = match since {
        Some(since) => query.filter(volume::Column::UpdatedAt.gte(since)),
        None => query.filter(volume::Column::DeletedAt.is_null()),
    };
    if let Some(marker) = parameters.number("marker")? {
        query = query.filter(volume::Column::Id.gt(marker));
    }
    if let Some(name) = parameters.get("name") {
        query = query.filter(volume::Column::Name.eq(name));
    }
    if let Some(status) = parameters.get("status") {
        let status = status.to_ascii_uppercase().replace('-', "_");
        query = query.filter(volume::Column::Status.eq(status));
    }
    let volumes = query.limit(parameters.limit()?).all(api.database()).await?;
    Ok(Some(volumes).filter(|volumes| since.is_none() || !volumes.is_empty()))
}

async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let Some(volumes) = page(&api, &caller, &parameters).await? else {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    };
    let views: Vec<Value> = volumes
        .iter()
        .map(|volume| brief(&caller, volume))
        .collect();
    Ok(Json(json!({ "volumes": views })).into_response())
}

async fn detail(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let Some(volumes) = page(&api, &caller, &parameters).await? else {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    };
    let disks = disks(&api, volumes).await?;
    let views: Vec<Value> = disks.iter().map(|disk| full(&caller, disk)).collect();
    Ok(Json(json!({ "volumes": views })).into_response())
}

async fn find(api: &Context, caller: &Caller, id: &str) -> Result<volume::Model, Fault> {
    let missing = || Fault::not_found("volume", id);
    let number = id
        .parse::<i64>()
        .ok()
        .filter(|number| number.to_string() == id)
        .ok_or_else(missing)?;
    volume::Entity::find_by_id(number)
        .filter(volume::Column::ProjectId.eq(caller.project_id.as_str()))
        .one(api.database())
        .await?
        .ok_or_else(missing)
}

async fn shown(
    api: &Context,
    caller: &Caller,
    volume: volume::Model,
) -> Result<Json<Value>, Fault> {
    let disks = disks(api, vec![volume]).await?;
    let view = disks.first().map(|disk| full(caller, disk));
    Ok(Json(json!({ "volume": view })))
}

async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let volume = find(&api, &caller, &id).await?;
    shown(&api, &caller, volume).await
}

async fn rename(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    find(&api, &caller, &id).await?;
    let wanted = body.member("volume")?;
    let field = match wanted.get("display_name") {
        Some(field) => field,
        None => wanted.required("name")?,
    };
    let name = field.text(255)?.to_owned();
    let transaction = database::write(api.database()).await?;
    let volume = volume::Entity::find_by_id(find::number("volume", &id)?)
        .filter(volume::Column::ProjectId.eq(caller.project_id.as_str()))
        .filter(volume::Column::DeletedAt.is_null())
        .lock_exclusive()
        .one(&transaction)
        .await?
        .ok_or_else(|| Fault::not_found("volume", &id))?;
    find::permit_attached(&transaction, Some(volume.server_id)).await?;
    let mut row = volume.into_active_model();
    row.name = ActiveValue::Set(name);
    row.updated_at = ActiveValue::Set(moment::now());
    let volume = row.update(&transaction).await?;
    transaction.commit().await?;
    shown(&api, &caller, volume).await
}

async fn create(_caller: Caller, body: Body) -> Result<Json<Value>, Fault> {
    body.member("volume")?;
    Err(Fault::not_implemented(
        "volumes are the root disks of servers: make a server",
    ))
}

async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let volume = find(&api, &caller, &id).await?;
    Err(Fault::conflict(format!(
        "volume {id} is the root disk of server {}, and goes with it",
        volume.server_id
    )))
}

async fn metadata(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    find(&api, &caller, &id).await?;
    Ok(Json(json!({"metadata": {}})))
}

async fn act(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    find(&api, &caller, &id).await?;
    let object = body.object()?;
    let name = object.fields().next().map(|(name, _)| name.to_owned());
    Err(match name {
        Some(name) if object.len() == 1 => {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            Fault::not_implemented(format!("{name}: not offered"))
        }
        _ => Fault::bad_request("body: exactly one action is wanted"),
    })
}

/// The disk templates of the flavors are the types.
async fn templates(api: &Context) -> Result<Vec<String>, Fault> {
    let mut templates: Vec<String> = flavor::Entity::find()
        .select_only()
        .column(flavor::Column::DiskTemplate)
        .distinct()
        .filter(flavor::Column::DeletedAt.is_null())
        .into_tuple()
        .all(api.database())
        .await?;
    templates.sort();
    Ok(templates)
}

fn type_view(template: &str) -> Value {
    json!({
        "id": template,
        "name": template,
        "SNF:disk_template": template,
        "description": null,
        "is_public": true,
        "extra_specs": {},
        "deleted": false,
    })
}

async fn types(State(api): State<Context>, _caller: Caller) -> Result<Json<Value>, Fault> {
    let templates = templates(&api).await?;
    let views: Vec<Value> = templates.iter().map(|name| type_view(name)).collect();
    Ok(Json(json!({ "volume_types": views })))
}

async fn one_type(
    State(api): State<Context>,
    _caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let templates = templates(&api).await?;
    if templates.contains(&id) {
        Ok(Json(json!({"volume_type": type_view(&id)})))
    } else {
        Err(Fault::not_found("volume type", &id))
    }
}

async fn no_snapshots(_caller: Caller) -> Json<Value> {
    Json(json!({"snapshots": []}))
}

async fn limits(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let quotas = quota::limits(api.database(), &caller.project_id).await?;
    let most = |resource| quotas.of(resource).unwrap_or(quota::UNLIMITED);
    let sizes: Vec<i64> = volume::Entity::find()
        .select_only()
        .column(volume::Column::Size)
        .filter(
            Condition::all()
                .add(volume::Column::ProjectId.eq(caller.project_id.as_str()))
                .add(volume::Column::DeletedAt.is_null()),
        )
        .into_tuple()
        .all(api.database())
        .await?;
    let sum = sizes
        .iter()
        .fold(0_i64, |sum, size| sum.saturating_add(*size));
    Ok(Json(json!({"limits": {
        "rate": [],
        "absolute": {
            "maxTotalVolumes": most(Resource::Volumes),
            "maxTotalVolumeGigabytes": most(Resource::Disk),
            "maxTotalSnapshots": 0,
            "maxTotalBackups": 0,
            "maxTotalBackupGigabytes": 0,
            "totalVolumesUsed": sizes.len(),
            "totalGigabytesUsed": sum,
            "totalSnapshotsUsed": 0,
            "totalBackupsUsed": 0,
            "totalBackupGigabytesUsed": 0,
        },
    }})))
}

/// `os-volume_attachments` of a server.
pub async fn attachments(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let volumes = volume::Entity::find()
        .filter(volume::Column::ServerId.eq(server.id))
        .filter(volume::Column::DeletedAt.is_null())
        .order_by_asc(volume::Column::DiskIndex)
        .all(api.database())
        .await?;
    let views: Vec<Value> = volumes.iter().map(attachment_view).collect();
    Ok(Json(json!({ "volumeAttachments": views })))
}

fn attachment_view(volume: &volume::Model) -> Value {
    json!({
        "id": volume.id.to_string(),
        "volumeId": volume.id.to_string(),
        "serverId": volume.server_id.to_string(),
        "device": "",
    })
}

/// One of [`attachments`].
pub async fn attachment(
    State(api): State<Context>,
    caller: Caller,
    Path((id, wanted)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let volume = find(&api, &caller, &wanted).await?;
    if volume.server_id != server.id || volume.deleted_at.is_some() {
        return Err(Fault::not_found("volume", &wanted));
    }
    Ok(Json(json!({"volumeAttachment": attachment_view(&volume)})))
}
