//! An address range of a network: at most one of each family.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "subnets")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub network_id: i64,
    pub name: String,
    pub ip_version: i32,
    pub cidr: String,
    pub gateway: Option<String>,
    pub dhcp: bool,
    pub slaac: bool,
    #[sea_orm(column_type = "Json")]
    pub dns: Json,
    #[sea_orm(column_type = "Json")]
    pub host_routes: Json,
    /// [[first, last], …]
    #[sea_orm(column_type = "Json")]
    pub pools: Json,
    /// True, or NULL when deleted: part of the unique index
    pub live: Option<bool>,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    #[sea_orm(belongs_to, from = "network_id", to = "id")]
    pub network: BelongsTo<super::network::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
