//! What the reconciler keeps: who leads, what it did, when it last looked.

use sea_orm_migration::prelude::*;

use super::table;

/// The tables of the reconciler.
pub struct Reconciler;

impl MigrationName for Reconciler {
    fn name(&self) -> &str {
        "m0003_reconciler"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Reconciler {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [leases(), repairs(), passes()] {
            table::create(manager, table).await?;
        }
        let index = Index::create()
            .name("repairs_created_at")
            .table("repairs")
            .col("created_at")
            .take();
        manager.create_index(index).await
    }
}

fn leases() -> TableCreateStatement {
    Table::create()
        .table("leases")
        .col(ColumnDef::new("name").string_len(64).not_null())
        .col(ColumnDef::new("holder").string_len(255).not_null())
        .col(ColumnDef::new("until").big_integer().not_null())
        .primary_key(Index::create().col("name"))
        .take()
}

fn repairs() -> TableCreateStatement {
    Table::create()
        .table("repairs")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("backend_id").big_integer())
        .col(ColumnDef::new("object").string_len(255).not_null())
        .col(ColumnDef::new("what").string_len(64).not_null())
        .col(ColumnDef::new("before").text().not_null())
        .col(ColumnDef::new("after").text().not_null())
        .col(ColumnDef::new("job_id").big_integer())
        .take()
}

fn passes() -> TableCreateStatement {
    Table::create()
        .table("passes")
        .col(ColumnDef::new("backend_id").big_integer().not_null())
        .col(ColumnDef::new("ended_at").big_integer().not_null())
        .col(ColumnDef::new("servers").big_integer().not_null())
        .col(ColumnDef::new("differences").big_integer().not_null())
        .col(ColumnDef::new("repaired").big_integer().not_null())
        .col(ColumnDef::new("trouble").text())
        .primary_key(Index::create().col("backend_id"))
        .take()
}
