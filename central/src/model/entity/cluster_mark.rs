//! The marks that this database left in a cluster, and the cluster's identity.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cluster_marks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub backend_id: i64,
    /// As Ganeti says at the first look
    pub cluster_uuid: Option<String>,
    /// The cluster tag that was written last
    pub stamp: Option<String>,
    pub stamped_at: i64,
    /// The newest intent when it was written
    pub stamped_intent: i64,
    /// Jobs up to this one need no intent here: an operator has accepted them
    pub accepted_job: i64,
    /// The reason that nothing is done in this cluster: another database uses it, or it is another cluster
    #[sea_orm(column_type = "Text", nullable)]
    pub hold: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
