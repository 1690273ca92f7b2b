//! A virtual machine, as we know it. What Ganeti told us is in registers (`model::register`), each with the order of the message that wrote it.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "servers")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub name: String,
    pub user_id: String,
    pub project_id: String,
    pub flavor_id: i64,
    pub image_id: String,
    pub backend_id: i64,
    pub key_name: Option<String>,
    /// BUILD STARTED STOPPED ERROR
    pub state: String,
    /// image deployment, per cent
    pub progress: i32,
    /// What a user asked for and Ganeti has not finished
    pub task: Option<String>,
    pub task_intent: Option<i64>,
    pub task_job: Option<i64>,
    pub suspended: bool,
    /// It boots from the rescue image
    pub rescue: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    /// The newest job event: what is shown
    pub job_id: i64,
    pub job_rank: i32,
    pub job_time: i64,
    pub job_opcode: Option<String>,
    pub job_status: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub job_log: Option<String>,
    /// The event that set `state`
    pub state_job: i64,
    pub state_rank: i32,
    pub state_time: i64,
    /// The event that set the NICs
    pub nics_job: i64,
    pub nics_rank: i32,
    pub nics_time: i64,
    /// The event that set the flavor
    pub shape_job: i64,
    pub shape_rank: i32,
    pub shape_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}
