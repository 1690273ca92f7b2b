//! What is told once and then forgotten: the parameters of a new server, its password.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "one_shots")]
pub struct Model {
    /// SHA-256 of the kind and of the secret by which it is asked for
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: String,
    pub server_id: i64,
    /// `Parameters`, `Password` or `Console`; none: of an older version
    pub kind: Option<String>,
    /// A string encrypted with the secret, which is not in this table; JSON since the longest
    /// do not fit into MySQL's TEXT
    #[sea_orm(column_type = "Json")]
    pub sealed: Json,
    pub created_at: i64,
    pub expires_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
