//! Intents that did not become jobs at once: their cluster was away, or who wrote them has died.

use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::dispatch::refusal;
use crate::ganeti::intent;
use crate::ganeti::rapi::RapiError;
use crate::ganeti::submission::{Outcome, Submitter};
use crate::model::entity::intent as intent_row;
use crate::model::{database, moment};

/// The most that are tried in one round.
const INTENTS: u64 = 500;
/// In microseconds: what is younger is being submitted by who wrote it.
const YOUNG: i64 = 5_000_000;

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
        let Outcome::NotSent(error) = ganeti.submit(id).await else {
            continue;
        };
        let found = intent_row::Entity::find_by_id(id)
            .one(&ganeti.database)
            .await?;
        match (found, error) {
            (None, _) => {}
            (Some(row), error @ RapiError::Refused { .. }) => {
                refusal::apply(&ganeti.database, &row, &error.to_string()).await?;
            }
            (Some(row), error) => {
                ganeti.later(&row, &error.to_string()).await?;
            }
        }
    }
    Ok(())
}
