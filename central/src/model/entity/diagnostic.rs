//! What an image deployment or we ourselves had to say about a server.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "diagnostics")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub server_id: i64,
    pub level: String,
    pub source: String,
    #[sea_orm(column_type = "Text")]
    pub message: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub details: Option<String>,
    pub created_at: i64,
    pub source_time: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
