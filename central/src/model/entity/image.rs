//! What a server is made from: a Ganeti OS and its parameters.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "images")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub name: String,
    /// Ganeti OS with variant, `snf-image+default`
    pub os: String,
    #[sea_orm(column_type = "Json")]
    pub os_params: Json,
    /// Becomes `img_id` where it is not empty
    pub source: String,
    /// Becomes `img_format` where it is not empty
    pub format: String,
    /// Bytes
    pub size: i64,
    pub checksum: Option<String>,
    #[sea_orm(column_type = "Json")]
    pub properties: Json,
    pub status: String,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub public: bool,
    pub min_ram: i64,
    pub min_disk: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
