//! Servers: lists, one, rename, delete, what is to be read about one.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect, Select,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::detail;
use super::view::{Brief, Full, One};
use crate::api::authorization::Privilege;
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

/// Servers as the parameters ask for them, and at most one more than a page has.
fn wanted(caller: &Caller, parameters: &Parameters) -> Result<Select<server::Entity>, Fault> {
    let mut query: Select<server::Entity> = server::Entity::find()
        .filter(server::Column::ProjectId.eq(caller.project_id.as_str()))
        .order_by_asc(server::Column::Id);
    query = match parameters.changes_since()? {
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
    Ok(query.limit(parameters.limit()?.saturating_add(1)))
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

/// A kind of list.
struct List {
    path: &'static str,
    /// The bytes that a server takes in it; most of them take less.
    size: usize,
}

const BRIEF: List = List {
    path: "/compute/v2.0/servers",
    size: 320,
};
const DETAIL: List = List {
    path: "/compute/v2.0/servers/detail",
    size: 2048,
};

/// A list, of which one view is made after the other while it is written: a thousand servers
/// are never there as one tree.
struct Views<'a, T, F>(&'a [T], F);

impl<'a, T, V: Serialize, F: Fn(&'a T) -> V> Serialize for Views<'a, T, F> {
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

/// A page of what was found. One more than the page has tells that there is a next one.
fn page<'a, T, V: Serialize>(
    caller: &Caller,
    list: &List,
    parameters: &Parameters,
    found: &'a [T],
    id: impl Fn(&T) -> i64,
    view: impl Fn(&'a T) -> V,
) -> Result<Response, Fault> {
    if found.is_empty() && parameters.changes_since()?.is_some() {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let limit = parameters.limit()?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let (servers, more) = match found.get(..size) {
        Some(servers) => (servers, found.len() > size),
        None => (found, false),
    };
    let servers_links = match (more, servers.last()) {
        (true, Some(last)) => {
            let marker = id(last);
            let href = caller.url(&format!("{}?limit={limit}&marker={marker}", list.path));
            Some(json!([{"rel": "next", "href": href}]))
        }
        _ => None,
    };
    let page = Page {
        servers: Views(servers, view),
        servers_links,
    };
    // The buffer is not to be copied again and again while it grows.
    let mut body = Vec::with_capacity(servers.len().saturating_mul(list.size));
    serde_json::to_writer(&mut body, &page).map_err(Fault::internal)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

pub async fn list(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let found = wanted(&caller, &parameters)?
        .select_only()
        .columns([server::Column::Id, server::Column::Name])
        .into_tuple::<(i64, String)>()
        .all(api.database())
        .await?;
    page(
        &caller,
        &BRIEF,
        &parameters,
        &found,
        |(id, _)| *id,
        |(id, name)| Brief::new(&caller, id, name),
    )
}

pub async fn detail(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Fault> {
    let found = detail::all(api.database(), wanted(&caller, &parameters)?).await?;
    page(
        &caller,
        &DETAIL,
        &parameters,
        &found,
        |server| server.id,
        |server| Full::new(&caller, server),
    )
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let server = detail::one(api.database(), &caller, &id).await?;
    let server = Full::new(&caller, &server);
    Ok(Json(One { server }).into_response())
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
    row.update(&transaction).await?;
    transaction.commit().await?;
    match caller.dialect {
        Dialect::Cyclades => Ok(StatusCode::NO_CONTENT.into_response()),
        Dialect::OpenStack => {
            let server = detail::one(api.database(), &caller, &id).await?;
            let server = Full::new(&caller, &server);
            Ok(Json(One { server }).into_response())
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

/// Returns the diagnostics of a server, newest first. The words of the cluster (`details`) have
/// names of nodes and paths: cloud administrators read them, and the log has them.
pub async fn diagnostics(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let has_details = caller.role.has(Privilege::ClusterMessages);
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
                "details": line.details.filter(|_| has_details),
                "created": moment::iso(line.created_at),
                "source_date": line.source_time.map(moment::iso),
            })
        })
        .collect();
    Ok(Json(Value::Array(lines)))
}
