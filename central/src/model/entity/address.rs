//! An IPv4 address in use or held. The unique index over subnet, number and `live` is what keeps it from being given twice.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "addresses")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub subnet_id: i64,
    pub network_id: i64,
    /// The address as a 32-bit number
    pub number: i64,
    pub address: String,
    pub floating: bool,
    pub user_id: String,
    pub project_id: String,
    pub port_id: Option<i64>,
    /// True, or NULL when released
    pub live: Option<bool>,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    #[sea_orm(belongs_to, from = "port_id", to = "id")]
    pub port: BelongsTo<Option<super::port::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
