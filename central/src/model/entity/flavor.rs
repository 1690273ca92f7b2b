//! A size of server.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "flavors")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub name: String,
    pub vcpus: i64,
    /// MiB
    pub ram: i64,
    /// GiB
    pub disk: i64,
    pub disk_template: String,
    pub disk_provider: Option<String>,
    pub public: bool,
    pub allow_create: bool,
    pub created_at: i64,
    pub deleted_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
