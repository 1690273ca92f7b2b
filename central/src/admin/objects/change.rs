//! Changes that operators make. Each says what it has done; what is not there is an error.

use std::io::Read;

use anyhow::{Context, bail};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue, ColumnTrait, Condition, DatabaseConnection, EntityTrait, QueryFilter};

use crate::api::identity::login::LONGEST;
use crate::api::identity::{issue, passwords};
use crate::api::quota::{Resource, UNLIMITED};
use crate::model::database::write;
use crate::model::entity::{
    backend, flavor, image, membership, network, project, quota, server, token, user,
};
use crate::model::moment;

/// Passwords longer than this are not read.
const PASSWORD_LIMIT: u64 = 1024;

/// The user with this name or id.
async fn user(database: &DatabaseConnection, name: &str) -> anyhow::Result<user::Model> {
    let matching = Condition::any()
        .add(user::Column::Name.eq(name))
        .add(user::Column::Id.eq(name));
    user::Entity::find()
        .filter(matching)
        .one(database)
        .await?
        .with_context(|| format!("no user {name:?}"))
}

/// The project with this name or id.
pub async fn project(database: &DatabaseConnection, name: &str) -> anyhow::Result<project::Model> {
    let matching = Condition::any()
        .add(project::Column::Name.eq(name))
        .add(project::Column::Id.eq(name));
    project::Entity::find()
        .filter(matching)
        .one(database)
        .await?
        .with_context(|| format!("no project {name:?}"))
}

fn changed(rows: u64, what: &str, name: &str, now: &str) -> anyhow::Result<()> {
    if rows == 0 {
        bail!("no {what} {name:?}");
    }
    println!("{what} {name}: {now}");
    Ok(())
}

pub async fn enable(database: &DatabaseConnection, name: &str, on: bool) -> anyhow::Result<()> {
    let user = user(database, name).await?;
    let done = user::Entity::update_many()
        .col_expr(user::Column::Enabled, Expr::value(on))
        .filter(user::Column::Id.eq(user.id))
        .exec(database)
        .await?;
    let now = if on { "enabled" } else { "disabled" };
    changed(done.rows_affected, "user", name, now)
}

pub async fn password(database: &DatabaseConnection, name: &str) -> anyhow::Result<()> {
    let user = user(database, name).await?;
    let mut password = String::new();
    std::io::stdin()
        .take(PASSWORD_LIMIT)
        .read_to_string(&mut password)
        .context("standard input")?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("no password on standard input");
    }
    if password.len() > LONGEST {
        bail!("the password is longer than {LONGEST} bytes");
    }
    let hash = passwords::hash(password).map_err(anyhow::Error::msg)?;
    let transaction = write(database).await?;
    let done = user::Entity::update_many()
        .col_expr(user::Column::PasswordHash, Expr::value(hash))
        .filter(user::Column::Id.eq(user.id.as_str()))
        .exec(&transaction)
        .await?;
    let revoked = issue::revoke_of_password(&transaction, &user.id).await?;
    transaction.commit().await?;
    let now = format!("has another password; {revoked} tokens revoked");
    changed(done.rows_affected, "user", name, &now)
}

pub async fn grant(database: &DatabaseConnection, name: &str, on: bool) -> anyhow::Result<()> {
    let user = user(database, name).await?;
    let done = user::Entity::update_many()
        .col_expr(user::Column::Admin, Expr::value(on))
        .filter(user::Column::Id.eq(user.id))
        .exec(database)
        .await?;
    let now = match on {
        true => "administrator of the cloud",
        false => "not an administrator of the cloud",
    };
    changed(done.rows_affected, "user", name, now)
}

pub async fn open(database: &DatabaseConnection, name: &str, on: bool) -> anyhow::Result<()> {
    let project = project(database, name).await?;
    let done = project::Entity::update_many()
        .col_expr(project::Column::Enabled, Expr::value(on))
        .filter(project::Column::Id.eq(project.id))
        .exec(database)
        .await?;
    let now = if on { "enabled" } else { "disabled" };
    changed(done.rows_affected, "project", name, now)
}

pub async fn join(
    database: &DatabaseConnection,
    project_name: &str,
    user_name: &str,
    admin: bool,
) -> anyhow::Result<()> {
    let project = project(database, project_name).await?;
    let user = user(database, user_name).await?;
    let role = match admin {
        true => membership::Role::Manager,
        false => membership::Role::Member,
    };
    let row = membership::ActiveModel {
        user_id: ActiveValue::Set(user.id),
        project_id: ActiveValue::Set(project.id),
        role: ActiveValue::Set(role.name().to_owned()),
    };
    let key = [membership::Column::UserId, membership::Column::ProjectId];
    membership::Entity::insert(row)
        .on_conflict(
            OnConflict::columns(key)
                .update_column(membership::Column::Role)
                .to_owned(),
        )
        .exec_without_returning(database)
        .await?;
    let title = match role {
        membership::Role::Manager => "administrator",
        membership::Role::Member => "member",
    };
    println!("user {user_name}: {title} of project {project_name}");
    Ok(())
}

pub async fn leave(
    database: &DatabaseConnection,
    project_name: &str,
    user_name: &str,
) -> anyhow::Result<()> {
    let project = project(database, project_name).await?;
    let user = user(database, user_name).await?;
    let done = membership::Entity::delete_many()
        .filter(membership::Column::UserId.eq(user.id))
        .filter(membership::Column::ProjectId.eq(project.id))
        .exec(database)
        .await?;
    if done.rows_affected == 0 {
        bail!("user {user_name:?} is not in project {project_name:?}");
    }
    println!("user {user_name}: not in project {project_name} any more");
    Ok(())
}

pub async fn revoke(database: &DatabaseConnection, name: &str) -> anyhow::Result<()> {
    let user = user(database, name).await?;
    let transaction = write(database).await?;
    issue::lock(&transaction, &user.id).await?;
    let done = token::Entity::delete_many()
        .filter(token::Column::UserId.eq(user.id))
        .exec(&transaction)
        .await?;
    transaction.commit().await?;
    println!("user {name}: {} tokens taken back", done.rows_affected);
    Ok(())
}

pub async fn drain_backend(
    database: &DatabaseConnection,
    name: &str,
    on: bool,
) -> anyhow::Result<()> {
    let done = backend::Entity::update_many()
        .col_expr(backend::Column::Drained, Expr::value(on))
        .filter(backend::Column::Name.eq(name))
        .exec(database)
        .await?;
    let now = if on { "drained" } else { "not drained" };
    changed(done.rows_affected, "backend", name, now)
}

pub async fn offline(database: &DatabaseConnection, name: &str, on: bool) -> anyhow::Result<()> {
    let done = backend::Entity::update_many()
        .col_expr(backend::Column::Offline, Expr::value(on))
        .filter(backend::Column::Name.eq(name))
        .exec(database)
        .await?;
    let now = if on { "offline" } else { "online" };
    changed(done.rows_affected, "backend", name, now)
}

/// The ids of what has one are numbers; a name that is none is no id.
fn number(text: &str) -> i64 {
    text.parse().unwrap_or(0)
}

pub async fn flavor(database: &DatabaseConnection, name: &str, on: bool) -> anyhow::Result<()> {
    let matching = Condition::any()
        .add(flavor::Column::Name.eq(name))
        .add(flavor::Column::Id.eq(number(name)));
    let done = flavor::Entity::update_many()
        .col_expr(flavor::Column::AllowCreate, Expr::value(on))
        .filter(flavor::Column::DeletedAt.is_null())
        .filter(matching)
        .exec(database)
        .await?;
    let now = if on { "open" } else { "closed" };
    changed(done.rows_affected, "flavor", name, now)
}

pub async fn image(database: &DatabaseConnection, name: &str, on: bool) -> anyhow::Result<()> {
    let matching = Condition::any()
        .add(image::Column::Name.eq(name))
        .add(image::Column::Id.eq(name));
    let done = image::Entity::update_many()
        .col_expr(image::Column::Public, Expr::value(on))
        .col_expr(image::Column::UpdatedAt, Expr::value(moment::now()))
        .filter(image::Column::DeletedAt.is_null())
        .filter(matching)
        .exec(database)
        .await?;
    let now = if on { "public" } else { "not public" };
    changed(done.rows_affected, "image", name, now)
}

pub async fn drain_network(
    database: &DatabaseConnection,
    name: &str,
    on: bool,
) -> anyhow::Result<()> {
    let matching = Condition::any()
        .add(network::Column::Name.eq(name))
        .add(network::Column::Id.eq(number(name)));
    let found = network::Entity::find()
        .filter(network::Column::DeletedAt.is_null())
        .filter(matching)
        .all(database)
        .await?;
    let [network] = found.as_slice() else {
        bail!("{} networks are {name:?}: name one by its id", found.len());
    };
    let done = network::Entity::update_many()
        .col_expr(network::Column::Drained, Expr::value(on))
        .col_expr(network::Column::UpdatedAt, Expr::value(moment::now()))
        .filter(network::Column::Id.eq(network.id))
        .exec(database)
        .await?;
    let now = if on { "drained" } else { "not drained" };
    changed(done.rows_affected, "network", name, now)
}

pub async fn quota(
    database: &DatabaseConnection,
    project_name: &str,
    resource: &str,
    most: Option<&str>,
) -> anyhow::Result<()> {
    let names = Resource::ALL.map(Resource::name);
    if !names.contains(&resource) {
        bail!("{resource:?}: no resource; there are {}", names.join(", "));
    }
    let project = project(database, project_name).await?;
    let known = Resource::ALL
        .into_iter()
        .find(|known| known.name() == resource);
    let Some(most) = most else {
        quota::Entity::delete_by_id((project.id, resource.to_owned()))
            .exec(database)
            .await?;
        match known.and_then(Resource::default_limit) {
            Some(most) => {
                println!("project {project_name}: {resource} at most {most}, the default")
            }
            None => println!("project {project_name}: {resource} without limit"),
        }
        return Ok(());
    };
    let most = match most {
        "unlimited" => UNLIMITED,
        text => text
            .parse()
            .ok()
            .filter(|most| *most >= 0)
            .with_context(|| format!("{text}: a limit is 0 or more, or \"unlimited\""))?,
    };
    let row = quota::ActiveModel {
        project_id: ActiveValue::Set(project.id),
        resource: ActiveValue::Set(resource.to_owned()),
        most: ActiveValue::Set(most),
    };
    let key = [quota::Column::ProjectId, quota::Column::Resource];
    quota::Entity::insert(row)
        .on_conflict(
            OnConflict::columns(key)
                .update_column(quota::Column::Most)
                .to_owned(),
        )
        .exec_without_returning(database)
        .await?;
    if most == UNLIMITED {
        println!("project {project_name}: {resource} without limit");
    } else {
        println!("project {project_name}: {resource} at most {most}");
    }
    Ok(())
}

pub async fn suspend(database: &DatabaseConnection, id: &str, on: bool) -> anyhow::Result<()> {
    let done = server::Entity::update_many()
        .col_expr(server::Column::Suspended, Expr::value(on))
        .col_expr(server::Column::UpdatedAt, Expr::value(moment::now()))
        .filter(server::Column::DeletedAt.is_null())
        .filter(server::Column::Id.eq(number(id)))
        .exec(database)
        .await?;
    let now = if on { "suspended" } else { "not suspended" };
    changed(done.rows_affected, "server", id, now)
}
