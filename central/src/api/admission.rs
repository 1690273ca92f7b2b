//! Refusing what would give out a number or an address again.

use super::context::Context;
use super::fault::Fault;

/// Lets a request make something that has a name in Ganeti, or takes an address.
///
/// # Errors
/// 503: the database is older than its clusters, as after a restored backup, and no operator has
/// looked at it; or no cluster has answered that could say so.
pub async fn creation(api: &Context) -> Result<(), Fault> {
    match api.ganeti().creations_held().await? {
        None => Ok(()),
        Some(reason) => {
            tracing::error!(%reason, "a creation is refused");
            Err(Fault::unavailable(
                "nothing is created until the operator of this service has looked at its \
                 clusters; nothing was kept",
            ))
        }
    }
}
