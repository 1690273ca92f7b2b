//! Checking what somebody logs in with.

use std::sync::Arc;
use std::time::Instant;

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter};

use super::passwords;
use crate::api::authorization::{Privilege, Role};
use crate::api::caller::{self, Caller};
use crate::api::context::Context;
use crate::api::fault::{Fault, Kind};
use crate::api::known_tokens::Identity;
use crate::model::entity::{membership, project, token, user};

/// What somebody has to show.
pub enum Credentials<'a> {
    Password { user: &'a str, password: &'a str },
    Token(&'a str),
}

/// The project somebody wants to work in.
pub enum Wanted<'a> {
    Id(&'a str),
    Name(&'a str),
    /// The user's own.
    Default,
}

/// A successful login.
pub struct Login {
    pub user: user::Model,
    pub project: project::Model,
    /// The role in the project.
    pub role: Role,
    /// The token that was shown, if it was one.
    pub token: Option<token::Model>,
    /// That token is the external Keystone's.
    pub external: bool,
}

/// Checks credentials and the membership in the wanted project.
///
/// # Errors
/// 401 for anything that does not fit, without saying what.
pub async fn check(
    api: &Context,
    credentials: Credentials<'_>,
    wanted: Wanted<'_>,
) -> Result<Login, Fault> {
    let refused = || Fault::unauthorized("the credentials are not good");
    let (user, token) = match credentials {
        Credentials::Token(given) => {
            let identity = caller::identify(api, given).await?.ok_or_else(refused)?;
            let identity = Arc::unwrap_or_clone(identity);
            if identity.external {
                return external(api, identity, &wanted).await;
            }
            (identity.user, Some(identity.token))
        }
        Credentials::Password { user, password } => {
            let attempts = api.attempts();
            if let Err(wait) = attempts.check(user, Instant::now()) {
                return Err(Fault::new(
                    Kind::TooManyAttempts,
                    format!(
                        "too many wrong passwords for this user: try again in {} s",
                        wait.as_secs().saturating_add(1)
                    ),
                ));
            }
            match by_password(api, user, password).await? {
                Some(found) => {
                    attempts.right(user);
                    found
                }
                None => {
                    attempts.wrong(user, Instant::now());
                    return Err(refused());
                }
            }
        }
    };
    let project = match (&wanted, &token) {
        (Wanted::Id(id), _) => find_project(api, project::Column::Id, id).await?,
        (Wanted::Name(name), _) => match find_project(api, project::Column::Name, name).await? {
            Some(project) => Some(project),
            // Cyclades clients send the id in the place of the name.
            None => find_project(api, project::Column::Id, name).await?,
        },
        (Wanted::Default, token) => {
            let id = token
                .as_ref()
                .and_then(|token| token.project_id.as_deref())
                .unwrap_or(&user.project_id);
            find_project(api, project::Column::Id, id).await?
        }
    }
    .ok_or_else(refused)?;
    let role = membership::Entity::find_by_id((user.id.clone(), project.id.clone()))
        .one(api.database())
        .await?
        .ok_or_else(refused)?
        .role();
    Ok(Login {
        role: Role::new(user.admin, role),
        user,
        project,
        token,
        external: false,
    })
}

/// What a token that `caller` asks about was given for: one of their own, or, for an administrator
/// of the cloud, anybody's.
///
/// # Errors
/// 404 for any other, without saying why; the database fails, or the external Keystone.
pub async fn about(api: &Context, caller: &Caller, token: &str) -> Result<Login, Fault> {
    let login = check(api, Credentials::Token(token), Wanted::Default).await;
    let login = login.map_err(|fault| match fault.kind {
        Kind::ServiceUnavailable => fault,
        _ => unknown(),
    })?;
    if caller.user_id != login.user.id && !caller.role.has(Privilege::TokensOfOthers) {
        return Err(unknown());
    }
    Ok(login)
}

/// There is no such token, or it is not the caller's business.
pub fn unknown() -> Fault {
    Fault::not_found("token", "(not shown)")
}

/// A token of the external Keystone is good for the project that it was given for, and no other.
async fn external(api: &Context, identity: Identity, wanted: &Wanted<'_>) -> Result<Login, Fault> {
    let refused = || Fault::unauthorized("the credentials are not good");
    let id = identity.token.project_id.clone().ok_or_else(refused)?;
    let project = find_project(api, project::Column::Id, &id)
        .await?
        .ok_or_else(refused)?;
    let same = match wanted {
        Wanted::Id(id) => *id == project.id,
        Wanted::Name(name) => *name == project.name || *name == project.id,
        Wanted::Default => true,
    };
    if !same {
        return Err(refused());
    }
    Ok(Login {
        user: identity.user,
        project,
        role: identity.role,
        token: Some(identity.token),
        external: true,
    })
}

/// The user with this password; for the Cyclades way of saying it, the user's id and a token.
async fn by_password(
    api: &Context,
    name: &str,
    password: &str,
) -> Result<Option<(user::Model, Option<token::Model>)>, Fault> {
    let known = user::Entity::find()
        .filter(
            Condition::any()
                .add(user::Column::Name.eq(name))
                .add(user::Column::Id.eq(name)),
        )
        .filter(user::Column::Enabled.eq(true))
        .one(api.database())
        .await?;
    if let Some(identity) = caller::identify_own(api, password).await?
        && known
            .as_ref()
            .is_some_and(|user| user.id == identity.user.id)
    {
        let identity = Arc::unwrap_or_clone(identity);
        return Ok(Some((identity.user, Some(identity.token))));
    }
    let hash = known.as_ref().and_then(|user| user.password_hash.clone());
    let password = password.to_owned();
    // It takes tens of milliseconds by design.
    let same = tokio::task::spawn_blocking(move || passwords::matches(&password, hash.as_deref()))
        .await
        .map_err(Fault::internal)?;
    Ok(known.filter(|_| same).map(|user| (user, None)))
}

async fn find_project(
    api: &Context,
    column: project::Column,
    value: &str,
) -> Result<Option<project::Model>, Fault> {
    Ok(project::Entity::find()
        .filter(column.eq(value))
        .filter(project::Column::Enabled.eq(true))
        .one(api.database())
        .await?)
}

/// The projects that a user works in, and the one that they are `here` for: a user of the external
/// Keystone is a member of nothing here.
///
/// # Errors
/// The database fails.
pub async fn projects_of(
    api: &Context,
    user_id: &str,
    here: Option<&str>,
) -> Result<Vec<project::Model>, Fault> {
    let ids = here.map(str::to_owned).into_iter();
    let memberships = membership::Entity::find()
        .filter(membership::Column::UserId.eq(user_id))
        .all(api.database())
        .await?
        .into_iter()
        .map(|membership| membership.project_id);
    Ok(project::Entity::find()
        .filter(project::Column::Id.is_in(ids.chain(memberships)))
        .filter(project::Column::Enabled.eq(true))
        .all(api.database())
        .await?)
}
