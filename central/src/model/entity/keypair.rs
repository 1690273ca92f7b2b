//! SSH public keys of a user.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "keypairs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub user_id: String,
    pub name: String,
    #[sea_orm(column_type = "Text")]
    pub public_key: String,
    pub fingerprint: String,
    pub created_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
