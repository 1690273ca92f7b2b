//! Keystone v2.0, as both OpenStack clients and kamaki speak it.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use super::login::{self, Credentials, Login, Wanted};
use super::{catalog, issue};
use crate::api::authorization::Role;
use crate::api::body::Body;
use crate::api::bounds;
use crate::api::caller::{Caller, Mount};
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::peer::Peer;
use crate::api::roots;
use crate::model::moment;

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(version))
        .route("/tokens", post(authenticate))
        .route("/tokens/{token}", get(validate).delete(revoke))
        .route("/tenants", get(tenants))
        .layer(DefaultBodyLimit::max(bounds::LOGIN))
        .layer(middleware::from_fn(bounds::bound_login))
}

async fn version(mount: Mount) -> Json<Value> {
    let [_, v2] = roots::identity_versions(&mount);
    Json(json!({"version": v2}))
}

async fn authenticate(
    State(api): State<Context>,
    mount: Mount,
    Peer(peer): Peer,
    bytes: Bytes,
) -> Result<Response, Fault> {
    // Nobody in particular may see where the services are.
    if bytes.is_empty() {
        let answer = json!({"access": {"serviceCatalog": catalog::v2(&mount)}});
        return Ok(Json(answer).into_response());
    }
    let body = Body::parse(&bytes)?;
    let auth = body.member("auth")?;
    let credentials = if let Some(field) = auth.get("passwordCredentials") {
        let given = field.object()?;
        Credentials::Password {
            user: login::credential(&given.required("username")?)?,
            password: login::credential(&given.required("password")?)?,
            peer,
        }
    } else if let Some(field) = auth.get("token") {
        Credentials::Token(field.object()?.required("id")?.string()?)
    } else {
        return Err(Fault::bad_request(
            "auth: neither passwordCredentials nor token",
        ));
    };
    let id = auth.get("tenantId");
    let name = auth.get("tenantName");
    let wanted = match (&id, &name) {
        (Some(id), _) => Wanted::Id(id.string()?),
        (None, Some(name)) => Wanted::Name(name.string()?),
        (None, None) => Wanted::Default,
    };
    let shown = match &credentials {
        Credentials::Token(token) => Some((*token).to_owned()),
        // A token in its place.
        Credentials::Password { password, .. } => Some((*password).to_owned()),
    };
    let login = login::check(&api, credentials, wanted).await?;
    // A token that is good for this project already is given back as it is.
    let (token, issued_at, expires_at) = match (&login.token, shown) {
        (Some(row), Some(token))
            if row
                .project_id
                .as_ref()
                .is_none_or(|id| *id == login.project.id) =>
        {
            (token, row.issued_at, row.expires_at)
        }
        _ => {
            let issued = issue::issue(&api, &login).await?;
            (issued.token, issued.row.issued_at, issued.row.expires_at)
        }
    };
    let answer = access(&mount, &login, &token, issued_at, expires_at);
    Ok(Json(answer).into_response())
}

fn access(mount: &Mount, login: &Login, token: &str, issued: i64, expires: i64) -> Value {
    let project = json!({
        "id": login.project.id,
        "name": login.project.name,
        "enabled": login.project.enabled,
        "description": "",
    });
    json!({"access": {
        "token": {
            "id": token,
            "issued_at": moment::iso(issued),
            "expires": moment::iso(expires),
            "tenant": project,
        },
        "user": {
            "id": login.user.id,
            "name": login.user.name,
            "username": login.user.name,
            "roles": login.role.described(),
            "roles_links": [],
            "projects": [login.project.id],
        },
        "serviceCatalog": catalog::v2(mount),
        "metadata": {"is_admin": 0, "roles": login.role.implied().map(Role::name).collect::<Vec<_>>()},
    }})
}

/// Tells the owner of a token about another one of theirs; an administrator about anybody's.
async fn validate(
    State(api): State<Context>,
    mount: Mount,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<Json<Value>, Fault> {
    let login = login::about(&api, &caller, &token).await?;
    let row = login.token.clone().ok_or_else(login::unknown)?;
    Ok(Json(access(
        &mount,
        &login,
        &token,
        row.issued_at,
        row.expires_at,
    )))
}

async fn revoke(
    State(api): State<Context>,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Fault> {
    let login = login::about(&api, &caller, &token).await?;
    issue::revoke(&api, &login, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tenants(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let projects: Vec<Value> = login::projects_of(&api, &caller.user_id, Some(&caller.project_id))
        .await?
        .into_iter()
        .map(|project| {
            json!({"id": project.id, "name": project.name, "enabled": true, "description": ""})
        })
        .collect();
    Ok(Json(json!({"tenants": projects, "tenants_links": []})))
}
