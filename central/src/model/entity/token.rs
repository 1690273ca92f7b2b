//! Issued tokens: only the SHA-256 is kept.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tokens")]
pub struct Model {
    /// Lowercase hex
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: String,
    pub user_id: String,
    pub project_id: Option<String>,
    pub issued_at: i64,
    pub expires_at: i64,
    /// The digest of the token that was shown for it: it ends with that
    pub parent: Option<String>,
}

/// When a token of a seed expires: 9999-12-31, as far as dates are written.
pub const NEVER: i64 = 253_402_214_400_000_000;

impl ActiveModelBehavior for ActiveModel {}
