//! What kamaki asks of the account service of Cyclades: who is who, and how much is used.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Map, Value, json};

use super::body::Body;
use super::caller::Caller;
use super::context::Context;
use super::fault::Fault;
use super::quota;
use crate::model::entity::user;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/user_catalogs", post(user_catalogs))
        .route("/quotas", get(quotas))
        .route("/projects", get(projects))
        .route("/resources", get(resources))
        .route("/authenticate", get(authenticate).post(authenticate))
}

/// From ids to names and back, for those whom the caller names.
async fn user_catalogs(
    State(api): State<Context>,
    _caller: Caller,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let wanted = body.object()?;
    let list = |name: &str| -> Result<Vec<String>, Fault> {
        match wanted.get(name) {
            None => Ok(Vec::new()),
            Some(field) => field
                .list(100)?
                .iter()
                .map(|entry| entry.string().map(str::to_owned))
                .collect(),
        }
    };
    let by_id = user::Entity::find()
        .filter(user::Column::Id.is_in(list("uuids")?))
        .all(api.database())
        .await?;
    let by_name = user::Entity::find()
        .filter(user::Column::Name.is_in(list("displaynames")?))
        .all(api.database())
        .await?;
    let ids: Map<String, Value> = by_id
        .into_iter()
        .map(|user| (user.id, json!(user.name)))
        .collect();
    let names: Map<String, Value> = by_name
        .into_iter()
        .map(|user| (user.name, json!(user.id)))
        .collect();
    Ok(Json(
        json!({"uuid_catalog": ids, "displayname_catalog": names}),
    ))
}

async fn quotas(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let usage = quota::usage(api.database(), &caller.project_id, Some(&caller.user_id)).await?;
    let limits = quota::limits(api.database(), &caller.project_id).await?;
    let rows: Map<String, Value> = quota::Resource::ALL
        .into_iter()
        .map(|resource| {
            let used = usage.of(resource);
            // Where there is no limit: more than anybody can use.
            let limit = limits.of(resource).unwrap_or(i64::MAX);
            let row = json!({
                "usage": used, "limit": limit, "pending": 0,
                "project_usage": used, "project_limit": limit, "project_pending": 0,
            });
            (resource.cyclades().to_owned(), row)
        })
        .collect();
    Ok(Json(json!({ caller.project_id: rows })))
}

async fn projects(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let projects: Vec<Value> =
        super::identity::login::projects_of(&api, &caller.user_id, Some(&caller.project_id))
            .await?
            .into_iter()
            .map(|project| json!({"id": project.id, "name": project.name, "state": "active"}))
            .collect();
    Ok(Json(Value::Array(projects)))
}

async fn resources(_caller: Caller) -> Json<Value> {
    let rows: Map<String, Value> = quota::Resource::ALL
        .into_iter()
        .map(|resource| {
            let name = resource.cyclades();
            let row = json!({"unit": resource.unit(), "description": name, "service": "compute"});
            (name.to_owned(), row)
        })
        .collect();
    Json(Value::Object(rows))
}

async fn authenticate(caller: Caller) -> Json<Value> {
    Json(json!({"uuid": caller.user_id, "username": caller.user_id}))
}
