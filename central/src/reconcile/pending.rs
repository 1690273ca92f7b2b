//! Intents that did not become jobs at once: their cluster was away, or who wrote them has died.

use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::dispatch::{refusal, removal};
use crate::ganeti::intent;
use crate::ganeti::rapi::RapiError;
use crate::ganeti::submission::{Outcome, Submitter};
use crate::model::entity::intent as intent_row;
use crate::model::{database, moment};

/// The most that are tried in one round.
const INTENTS: u64 = 500;
/// In microseconds: what is younger is being submitted by who wrote it.
const YOUNG: i64 = 5_000_000;
/// In microseconds: how long what a cluster refuses for now, as when its queue is drained, is
/// asked again.
const LONG: i64 = 86_400_000_000;

/// Tries the pending intents that nobody is at, once.
///
/// # Errors
/// The database fails.
pub async fn submit(ganeti: &Arc<Submitter>) -> Result<(), DbErr> {
    let waiting: Vec<i64> = intent_row::Entity::find()
        .select_only()
        .column(intent_row::Column::Id)
        .filter(intent_row::Column::State.eq(intent::PENDING))
        .filter(Expr::col(intent_row::Column::ClaimedUntil).lt(database::clock(&ganeti.database)))
        .filter(intent_row::Column::CreatedAt.lt(moment::now().saturating_sub(YOUNG)))
        .order_by_asc(intent_row::Column::Id)
        .limit(INTENTS)
        .into_tuple()
        .all(&ganeti.database)
        .await?;
    for id in waiting {
        let outcome = ganeti.submit(id).await;
        if matches!(outcome, Outcome::Submitted | Outcome::Queued) {
            continue;
        }
        let Some(row) = intent_row::Entity::find_by_id(id)
            .one(&ganeti.database)
            .await?
        else {
            continue;
        };
        match outcome {
            Outcome::Submitted | Outcome::Queued => {}
            Outcome::NeverMade => {
                if let Some(server) = row.server_id {
                    removal::end_never_made(&ganeti.database, row.id, server).await?;
                }
            }
            Outcome::NotSent(error) if is_hopeless(&row, &error) => {
                refusal::apply(&ganeti.database, &row, &error).await?;
            }
            Outcome::NotSent(error) => {
                ganeti.later(&row, &error.to_string()).await?;
            }
        }
    }
    Ok(())
}

/// Returns whether an intent is given up: another attempt can only end the same, or the cluster has
/// refused it for long. One that cannot be reached, or is held, is waited for.
fn is_hopeless(row: &intent_row::Model, error: &RapiError) -> bool {
    let age = moment::now().saturating_sub(row.created_at);
    error.is_permanent() || age > LONG && matches!(error, RapiError::Refused { .. })
}
