//! Memberships of projects, as Keystone's role assignments: what administrators of a project
//! manage.
//!
//! A user has one role in a project, and the role `manager` includes `member`. The role `admin`,
//! the administration of the cloud, is no role of a project: operators grant it from a shell.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
};
use serde_json::{Value, json};

use super::v3::{domain, project_body};
use crate::api::authorization::Privilege;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::page::Parameters;
use crate::model::database;
use crate::model::entity::membership::{self, Role};
use crate::model::entity::{project, user};

/// The roles that a membership can have.
const ROLES: [Role; 2] = [Role::Member, Role::Manager];

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/roles", get(roles))
        .route("/roles/{role}", get(one_role))
        .route("/users", get(users))
        .route("/users/{user}", get(one_user))
        .route("/projects/{project}", get(one_project))
        .route("/role_assignments", get(assignments))
        .route("/projects/{project}/users/{user}/roles", get(roles_of))
        .route(
            "/projects/{project}/users/{user}/roles/{role}",
            get(has_role).put(give_role).delete(take_role),
        )
}

fn role_body(role: Role) -> Value {
    let description = match role {
        Role::Member => "Uses the resources of the project",
        Role::Manager => "Manages the memberships, the limits and the images of the project",
    };
    json!({
        "id": role.name(),
        "name": role.name(),
        "domain_id": null,
        "description": description,
        "links": {},
    })
}

/// The role with this id or name.
fn role(id: &str) -> Result<Role, Fault> {
    ROLES
        .into_iter()
        .find(|role| role.name() == id)
        .ok_or_else(|| Fault::not_found("role of projects", id))
}

async fn roles(_caller: Caller, parameters: Parameters) -> Json<Value> {
    let wanted = parameters.get("name");
    let all: Vec<Value> = ROLES
        .into_iter()
        .filter(|role| wanted.is_none_or(|name| name == role.name()))
        .map(role_body)
        .collect();
    Json(json!({"roles": all, "links": {}}))
}

async fn one_role(_caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    Ok(Json(json!({"role": role_body(role(&id)?)})))
}

/// The project with this id, which is the caller's, or any for administrators of the cloud.
///
/// # Errors
/// 404.
pub async fn managed_project(
    api: &Context,
    caller: &Caller,
    id: &str,
) -> Result<project::Model, Fault> {
    project::Entity::find_by_id(id)
        .one(api.database())
        .await?
        .filter(|found| found.id == caller.project_id || caller.role.has(Privilege::OtherProjects))
        .ok_or_else(|| Fault::not_found("project", id))
}

async fn one_project(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let project = managed_project(&api, &caller, &id).await?;
    Ok(Json(json!({"project": project_body(&project)})))
}

fn user_body(user: &user::Model) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "enabled": user.enabled,
        "domain_id": "default",
        "password_expires_at": null,
        "links": {},
    })
}

/// The users of the project; with `?name=`, the user of that name, who may be of none, so that an
/// administrator of the project can make a member of any user.
async fn users(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let mut query = user::Entity::find().order_by_asc(user::Column::Name);
    query = match parameters.get("name") {
        Some(name) => query.filter(user::Column::Name.eq(name)),
        None if caller.role.has(Privilege::OtherProjects) => query,
        None => {
            let members = membership::Entity::find()
                .select_only()
                .column(membership::Column::UserId)
                .filter(membership::Column::ProjectId.eq(caller.project_id.as_str()));
            query.filter(user::Column::Id.in_subquery(members.into_query()))
        }
    };
    if let Some(marker) = parameters.get("marker") {
        query = query.filter(user::Column::Name.gt(marker));
    }
    let found = query.limit(parameters.limit()?).all(api.database()).await?;
    let views: Vec<Value> = found.iter().map(user_body).collect();
    Ok(Json(json!({"users": views, "links": {}})))
}

async fn find_user(api: &Context, id: &str) -> Result<user::Model, Fault> {
    user::Entity::find_by_id(id)
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::not_found("user", id))
}

async fn one_user(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    if id != caller.user_id {
        caller.role.require(Privilege::OtherUsers)?;
    }
    let user = find_user(&api, &id).await?;
    Ok(Json(json!({"user": user_body(&user)})))
}

/// The memberships of a project, with `?scope.project.id=`; of the caller's without.
async fn assignments(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let wanted = parameters.get("scope.project.id");
    let project = managed_project(&api, &caller, wanted.unwrap_or(&caller.project_id)).await?;
    let mut query = membership::Entity::find()
        .filter(membership::Column::ProjectId.eq(project.id.as_str()))
        .order_by_asc(membership::Column::UserId);
    if let Some(user) = parameters.get("user.id") {
        query = query.filter(membership::Column::UserId.eq(user));
    }
    if let Some(marker) = parameters.get("marker") {
        query = query.filter(membership::Column::UserId.gt(marker));
    }
    let memberships = query.limit(parameters.limit()?).all(api.database()).await?;
    let users = user::Entity::find()
        .filter(user::Column::Id.is_in(memberships.iter().map(|row| row.user_id.as_str())))
        .all(api.database())
        .await?;
    let role = parameters.get("role.id");
    let views: Vec<Value> = memberships
        .iter()
        .filter(|row| role.is_none_or(|role| role == row.role().name()))
        .map(|row| {
            let user = users.iter().find(|user| user.id == row.user_id);
            let name = user.map_or("", |user| user.name.as_str());
            json!({
                "role": {"id": row.role().name(), "name": row.role().name()},
                "user": {"id": row.user_id, "name": name, "domain": domain()},
                "scope": {"project": {
                    "id": project.id, "name": project.name, "domain": domain(),
                }},
                "links": {},
            })
        })
        .collect();
    Ok(Json(json!({"role_assignments": views, "links": {}})))
}

/// The role of a user in a project; none: the user is not a member.
async fn find_role(
    api: &Context,
    project: &project::Model,
    user: &user::Model,
) -> Result<Option<Role>, Fault> {
    let key = (user.id.clone(), project.id.clone());
    let found = membership::Entity::find_by_id(key)
        .one(api.database())
        .await?;
    Ok(found.map(|row| row.role()))
}

async fn roles_of(
    State(api): State<Context>,
    caller: Caller,
    Path((project, user)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    let project = managed_project(&api, &caller, &project).await?;
    let user = find_user(&api, &user).await?;
    let role = find_role(&api, &project, &user).await?;
    let views: Vec<Value> = role.into_iter().map(role_body).collect();
    Ok(Json(json!({"roles": views, "links": {}})))
}

async fn has_role(
    State(api): State<Context>,
    caller: Caller,
    Path((project, user, id)): Path<(String, String, String)>,
) -> Result<StatusCode, Fault> {
    let project = managed_project(&api, &caller, &project).await?;
    let wanted = role(&id)?;
    let user = find_user(&api, &user).await?;
    match find_role(&api, &project, &user).await? {
        Some(role) if role >= wanted => Ok(StatusCode::NO_CONTENT),
        _ => Err(Fault::not_found("role of the user", id)),
    }
}

/// Locks a project's row, so that its memberships and limits change one at a time.
///
/// # Errors
/// The database fails.
pub async fn lock(
    transaction: &DatabaseTransaction,
    project: &project::Model,
) -> Result<(), Fault> {
    project::Entity::find_by_id(project.id.as_str())
        .lock_exclusive()
        .one(transaction)
        .await?;
    Ok(())
}

async fn write(
    transaction: &DatabaseTransaction,
    project: &project::Model,
    user: &user::Model,
    role: Role,
) -> Result<(), Fault> {
    let row = membership::ActiveModel {
        user_id: ActiveValue::Set(user.id.clone()),
        project_id: ActiveValue::Set(project.id.clone()),
        role: ActiveValue::Set(role.name().to_owned()),
    };
    let key = [membership::Column::UserId, membership::Column::ProjectId];
    membership::Entity::insert(row)
        .on_conflict(
            OnConflict::columns(key)
                .update_column(membership::Column::Role)
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Gives a user a role. The role that a user has already and that includes it stays.
async fn give_role(
    State(api): State<Context>,
    caller: Caller,
    Path((project, user, id)): Path<(String, String, String)>,
) -> Result<StatusCode, Fault> {
    let project = managed_project(&api, &caller, &project).await?;
    let wanted = role(&id)?;
    let user = find_user(&api, &user).await?;
    let transaction = database::write(api.database()).await?;
    lock(&transaction, &project).await?;
    let key = (user.id.clone(), project.id.clone());
    let found = membership::Entity::find_by_id(key)
        .one(&transaction)
        .await?;
    if found.is_none_or(|row| row.role() < wanted) {
        write(&transaction, &project, &user, wanted).await?;
        transaction.commit().await?;
        tracing::info!(
            project = project.id,
            user = user.id,
            role = wanted.name(),
            by = caller.user_id,
            "a role was given"
        );
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a role from a user: without `manager` a user is a member, without `member` none.
async fn take_role(
    State(api): State<Context>,
    caller: Caller,
    Path((project, user, id)): Path<(String, String, String)>,
) -> Result<StatusCode, Fault> {
    let project = managed_project(&api, &caller, &project).await?;
    let wanted = role(&id)?;
    let user = find_user(&api, &user).await?;
    let transaction = database::write(api.database()).await?;
    lock(&transaction, &project).await?;
    let key = (user.id.clone(), project.id.clone());
    let found = membership::Entity::find_by_id(key.clone())
        .one(&transaction)
        .await?;
    if found.is_none_or(|row| row.role() < wanted) {
        return Err(Fault::not_found("role of the user", id));
    }
    match wanted {
        Role::Manager => write(&transaction, &project, &user, Role::Member).await?,
        Role::Member => {
            membership::Entity::delete_by_id(key)
                .exec(&transaction)
                .await?;
        }
    }
    transaction.commit().await?;
    tracing::info!(
        project = project.id,
        user = user.id,
        role = wanted.name(),
        by = caller.user_id,
        "a role was taken"
    );
    Ok(StatusCode::NO_CONTENT)
}
