//! The token that a token was given for; which kind of secret a server is told once.

use sea_orm_migration::prelude::*;

/// A column of `tokens` and one of `one_shots`. No foreign key: databases bound how deep a deletion cascades.
pub struct Tokens;

impl MigrationName for Tokens {
    fn name(&self) -> &str {
        "m0008_tokens"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tokens {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let parent = Table::alter()
            .table("tokens")
            .add_column(ColumnDef::new("parent").string_len(64))
            .take();
        manager.alter_table(parent).await?;
        let kind = Table::alter()
            .table("one_shots")
            .add_column(ColumnDef::new("kind").string_len(16))
            .take();
        manager.alter_table(kind).await?;
        let index = Index::create()
            .name("tokens_parent")
            .table("tokens")
            .col("parent")
            .take();
        manager.create_index(index).await
    }
}
