//! Making tokens, and taking them back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::{ActiveModelTrait, ActiveValue, EntityTrait};

use super::login::Login;
use crate::api::caller::digest;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::model::entity::{token, user};
use crate::model::moment;

/// A token as it is told to its owner, once.
pub struct Issued {
    pub token: String,
    pub row: token::Model,
}

/// Gives `user` a token for a project.
///
/// # Errors
/// There is no randomness; the database fails.
pub async fn issue(api: &Context, user: &user::Model, project_id: &str) -> Result<Issued, Fault> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(Fault::internal)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    let now = moment::now();
    let life = i64::try_from(api.config().token_life.as_micros()).unwrap_or(i64::MAX);
    let row = token::ActiveModel {
        digest: ActiveValue::Set(digest(&token)),
        user_id: ActiveValue::Set(user.id.clone()),
        project_id: ActiveValue::Set(Some(project_id.to_owned())),
        issued_at: ActiveValue::Set(now),
        expires_at: ActiveValue::Set(now.saturating_add(life)),
    }
    .insert(api.database())
    .await?;
    Ok(Issued { token, row })
}

/// Makes a token, which `login` was done with, worthless at once.
///
/// # Errors
/// The database fails; the token is the external Keystone's.
pub async fn revoke(api: &Context, login: &Login, token: &str) -> Result<bool, Fault> {
    if login.external {
        return Err(Fault::not_implemented(
            "this token was given by another identity service: revoke it there",
        ));
    }
    let digest = digest(token);
    let done = token::Entity::delete_by_id(digest.as_str())
        .exec(api.database())
        .await?;
    api.known_tokens().revoke(&digest);
    Ok(done.rows_affected > 0)
}
