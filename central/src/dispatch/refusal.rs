//! What happens to a server when Ganeti refuses what was asked for it, after the user has been
//! told that it will be done.

use sea_orm::{
    ActiveModelTrait, ActiveValue, DatabaseConnection, DbErr, EntityTrait, IntoActiveModel,
    QuerySelect,
};

use super::failure::{self, Failure};
use super::outcome::RouteError;
use super::{labels, machine, nics, op, removal};
use crate::ganeti::intent;
use crate::ganeti::rapi::RapiError;
use crate::model::entity::{intent as intent_row, server};
use crate::model::{database, moment};

/// Ends the intent and the task that waited for it, and lets the user read why.
///
/// # Errors
/// The database fails.
pub async fn apply(
    database: &DatabaseConnection,
    row: &intent_row::Model,
    error: &RapiError,
) -> Result<(), DbErr> {
    let reason = error.to_string();
    let transaction = database::write(database).await?;
    if !intent::end(&transaction, row.id, intent::REFUSED, &reason).await? {
        return Ok(());
    }
    tracing::error!(intent = row.id, kind = %row.kind, server = row.server_id, %reason,
        "Ganeti refuses");
    if let (intent::LABEL, Some(server)) = (row.kind.as_str(), row.server_id)
        && let Ok(request) = serde_json::from_value(row.request.clone())
    {
        labels::give_up(&transaction, server, &request).await?;
    }
    if let (intent::CONNECT, Some(port)) = (row.kind.as_str(), row.port_id) {
        removal::clear_port(&transaction, port, moment::now()).await?;
    }
    if let Some(id) = row.server_id
        && let Some(server) = server::Entity::find_by_id(id)
            .lock_exclusive()
            .one(&transaction)
            .await?
        && server.deleted_at.is_none()
    {
        let now = moment::now();
        let mut changed = server.clone().into_active_model();
        if row.kind == intent::CREATE {
            changed.state = ActiveValue::Set(machine::ERROR.to_owned());
            nics::fail(&transaction, id).await?;
        }
        if server.task_intent == Some(row.id) {
            changed.task = ActiveValue::Set(None);
            changed.task_intent = ActiveValue::Set(None);
            changed.task_job = ActiveValue::Set(None);
        }
        changed.updated_at = ActiveValue::Set(now);
        changed.update(&transaction).await?;
        let text = match error {
            // Our own words about our own objects: the user may read them.
            RapiError::Impossible(reason) => format!("{}: {reason}", row.kind),
            _ => failure::of_refusal(&row.kind, Failure::of_text(&reason), row.id),
        };
        op::note(&transaction, id, "ERROR", &text, Some(reason), now)
            .await
            .map_err(|error| match error {
                RouteError::Poison(text) | RouteError::Transient(text) => DbErr::Custom(text),
                RouteError::MustAsk => DbErr::Custom(error.to_string()),
            })?;
    }
    transaction.commit().await
}
