//! Consoles: a token that is good once and for a minute, and a websocket that shows what the
//! guest's VNC server says to whoever brings it.
//!
//! The node's VNC port is never told to anybody, and need not be reachable for users. A token is
//! good for the server as it was when the token was given: the server, the user and the project are
//! looked at again when the websocket comes, and from time to time while it is open.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::authorization::Purpose;
use super::body::Field;
use super::caller::{self, Caller};
use super::context::Context;
use super::fault::Fault;
use super::find;
use super::one_shot::{self, Kind};
use super::page::Parameters;
use crate::dispatch::machine::STARTED;
use crate::ganeti::rapi::RapiError;
use crate::model::entity::{backend, server};
use crate::model::moment;

/// How long a token is good for.
const LIFE: Duration = Duration::from_secs(60);
/// How long the VNC server may take to be there, and either side to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a console may show nothing and hear nothing.
const IDLE: Duration = Duration::from_secs(3600);
/// The longest message that a client may send, in bytes.
const MESSAGE: usize = 1 << 20;
/// How much is read of the VNC server at once, in bytes.
const CHUNK: usize = 64 << 10;

/// The interval at which the right to an open console is checked.
const LOOK: Duration = Duration::from_secs(10);

/// The content of a console token: the console's place, and its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    place: Place,
    project: String,
    user: String,
    /// The digest of the token that it was asked for with; none: it was the external Keystone's,
    /// which is believed for about as long anyway.
    token: Option<String>,
    /// When that token expires.
    expires_at: i64,
}

/// The place of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    server: i64,
    host: String,
    port: u16,
}

/// Where the VNC server of an instance is, as RAPI tells.
fn place(server: i64, instance: &Value) -> Result<Place, Fault> {
    if instance.get("oper_state").and_then(Value::as_bool) != Some(true) {
        return Err(Fault::conflict(format!("server {server} does not run")));
    }
    let parameter = |name: &str| {
        instance
            .get("hvparams")
            .and_then(|params| params.get(name))
            .and_then(Value::as_str)
    };
    if parameter("vnc_bind_address") == Some("") {
        return Err(Fault::not_implemented(
            "the cluster gives its servers no VNC console",
        ));
    }
    let host = instance.get("pnode").and_then(Value::as_str);
    let port = instance
        .get("network_port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    match (host, port) {
        (Some(host), Some(port)) => Ok(Place {
            server,
            host: host.to_owned(),
            port,
        }),
        _ => Err(Fault::conflict(format!("server {server} has no console"))),
    }
}

/// Returns whether a server may show its console: it runs, is not about to end, and is not suspended.
fn is_shown(server: &server::Model) -> bool {
    let ending = matches!(server.task.as_deref(), Some("DESTROYING" | "STOPPING"));
    server.state == STARTED && server.deleted_at.is_none() && !server.suspended && !ending
}

async fn find(api: &Context, caller: &Caller, id: &str) -> Result<Place, Fault> {
    let server: server::Model =
        find::server_for(api.database(), caller, id, Purpose::Operate).await?;
    if !is_shown(&server) {
        return Err(caller
            .dialect
            .wrong_state(format!("server {id} does not run: it has no console")));
    }
    locate(api, &server).await
}

/// Returns the place of a server's console now.
async fn locate(api: &Context, server: &server::Model) -> Result<Place, Fault> {
    let id = server.id;
    let backend = backend::Entity::find_by_id(server.backend_id)
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::internal(format!("server {id} has no backend")))?;
    let failed = |error: RapiError| {
        tracing::error!(server = server.id, %error, "no console");
        Fault::unavailable("the cluster of this server cannot be asked now")
    };
    let rapi = api.ganeti().clients.of(&backend).map_err(failed)?;
    let name = api.ganeti().naming.instance(server.id);
    let instance = rapi.instance(&name).await.map_err(failed)?;
    place(server.id, &instance.unwrap_or_default())
}

/// A token for the console of a server.
async fn token(api: &Context, caller: &Caller, id: &str) -> Result<String, Fault> {
    let place = find(api, caller, id).await?;
    let server = place.server;
    let secret = one_shot::secret()?;
    let shown = caller::identify(api, caller.token.text()).await?;
    let shown = shown.ok_or_else(|| Fault::unauthorized("the token has expired"))?;
    let grant = Grant {
        place,
        project: caller.project_id.clone(),
        user: caller.user_id.clone(),
        token: (!shown.external).then(|| shown.token.digest.clone()),
        expires_at: shown.token.expires_at,
    };
    let text = serde_json::to_string(&grant).map_err(Fault::internal)?;
    let kind = Kind::Console;
    one_shot::put(api.database(), kind, &secret, server, &text, LIFE).await?;
    tracing::info!(server, user = %caller.user_id, "a console was asked for");
    Ok(secret)
}

/// `ws://…` for a base of `http://…`.
fn websocket_url(caller: &Caller, token: &str) -> String {
    let rest = caller.base.strip_prefix("http").unwrap_or_default();
    format!("ws{rest}/console/websocket?token={token}")
}

/// `os-getVNCConsole`.
///
/// # Errors
/// The server is not there, or does not run; the cluster does not answer.
pub async fn nova(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let kind = arguments.object()?.required("type")?;
    let name = kind.string()?;
    if name == "xvpvnc" {
        return Err(Fault::not_implemented("xvpvnc: not offered: ask for novnc"));
    }
    if name != "novnc" {
        return Err(kind.refuse("must be novnc"));
    }
    let token = token(api, caller, id).await?;
    let url = match &api.config().console_page {
        Some(page) => {
            let mark = if page.contains('?') { '&' } else { '?' };
            // What noVNC's own page reads: the path of the websocket, with its query, encoded.
            format!("{page}{mark}autoconnect=true&path=console%2Fwebsocket%3Ftoken%3D{token}")
        }
        None => websocket_url(caller, &token),
    };
    Ok(Json(json!({"console": {"type": "novnc", "url": url}})).into_response())
}

/// `console`, as Cyclades has it.
///
/// # Errors
/// As [`nova`].
pub async fn cyclades(
    api: &Context,
    caller: &Caller,
    id: &str,
    arguments: &Field<'_>,
) -> Result<Response, Fault> {
    let kind = arguments.object()?.required("type")?;
    let name = kind.string()?;
    match name {
        "vnc-ws" | "vnc-wss" => {}
        "vnc" => {
            return Err(Fault::not_implemented(
                "vnc: no ports are opened for consoles: ask for vnc-ws",
            ));
        }
        _ => return Err(kind.refuse("must be vnc-ws or vnc-wss")),
    }
    let token = token(api, caller, id).await?;
    let url = websocket_url(caller, &token);
    let parsed = reqwest::Url::parse(&url).map_err(Fault::internal)?;
    Ok(Json(json!({"console": {
        "type": name,
        "host": parsed.host_str(),
        "port": parsed.port_or_known_default(),
        "password": token,
        "url": url,
    }}))
    .into_response())
}

/// The websocket: bytes of RFB in both directions.
pub async fn websocket(
    State(api): State<Context>,
    parameters: Parameters,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Fault> {
    // Before the token is used up.
    let upgrade = upgrade.map_err(|error| Fault::bad_request(error.to_string()))?;
    let token = parameters.get("token").unwrap_or_default();
    let consoles = Arc::clone(api.consoles())
        .try_acquire_owned()
        .map_err(|_| Fault::unavailable("too many consoles are open; try again"))?;
    let text = one_shot::take(api.database(), Kind::Console, token)
        .await?
        .ok_or_else(|| Fault::unauthorized("the token is not known, was used, or has expired"))?;
    // What an older version wrote is not understood: it was good for a minute.
    let ended = || Fault::unauthorized("the token has ended: ask for another one");
    let grant: Grant = serde_json::from_str(&text).map_err(|_| ended())?;
    let server = granted(&api, &grant).await?.ok_or_else(ended)?;
    if locate(&api, &server).await? != grant.place {
        return Err(ended());
    }
    let place = grant.place.clone();
    let connection = TcpStream::connect((place.host.as_str(), place.port));
    let stream = match timeout(PATIENCE, connection).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&place, &error)),
        Err(error) => return Err(unreachable(&place, &error)),
    };
    tracing::info!(server = place.server, host = %place.host, port = place.port, "console");
    Ok(upgrade
        .protocols(["binary"])
        .max_message_size(MESSAGE)
        .on_upgrade(move |socket| async move {
            let why = pump(socket, stream, ends(&api, &grant)).await;
            drop(consoles);
            tracing::info!(server = place.server, %why, "console ended");
        }))
}

/// The server of a grant, if the user may still see its console.
async fn granted(api: &Context, grant: &Grant) -> Result<Option<server::Model>, Fault> {
    let may = match &grant.token {
        // Its row is purged when its time is over, which ends no console that is open.
        Some(token) if grant.expires_at > moment::now() => caller::is_good(api, token).await?,
        _ => caller::may_act(api, &grant.user, &grant.project, grant.token.is_some()).await?,
    };
    if !may {
        return Ok(None);
    }
    let server = server::Entity::find_by_id(grant.place.server)
        .filter(server::Column::ProjectId.eq(grant.project.as_str()))
        .one(api.database())
        .await?;
    Ok(server.filter(is_shown))
}

/// Is done when a console that is open may be so no longer. A database that does not answer ends
/// none.
async fn ends(api: &Context, grant: &Grant) {
    loop {
        tokio::time::sleep(LOOK).await;
        match granted(api, grant).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(fault) => {
                tracing::warn!(
                    server = grant.place.server,
                    reason = fault.message,
                    "it cannot be told whether a console may stay open"
                );
            }
        }
    }
}

fn unreachable(place: &Place, error: &dyn std::error::Error) -> Fault {
    tracing::error!(server = place.server, host = %place.host, port = place.port, %error,
        "no console");
    Fault::unavailable("the console of this server cannot be reached now")
}

/// Carries bytes until one side has enough; returns why it ended.
async fn pump(
    mut socket: WebSocket,
    mut stream: TcpStream,
    ends: impl Future<Output = ()>,
) -> &'static str {
    let mut ends = std::pin::pin!(ends);
    let mut chunk = vec![0_u8; CHUNK];
    loop {
        tokio::select! {
            message = socket.recv() => {
                let data = match message {
                    Some(Ok(Message::Binary(data))) => data,
                    // Some clients have no other kind.
                    Some(Ok(Message::Text(text))) => text.into(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return "the client left",
                };
                match timeout(PATIENCE, stream.write_all(&data)).await {
                    Ok(Ok(())) => {}
                    _ => return "the server takes nothing more",
                }
            }
            length = stream.read(&mut chunk) => {
                let data = match length {
                    Ok(length) if length > 0 => chunk.get(..length).unwrap_or_default().to_vec(),
                    _ => {
                        let _ = timeout(PATIENCE, socket.send(Message::Close(None))).await;
                        return "the server closed it";
                    }
                };
                match timeout(PATIENCE, socket.send(Message::Binary(data.into()))).await {
                    Ok(Ok(())) => {}
                    _ => return "the client takes nothing more",
                }
            }
            () = &mut ends => {
                let _ = timeout(PATIENCE, socket.send(Message::Close(None))).await;
                return "its token or its server ended";
            }
            () = tokio::time::sleep(IDLE) => return "nothing happened for long",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_instance_has_a_console() {
        let all: Value = serde_json::from_str(include_str!("../../tests/data/rapi.json")).unwrap();
        let mut instance = all["instance"]["body"].clone();
        let found = place(1, &instance).unwrap();
        assert_eq!((found.host.as_str(), found.port), ("node1.gnt.lab", 11000));
        instance["hvparams"] = json!({"vnc_bind_address": ""});
        assert!(place(1, &instance).is_err());
        instance["hvparams"] = json!({"vnc_bind_address": "0.0.0.0"});
        assert!(place(1, &instance).is_ok());
        instance["oper_state"] = json!(false);
        assert!(place(1, &instance).is_err());
        assert!(place(1, &Value::Null).is_err());
    }
}
