//! Messages of an image deployment. They carry the clock of the node, not of the master, so they
//! have no place in the order of events: they move a percentage, or add a line to read.

use std::sync::Arc;

use agents::message::ProgressMessage;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use serde_json::Value;

use super::outcome::{Applied, RouteError};
use super::{failure, machine, op};
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
    let (level, text, raw) = note(message);
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
    op::note(&transaction, id, level, text, Some(raw), time).await?;
    transaction.commit().await?;
    Ok(Applied::Yes)
}

/// The level of a message, what users are told of it, and its own words.
fn note(message: &ProgressMessage) -> (&'static str, &'static str, String) {
    let level = match message.kind.as_str() {
        "image-error" => "ERROR",
        "image-warning" => "WARNING",
        _ => "DEBUG",
    };
    // The words of the OS definition and of what it ran: for cloud administrators.
    let field = |name: &str| match message.fields.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let lines = list.iter().map(|line| match line {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            Some(lines.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    };
    let raw = field("message")
        .or_else(|| field("messages"))
        .or_else(|| field("task"))
        .unwrap_or_else(|| message.kind.clone());
    let raw = match field("stderr").or_else(|| field("details")) {
        Some(more) => format!("{raw}\n{more}"),
        None => raw,
    };
    (level, failure::of_deployment(&message.kind), raw)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_words_of_a_node_are_not_for_users() {
        for (kind, more, level, words) in [
            (
                "image-error",
                json!({"messages": ["failed on node7", "twice"], "stderr": "/srv/images"}),
                "ERROR",
                "failed on node7\ntwice\n/srv/images",
            ),
            (
                "image-warning",
                json!({"message": "10.1.2.3 is slow"}),
                "WARNING",
                "10.1.2.3 is slow",
            ),
            (
                "image-info",
                json!({"message": "found node7"}),
                "DEBUG",
                "found node7",
            ),
            (
                "image-helper",
                json!({"task": "MountImage node7"}),
                "DEBUG",
                "MountImage node7",
            ),
        ] {
            let mut message =
                json!({"type": kind, "event_time": [1_764_600_000, 1], "instance": "snf-1"});
            let fields = message.as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
            let message: ProgressMessage = serde_json::from_value(message).unwrap();
            let (found, text, raw) = note(&message);
            assert_eq!((found, raw.as_str()), (level, words));
            assert!(!text.contains("node7") && !text.contains("10.1"), "{text}");
        }
    }
}
