//! The reconciler's last pass over a backend.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "passes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub backend_id: i64,
    pub ended_at: i64,
    pub servers: i64,
    pub differences: i64,
    pub repaired: i64,
    /// Why nothing was repaired, or could not be looked at
    #[sea_orm(column_type = "Text", nullable)]
    pub trouble: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
