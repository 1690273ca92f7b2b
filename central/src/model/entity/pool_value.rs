//! A value that one network holds alone: a bridge, a MAC prefix. The primary key is what makes it so.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pool_values")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub pool: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub value: i64,
    pub network_id: i64,
}

impl ActiveModelBehavior for ActiveModel {}
