//! Doing something to a server: check, write down, commit, ask Ganeti.

use sea_orm::{
    ActiveModelTrait, ActiveValue, DatabaseTransaction, EntityTrait, IntoActiveModel, QuerySelect,
};

use super::caller::Caller;
use super::context::Context;
use super::fault::{Fault, Kind};
use super::find;
use crate::dispatch::{machine, removal};
use crate::ganeti::intent::{self, CONNECT};
use crate::ganeti::rapi::RapiError;
use crate::ganeti::request::Request;
use crate::ganeti::submission::Outcome;
use crate::model::entity::{intent as intent_row, server};
use crate::model::{database, moment};

/// The task of a server that is being started.
pub const STARTING: &str = "STARTING";
/// The task of a server that is being rebooted.
pub const REBOOTING: &str = "REBOOTING";
/// The task of a server that is getting another flavor.
pub const RESIZING: &str = "RESIZING";

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
        self.check_state(caller, server)?;
        match &server.task {
            Some(task) => Err(caller.dialect.wrong_state(format!(
                "server {} is busy: {}",
                server.id,
                task.to_lowercase()
            ))),
            None => Ok(()),
        }
    }

    /// Whether its state allows it, whatever is going on.
    ///
    /// # Errors
    /// 409, or 400 where that is the dialect's: it does not.
    pub fn check_state(&self, caller: &Caller, server: &server::Model) -> Result<(), Fault> {
        if server.state == machine::BUILD {
            return Err(Fault::new(
                Kind::BuildInProgress,
                format!("server {} is being built", server.id),
            ));
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

/// A change of a server that is being prepared: its row is locked.
pub struct Begun<'a> {
    pub transaction: DatabaseTransaction,
    pub server: server::Model,
    wish: &'a Wish<'a>,
}

/// Locks a server for what is wished, if its state allows it; none: that is going on already.
///
/// # Errors
/// The server is not there, or not in a state for it.
pub async fn begin<'a>(
    api: &Context,
    caller: &Caller,
    id: &str,
    wish: &'a Wish<'a>,
) -> Result<Option<Begun<'a>>, Fault> {
    let transaction = database::write(api.database()).await?;
    let server = find::server_for_change(&transaction, caller, id).await?;
    // Asking twice to delete is not asking for two deletions.
    if server.task.as_deref() == Some(wish.task) && wish.allowed.is_empty() {
        return Ok(None);
    }
    wish.check(caller, &server)?;
    Ok(Some(Begun {
        transaction,
        server,
        wish,
    }))
}

/// [`begin`] and [`Begun::ask`] for what needs nothing in between.
///
/// # Errors
/// As for both.
pub async fn simply(
    api: &Context,
    caller: &Caller,
    id: &str,
    wish: &Wish<'_>,
    request: impl FnOnce(&server::Model) -> Request,
) -> Result<(), Fault> {
    match begin(api, caller, id, wish).await? {
        Some(begun) => {
            let request = request(&begun.server);
            begun.ask(api, &request, None).await
        }
        None => Ok(()),
    }
}

impl Begun<'_> {
    /// Commits, and asks Ganeti; returns when Ganeti has it, or it is certain that it will be
    /// asked. `port` is the NIC that it is about.
    ///
    /// # Errors
    /// 503 if Ganeti cannot be asked now: then nothing has changed, and a new NIC is gone again.
    pub async fn ask(
        self,
        api: &Context,
        request: &Request,
        port: Option<i64>,
    ) -> Result<(), Fault> {
        let Self {
            transaction,
            server,
            wish,
        } = self;
        let before = server.clone();
        let intent = intent::write(
            &transaction,
            server.backend_id,
            wish.kind,
            Some(server.id),
            port,
            request,
        )
        .await?;
        let mut row = server.into_active_model();
        row.task = ActiveValue::Set(Some(wish.task.to_owned()));
        row.task_intent = ActiveValue::Set(Some(intent.id));
        row.task_job = ActiveValue::Set(None);
        row.updated_at = ActiveValue::Set(moment::now());
        row.update(&transaction).await?;
        transaction.commit().await?;
        match api.ganeti().submit(intent.id).await {
            Outcome::Submitted | Outcome::Queued => Ok(()),
            Outcome::NeverMade => {
                removal::end_never_made(api.database(), intent.id, before.id).await?;
                Ok(())
            }
            Outcome::NotSent(error) => {
                undo(api, &before, &intent, &error.to_string())
                    .await
                    .map_err(Fault::after_a_change)?;
                tracing::error!(server = before.id, kind = wish.kind, %error,
                    "Ganeti was not asked");
                Err(not_asked(&error))
            }
        }
    }
}

/// The answer to a request that was not sent.
fn not_asked(error: &RapiError) -> Fault {
    match error {
        RapiError::Held { .. } => Fault::unavailable(
            "the cluster of this server is held until its operator has looked at it; nothing was \
             changed",
        ),
        RapiError::Impossible(reason) => Fault::conflict(format!("{reason}: nothing was changed")),
        _ => Fault::unavailable(
            "the cluster of this server cannot be asked now; nothing was changed",
        ),
    }
}

async fn undo(
    api: &Context,
    before: &server::Model,
    intent: &intent_row::Model,
    reason: &str,
) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    if !intent::end(&transaction, intent.id, intent::DROPPED, reason).await? {
        return Ok(());
    }
    let now = server::Entity::find_by_id(before.id)
        .lock_exclusive()
        .one(&transaction)
        .await?;
    if let Some(server) = now
        && server.task_intent == Some(intent.id)
    {
        let mut row = server.into_active_model();
        row.task = ActiveValue::Set(before.task.clone());
        row.task_intent = ActiveValue::Set(before.task_intent);
        row.task_job = ActiveValue::Set(before.task_job);
        row.update(&transaction).await?;
    }
    if let (CONNECT, Some(port)) = (intent.kind.as_str(), intent.port_id) {
        removal::clear_port(&transaction, port, moment::now()).await?;
    }
    transaction.commit().await?;
    Ok(())
}
