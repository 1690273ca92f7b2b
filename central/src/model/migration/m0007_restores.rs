//! Tables that show a database to be older than its clusters, or not the only one that uses them.

use sea_orm_migration::prelude::*;

use super::table;
use crate::model::id;

/// The identity of the installation, and what it left in each cluster.
pub struct Restores;

impl MigrationName for Restores {
    fn name(&self) -> &str {
        "m0007_restores"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Restores {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table::create(manager, installation()).await?;
        table::create(manager, cluster_marks()).await?;
        // From the beginning: a backup must never be without its identity.
        let uuid = id::random().map_err(|error| DbErr::Migration(error.to_string()))?;
        let statement = format!(
            "INSERT INTO installation (id, uuid, generation) VALUES (1, '{}', 0)",
            uuid.replace('-', "")
        );
        let connection = manager.get_connection();
        connection.execute_unprepared(&statement).await?;
        Ok(())
    }
}

fn installation() -> TableCreateStatement {
    Table::create()
        .table("installation")
        .col(ColumnDef::new("id").big_integer().not_null())
        .col(ColumnDef::new("uuid").string_len(64).not_null())
        .col(ColumnDef::new("generation").big_integer().not_null())
        .col(ColumnDef::new("hold").text())
        .col(ColumnDef::new("held_since").big_integer())
        .primary_key(Index::create().col("id"))
        .take()
}

// Without a foreign key: a backend's row may be deleted by hand.
fn cluster_marks() -> TableCreateStatement {
    Table::create()
        .table("cluster_marks")
        .col(ColumnDef::new("backend_id").big_integer().not_null())
        .col(ColumnDef::new("cluster_uuid").string_len(64))
        .col(ColumnDef::new("stamp").string_len(255))
        .col(ColumnDef::new("stamped_at").big_integer().not_null())
        .col(ColumnDef::new("stamped_intent").big_integer().not_null())
        .col(ColumnDef::new("accepted_job").big_integer().not_null())
        .col(ColumnDef::new("hold").text())
        .primary_key(Index::create().col("backend_id"))
        .take()
}
