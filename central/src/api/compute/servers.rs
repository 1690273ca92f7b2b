//! Servers: lists, one, rename, delete, what is to be read about one.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect, Select,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::rows::Rows;
use super::view;
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::dialect::Dialect;
use crate::api::fault::Fault;
use crate::api::page::Parameters;
use crate::api::{find, task};
use crate::dispatch::machine;
use crate::ganeti::request;
use crate::model::entity::{diagnostic, server};
use crate::model::{database, moment};

/// A page of servers as the parameters ask for it; none: nothing has changed since.
async fn page(
    api: &Context,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<Option<(Vec<server::Model>, bool)>, Fault> {
    let since = parameters.changes_since()?;
    let limit = parameters.limit()?;
    let mut query: Select<server::Entity> = server::Entity::find()
        .filter(server::Column::ProjectId.eq(caller.project_id.as_str()))
        .order_by_asc(server::Column::Id);
    query = match since {
        Some(since) => query.filter(server::Column::UpdatedAt.gte(since)),
        None => query.filter(server::Column::DeletedAt.is_null()),
    };
    if let Some(marker) = parameters.get("marker") {
        let marker = marker
            .parse::<i64>()
            .map_err(|_| Fault::field("marker", marker, "is no server's id"))?;
        query = query.filter(server::Column::Id.gt(marker));
    }
    if let Some(name) = parameters.get("name") {
        query = query.filter(server::Column::Name.contains(name));
    }
    if let Some(flavor) = parameters.number("flavor")? {
        query = query.filter(server::Column::FlavorId.eq(flavor));
    }
    if let Some(image) = parameters.get("image") {
        query = query.filter(server::Column::ImageId.eq(image));
    }
    if let Some(status) = parameters.get("status") {
        query = by_status(query, status)?;
    }
    // One more than asked for tells whether there is a next page.
    let mut servers = query
        .limit(limit.saturating_add(1))
        .all(api.database())
        .await?;
    let more = u64::try_from(servers.len()).unwrap_or(u64::MAX) > limit;
    servers.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if since.is_some() && servers.is_empty() {
        return Ok(None);
    }
    Ok(Some((servers, more)))
}

fn by_status(query: Select<server::Entity>, status: &str) -> Result<Select<server::Entity>, Fault> {
    let state = match status.to_ascii_uppercase().as_str() {
        "ACTIVE" | "REBOOT" => machine::STARTED,
        "SHUTOFF" | "STOPPED" | "RESIZE" => machine::STOPPED,
        "BUILD" => machine::BUILD,
        "ERROR" => machine::ERROR,
        "DELETED" => return Ok(query.filter(server::Column::DeletedAt.is_not_null())),
        _ => return Err(Fault::field("status", status, "is no status of a server")),
    };
    let rebooting = server::Column::Task.eq("REBOOTING");
    let query = query.filter(server::Column::State.eq(state));
    Ok(match status.to_ascii_uppercase().as_str() {
        "REBOOT" => query.filter(rebooting),
        "ACTIVE" => query.filter(
            Condition::any()
                .add(server::Column::Task.is_null())
                .add(server::Column::Task.ne("REBOOTING")),
        ),
        _ => query,
    })
}

/// A list, of which one view is made after the other while it is written: a thousand servers
/// are never there as one tree.
struct Views<'a, F>(&'a [server::Model], F);

impl<F: Fn(&server::Model) -> Value> Serialize for Views<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}

#[derive(Serialize)]
struct Page<V> {
    servers: V,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers_links: Option<Value>,
}

fn answer(
    caller: &Caller,
    path: &str,
    parameters: &Parameters,
    servers: &[server::Model],
    more: bool,
    view: impl Fn(&server::Model) -> Value,
) -> Result<Response, Fault> {
    let servers_links = match (more, servers.last()) {
        (true, Some(last)) => {
            let (limit, marker) = (parameters.limit()?, last.id);
            let href = caller.url(&format!("{path}?limit={limit}&marker={marker}"));
            Some(json!([{"rel": "next", "href": href}]))
        }
        _ => None,
    };
    let servers = Views(servers, view);
    Ok(Json(Page {
        servers,
        servers_links,
    })
    .into_response())
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let Some((servers, more)) = page(&api, &caller, &parameters).await? else {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    };
    let path = "/compute/v2.0/servers";
    let view = |server: &server::Model| view::brief(&caller, server);
    answer(&caller, path, &parameters, &servers, more, view)
}

pub async fn detail(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let Some((servers, more)) = page(&api, &caller, &parameters).await? else {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    };
    let rows = Rows::of(api.database(), &servers).await?;
    let path = "/compute/v2.0/servers/detail";
    let view = |server: &server::Model| view::full(&caller, server, &rows);
    answer(&caller, path, &parameters, &servers, more, view)
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let rows = Rows::of(api.database(), std::slice::from_ref(&server)).await?;
    Ok(Json(json!({"server": view::full(&caller, &server, &rows)})))
}

pub async fn rename(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let name = body
        .member("server")?
        .required("name")?
        .name(255)?
        .to_owned();
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, &caller, &id).await?;
    let mut row = server.into_active_model();
    row.name = ActiveValue::Set(name);
    row.updated_at = ActiveValue::Set(moment::now());
    let server = row.update(&transaction).await?;
    transaction.commit().await?;
    match caller.dialect {
        Dialect::Cyclades => Ok(StatusCode::NO_CONTENT.into_response()),
        Dialect::OpenStack => {
            let rows = Rows::of(api.database(), std::slice::from_ref(&server)).await?;
            let body = json!({"server": view::full(&caller, &server, &rows)});
            Ok(Json(body).into_response())
        }
    }
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let request = |server: &server::Model| request::remove(&api.ganeti().naming, server.id);
    let wish = task::Wish {
        task: "DESTROYING",
        kind: "remove",
        allowed: &[],
    };
    task::simply(&api, &caller, &id, &wish, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What there is to read about a server, newest first.
pub async fn diagnostics(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let lines: Vec<Value> = diagnostic::Entity::find()
        .filter(diagnostic::Column::ServerId.eq(server.id))
        .order_by_desc(diagnostic::Column::Id)
        .limit(200)
        .all(api.database())
        .await?
        .into_iter()
        .map(|line| {
            json!({
                "level": line.level,
                "source": line.source,
                "message": line.message,
                "details": line.details,
                "created": moment::iso(line.created_at),
                "source_date": line.source_time.map(moment::iso),
            })
        })
        .collect();
    Ok(Json(Value::Array(lines)))
}
