//! Whom a token of the external Keystone stands for here: users and projects of the same ids, made
//! when they first come, or the local projects that the configuration names.

use sea_orm::{ActiveValue, ColumnTrait, EntityTrait, QueryFilter};

use super::keystone::{Found, KeystoneError, Named};
use crate::api::authorization::Role;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::known_tokens::Identity;
use crate::model::entity::{project, token, user};
use crate::model::{database, moment};

/// What is left of a name that has to be told from another one's.
const NAME: usize = 150;

/// Keystone could not tell: that is no reason to let anybody in, nor to say that the token is bad.
impl From<KeystoneError> for Fault {
    fn from(error: KeystoneError) -> Self {
        tracing::error!(%error, "a token cannot be checked");
        Self::unavailable("the identity service that knows this token does not answer; try again")
    }
}

/// The local user and project of a good token; `digest` is the token's.
///
/// # Errors
/// 401: the token is for no project. 403: its roles are none that the configuration lets in; its
/// user or project is not known here, or disabled.
pub async fn admit(api: &Context, digest: &str, found: &Found) -> Result<Identity, Fault> {
    let Some(config) = api.config().keystone.as_ref() else {
        return Err(Fault::internal("a Keystone without a configuration"));
    };
    let theirs = found
        .project
        .as_ref()
        .ok_or_else(|| Fault::unauthorized("the token is for no project"))?;
    let has = |names: &[String]| names.iter().any(|name| found.roles.contains(name));
    let administers = has(&config.admin_roles);
    let role = if administers && config.admin_projects.contains(&theirs.id) {
        Some(Role::CloudAdministrator)
    } else if administers || has(&config.manager_roles) {
        Some(Role::ProjectAdministrator)
    } else {
        has(&config.user_roles).then_some(Role::Member)
    };
    let Some(role) = role else {
        return Err(Fault::forbidden(format!(
            "none of the token's roles is let in here: {}",
            found.roles.join(", ")
        )));
    };
    let project = local_project(api, theirs, config.projects.get(&theirs.id)).await?;
    let user = local_user(api, &found.user, &project.id).await?;
    if !project.enabled || !user.enabled {
        return Err(Fault::forbidden("the user or the project is disabled here"));
    }
    let role = match user.admin {
        true => Role::CloudAdministrator,
        false => role,
    };
    Ok(Identity {
        token: token::Model {
            digest: digest.to_owned(),
            user_id: user.id.clone(),
            project_id: Some(project.id),
            issued_at: found.issued_at,
            expires_at: found.expires_at,
            parent: None,
        },
        user,
        role,
        external: true,
    })
}

async fn local_project(
    api: &Context,
    theirs: &Named,
    mapped: Option<&String>,
) -> Result<project::Model, Fault> {
    let unknown = || Fault::forbidden(format!("project {} is not known here", theirs.id));
    if let Some(name) = mapped {
        return project::Entity::find()
            .filter(project::Column::Name.eq(name.as_str()))
            .one(api.database())
            .await?
            .ok_or_else(unknown);
    }
    let find = || project::Entity::find_by_id(theirs.id.as_str()).one(api.database());
    if let Some(known) = find().await? {
        return Ok(known);
    }
    if !api
        .config()
        .keystone
        .as_ref()
        .is_some_and(|config| config.create_projects)
    {
        return Err(unknown());
    }
    for name in names(theirs) {
        let row = project::ActiveModel {
            id: ActiveValue::Set(theirs.id.clone()),
            name: ActiveValue::Set(name),
            enabled: ActiveValue::Set(true),
            created_at: ActiveValue::Set(moment::now()),
        };
        let key = [project::Column::Id];
        if database::insert_once(api.database(), row, key).await? {
            tracing::info!(
                project = theirs.id,
                "a project of Keystone's comes for the first time"
            );
        }
        if let Some(known) = find().await? {
            return Ok(known);
        }
    }
    Err(Fault::internal(format!(
        "project {} cannot be made",
        theirs.id
    )))
}

async fn local_user(api: &Context, theirs: &Named, project_id: &str) -> Result<user::Model, Fault> {
    let find = || user::Entity::find_by_id(theirs.id.as_str()).one(api.database());
    if let Some(known) = find().await? {
        return Ok(known);
    }
    for name in names(theirs) {
        let row = user::ActiveModel {
            id: ActiveValue::Set(theirs.id.clone()),
            name: ActiveValue::Set(name),
            email: ActiveValue::Set(None),
            // Nobody logs in here with a password of Keystone's.
            password_hash: ActiveValue::Set(None),
            enabled: ActiveValue::Set(true),
            admin: ActiveValue::Set(false),
            project_id: ActiveValue::Set(project_id.to_owned()),
            created_at: ActiveValue::Set(moment::now()),
        };
        database::insert_once(api.database(), row, [user::Column::Id]).await?;
        if let Some(known) = find().await? {
            return Ok(known);
        }
    }
    Err(Fault::internal(format!(
        "user {} cannot be made",
        theirs.id
    )))
}

/// What it may be called here: its name, its name in its domain, or, if somebody else has those,
/// its name and id.
fn names(theirs: &Named) -> [String; 3] {
    let short = |text: &str| -> String { text.chars().take(NAME).collect() };
    let name = short(&theirs.name);
    let domain: String = theirs.domain.name.chars().take(64).collect();
    [
        name.clone(),
        format!("{name}@{domain}"),
        format!("{name} ({})", theirs.id),
    ]
}
