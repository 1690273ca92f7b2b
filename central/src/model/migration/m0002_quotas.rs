//! Limits of projects.

use sea_orm_migration::prelude::*;

use super::table;

/// The table of limits.
pub struct Quotas;

impl MigrationName for Quotas {
    fn name(&self) -> &str {
        "m0002_quotas"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Quotas {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("quotas")
            .col(ColumnDef::new("project_id").string_len(64).not_null())
            .col(ColumnDef::new("resource").string_len(64).not_null())
            .col(ColumnDef::new("most").big_integer().not_null())
            .primary_key(Index::create().col("project_id").col("resource"))
            .foreign_key(
                ForeignKey::create()
                    .name("quotas_project_id_fk")
                    .from("quotas", "project_id")
                    .to("projects", "id"),
            )
            .take();
        table::create(manager, table).await
    }
}
