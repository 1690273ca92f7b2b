//! Making tokens, and revoking them.
//!
//! A token that another one was shown for is that one's child: it expires when its parent does, and
//! ends with it. Whatever makes or revokes tokens of a user locks that user's row first.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr,
    EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::login::Login;
use crate::api::caller::digest;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::model::entity::token::NEVER;
use crate::model::entity::{token, user};
use crate::model::{database, moment};

/// The most digests that one statement names.
const AT_ONCE: usize = 500;

/// A token as it is told to its owner, once.
pub struct Issued {
    pub token: String,
    pub row: token::Model,
}

/// Gives who has logged in a token for the project of the login.
///
/// # Errors
/// 401: what was shown is not good any more. 403: the user has as many tokens as there may be, and
/// this one comes from all of them. There is no randomness; the database fails.
pub async fn issue(api: &Context, login: &Login) -> Result<Issued, Fault> {
    let refused = || Fault::unauthorized("the credentials are not good");
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(Fault::internal)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    let life = i64::try_from(api.config().token_life.as_micros()).unwrap_or(i64::MAX);
    let transaction = database::write(api.database()).await?;
    let user = lock(&transaction, &login.user.id)
        .await?
        .filter(|user| user.enabled)
        .ok_or_else(refused)?;
    let now = moment::now();
    let mut expires_at = now.saturating_add(life);
    let parent = match &login.token {
        // It may have been revoked since it was looked at.
        Some(shown) => {
            let parent = token::Entity::find_by_id(shown.digest.as_str())
                .one(&transaction)
                .await?
                .filter(|parent| parent.expires_at > now)
                .ok_or_else(refused)?;
            expires_at = expires_at.min(parent.expires_at);
            Some(parent.digest)
        }
        // The password may have been changed since it was compared.
        None if user.password_hash != login.user.password_hash => return Err(refused()),
        None => None,
    };
    let dropped = make_room(api, &transaction, &user.id, parent.as_deref()).await?;
    let row = token::ActiveModel {
        digest: ActiveValue::Set(digest(&token)),
        user_id: ActiveValue::Set(user.id.clone()),
        project_id: ActiveValue::Set(Some(login.project.id.clone())),
        issued_at: ActiveValue::Set(now),
        expires_at: ActiveValue::Set(expires_at),
        parent: ActiveValue::Set(parent),
    }
    .insert(&transaction)
    .await?;
    transaction.commit().await?;
    if !dropped.is_empty() {
        tracing::info!(user = %user.name, count = dropped.len(),
            "the oldest tokens of a user end: there are as many as there may be (tokens.per_user)");
        api.known_tokens().revoke(&dropped);
    }
    Ok(Issued { token, row })
}

/// Locks a user's row until the transaction ends.
///
/// # Errors
/// The database fails.
pub async fn lock(
    transaction: &impl ConnectionTrait,
    user_id: &str,
) -> Result<Option<user::Model>, DbErr> {
    user::Entity::find_by_id(user_id)
        .lock_exclusive()
        .one(transaction)
        .await
}

/// Makes room for one more token: ends the oldest, but none that the new one would hang on.
async fn make_room(
    api: &Context,
    transaction: &impl ConnectionTrait,
    user_id: &str,
    parent: Option<&str>,
) -> Result<Vec<String>, Fault> {
    let most = api.config().tokens_per_user;
    let all = token::Entity::find()
        .filter(token::Column::UserId.eq(user_id))
        .filter(token::Column::ExpiresAt.lt(NEVER))
        .order_by_asc(token::Column::IssuedAt)
        .order_by_asc(token::Column::Digest);
    let count = sea_orm::PaginatorTrait::count(all.clone(), transaction).await?;
    if count < most {
        return Ok(Vec::new());
    }
    let tokens = all.all(transaction).await?;
    let chosen = superfluous(&tokens, most, parent, moment::now()).ok_or_else(|| {
        Fault::forbidden(format!(
            "a user has at most {most} tokens at once, and this one was got by all of them: log in \
             with the password"
        ))
    })?;
    delete(transaction, &chosen).await?;
    Ok(chosen)
}

/// The digests of those of `tokens`, the oldest first, that end so that fewer than `most` are left;
/// none: too many of them are ancestors of a child of `parent`.
fn superfluous(
    tokens: &[token::Model],
    most: u64,
    parent: Option<&str>,
    now: i64,
) -> Option<Vec<String>> {
    let by_digest: HashMap<&str, &token::Model> = tokens
        .iter()
        .map(|token| (token.digest.as_str(), token))
        .collect();
    let mut ancestors = HashSet::new();
    let mut next = parent;
    while let Some(digest) = next {
        if !ancestors.insert(digest) {
            break;
        }
        next = by_digest
            .get(digest)
            .and_then(|token| token.parent.as_deref());
    }
    let mut children: HashMap<&str, Vec<&str>> = HashMap::new();
    for token in tokens {
        if let Some(parent) = &token.parent {
            children.entry(parent).or_default().push(&token.digest);
        }
    }
    let (expired, good): (Vec<_>, Vec<_>) =
        tokens.iter().partition(|token| token.expires_at <= now);
    let mut chosen: HashSet<&str> = HashSet::new();
    let left = |chosen: &HashSet<&str>| {
        u64::try_from(tokens.len().saturating_sub(chosen.len())).unwrap_or(u64::MAX)
    };
    for token in expired.iter().chain(&good) {
        let over = token.expires_at <= now;
        if !over && left(&chosen) < most {
            break;
        }
        if ancestors.contains(token.digest.as_str()) {
            continue;
        }
        let mut rest = vec![token.digest.as_str()];
        while let Some(digest) = rest.pop() {
            if chosen.insert(digest) {
                rest.extend(children.get(digest).into_iter().flatten());
            }
        }
    }
    (left(&chosen) < most).then(|| chosen.into_iter().map(str::to_owned).collect())
}

async fn delete(transaction: &impl ConnectionTrait, digests: &[String]) -> Result<u64, DbErr> {
    let mut count = 0_u64;
    for digests in digests.chunks(AT_ONCE) {
        let done = token::Entity::delete_many()
            .filter(token::Column::Digest.is_in(digests))
            .exec(transaction)
            .await?;
        count = count.saturating_add(done.rows_affected);
    }
    Ok(count)
}

/// Makes the token that `login` was done with worthless at once, with all that it was shown for.
///
/// # Errors
/// The database fails; the token is the external Keystone's.
pub async fn revoke(api: &Context, login: &Login, token: &str) -> Result<bool, Fault> {
    if login.external {
        return Err(Fault::not_implemented(
            "this token was given by another identity service: revoke it there",
        ));
    }
    let transaction = database::write(api.database()).await?;
    lock(&transaction, &login.user.id).await?;
    let mut all = vec![digest(token)];
    let mut generation = all.clone();
    while !generation.is_empty() {
        let mut next = Vec::new();
        for parents in generation.chunks(AT_ONCE) {
            let children: Vec<String> = token::Entity::find()
                .select_only()
                .column(token::Column::Digest)
                .filter(token::Column::Parent.is_in(parents))
                .into_tuple()
                .all(&transaction)
                .await?;
            next.extend(children);
        }
        all.extend_from_slice(&next);
        generation = next;
    }
    let count = delete(&transaction, &all).await?;
    transaction.commit().await?;
    api.known_tokens().revoke(&all);
    Ok(count > 0)
}

/// Revokes what a user's password gave, and all that those tokens were shown for; tokens of a seed
/// stay, the tokens that they were shown for do not. To be called when the password changes.
///
/// # Errors
/// The database fails.
pub async fn revoke_of_password(
    transaction: &impl ConnectionTrait,
    user_id: &str,
) -> Result<u64, DbErr> {
    let done = token::Entity::delete_many()
        .filter(token::Column::UserId.eq(user_id))
        .filter(token::Column::ExpiresAt.lt(NEVER))
        .exec(transaction)
        .await?;
    Ok(done.rows_affected)
}

/// Deletes the rows of tokens that have expired.
///
/// # Errors
/// The database fails.
pub async fn purge(database: &DatabaseConnection) -> Result<(), DbErr> {
    token::Entity::delete_many()
        .filter(token::Column::ExpiresAt.lte(moment::now()))
        .exec(database)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(digest: &str, parent: Option<&str>, expires_at: i64) -> token::Model {
        token::Model {
            digest: digest.to_owned(),
            user_id: String::new(),
            project_id: None,
            issued_at: 0,
            expires_at,
            parent: parent.map(str::to_owned),
        }
    }

    fn chosen(tokens: &[token::Model], most: u64, parent: Option<&str>) -> Option<String> {
        let mut chosen = superfluous(tokens, most, parent, 10)?;
        chosen.sort();
        Some(chosen.join(" "))
    }

    #[test]
    fn the_oldest_end_with_their_children_and_ancestors_stay() {
        let tokens = [
            token("a", None, 20),
            token("b", Some("a"), 20),
            token("c", Some("b"), 20),
            token("d", None, 20),
            token("e", Some("s"), 20),
        ];
        assert_eq!(chosen(&tokens, 6, None).unwrap(), "");
        assert_eq!(chosen(&tokens, 5, None).unwrap(), "a b c");
        assert_eq!(chosen(&tokens, 5, Some("d")).unwrap(), "a b c");
        assert_eq!(chosen(&tokens, 5, Some("a")).unwrap(), "b c");
        assert_eq!(chosen(&tokens, 5, Some("b")).unwrap(), "c");
        assert_eq!(chosen(&tokens, 5, Some("c")).unwrap(), "d");
        assert_eq!(chosen(&tokens, 4, Some("c")).unwrap(), "d e");
        assert_eq!(chosen(&tokens, 3, Some("c")), None);
    }

    #[test]
    fn those_that_have_expired_go_first() {
        let tokens = [
            token("a", None, 20),
            token("b", None, 5),
            token("c", None, 10),
        ];
        assert_eq!(chosen(&tokens, 3, None).unwrap(), "b c");
    }
}
