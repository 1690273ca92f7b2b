//! What the reconciler changed, with what was there before and what after: the audit. A pass that
//! was stopped since too much would have changed is an entry as well.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "repairs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub created_at: i64,
    /// None: what only the database knows, as addresses
    pub backend_id: Option<i64>,
    /// `server 12`
    pub object: String,
    pub what: String,
    #[sea_orm(column_type = "Text")]
    pub before: String,
    #[sea_orm(column_type = "Text")]
    pub after: String,
    /// The job that was submitted for it
    pub job_id: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
