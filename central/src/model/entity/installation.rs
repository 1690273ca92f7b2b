//! The identity of this database, one row.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "installation")]
pub struct Model {
    /// Always 1
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// 32 hexadecimal digits
    pub uuid: String,
    /// Grows with every stamp that is written to a cluster
    pub generation: i64,
    /// The reason that nothing is repaired or created: the database is older than a cluster
    #[sea_orm(column_type = "Text", nullable)]
    pub hold: Option<String>,
    pub held_since: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
