//! Keystone v3: what the openstack CLI and the SDK log in with.

use std::net::IpAddr;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use sea_orm::EntityTrait;
use serde_json::{Value, json};

use super::catalog;
use super::issue::{self, Issued};
use super::login::{self, Credentials, Login, Wanted};
use super::memberships;
use crate::api::authorization::Privilege;
use crate::api::body::{Body, Object};
use crate::api::bounds;
use crate::api::caller::{self, Caller, Mount};
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::page::Parameters;
use crate::api::peer::Peer;
use crate::api::roots;
use crate::model::entity::{project, user};
use crate::model::moment;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(version))
        .route(
            "/auth/tokens",
            get(validate).post(authenticate).delete(revoke),
        )
        .route("/auth/catalog", get(services))
        .route("/auth/projects", get(projects))
        .route("/projects", get(projects))
        .route("/users/{user}/projects", get(projects_of))
        .layer(DefaultBodyLimit::max(bounds::LOGIN))
        .layer(middleware::from_fn(bounds::bound_login))
        .merge(memberships::routes())
}

async fn version(mount: Mount) -> Json<Value> {
    let [v3, _] = roots::identity_versions(&mount);
    Json(json!({"version": v3}))
}

async fn authenticate(
    State(api): State<Context>,
    mount: Mount,
    Peer(peer): Peer,
    body: Body,
) -> Result<Response, Fault> {
    let auth = body.member("auth")?;
    let identity = auth.required("identity")?.object()?;
    let methods = identity.required("methods")?.list(8)?;
    let mut credentials = None;
    let mut method = "";
    for field in &methods {
        method = field.string()?;
        credentials = match method {
            "password" => Some(password(&identity, peer)?),
            "token" => {
                let token = identity.required("token")?.object()?;
                Some(Credentials::Token(token.required("id")?.string()?))
            }
            _ => None,
        };
        if credentials.is_some() {
            break;
        }
    }
    let credentials = credentials
        .ok_or_else(|| Fault::bad_request("auth.identity.methods: neither password nor token"))?;
    let scope = match auth.get("scope") {
        // "unscoped" is a string; what we give then is the default project.
        Some(field) if field.value().is_object() => field.object()?.get("project"),
        _ => None,
    };
    let scope = scope.map(|field| field.object()).transpose()?;
    let id = scope.as_ref().and_then(|scope| scope.get("id"));
    let name = scope.as_ref().and_then(|scope| scope.get("name"));
    let wanted = match (&id, &name) {
        (Some(id), _) => Wanted::Id(id.string()?),
        (None, Some(name)) => Wanted::Name(name.string()?),
        (None, None) => Wanted::Default,
    };
    let shown = match &credentials {
        Credentials::Token(token) => Some((*token).to_owned()),
        Credentials::Password { .. } => None,
    };
    let login = login::check(&api, credentials, wanted).await?;
    let issued = match (&login.token, shown) {
        // Ours would be good for longer than the external Keystone lets it be.
        (Some(row), Some(token)) if login.external => Issued {
            token,
            row: row.clone(),
        },
        _ => issue::issue(&api, &login).await?,
    };
    let answer = token(
        &mount,
        &login,
        method,
        issued.row.issued_at,
        issued.row.expires_at,
    );
    let mut response = (StatusCode::CREATED, Json(answer)).into_response();
    let value = HeaderValue::from_str(&issued.token).map_err(Fault::internal)?;
    response.headers_mut().insert("x-subject-token", value);
    Ok(response)
}

fn password<'a>(identity: &Object<'a>, peer: IpAddr) -> Result<Credentials<'a>, Fault> {
    let user = identity
        .required("password")?
        .object()?
        .required("user")?
        .object()?;
    let name = match user.get("id") {
        Some(id) => id,
        None => user.required("name")?,
    };
    Ok(Credentials::Password {
        user: login::credential(&name)?,
        password: login::credential(&user.required("password")?)?,
        peer,
    })
}

pub(super) fn domain() -> Value {
    json!({"id": "default", "name": "Default"})
}

pub(super) fn project_body(project: &project::Model) -> Value {
    json!({
        "id": project.id,
        "name": project.name,
        "domain": domain(),
        "domain_id": "default",
        "enabled": project.enabled,
        "description": "",
    })
}

fn token(mount: &Mount, login: &Login, method: &str, issued: i64, expires: i64) -> Value {
    json!({"token": {
        "methods": [method],
        "user": {
            "id": login.user.id,
            "name": login.user.name,
            "domain": domain(),
            "password_expires_at": null,
        },
        "project": project_body(&login.project),
        "roles": login.role.described(),
        "is_domain": false,
        "catalog": catalog::v3(mount),
        "issued_at": moment::iso_micros(issued),
        "expires_at": moment::iso_micros(expires),
        "audit_ids": [],
    }})
}

/// The token that a request is about, if the caller may know of it.
async fn subject(
    api: &Context,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<(String, Login), Fault> {
    let given = caller::single(headers, "X-Subject-Token")?
        .ok_or_else(|| Fault::bad_request("X-Subject-Token: missing"))?;
    let login = login::about(api, caller, given).await?;
    Ok((given.to_owned(), login))
}

async fn validate(
    State(api): State<Context>,
    mount: Mount,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Json<Value>, Fault> {
    let (_, login) = subject(&api, &caller, &headers).await?;
    let (issued, expires) = login
        .token
        .as_ref()
        .map_or((0, 0), |row| (row.issued_at, row.expires_at));
    Ok(Json(token(&mount, &login, "token", issued, expires)))
}

async fn revoke(
    State(api): State<Context>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let (given, login) = subject(&api, &caller, &headers).await?;
    issue::revoke(&api, &login, &given).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn services(mount: Mount, _caller: Caller) -> Json<Value> {
    Json(json!({"catalog": catalog::v3(&mount), "links": {}}))
}

/// The caller's; with `?name=`, the one of that name.
async fn projects(
    State(api): State<Context>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let name = parameters.get("name");
    listed(&api, &caller.user_id, Some(&caller.project_id), name).await
}

/// Those of a user: everybody's for administrators, one's own for others.
async fn projects_of(
    State(api): State<Context>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Json<Value>, Fault> {
    let known = user::Entity::find_by_id(user.as_str())
        .one(api.database())
        .await?
        .filter(|known| known.id == caller.user_id || caller.role.has(Privilege::TokensOfOthers))
        .ok_or_else(|| Fault::not_found("user", &user))?;
    let here = (known.id == caller.user_id).then_some(caller.project_id.as_str());
    listed(&api, &known.id, here, None).await
}

async fn listed(
    api: &Context,
    user: &str,
    here: Option<&str>,
    name: Option<&str>,
) -> Result<Json<Value>, Fault> {
    let projects: Vec<Value> = login::projects_of(api, user, here)
        .await?
        .iter()
        .filter(|project| name.is_none_or(|name| name == project.name))
        .map(project_body)
        .collect();
    Ok(Json(json!({"projects": projects, "links": {}})))
}
