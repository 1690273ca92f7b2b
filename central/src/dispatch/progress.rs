//! Messages of an image deployment. They carry the clock of the node, not of the master, so they
//! have no place in the order of events: they move a percentage, or add a line to read.

use std::sync::Arc;

use agents::message::ProgressMessage;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use serde_json::Value;

use super::outcome::{Applied, RouteError};
use super::{machine, op};
use crate::ganeti::submission::Submitter;
use crate::model::entity::server;
use crate::model::{database, moment};

/// Applies a message of an image deployment.
///
/// # Errors
/// See [`RouteError`].
pub async fn apply(
    ganeti: &Arc<Submitter>,
    message: &ProgressMessage,
) -> Result<Applied, RouteError> {
    let Some(id) = ganeti.naming.instance_id(&message.instance) else {
        return Ok(Applied::NotOurs);
    };
    if message.kind == "image-copy-progress" {
        let percent = message.percent().ok_or_else(|| {
            let value = message.fields.get("progress").unwrap_or(&Value::Null);
            RouteError::Poison(format!("progress: {value}: not from 0 to 100"))
        })?;
        let percent = i32::from(percent);
        // Only forwards: repeated and reordered messages leave the highest.
        let done = server::Entity::update_many()
            .col_expr(server::Column::Progress, Expr::value(percent))
            .col_expr(server::Column::UpdatedAt, Expr::value(moment::now()))
            .filter(server::Column::Id.eq(id))
            .filter(server::Column::State.eq(machine::BUILD))
            .filter(server::Column::DeletedAt.is_null())
            .filter(server::Column::Progress.lt(percent))
            .exec(&ganeti.database)
            .await?;
        return Ok(match done.rows_affected {
            0 => Applied::Stale,
            _ => Applied::Yes,
        });
    }
    let level = match message.kind.as_str() {
        "image-error" => "ERROR",
        "image-warning" => "WARNING",
        _ => "DEBUG",
    };
    let field = |name: &str| {
        message
            .fields
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let text = field("message")
        .or_else(|| field("messages"))
        .or_else(|| field("task"))
        .unwrap_or_else(|| message.kind.clone());
    let time = i64::try_from(message.event_time.since_epoch().as_micros()).unwrap_or(i64::MAX);
    let transaction = database::write(&ganeti.database).await?;
    // Locked: what was delivered twice may be applied by two processes at once, and each must see
    // the other's line.
    if server::Entity::find_by_id(id)
        .lock_exclusive()
        .one(&transaction)
        .await?
        .is_none()
    {
        return Ok(Applied::NotOurs);
    }
    let details = field("stderr").or_else(|| field("details"));
    op::note(&transaction, id, level, &text, details, time).await?;
    transaction.commit().await?;
    Ok(Applied::Yes)
}
