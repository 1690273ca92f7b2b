//! Roles of projects apart from those of the cloud, and limits that projects set themselves.

use sea_orm_migration::prelude::*;

use super::table;

/// The roles of memberships, and the table of limits within the granted ones.
pub struct Roles;

impl MigrationName for Roles {
    fn name(&self) -> &str {
        "m0006_roles"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Roles {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // A version before this one takes a membership with `admin` for an administrator of the
        // cloud; one with a role that it does not know is a member there.
        let update = Query::update()
            .table("memberships")
            .value("role", "manager")
            .and_where(Expr::col("role").eq("admin"))
            .take();
        manager.execute(update).await?;
        let table = Table::create()
            .table("project_limits")
            .col(ColumnDef::new("project_id").string_len(64).not_null())
            .col(ColumnDef::new("resource").string_len(64).not_null())
            .col(ColumnDef::new("most").big_integer().not_null())
            .primary_key(Index::create().col("project_id").col("resource"))
            .foreign_key(
                ForeignKey::create()
                    .name("project_limits_project_id_fk")
                    .from("project_limits", "project_id")
                    .to("projects", "id"),
            )
            .take();
        table::create(manager, table).await
    }
}
