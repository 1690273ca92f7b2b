//! A network in one cluster.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "backend_networks")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub network_id: i64,
    pub backend_id: i64,
    /// ABSENT PENDING ACTIVE ERROR DELETED
    pub state: String,
    /// The jobs that connect it
    #[sea_orm(column_type = "Json")]
    pub jobs: Json,
    pub claimed_until: i64,
    pub job_id: i64,
    pub job_rank: i32,
    pub job_time: i64,
    pub job_opcode: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
