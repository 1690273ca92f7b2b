//! The limits that the administrators of projects set within the granted ones.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "project_limits")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub project_id: String,
    /// `api::quota::Resource`
    #[sea_orm(primary_key, auto_increment = false)]
    pub resource: String,
    pub most: i64,
}

impl ActiveModelBehavior for ActiveModel {}
