//! A NIC, of a server or free.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ports")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub name: String,
    pub user_id: String,
    pub project_id: String,
    pub network_id: i64,
    pub server_id: Option<i64>,
    /// BUILD ACTIVE DOWN ERROR
    pub state: String,
    pub nic_index: Option<i32>,
    pub mac: Option<String>,
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub firewall: Option<String>,
    pub floating: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
