//! Lists of what is in the database.

use std::collections::HashMap;

use anyhow::bail;
use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use super::Table;
use super::change;
use crate::api::quota::{self, Resource};
use crate::model::entity::{
    backend, diagnostic, flavor, image, membership, network, project, server, token, user,
};
use crate::model::history::{self, Question};
use crate::model::moment;

async fn project_names(database: &DatabaseConnection) -> Result<HashMap<String, String>, DbErr> {
    Ok(project::Entity::find()
        .all(database)
        .await?
        .into_iter()
        .map(|project| (project.id, project.name))
        .collect())
}

async fn user_names(database: &DatabaseConnection) -> Result<HashMap<String, String>, DbErr> {
    Ok(user::Entity::find()
        .all(database)
        .await?
        .into_iter()
        .map(|user| (user.id, user.name))
        .collect())
}

pub async fn users(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let names = project_names(database).await?;
    let mut projects: HashMap<String, Vec<String>> = HashMap::new();
    let mut administered: HashMap<String, Vec<String>> = HashMap::new();
    for membership in membership::Entity::find().all(database).await? {
        let name = names.get(&membership.project_id);
        if membership.role() == membership::Role::Manager {
            administered
                .entry(membership.user_id.clone())
                .or_default()
                .extend(name.cloned());
        }
        projects
            .entry(membership.user_id)
            .or_default()
            .extend(name.cloned());
    }
    let users = user::Entity::find()
        .order_by_asc(user::Column::Name)
        .all(database)
        .await?;
    let rows = users.into_iter().map(|user| {
        let mut joined = projects.remove(&user.id).unwrap_or_default();
        joined.sort();
        let mut administers = administered.remove(&user.id).unwrap_or_default();
        administers.sort();
        vec![
            json!(user.id),
            json!(user.name),
            json!(user.email),
            json!(user.enabled),
            json!(user.admin),
            json!(joined.join(" ")),
            json!(administers.join(" ")),
        ]
    });
    Ok(Table {
        columns: &[
            "id",
            "name",
            "email",
            "enabled",
            "admin",
            "projects",
            "administers",
        ],
        rows: rows.collect(),
    })
}

pub async fn projects(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let mut members: HashMap<String, i64> = HashMap::new();
    for membership in membership::Entity::find().all(database).await? {
        let count = members.entry(membership.project_id).or_default();
        *count = count.saturating_add(1);
    }
    let projects = project::Entity::find()
        .order_by_asc(project::Column::Name)
        .all(database)
        .await?;
    let rows = projects.into_iter().map(|project| {
        vec![
            json!(project.id),
            json!(project.name),
            json!(project.enabled),
            json!(members.get(&project.id).copied().unwrap_or(0)),
        ]
    });
    Ok(Table {
        columns: &["id", "name", "enabled", "members"],
        rows: rows.collect(),
    })
}

pub async fn tokens(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let users = user_names(database).await?;
    let projects = project_names(database).await?;
    let tokens = token::Entity::find()
        .filter(token::Column::ExpiresAt.gt(moment::now()))
        .order_by_asc(token::Column::IssuedAt)
        .all(database)
        .await?;
    let rows = tokens.into_iter().map(|token| {
        let project = token.project_id.and_then(|id| projects.get(&id).cloned());
        vec![
            json!(token.digest.get(..12)),
            json!(users.get(&token.user_id)),
            json!(project),
            json!(moment::iso(token.issued_at)),
            json!(moment::iso(token.expires_at)),
        ]
    });
    Ok(Table {
        columns: &["hash", "user", "project", "issued", "expires"],
        rows: rows.collect(),
    })
}

pub async fn backends(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let backends = backend::Entity::find()
        .order_by_asc(backend::Column::Id)
        .all(database)
        .await?;
    let rows = backends.into_iter().map(|backend| {
        vec![
            json!(backend.id),
            json!(backend.name),
            json!(backend.url),
            json!(backend.drained),
            json!(backend.offline),
            json!(backend.version),
            json!(backend.instances),
            json!(backend.memory_free),
            json!(backend.disk_free),
            json!(backend.measured_at.map(moment::iso)),
        ]
    });
    Ok(Table {
        columns: &[
            "id",
            "name",
            "url",
            "drained",
            "offline",
            "ganeti",
            "instances",
            "memory_free_mib",
            "disk_free_mib",
            "measured",
        ],
        rows: rows.collect(),
    })
}

pub async fn flavors(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let flavors = flavor::Entity::find()
        .filter(flavor::Column::DeletedAt.is_null())
        .order_by_asc(flavor::Column::Id)
        .all(database)
        .await?;
    let rows = flavors.into_iter().map(|flavor| {
        vec![
            json!(flavor.id),
            json!(flavor.name),
            json!(flavor.vcpus),
            json!(flavor.ram),
            json!(flavor.disk),
            json!(flavor.disk_template),
            json!(flavor.public),
            json!(flavor.allow_create),
        ]
    });
    Ok(Table {
        columns: &[
            "id",
            "name",
            "vcpus",
            "ram_mib",
            "disk_gib",
            "disk_template",
            "public",
            "open",
        ],
        rows: rows.collect(),
    })
}

pub async fn images(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let projects = project_names(database).await?;
    let images = image::Entity::find()
        .filter(image::Column::DeletedAt.is_null())
        .order_by_asc(image::Column::Name)
        .all(database)
        .await?;
    let rows = images.into_iter().map(|image| {
        let owner = image.project_id.and_then(|id| projects.get(&id).cloned());
        vec![
            json!(image.id),
            json!(image.name),
            json!(image.os),
            json!(image.format),
            json!(image.status),
            json!(image.public),
            json!(owner),
        ]
    });
    Ok(Table {
        columns: &["id", "name", "os", "format", "status", "public", "project"],
        rows: rows.collect(),
    })
}

pub async fn networks(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let projects = project_names(database).await?;
    let networks = network::Entity::find()
        .filter(network::Column::DeletedAt.is_null())
        .order_by_asc(network::Column::Id)
        .all(database)
        .await?;
    let rows = networks.into_iter().map(|network| {
        let owner = network.project_id.and_then(|id| projects.get(&id).cloned());
        vec![
            json!(network.id),
            json!(network.name),
            json!(network.kind),
            json!(network.link),
            json!(network.mac_prefix),
            json!(network.public),
            json!(network.floating_ip_pool),
            json!(network.drained),
            json!(owner),
        ]
    });
    Ok(Table {
        columns: &[
            "id",
            "name",
            "type",
            "link",
            "mac_prefix",
            "public",
            "floating",
            "drained",
            "project",
        ],
        rows: rows.collect(),
    })
}

pub async fn quotas(database: &DatabaseConnection, project: &str) -> anyhow::Result<Table> {
    let project = change::project(database, project).await?;
    let used = quota::usage(database, &project.id, None).await?;
    let limits = quota::limits(database, &project.id).await?;
    let granted = quota::granted(database, &project.id).await?;
    let rows = Resource::ALL.into_iter().map(|resource| {
        vec![
            json!(resource.name()),
            json!(used.of(resource)),
            json!(limits.of(resource)),
            json!(granted.of(resource)),
        ]
    });
    Ok(Table {
        columns: &["resource", "used", "most", "granted"],
        rows: rows.collect(),
    })
}

pub async fn servers(database: &DatabaseConnection) -> anyhow::Result<Table> {
    let projects = project_names(database).await?;
    let backends: HashMap<i64, String> = backend::Entity::find()
        .all(database)
        .await?
        .into_iter()
        .map(|backend| (backend.id, backend.name))
        .collect();
    let flavors: HashMap<i64, String> = flavor::Entity::find()
        .all(database)
        .await?
        .into_iter()
        .map(|flavor| (flavor.id, flavor.name))
        .collect();
    let servers = server::Entity::find()
        .filter(server::Column::DeletedAt.is_null())
        .order_by_asc(server::Column::Id)
        .all(database)
        .await?;
    let rows = servers.into_iter().map(|server| {
        let row: Vec<Value> = vec![
            json!(server.id),
            json!(server.name),
            json!(server.state),
            json!(server.task),
            json!(server.suspended),
            json!(flavors.get(&server.flavor_id)),
            json!(backends.get(&server.backend_id)),
            json!(projects.get(&server.project_id)),
            json!(moment::iso(server.created_at)),
        ];
        row
    });
    Ok(Table {
        columns: &[
            "id",
            "name",
            "state",
            "task",
            "suspended",
            "flavor",
            "backend",
            "project",
            "created",
        ],
        rows: rows.collect(),
    })
}

/// Returns the diagnostics of a server, in the words of the cluster.
pub async fn diagnostics(database: &DatabaseConnection, server: i64) -> anyhow::Result<Table> {
    if server::Entity::find_by_id(server)
        .one(database)
        .await?
        .is_none()
    {
        bail!("no server {server}");
    }
    let rows = diagnostic::Entity::find()
        .filter(diagnostic::Column::ServerId.eq(server))
        .order_by_desc(diagnostic::Column::Id)
        .all(database)
        .await?
        .into_iter()
        .map(|line| {
            vec![
                json!(moment::iso(line.created_at)),
                json!(line.level),
                json!(line.message),
                json!(line.details),
            ]
        })
        .collect();
    Ok(Table {
        columns: &["created", "level", "message", "details"],
        rows,
    })
}

/// How many rows of the history are read at once.
const HISTORY_PAGE: u64 = 1000;

pub async fn address_history(
    database: &DatabaseConnection,
    question: Question,
) -> anyhow::Result<Table> {
    let users = user_names(database).await?;
    let projects = project_names(database).await?;
    let mut rows = Vec::new();
    let mut after = 0;
    loop {
        let page = history::find(database, question, after, HISTORY_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        rows.extend(page.iter().map(|row| {
            vec![
                json!(row.address),
                json!(row.server_id),
                json!(row.mac),
                json!(users.get(&row.user_id).unwrap_or(&row.user_id)),
                json!(projects.get(&row.project_id).unwrap_or(&row.project_id)),
                json!(row.network_id),
                json!(moment::iso_micros(row.bound_at)),
                json!(row.released_at.map(moment::iso_micros)),
            ]
        }));
    }
    Ok(Table {
        columns: &[
            "address", "server", "mac", "user", "project", "network", "bound", "released",
        ],
        rows,
    })
}
