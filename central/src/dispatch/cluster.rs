//! Messages about a cluster as a whole, and which of our backends a cluster is.

use std::sync::Arc;

use agents::message::ClusterMessage;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::outcome::{Applied, Asking, RouteError};
use crate::ganeti::submission::Submitter;
use crate::model::entity::backend;

/// Applies a message about a cluster: what it has and can is to be measured again.
///
/// # Errors
/// See [`RouteError`].
pub async fn apply(
    ganeti: &Arc<Submitter>,
    message: &ClusterMessage,
    asking: Asking,
) -> Result<Applied, RouteError> {
    let Some(backend) = find(ganeti, &message.cluster, asking).await? else {
        return Ok(Applied::NotOurs);
    };
    backend::Entity::update_many()
        .col_expr(backend::Column::MeasuredAt, Expr::value(Some(0_i64)))
        .filter(backend::Column::Id.eq(backend.id))
        .exec(&ganeti.database)
        .await?;
    Ok(Applied::Yes)
}

/// The backend that calls itself `cluster`.
///
/// # Errors
/// See [`RouteError`].
pub async fn find(
    ganeti: &Arc<Submitter>,
    cluster: &str,
    asking: Asking,
) -> Result<Option<backend::Model>, RouteError> {
    let all = backend::Entity::find().all(&ganeti.database).await?;
    if let Some(known) = all
        .iter()
        .find(|backend| backend.cluster.as_deref() == Some(cluster))
    {
        return Ok(Some(known.clone()));
    }
    // One that has never been reached has not told us its name yet.
    for backend in all.iter().filter(|backend| backend.cluster.is_none()) {
        if asking == Asking::Later {
            return Err(RouteError::MustAsk);
        }
        let measured = crate::ganeti::measurement::measure(ganeti, backend).await?;
        if measured.cluster.as_deref() == Some(cluster) {
            return Ok(Some(measured));
        }
    }
    Ok(None)
}
