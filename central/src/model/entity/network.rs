//! A network. It comes to exist in a Ganeti cluster when the first NIC there needs it.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "networks")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub name: String,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    /// CUSTOM IP_LESS_ROUTED MAC_FILTERED PHYSICAL_VLAN
    pub kind: String,
    /// Bridged or routed
    pub mode: String,
    /// Bridge or routing table
    pub link: String,
    /// Five hex digits: `aa:00:0`
    pub mac_prefix: String,
    #[sea_orm(column_type = "Json")]
    pub tags: Json,
    pub public: bool,
    pub external_router: bool,
    pub floating_ip_pool: bool,
    pub drained: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
