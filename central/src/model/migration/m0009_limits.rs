//! Diagnostics of which users read a sentence only, and indexes for what is counted.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

/// The words of clusters apart from what users are told; indexes.
pub struct Limits;

impl MigrationName for Limits {
    fn name(&self) -> &str {
        "m0009_limits"
    }
}

const INDEXES: &[(&str, &str)] = &[("volumes", "project_id"), ("images", "project_id")];

#[async_trait::async_trait]
impl MigrationTrait for Limits {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in INDEXES {
            let index = Index::create()
                .name(format!("{table}_{column}"))
                .table(*table)
                .col(*column)
                .take();
            if !manager
                .has_index(table, format!("{table}_{column}"))
                .await?
            {
                manager.create_index(index).await?;
            }
        }
        // Until now users read the words of the clusters. MySQL assigns from left
        // to right: the details first.
        let joined = match manager.get_database_backend() {
            DbBackend::Sqlite => "message || ': ' || details",
            _ => "CONCAT(message, ': ', details)",
        };
        let statement = format!(
            "UPDATE diagnostics SET \
             details = CASE WHEN details IS NULL THEN message ELSE {joined} END, \
             message = CASE level WHEN 'ERROR' THEN 'an operation of the cluster failed' \
             WHEN 'WARNING' THEN 'an operation of the cluster gave a warning' \
             ELSE 'the image is being deployed' END"
        );
        manager
            .get_connection()
            .execute_unprepared(&statement)
            .await?;
        Ok(())
    }
}
