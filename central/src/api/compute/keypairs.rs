//! SSH keys of a user, by name.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sea_orm::{ActiveModelTrait, ActiveValue, ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use super::keygen;
use crate::api::body::{Body, Field};
use crate::api::caller::{Caller, hex};
use crate::api::context::Context;
use crate::api::dialect::Dialect;
use crate::api::fault::Fault;
use crate::api::quota::{self, Amounts};
use crate::model::entity::keypair;
use crate::model::{database, moment};

/// The longest key that is taken, in characters: RSA with 16384 bits is 2800.
const KEY_LIMIT: usize = 4096;

fn brief(key: &keypair::Model) -> Value {
    json!({
        "name": key.name,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "type": "ssh",
    })
}

pub async fn list(State(api): State<Context>, caller: Caller) -> Result<Json<Value>, Fault> {
    let keys: Vec<Value> = keypair::Entity::find()
        .filter(keypair::Column::UserId.eq(caller.user_id.as_str()))
        .order_by_asc(keypair::Column::Name)
        .all(api.database())
        .await?
        .iter()
        .map(|key| json!({"keypair": brief(key)}))
        .collect();
    Ok(Json(json!({"keypairs": keys})))
}

/// A public key in OpenSSH's one-line form, and the fingerprint that OpenStack shows of it.
fn public_key(field: &Field<'_>) -> Result<(String, String), Fault> {
    let text = field.file_line(KEY_LIMIT)?;
    let bad = |reason: &str| field.refuse(reason);
    let blank = |c: char| c == ' ' || c == '\t';
    let Some((kind, rest)) = text.split_once(blank) else {
        return Err(bad(
            "must be a key type and the key, as `ssh-ed25519 AAAA…`",
        ));
    };
    let rest = rest.trim_start();
    let (data, comment) = rest.split_once(blank).unwrap_or((rest, ""));
    let blob = STANDARD
        .decode(data)
        .or_else(|_| STANDARD_NO_PAD.decode(data))
        .map_err(|_| bad("the key is not base64"))?;
    // RFC 4253, section 6.6: the blob begins with the type, with its length before it.
    let inner = blob
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?))
        .ok_or_else(|| bad("the key is cut off"))?;
    if inner != kind.as_bytes() {
        return Err(bad("the key is not of the type that stands before it"));
    }
    let comment = comment.trim().replace('\t', " ");
    let line = format!("{kind} {data} {comment}");
    Ok((line.trim_end().to_owned(), fingerprint(&blob)))
}

/// SHA-256, in the form of `ssh-keygen -l`, but in hexadecimal as clients expect.
fn fingerprint(blob: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digits = hex(&Sha256::digest(blob));
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect::<Vec<_>>()
        .join(":")
}

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let wanted = body.member("keypair")?;
    let name_field = wanted.required("name")?;
    let name = name_field.name(255)?.to_owned();
    if name.contains('/') {
        return Err(name_field.refuse("must not have a slash"));
    }
    let (public_key, fingerprint, private_key) = match wanted.get("public_key") {
        Some(field) => {
            let (text, fingerprint) = public_key(&field)?;
            (text, fingerprint, None)
        }
        None => {
            let made = keygen::generate(&name).map_err(Fault::internal)?;
            (made.public, fingerprint(&made.blob), Some(made.private))
        }
    };
    let transaction = database::write(api.database()).await?;
    let one_more = Amounts {
        keypairs: 1,
        ..Amounts::NONE
    };
    quota::take(&transaction, &caller, &one_more).await?;
    let row = keypair::ActiveModel {
        id: ActiveValue::NotSet,
        user_id: ActiveValue::Set(caller.user_id.clone()),
        name: ActiveValue::Set(name.clone()),
        public_key: ActiveValue::Set(public_key),
        fingerprint: ActiveValue::Set(fingerprint),
        created_at: ActiveValue::Set(moment::now()),
    };
    let key = row.insert(&transaction).await.map_err(|error| {
        if database::is_duplicate(&error) {
            Fault::conflict(format!("keypair {name} exists"))
        } else {
            error.into()
        }
    })?;
    transaction.commit().await?;
    let mut view = brief(&key);
    if let Some(map) = view.as_object_mut() {
        map.insert("user_id".to_owned(), json!(key.user_id));
        // Told once and kept nowhere.
        if let Some(private) = private_key {
            map.insert("private_key".to_owned(), json!(private));
        }
    }
    let status = match caller.dialect {
        Dialect::OpenStack => StatusCode::OK,
        Dialect::Cyclades => StatusCode::CREATED,
    };
    Ok((status, Json(json!({"keypair": view}))))
}

async fn find(api: &Context, caller: &Caller, name: &str) -> Result<keypair::Model, Fault> {
    keypair::Entity::find()
        .filter(keypair::Column::UserId.eq(caller.user_id.as_str()))
        .filter(keypair::Column::Name.eq(name))
        .one(api.database())
        .await?
        .ok_or_else(|| Fault::not_found("keypair", name))
}

pub async fn show(
    State(api): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let key = find(&api, &caller, &name).await?;
    let created = moment::iso(key.created_at);
    Ok(Json(json!({"keypair": {
        "id": key.id,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "type": "ssh",
        "user_id": key.user_id,
        "deleted": false,
        "created_at": created,
        "updated_at": null,
        "deleted_at": null,
    }})))
}

pub async fn delete(
    State(api): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Fault> {
    let key = find(&api, &caller, &name).await?;
    keypair::Entity::delete_by_id(key.id)
        .exec(api.database())
        .await?;
    // libcloud insists on the one, kamaki on the other.
    Ok(match caller.dialect {
        Dialect::OpenStack => StatusCode::ACCEPTED,
        Dialect::Cyclades => StatusCode::NO_CONTENT,
    })
}
