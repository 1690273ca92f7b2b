//! An address that a server had, or has. Rows are added and closed (`model::history`), never changed otherwise.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "address_history")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    /// IPv4, or the IPv6 address that the MAC address makes, in its shortest form
    pub address: String,
    pub network_id: i64,
    pub server_id: i64,
    pub port_id: i64,
    /// None until Ganeti has told it
    pub mac: Option<String>,
    pub user_id: String,
    pub project_id: String,
    pub bound_at: i64,
    /// None: the server has it now
    pub released_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
