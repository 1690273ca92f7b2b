//! The parameters of a new server, for its OS definition: once, and only for nodes.
//!
//! The OS parameter `config_url` names where they are; the OS definition, on the node where the
//! server is made, reads them there: a JSON object whose members are what else would be OS
//! parameters that everybody who may look at the cluster could read.

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use sea_orm::DatabaseTransaction;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::fault::{Fault, Kind};
use super::one_shot;
use super::peer::Peer;
use crate::config::Parameters;
use crate::model::entity::image;

/// Where they are asked for, in front of the secret.
const PATH: &str = "/vmapi/v1.0/server-params";

pub fn routes() -> Router<Context> {
    // HEAD would be answered by GET, and use up what it does not show.
    Router::new().route("/server-params/{secret}", get(tell).head(not_for_head))
}

async fn not_for_head() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")])
}

async fn tell(
    State(api): State<Context>,
    Peer(peer): Peer,
    Path(secret): Path<String>,
) -> Result<Json<Value>, Fault> {
    let config = api.config().parameters.as_ref();
    let Some(config) = config else {
        return Err(Fault::not_found("path", PATH));
    };
    if !config.admits(peer) {
        tracing::warn!(%peer, "asks for a server's parameters, and is no node");
        return Err(Fault::forbidden(format!("{peer}: no node")));
    }
    let missing = || Fault::new(Kind::ItemNotFound, "parameters not found");
    let text = one_shot::take(api.database(), one_shot::Kind::Parameters, &secret)
        .await?
        .ok_or_else(missing)?;
    tracing::info!(%peer, "a server's parameters were fetched");
    serde_json::from_str(&text)
        .map(Json)
        .map_err(Fault::internal)
}

/// What a server is to be told.
pub struct Told<'a> {
    pub image: &'a image::Model,
    pub password: &'a str,
    pub personality: &'a Value,
    /// Base64, as it came.
    pub user_data: Option<&'a str>,
    /// In the form of `authorized_keys`.
    pub keys: Option<&'a str>,
}

impl Told<'_> {
    /// The object that the OS definition reads: every value is a string, as OS parameters are.
    fn json(&self) -> Value {
        let mut told = Map::new();
        let mut put = |name: &str, value: String| {
            told.insert(name.to_owned(), Value::String(value));
        };
        put("img_id", self.image.source.clone());
        put("img_format", self.image.format.clone());
        put("img_passwd", self.password.to_owned());
        put("img_personality", self.personality.to_string());
        put("img_properties", self.image.properties.to_string());
        if let Some(keys) = self.keys {
            put("auth_keys", keys.to_owned());
        }
        if let Some(data) = self.user_data {
            put("cloud_userdata", data.to_owned());
        }
        json!(told)
    }
}

/// Keeps what a server is to be told; returns its `config_url`.
///
/// # Errors
/// The database fails.
pub async fn keep(
    transaction: &DatabaseTransaction,
    config: &Parameters,
    server_id: i64,
    told: &Told<'_>,
) -> Result<String, Fault> {
    let secret = one_shot::secret()?;
    let text = told.json().to_string();
    let kind = one_shot::Kind::Parameters;
    one_shot::put(transaction, kind, &secret, server_id, &text, config.life).await?;
    Ok(format!("{}{PATH}/{secret}", config.url))
}
