//! Labels that users give their servers.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "server_tags")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub server_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub tag: String,
    /// The instance has it, as the last job that was about it says
    pub live: bool,
    /// What the user asked for and Ganeti has not finished
    pub wanted: Option<bool>,
    /// The event that set `live`
    pub job_id: i64,
    pub job_rank: i32,
    pub job_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}
