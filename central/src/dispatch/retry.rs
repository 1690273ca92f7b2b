//! Creations that failed only since others had locked what was free.
//!
//! With opportunistic locking Ganeti allocates on those nodes that it gets a lock for at once. If
//! none of them has room it says so, and means: perhaps one of the others. The same is asked for
//! again, once, without opportunistic locking: it waits for the locks and then knows.

use agents::message::OpMessage;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder,
};
use serde_json::Value;

use super::machine;
use crate::ganeti::intent;
use crate::ganeti::request::Request;
use crate::model::entity::{intent as intent_row, server};
use crate::model::moment;
use crate::model::register::{JobStatus, Order};

/// What Ganeti calls it (`errors.ECODE_TEMP_NORES`).
const TEMPORARILY: &str = "temp_insufficient_resources";
const OPPORTUNISTIC: &str = "opportunistic_locking";

/// What a message means for the creation of its server.
#[derive(Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing of the kind.
    No,
    /// It is asked for again, by this intent.
    Again(i64),
    /// It has been asked for again already: the message is a repetition.
    Done,
}

/// Whether `result` is that of an operation that failed for want of what others had locked:
/// `[exception, [text, code]]`.
fn is_temporary(result: &Value) -> bool {
    result.pointer("/1/1").and_then(Value::as_str) == Some(TEMPORARILY)
}

/// Writes a second intent for a creation that failed that way.
///
/// # Errors
/// The database fails.
pub async fn of(
    transaction: &DatabaseTransaction,
    server: &server::Model,
    message: &OpMessage,
    status: JobStatus,
) -> Result<Retry, DbErr> {
    let fits = message.operation == "OP_INSTANCE_CREATE"
        && status == JobStatus::Error
        && is_temporary(&message.result);
    let Ok(job) = i64::try_from(message.job_id) else {
        return Ok(Retry::No);
    };
    if !fits || server.deleted_at.is_some() {
        return Ok(Retry::No);
    }
    let creations = intent_row::Entity::find()
        .filter(intent_row::Column::ServerId.eq(server.id))
        .filter(intent_row::Column::Kind.eq(intent::CREATE))
        .order_by_asc(intent_row::Column::Id)
        .all(transaction)
        .await?;
    let Some(failed) = creations.iter().find(|row| row.job_id == Some(job)) else {
        return Ok(Retry::No);
    };
    if creations.iter().any(|row| row.id > failed.id) {
        return Ok(Retry::Done);
    }
    let Ok(mut request) = serde_json::from_value::<Request>(failed.request.clone()) else {
        return Ok(Retry::No);
    };
    let Some(locking) = request
        .body
        .as_mut()
        .and_then(|body| body.get_mut(OPPORTUNISTIC))
    else {
        return Ok(Retry::No);
    };
    if *locking != Value::Bool(true) || server.state != machine::BUILD {
        return Ok(Retry::No);
    }
    *locking = Value::Bool(false);
    let again = intent::write(
        transaction,
        failed.backend_id,
        intent::CREATE,
        Some(server.id),
        None,
        &request,
    )
    .await?;
    let order = Order::new(message.job_id, status, message.event_time);
    let mut row = server.clone().into_active_model();
    row.task_intent = ActiveValue::Set(Some(again.id));
    row.task_job = ActiveValue::Set(None);
    row.job_id = ActiveValue::Set(order.job);
    row.job_rank = ActiveValue::Set(order.rank);
    row.job_time = ActiveValue::Set(order.time);
    row.updated_at = ActiveValue::Set(moment::now());
    row.update(transaction).await?;
    Ok(Retry::Again(again.id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_that_code_is_temporary() {
        let code = |code: &str| json!(["OpPrereqError", ["no room", code]]);
        assert!(is_temporary(&code("temp_insufficient_resources")));
        for other in [
            code("insufficient_resources"),
            json!(null),
            json!("temp_insufficient_resources"),
            json!(["OpPrereqError", "temp_insufficient_resources"]),
            json!([[], [null, 7]]),
        ] {
            assert!(!is_temporary(&other), "{other}");
        }
    }
}
