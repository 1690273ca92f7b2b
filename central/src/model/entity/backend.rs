//! A Ganeti cluster.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "backends")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub name: String,
    pub url: String,
    pub username: String,
    /// The password stays on the hosts that use it
    pub password_file: String,
    pub ca_file: Option<String>,
    pub insecure: bool,
    /// The hex digit that its MAC addresses have in common, 0..15
    pub mac_index: i32,
    pub offline: bool,
    pub drained: bool,
    #[sea_orm(column_type = "Json")]
    pub hvparams: Json,
    /// Sent with every create, the image's own win
    #[sea_orm(column_type = "Json")]
    pub os_params: Json,
    /// Enabled ones; empty: unknown
    #[sea_orm(column_type = "Json")]
    pub disk_templates: Json,
    /// MiB
    pub memory_total: i64,
    /// MiB
    pub memory_free: i64,
    /// MiB
    pub disk_total: i64,
    /// MiB
    pub disk_free: i64,
    pub cpus: i64,
    pub instances: i64,
    pub measured_at: Option<i64>,
    pub version: Option<String>,
    /// What the cluster calls itself in its messages, once we have asked it
    pub cluster: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
