//! Which server had which address, from when to when.

use sea_orm_migration::prelude::*;

use super::table;

/// The table of the history of addresses.
pub struct AddressHistory;

impl MigrationName for AddressHistory {
    fn name(&self) -> &str {
        "m0005_address_history"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for AddressHistory {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table::create(manager, history()).await?;
        for columns in [
            &["address", "bound_at"][..],
            &["server_id"],
            &["port_id", "released_at"],
        ] {
            let mut index = Index::create();
            index
                .name(format!("address_history_{}", columns.join("_")))
                .table("address_history");
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index.take()).await?;
        }
        // What is in use now was bound some time before; nobody wrote down when.
        for column in ["ipv4", "ipv6"] {
            let statement = format!(
                "INSERT INTO address_history (address, network_id, server_id, port_id, mac, \
                 user_id, project_id, bound_at) \
                 SELECT {column}, network_id, server_id, id, mac, user_id, project_id, updated_at \
                 FROM ports WHERE {column} IS NOT NULL AND server_id IS NOT NULL \
                 AND deleted_at IS NULL"
            );
            manager
                .get_connection()
                .execute_unprepared(&statement)
                .await?;
        }
        Ok(())
    }
}

// Without foreign keys: it stays when what it is about is gone.
fn history() -> TableCreateStatement {
    Table::create()
        .table("address_history")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("address").string_len(64).not_null())
        .col(ColumnDef::new("network_id").big_integer().not_null())
        .col(ColumnDef::new("server_id").big_integer().not_null())
        .col(ColumnDef::new("port_id").big_integer().not_null())
        .col(ColumnDef::new("mac").string_len(255))
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("bound_at").big_integer().not_null())
        .col(ColumnDef::new("released_at").big_integer())
        .take()
}
