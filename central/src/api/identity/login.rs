//! Checking what somebody logs in with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter};

use super::attempts::Subject;
use crate::api::authorization::{Privilege, Role};
use crate::api::body::Field;
use crate::api::caller::{self, Caller};
use crate::api::context::Context;
use crate::api::fault::{self, Fault, Kind};
use crate::api::known_tokens::Identity;
use crate::metrics;
use crate::model::entity::{membership, project, token, user};

/// The longest name of a user, and the longest password, in bytes: nothing longer is looked at.
pub const LONGEST: usize = 255;

/// A name or a password in a body.
///
/// # Errors
/// It is no string, or too long; the message does not repeat it.
pub fn credential<'a>(field: &Field<'a>) -> Result<&'a str, Fault> {
    match field.value().as_str() {
        Some(text) if text.len() <= LONGEST => Ok(text),
        Some(_) => Err(Fault::bad_request(format!(
            "{}: longer than {LONGEST} bytes",
            field.path()
        ))),
        None => Err(Fault::bad_request(format!(
            "{}: must be a string",
            field.path()
        ))),
    }
}

/// What somebody has to show.
pub enum Credentials<'a> {
    Password {
        user: &'a str,
        password: &'a str,
        /// The address that they come from.
        peer: IpAddr,
    },
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
        Credentials::Password {
            user,
            password,
            peer,
        } => by_password(api, user, password, peer).await?,
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

/// Returns the identity of a token that `caller` asks about: one of their own, or, for an administrator
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
///
/// # Errors
/// 401: it is another one, or there is no such user. 429: too many were tried. 503: too many are
/// being compared.
async fn by_password(
    api: &Context,
    name: &str,
    password: &str,
    peer: IpAddr,
) -> Result<(user::Model, Option<token::Model>), Fault> {
    let refused = || Fault::unauthorized("the credentials are not good");
    let known = user::Entity::find()
        .filter(
            Condition::any()
                .add(user::Column::Name.eq(name))
                .add(user::Column::Id.eq(name)),
        )
        .one(api.database())
        .await?;
    let enabled = known.as_ref().filter(|user| user.enabled);
    if let Some(identity) = caller::identify_own(api, password).await?
        && enabled.is_some_and(|user| user.id == identity.user.id)
    {
        let identity = Arc::unwrap_or_clone(identity);
        return Ok((identity.user, Some(identity.token)));
    }
    let subject = known
        .as_ref()
        .map_or(Subject::Nobody(name), |user| Subject::User(&user.id));
    let limited = |wait: Duration| {
        metrics::login("limited");
        let seconds = wait.as_secs().saturating_add(1);
        let message = format!("too many wrong passwords for this user: try again in {seconds} s");
        Fault::new(Kind::TooManyAttempts, message).after(wait)
    };
    let attempt = api.attempts().begin(subject, peer).await.map_err(|wait| {
        tracing::warn!(user = fault::shortened(name), %peer, "too many wrong passwords");
        limited(wait)
    })?;
    let hash = enabled.and_then(|user| user.password_hash.clone());
    match api.hashing().matches(password, hash).await {
        Ok(true) => {
            attempt.right();
            metrics::login("right");
            Ok((known.ok_or_else(refused)?, None))
        }
        Ok(false) if attempt.beyond => Err(limited(Duration::ZERO)),
        Ok(false) => {
            tracing::info!(user = fault::shortened(name), %peer, "a wrong password");
            metrics::login("wrong");
            Err(refused())
        }
        Err(busy) => {
            attempt.undone();
            metrics::login("busy");
            Err(busy)
        }
    }
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
