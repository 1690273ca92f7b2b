//! What is to be asked of Ganeti: written before it is asked, so that a crash loses nothing.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "intents")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub backend_id: i64,
    pub kind: String,
    pub server_id: Option<i64>,
    pub port_id: Option<i64>,
    /// `ganeti::intent::Request`
    #[sea_orm(column_type = "Json")]
    pub request: Json,
    /// Pending, submitted, refused, dropped
    pub state: String,
    pub job_id: Option<i64>,
    pub attempts: i32,
    #[sea_orm(column_type = "Text", nullable)]
    pub error: Option<String>,
    pub claimed_until: i64,
    pub created_at: i64,
    pub submitted_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
