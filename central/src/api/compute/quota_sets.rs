//! `os-quota-sets`: the limits of a project, which administrators of the cloud grant, and which
//! administrators of the project lower.

use axum::Json;
use axum::extract::{Path, State};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue, DatabaseTransaction, EntityTrait};
use serde_json::{Map, Value, json};

use crate::api::authorization::Privilege;
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::identity::memberships::{lock, managed_project};
use crate::api::quota::{self, Resource, UNLIMITED};
use crate::model::database;
use crate::model::entity::{project_limit, quota as quota_row};

/// The members of a request that limit nothing.
const IGNORED: [&str; 4] = ["id", "force", "tenant_id", "project_id"];

/// A resource's name in a quota set: Nova's, or ours behind a prefix.
fn name(resource: Resource) -> String {
    match resource {
        Resource::Servers => "instances".to_owned(),
        Resource::TotalCpu => "cores".to_owned(),
        Resource::TotalRam => "ram".to_owned(),
        Resource::FloatingIps => "floating_ips".to_owned(),
        other => format!("SNF:{}", other.name()),
    }
}

/// The limits in force; `-1` is OpenStack's way to say that there is none.
fn view(limits: &quota::Limits) -> Map<String, Value> {
    let row = |resource| (name(resource), json!(limits.of(resource).unwrap_or(-1)));
    Resource::ALL.into_iter().map(row).collect()
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let project = managed_project(&api, &caller, &id).await?;
    let mut set = view(&quota::limits(api.database(), &project.id).await?);
    set.insert("id".to_owned(), json!(project.id));
    Ok(Json(json!({ "quota_set": set })))
}

pub async fn detail(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let project = managed_project(&api, &caller, &id).await?;
    let granted = quota::granted(api.database(), &project.id).await?;
    let limits = quota::lowered(api.database(), &project.id, &granted).await?;
    let used = quota::usage(api.database(), &project.id, None).await?;
    let mut set: Map<String, Value> = Resource::ALL
        .into_iter()
        .map(|resource| {
            let row = json!({
                "limit": limits.of(resource).unwrap_or(-1),
                "SNF:granted": granted.of(resource).unwrap_or(-1),
                "in_use": used.of(resource),
                "reserved": 0,
            });
            (name(resource), row)
        })
        .collect();
    set.insert("id".to_owned(), json!(project.id));
    Ok(Json(json!({ "quota_set": set })))
}

/// Sets limits; `-1` removes one. An administrator of the cloud grants them; an administrator of
/// the project lowers the granted ones.
pub async fn set(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let project = managed_project(&api, &caller, &id).await?;
    caller.role.require(Privilege::LimitsOfProject)?;
    let grants = caller.role.has(Privilege::GrantedLimits);
    let transaction = database::write(api.database()).await?;
    lock(&transaction, &project).await?;
    let granted = quota::granted(&transaction, &project.id).await?;
    for (field, value) in body.member("quota_set")?.fields() {
        if IGNORED.contains(&field) || value.is_null() {
            continue;
        }
        let resource = Resource::ALL
            .into_iter()
            .find(|known| name(*known) == field);
        let Some(resource) = resource else {
            let names = Resource::ALL.map(name).join(", ");
            return Err(value.refuse(&format!("is no limit; there are {names}")));
        };
        let wanted = value.integer(-1..=i64::MAX)?;
        let wanted = (wanted >= 0).then_some(wanted);
        if grants {
            grant(&transaction, &project.id, resource, wanted).await?;
            continue;
        }
        if let (Some(wanted), Some(granted)) = (wanted, granted.of(resource))
            && wanted > granted
        {
            caller.role.require(Privilege::GrantedLimits)?;
        }
        lower(&transaction, &project.id, resource, wanted).await?;
    }
    let limits = quota::limits(&transaction, &project.id).await?;
    transaction.commit().await?;
    tracing::info!(project = project.id, by = caller.user_id, "limits were set");
    Ok(Json(json!({"quota_set": view(&limits)})))
}

async fn grant(
    transaction: &DatabaseTransaction,
    project_id: &str,
    resource: Resource,
    most: Option<i64>,
) -> Result<(), Fault> {
    let key = (project_id.to_owned(), resource.name().to_owned());
    let row = quota_row::ActiveModel {
        project_id: ActiveValue::Set(key.0),
        resource: ActiveValue::Set(key.1),
        most: ActiveValue::Set(most.unwrap_or(UNLIMITED)),
    };
    let key = [quota_row::Column::ProjectId, quota_row::Column::Resource];
    let replace = OnConflict::columns(key)
        .update_column(quota_row::Column::Most)
        .to_owned();
    quota_row::Entity::insert(row)
        .on_conflict(replace)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

async fn lower(
    transaction: &DatabaseTransaction,
    project_id: &str,
    resource: Resource,
    most: Option<i64>,
) -> Result<(), Fault> {
    let key = (project_id.to_owned(), resource.name().to_owned());
    let Some(most) = most else {
        project_limit::Entity::delete_by_id(key)
            .exec(transaction)
            .await?;
        return Ok(());
    };
    let row = project_limit::ActiveModel {
        project_id: ActiveValue::Set(key.0),
        resource: ActiveValue::Set(key.1),
        most: ActiveValue::Set(most),
    };
    let key = [
        project_limit::Column::ProjectId,
        project_limit::Column::Resource,
    ];
    let replace = OnConflict::columns(key)
        .update_column(project_limit::Column::Most)
        .to_owned();
    project_limit::Entity::insert(row)
        .on_conflict(replace)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
