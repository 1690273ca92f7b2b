//! Doing something to a server: check, write down, commit, ask Ganeti.

use sea_orm::{ActiveModelTrait, ActiveValue, IntoActiveModel};

use super::find;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::{Fault, Kind};
use crate::dispatch::machine;
use crate::ganeti::intent;
use crate::ganeti::request::Request;
use crate::ganeti::submission::Outcome;
use crate::model::entity::server;
use crate::model::{database, moment};

/// What is to be done.
pub struct Wish<'a> {
    /// What the server is said to be doing meanwhile: `STARTING`.
    pub task: &'a str,
    /// The kind of intent: `start`.
    pub kind: &'a str,
    /// The states it can be done in; empty: any, even while something else is going on.
    pub allowed: &'a [&'a str],
}

impl Wish<'_> {
    fn check(&self, caller: &Caller, server: &server::Model) -> Result<(), Fault> {
        if self.allowed.is_empty() {
            return Ok(());
        }
        if server.state == machine::BUILD {
            return Err(Fault::new(
                Kind::BuildInProgress,
                format!("server {} is being built", server.id),
            ));
        }
        if let Some(task) = &server.task {
            return Err(caller.dialect.wrong_state(format!(
                "server {} is busy: {}",
                server.id,
                task.to_lowercase()
            )));
        }
        if !self.allowed.contains(&server.state.as_str()) {
            return Err(caller.dialect.wrong_state(format!(
                "server {} is {}: cannot {} it",
                server.id,
                server.state.to_lowercase(),
                self.kind
            )));
        }
        Ok(())
    }
}

/// Asks Ganeti for it; returns when Ganeti has it, or it is certain that it will be asked.
///
/// # Errors
/// The server is not there, or not in a state for it; 503 if Ganeti cannot be asked now: then
/// nothing has changed.
pub async fn begin(
    api: &Context,
    caller: &Caller,
    id: &str,
    wish: &Wish<'_>,
    request: impl FnOnce(&server::Model) -> Result<Request, Fault>,
) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, caller, id).await?;
    // Asking twice to delete is not asking for two deletions.
    if server.task.as_deref() == Some(wish.task) && wish.allowed.is_empty() {
        return Ok(());
    }
    wish.check(caller, &server)?;
    let before = server.clone();
    let request = request(&server)?;
    let intent = intent::write(
        &transaction,
        server.backend_id,
        wish.kind,
        Some(server.id),
        None,
        &request,
    )
    .await?;
    let mut row = server.into_active_model();
    row.task = ActiveValue::Set(Some(wish.task.to_owned()));
    row.task_intent = ActiveValue::Set(Some(intent.id));
    row.task_job = ActiveValue::Set(None);
    row.updated_at = ActiveValue::Set(moment::now());
    row.update(&transaction).await?;
    transaction.commit().await?;
    match api.ganeti().submit(intent.id).await? {
        Outcome::Submitted | Outcome::Queued => Ok(()),
        Outcome::NotSent(error) => {
            undo(api, caller, &before, intent.id, &error.to_string()).await?;
            tracing::error!(server = before.id, kind = wish.kind, %error, "Ganeti was not asked");
            Err(Fault::unavailable(
                "the cluster of this server cannot be asked now; nothing was changed",
            ))
        }
    }
}

async fn undo(
    api: &Context,
    caller: &Caller,
    before: &server::Model,
    intent_id: i64,
    reason: &str,
) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    if !intent::end(&transaction, intent_id, intent::DROPPED, reason).await? {
        return Ok(());
    }
    let server = find::server_for_change(&transaction, caller, &before.id.to_string()).await?;
    if server.task_intent == Some(intent_id) {
        let mut row = server.into_active_model();
        row.task = ActiveValue::Set(before.task.clone());
        row.task_intent = ActiveValue::Set(before.task_intent);
        row.task_job = ActiveValue::Set(before.task_job);
        row.update(&transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
