//! What operators do from a shell.

pub mod check;
pub mod instance;
pub mod objects;
pub mod queue;
pub mod reconcile;
pub mod seed;
pub mod status;
mod table;

use std::time::Duration;

use anyhow::Context;
use sea_orm::DatabaseConnection;

use crate::config::Config;
use crate::model::{availability, database};

/// The time that an operator waits for a database server that does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Opens the database that the configuration names.
pub(crate) async fn open(config: &Config) -> anyhow::Result<DatabaseConnection> {
    availability::probe(&config.database_url, PATIENCE)
        .await
        .context("cannot reach the database")?;
    database::connect(&config.database_url, config.database_connections)
        .await
        .context("cannot open the database")
}

/// The OpenAPI document of the API, as text.
pub fn openapi() -> String {
    format!("{:#}", crate::api::openapi::document())
}

/// Brings the schema of the database up to date.
///
/// # Errors
/// The database cannot be opened, or a step fails.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    let database = open(config).await?;
    let pending = database::pending_migrations(&database).await?;
    database::migrate(&database).await?;
    println!("{pending} steps done; the schema is up to date");
    Ok(())
}
