//! Tables that hold the same text on every database.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, Statement};

/// Makes a table unless it is there.
///
/// On MySQL and MariaDB two texts are the same only if all their characters are, as they are on
/// the other databases: without saying so, capital letters, accents and spaces at the end would
/// not count, and two users could not be told apart.
///
/// # Errors
/// The database fails, or is a MySQL that knows no such collation.
pub async fn create(
    manager: &SchemaManager<'_>,
    mut table: TableCreateStatement,
) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::MySql {
        table
            .engine("InnoDB")
            .character_set("utf8mb4")
            .collate(collation(manager).await?);
    }
    manager.create_table(table.if_not_exists().take()).await
}

/// The collation that compares characters by their number, and does not pad.
async fn collation(manager: &SchemaManager<'_>) -> Result<&'static str, DbErr> {
    let query = Statement::from_string(DbBackend::MySql, "SELECT VERSION()");
    let version: String = manager
        .get_connection()
        .query_one_raw(query)
        .await?
        .ok_or_else(|| DbErr::Migration("the server has no version".to_owned()))?
        .try_get_by_index(0)?;
    Ok(if version.contains("MariaDB") {
        "utf8mb4_nopad_bin"
    } else {
        "utf8mb4_0900_bin"
    })
}
