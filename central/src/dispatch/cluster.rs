//! Messages about a cluster as a whole, and which of our backends a cluster is.

use std::sync::Arc;

use agents::message::ClusterMessage;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::outcome::{Applied, Asking, RouteError};
use crate::ganeti::submission::Submitter;
use crate::model::entity::backend;
use crate::model::moment;

/// The time that a cluster's name is good for, in microseconds, when a message comes from
/// elsewhere: clusters are seldom renamed, and another one may have much to say.
const NAME: i64 = 10_000_000;

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

/// Returns whether a message that names `cluster` comes from the cluster of `backend`. One that names
/// none is taken for such a message.
///
/// # Errors
/// See [`RouteError`].
pub async fn is_of(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
    cluster: &str,
    asking: Asking,
) -> Result<bool, RouteError> {
    let is_it = |backend: &backend::Model| backend.cluster.as_deref() == Some(cluster);
    if cluster.is_empty() || is_it(backend) {
        return Ok(true);
    }
    let now = moment::now();
    let fresh = |at| now.saturating_sub(at) < NAME;
    if backend.cluster.is_some() && backend.measured_at.is_some_and(fresh) {
        return Ok(false);
    }
    // It may have been renamed, or never been asked.
    if asking == Asking::Later {
        return Err(RouteError::MustAsk);
    }
    let measured = crate::ganeti::measurement::measure(ganeti, backend).await?;
    Ok(is_it(&measured))
}

/// Tells that a message about an object is about one of the same name elsewhere.
pub fn elsewhere(object: &str, cluster: &str, backend: &str, job: u64) -> Applied {
    tracing::warn!(%object, %cluster, %backend, job,
        "a message of another cluster about an object of this name: ignored");
    Applied::OtherCluster
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
