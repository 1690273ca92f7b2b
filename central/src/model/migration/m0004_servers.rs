//! What a server is told once, the labels that it has, and whether it is being rescued.

use sea_orm_migration::prelude::*;

use super::table;

/// The tables of one-shot parameters and of labels; a column for rescue.
pub struct Servers;

impl MigrationName for Servers {
    fn name(&self) -> &str {
        "m0004_servers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Servers {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [one_shots(), server_tags()] {
            table::create(manager, table).await?;
        }
        let rescue = Table::alter()
            .table("servers")
            .add_column(ColumnDef::new("rescue").boolean().not_null().default(false))
            .take();
        manager.alter_table(rescue).await?;
        for column in ["server_id", "expires_at"] {
            let index = Index::create()
                .name(format!("one_shots_{column}"))
                .table("one_shots")
                .col(column)
                .take();
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn one_shots() -> TableCreateStatement {
    Table::create()
        .table("one_shots")
        .col(
            ColumnDef::new("digest")
                .string_len(64)
                .not_null()
                .primary_key(),
        )
        .col(ColumnDef::new("server_id").big_integer().not_null())
        .col(ColumnDef::new("sealed").json().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("expires_at").big_integer().not_null())
        .take()
}

fn server_tags() -> TableCreateStatement {
    Table::create()
        .table("server_tags")
        .col(ColumnDef::new("server_id").big_integer().not_null())
        .col(ColumnDef::new("tag").string_len(60).not_null())
        .col(ColumnDef::new("live").boolean().not_null().default(true))
        .col(ColumnDef::new("wanted").boolean())
        .col(ColumnDef::new("job_id").big_integer().not_null().default(0))
        .col(ColumnDef::new("job_rank").integer().not_null().default(0))
        .col(
            ColumnDef::new("job_time")
                .big_integer()
                .not_null()
                .default(0),
        )
        .primary_key(Index::create().col("server_id").col("tag"))
        .foreign_key(
            ForeignKey::create()
                .name("server_tags_server_id_fk")
                .from("server_tags", "server_id")
                .to("servers", "id"),
        )
        .take()
}
