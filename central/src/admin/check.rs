//! `snf-central check`: can this configuration work?

use std::sync::Arc;

use anyhow::bail;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::api::identity::keystone::Keystone;
use crate::config::Config;
use crate::ganeti::image::check_parameters;
use crate::ganeti::submission::Submitter;
use crate::ganeti::traces::Traces;
use crate::ganeti::{guard, measurement};
use crate::listener::descriptors;
use crate::model::database;
use crate::model::entity::{backend, image};
use crate::serve;

/// Tries the database and every cluster, and says what it found.
///
/// # Errors
/// Something that is needed does not work; all of it has been said by then.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let database = super::open(config).await?;
    let pending = database::pending_migrations(&database).await?;
    if pending > 0 {
        bail!("the schema lacks {pending} steps: run `snf-central migrate`");
    }
    println!("database: ok");
    if config.base_url.is_none() {
        println!(
            "api.base_url: warning: not set: the links in answers have the Host header of the \
             request, which its sender chooses, and plain HTTP"
        );
    }
    let limit = descriptors::raise();
    let wanted = config.connections.most;
    let fit = descriptors::connections(limit, wanted, config.database_connections);
    if fit < wanted {
        println!(
            "connections: api.connections = {wanted}, of which {fit} fit into this shell's limit of \
             {limit} open files; the unit has LimitNOFILE="
        );
    } else {
        println!("connections: ok: {wanted}, with a limit of {limit} open files");
    }
    if let Some(keystone) = config.keystone.clone() {
        Keystone::new(keystone)?.check().await?;
        println!("keystone: ok");
    }
    let images = image::Entity::find()
        .filter(image::Column::DeletedAt.is_null())
        .all(&database)
        .await?;
    let mut failures = 0;
    for image in images {
        if let Err(error) = check_parameters(&image.source, &image.format) {
            failures += 1;
            println!("image {} ({}): {error}", image.id, image.name);
        }
    }
    if failures > 0 {
        bail!("no server can be made from {failures} images");
    }
    let ganeti = serve::submitter(config, database);
    let mut failures = 0;
    for backend in backend::Entity::find().all(&ganeti.database).await? {
        match measurement::measure(&ganeti, &backend).await {
            Ok(measured) => {
                println!(
                    "backend {}: ok: Ganeti {}, {} MiB of memory free, {} instances",
                    measured.name,
                    measured.version.as_deref().unwrap_or("?"),
                    measured.memory_free,
                    measured.instances,
                );
                if let Err(error) = held(&ganeti, &backend).await {
                    failures += 1;
                    println!("backend {}: {error:#}", backend.name);
                }
            }
            Err(error) => {
                failures += 1;
                println!("backend {}: {error}", backend.name);
            }
        }
    }
    if failures > 0 {
        bail!("{failures} backends do not answer, or are held");
    }
    Ok(())
}

/// Holds the database against a cluster.
async fn held(ganeti: &Arc<Submitter>, backend: &backend::Model) -> anyhow::Result<()> {
    let rapi = ganeti.clients.of(backend)?;
    let traces = Traces::look(&rapi, &ganeti.naming).await?;
    let database = &ganeti.database;
    if let Some(reason) = guard::examine(database, &ganeti.naming, backend, &traces).await? {
        bail!("nothing is repaired or asked for: {reason}; see `snf-central reconcile --help`");
    }
    Ok(())
}
