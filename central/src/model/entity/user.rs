//! People and services that may log in.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub name: String,
    pub email: Option<String>,
    /// argon2id in PHC form; none: only tokens
    pub password_hash: Option<String>,
    pub enabled: bool,
    pub admin: bool,
    /// The project a login without one gets
    pub project_id: String,
    pub created_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
