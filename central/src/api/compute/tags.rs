//! `/servers/{id}/tags`: labels that users give their servers.
//!
//! The instances have them as well, as tags of a kind of their own ([`crate::ganeti::label`]): so
//! who works with Ganeti sees them, and may change them there. Ganeti's other tags steer agents, and
//! are not for users to write.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{ActiveModelTrait, ActiveValue, DatabaseTransaction, IntoActiveModel};
use serde_json::{Value, json};

use crate::api::body::{Body, Field};
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::task::Wish;
use crate::dispatch::labels;
use crate::dispatch::machine::{STARTED, STOPPED};
use crate::ganeti::request::{self, Request};
use crate::ganeti::submission::Outcome;
use crate::ganeti::{intent, label};
use crate::model::entity::{server, server_tag};
use crate::model::{database, moment};

/// The most tags a server may have, and the most characters of one.
const TAGS: usize = 50;
const LENGTH: usize = 60;

fn checked(field: &str, tag: &str) -> Result<String, Fault> {
    let fits = !tag.is_empty()
        && tag.chars().count() <= LENGTH
        && !tag.chars().any(|c| c.is_control() || c == '/' || c == ',');
    if !fits {
        return Err(Fault::field(
            field,
            tag,
            "must have 1 to 60 characters, none of them / or , or a control character",
        ));
    }
    if label::tag(tag).is_none() {
        return Err(Fault::field(field, tag, "is too long for the cluster"));
    }
    Ok(tag.to_owned())
}

/// Reads a list of tags.
///
/// # Errors
/// 400 naming the field; 413: too many.
pub fn parse(field: &Field<'_>) -> Result<BTreeSet<String>, Fault> {
    let list = field.list(usize::MAX)?;
    if list.len() > TAGS {
        return Err(too_many());
    }
    list.iter()
        .map(|entry| checked(entry.path(), entry.string()?))
        .collect()
}

fn too_many() -> Fault {
    Fault::over_limit(format!("tags: a server has at most {TAGS}"))
}

/// The tags that a new server begins with.
///
/// # Errors
/// The database fails.
pub async fn begin_with(
    transaction: &DatabaseTransaction,
    server_id: i64,
    tags: &BTreeSet<String>,
) -> Result<(), Fault> {
    for tag in tags {
        labels::begin_with(transaction, server_id, tag).await?;
    }
    Ok(())
}

/// Makes the tags of a server others, as `choose` says, and asks Ganeti for it; returns those that
/// its user sees then.
///
/// # Errors
/// The server is not there or being built; Ganeti cannot be asked: then nothing has changed.
async fn change(
    api: &Context,
    caller: &Caller,
    id: &str,
    choose: impl FnOnce(&BTreeSet<String>) -> Result<BTreeSet<String>, Fault>,
) -> Result<Vec<server_tag::Model>, Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, caller, id).await?;
    STATES.check_state(caller, &server)?;
    let rows = labels::rows(&transaction, server.id).await?;
    let before: BTreeSet<String> = shown(&rows).map(|row| row.tag.clone()).collect();
    let after = choose(&before)?;
    if after.len() > TAGS {
        return Err(too_many());
    }
    let mut intents = Vec::new();
    for (there, these) in [(true, &after - &before), (false, &before - &after)] {
        for tag in &these {
            let row = rows.iter().find(|row| row.tag == *tag);
            labels::wish(&transaction, server.id, row, tag, there).await?;
        }
        let tags: Vec<String> = these.iter().filter_map(|tag| label::tag(tag)).collect();
        for request in request::tags(&api.ganeti().naming, server.id, there, &tags) {
            let backend = server.backend_id;
            let (kind, server) = (intent::LABEL, Some(server.id));
            let row = intent::write(&transaction, backend, kind, server, None, &request).await?;
            intents.push((row.id, request));
        }
    }
    labels::forget(&transaction, server.id).await?;
    let server_id = server.id;
    touch(transaction, server).await?;
    ask(api, server_id, &intents).await?;
    Ok(labels::rows(api.database(), server_id).await?)
}

/// Asks Ganeti in order; if it cannot be asked, what was wished and not sent is given up.
async fn ask(api: &Context, server_id: i64, intents: &[(i64, Request)]) -> Result<(), Fault> {
    for (place, (id, _)) in intents.iter().enumerate() {
        let Outcome::NotSent(error) = api.ganeti().submit(*id).await else {
            continue;
        };
        tracing::error!(server = server_id, kind = intent::LABEL, %error, "Ganeti was not asked");
        let rest = intents.get(place..).unwrap_or_default();
        give_up(api, server_id, rest, &error.to_string())
            .await
            .map_err(Fault::after_a_change)?;
        return Err(Fault::unavailable(
            "the cluster of this server cannot be asked now; its tags are not changed",
        ));
    }
    Ok(())
}

/// Ends what was wished and not sent.
async fn give_up(
    api: &Context,
    server_id: i64,
    intents: &[(i64, Request)],
    reason: &str,
) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    for (id, request) in intents {
        intent::end(&transaction, *id, intent::DROPPED, reason).await?;
        labels::give_up(&transaction, server_id, request).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The states that an instance is there in.
const STATES: Wish<'_> = Wish {
    task: "",
    kind: "tag",
    allowed: &[STARTED, STOPPED],
};

async fn touch(transaction: DatabaseTransaction, server: server::Model) -> Result<(), Fault> {
    let mut row = server.into_active_model();
    row.updated_at = ActiveValue::Set(moment::now());
    row.update(&transaction).await?;
    transaction.commit().await?;
    Ok(())
}

fn shown(rows: &[server_tag::Model]) -> impl Iterator<Item = &server_tag::Model> {
    rows.iter().filter(|row| labels::is_shown(row))
}

/// Whether the instance has it by now.
fn status(row: &server_tag::Model) -> &'static str {
    if row.live { "ACTIVE" } else { "PENDADD" }
}

fn list(rows: &[server_tag::Model]) -> Json<Value> {
    let tags: Vec<&str> = shown(rows).map(|row| row.tag.as_str()).collect();
    let statuses: Vec<&str> = shown(rows).map(status).collect();
    Json(json!({"tags": tags, "statuses": statuses}))
}

pub async fn all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    Ok(list(&labels::rows(api.database(), server.id).await?))
}

pub async fn replace(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    find::server(api.database(), &caller, &id).await?;
    let tags = parse(&body.object()?.required("tags")?)?;
    let rows = change(&api, &caller, &id, |_| Ok(tags)).await?;
    Ok(list(&rows))
}

pub async fn remove_all(
    State(api): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    change(&api, &caller, &id, |before| {
        if before.is_empty() {
            return Err(Fault::not_found("tags of server", &id));
        }
        Ok(BTreeSet::new())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn one(
    State(api): State<Context>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let server = find::server(api.database(), &caller, &id).await?;
    let rows = labels::rows(api.database(), server.id).await?;
    let row = shown(&rows)
        .find(|row| row.tag == tag)
        .ok_or_else(|| Fault::not_found("tag", &tag))?;
    let status = [("tag-status", HeaderValue::from_static(status(row)))];
    Ok((StatusCode::NO_CONTENT, status).into_response())
}

pub async fn add(
    State(api): State<Context>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response, Fault> {
    find::server(api.database(), &caller, &id).await?;
    let tag = checked("tag", &tag)?;
    let mut had = false;
    change(&api, &caller, &id, |before| {
        had = before.contains(&tag);
        let mut after = before.clone();
        after.insert(tag.clone());
        Ok(after)
    })
    .await?;
    if had {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut url = reqwest::Url::parse(&caller.url("/")).map_err(Fault::internal)?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty()
            .extend(["compute", "v2.0", "servers", &id, "tags", &tag]);
    }
    Ok((StatusCode::CREATED, [(header::LOCATION, url.to_string())]).into_response())
}

pub async fn remove(
    State(api): State<Context>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, Fault> {
    change(&api, &caller, &id, |before| {
        let mut after = before.clone();
        if after.remove(&tag) {
            Ok(after)
        } else {
            Err(Fault::not_found("tag", &tag))
        }
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
