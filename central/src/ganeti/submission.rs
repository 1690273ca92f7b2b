//! Turning intents into jobs: at once when the user asks, later when that did not work.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::Value;

use super::clients::Clients;
use super::guard;
use super::intent;
use super::job;
use super::naming::Naming;
use super::networks::{self, NetworkError};
use super::rapi::{Rapi, RapiError};
use super::request::{Firewall, Request};
use super::traces::Traces;
use crate::model::entity::{backend, intent as intent_row, port, server};
use crate::model::{database, register};

/// What became of an intent.
#[derive(Debug)]
pub enum Outcome {
    /// Ganeti has it as a job.
    Submitted,
    /// It stays pending and will be tried again: nobody knows whether Ganeti has it, an earlier
    /// one of the same server must come first, or the database fails.
    Queued,
    /// Ganeti does not have it and was not or cannot be asked; the intent is still pending and
    /// claimed: the caller decides whether to give it up.
    NotSent(RapiError),
    /// The server is to be removed, and nothing was ever made of it: the caller ends its row. An
    /// instance of its name is somebody else's. The intent is still pending and claimed.
    NeverMade,
}

/// Everything that is needed to submit.
pub struct Submitter {
    pub database: DatabaseConnection,
    pub clients: Clients,
    pub naming: Naming,
}

impl Submitter {
    /// Tries to make a job of a pending intent.
    ///
    /// When the database fails meanwhile the intent stays as it is in there, and is tried again.
    pub async fn submit(self: &Arc<Self>, id: i64) -> Outcome {
        // The work goes on if the client that asked for it hangs up in the middle.
        let this = Arc::clone(self);
        let work = tokio::spawn(async move { this.work(id).await }).await;
        work.unwrap_or_else(|error| Err(DbErr::Custom(error.to_string())))
            .unwrap_or_else(|error| {
                tracing::error!(intent = id, %error, "not submitted yet");
                Outcome::Queued
            })
    }

    /// How long one attempt may take before others may think that its process has died.
    fn lease(&self) -> Duration {
        // At most: looking for the job, the networks with three calls each, the call itself.
        self.clients.timeout().saturating_mul(6)
    }

    async fn work(&self, id: i64) -> Result<Outcome, DbErr> {
        let lease = i64::try_from(self.lease().as_micros()).unwrap_or(i64::MAX);
        if !intent::claim(&self.database, id, lease).await? {
            // Another process is at it, or has done it.
            return Ok(Outcome::Queued);
        }
        let Some(row) = self.intent(id).await? else {
            return Ok(Outcome::Queued);
        };
        let Some(backend) = backend::Entity::find_by_id(row.backend_id)
            .one(&self.database)
            .await?
        else {
            let reason = format!("backend {} is gone", row.backend_id);
            return Ok(Outcome::NotSent(RapiError::Impossible(reason)));
        };
        let rapi = match self.clients.of(&backend) {
            Ok(rapi) => rapi,
            Err(error) => return Ok(Outcome::NotSent(error)),
        };
        let attempt = match self.admit(&backend, &rapi).await {
            Ok(()) => self.attempt(&row, &backend, &rapi).await,
            Err(error) => Err(error),
        };
        match attempt {
            Ok(Attempt::Job(job)) => {
                self.record(&row, job).await?;
                Ok(Outcome::Submitted)
            }
            Ok(Attempt::Later(reason)) => self.later(&row, &reason).await,
            Ok(Attempt::Never(reason)) => Ok(Outcome::NotSent(RapiError::Impossible(reason))),
            Ok(Attempt::NeverMade) => Ok(Outcome::NeverMade),
            Err(AttemptError::Rapi(error @ RapiError::Unknown { .. })) => {
                self.later(&row, &error.to_string()).await
            }
            Err(AttemptError::Rapi(error)) => {
                if matches!(&error, RapiError::Refused { status: 401, .. }) {
                    self.clients.forget(backend.id);
                }
                Ok(Outcome::NotSent(error))
            }
            Err(AttemptError::Database(error)) => {
                intent::release(&self.database, id, 0, &error.to_string()).await?;
                Err(error)
            }
        }
    }

    /// Refuses to ask a cluster that is held; the database is held against a cluster before this
    /// process asks it for anything.
    async fn admit(&self, backend: &backend::Model, rapi: &Rapi) -> Result<(), AttemptError> {
        let held = if self.clients.is_examined(backend.id) {
            guard::held(&self.database, backend.id).await?
        } else {
            self.examine(backend, rapi).await?
        };
        match held {
            None => Ok(()),
            Some(reason) => Err(AttemptError::Rapi(RapiError::Held {
                backend: backend.name.clone(),
                reason,
            })),
        }
    }

    async fn examine(
        &self,
        backend: &backend::Model,
        rapi: &Rapi,
    ) -> Result<Option<String>, AttemptError> {
        let traces = Traces::look(rapi, &self.naming).await?;
        let held = guard::examine(&self.database, &self.naming, backend, &traces).await?;
        self.clients.note_examined(backend.id);
        Ok(held)
    }

    /// Returns the reason that nothing with a name in Ganeti may be made now; none: it may.
    ///
    /// The numbers in names are safe to give out when the database was held against its clusters:
    /// against all that answer, and one at least.
    ///
    /// # Errors
    /// The database fails.
    pub async fn creations_held(&self) -> Result<Option<String>, DbErr> {
        let backends = backend::Entity::find()
            .filter(backend::Column::Offline.eq(false))
            .all(&self.database)
            .await?;
        let is_examined = |backend: &&backend::Model| self.clients.is_examined(backend.id);
        // Many requests may come as soon as the service is there: one asks, the others wait.
        let _examining = match backends.iter().all(|backend| is_examined(&backend)) {
            true => None,
            false => Some(self.clients.examining().await),
        };
        let (examined, unknown): (Vec<_>, Vec<_>) = backends.iter().partition(is_examined);
        let mut known = backends.is_empty() || !examined.is_empty();
        let attempts = unknown.into_iter().map(async |backend| {
            if !self.clients.may_try(backend.id) {
                return Ok(false);
            }
            let result = match self.clients.of(backend) {
                Ok(rapi) => self.examine(backend, &rapi).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(_) => Ok(true),
                Err(AttemptError::Database(error)) => Err(error),
                Err(AttemptError::Rapi(error)) => {
                    tracing::warn!(backend = %backend.name, %error, "cannot be looked at");
                    Ok(false)
                }
            }
        });
        for examined in futures_util::future::join_all(attempts).await {
            known |= examined?;
        }
        if let Some(reason) = guard::restored(&self.database).await? {
            return Ok(Some(reason));
        }
        Ok((!known).then(|| "no cluster has answered since this service was started".to_owned()))
    }

    async fn attempt(
        &self,
        row: &intent_row::Model,
        backend: &backend::Model,
        rapi: &Rapi,
    ) -> Result<Attempt, AttemptError> {
        let request: Request = match serde_json::from_value(row.request.clone()) {
            Ok(request) => request,
            Err(error) => return Ok(Attempt::Never(format!("unreadable: {error}"))),
        };
        let mark = intent::mark(self.naming.prefix(), row);
        // Somebody may have sent it and died, or not heard the answer.
        if row.attempts > 1
            && let Some(job) = rapi.job_by_reason(&mark).await?
        {
            tracing::info!(intent = row.id, job, "found the job of an earlier attempt");
            return Ok(Attempt::Job(job));
        }
        let mut after = Vec::new();
        if let Some(server) = row.server_id {
            if row.kind == intent::REMOVE {
                if let Some(reason) = self.clear_the_way(row, server, rapi).await? {
                    return Ok(Attempt::Later(reason));
                }
                if self.was_never_made(server, rapi).await? {
                    return Ok(Attempt::NeverMade);
                }
            }
            let earlier = self.earlier(row.id, server).await?;
            if let Some(waiting) = earlier.iter().find(|other| other.state == intent::PENDING) {
                return Ok(Attempt::Later(format!(
                    "intent {} of the same server comes first",
                    waiting.id
                )));
            }
            if request.after_earlier {
                after.extend(earlier.iter().filter_map(|other| other.job_id).max());
            }
        }
        if let Some(port) = row.port_id
            && row.kind == intent::CONNECT
            && !self.is_there(port).await?
        {
            return Ok(Attempt::Never(format!("port {port} is gone")));
        }
        for network in &request.networks {
            let jobs = match networks::ensure(&self.database, &self.naming, rapi, backend, *network)
                .await
            {
                Ok(jobs) => jobs,
                Err(NetworkError::Rapi(error)) => return Err(error.into()),
                Err(NetworkError::Database(error)) => return Err(error.into()),
                Err(error @ NetworkError::Gone(_)) => {
                    return Ok(Attempt::Never(error.to_string()));
                }
                Err(error @ NetworkError::Busy(_)) => {
                    return Ok(Attempt::Later(error.to_string()));
                }
            };
            after.extend(jobs);
        }
        if let Some(firewall) = &request.firewall {
            after.extend(retag(rapi, firewall, &mark).await?);
        }
        let query: Vec<(&str, &str)> = request
            .query
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let body = request.body_after(&after);
        let job = rapi
            .submit(
                request.method.into(),
                &request.path,
                &query,
                body.as_ref(),
                &mark,
            )
            .await?;
        tracing::info!(intent = row.id, kind = %row.kind, server = row.server_id, job,
            backend = %backend.name, "submitted");
        Ok(Attempt::Job(job))
    }

    async fn is_there(&self, port: i64) -> Result<bool, DbErr> {
        let found = port::Entity::find_by_id(port).one(&self.database).await?;
        Ok(found.is_some_and(|port| port.deleted_at.is_none()))
    }

    /// Ends the pending intents of a server that come before its removal: what has become a job
    /// is recorded, the rest is dropped. Returns why the removal has to wait, if it has.
    async fn clear_the_way(
        &self,
        removal: &intent_row::Model,
        server: i64,
        rapi: &Rapi,
    ) -> Result<Option<String>, AttemptError> {
        let earlier = self.earlier(removal.id, server).await?;
        let lease = i64::try_from(self.lease().as_micros()).unwrap_or(i64::MAX);
        for other in earlier {
            if other.state != intent::PENDING {
                continue;
            }
            // First what may fail.
            let job = rapi
                .job_by_reason(&intent::mark(self.naming.prefix(), &other))
                .await?;
            if !intent::take_over(&self.database, other.id, lease).await? {
                return Ok(Some(format!(
                    "intent {} of the same server is being asked",
                    other.id
                )));
            }
            match job {
                Some(job) => self.record(&other, job).await?,
                None => {
                    let reason = "the server is to be removed";
                    intent::end(&self.database, other.id, intent::DROPPED, reason).await?;
                }
            }
        }
        Ok(None)
    }

    /// Returns whether nothing was ever made of a server: its creation was not sent, or was refused. An
    /// instance of its name, if there is one, has nothing to do with it.
    async fn was_never_made(&self, server: i64, rapi: &Rapi) -> Result<bool, AttemptError> {
        let servers = std::iter::once(server);
        if !intent::never_made(&self.database, servers)
            .await?
            .is_empty()
        {
            return Ok(true);
        }
        let Some(row) = server::Entity::find_by_id(server)
            .one(&self.database)
            .await?
        else {
            return Ok(false);
        };
        let failed = row.job_opcode.as_deref() == Some("OP_INSTANCE_CREATE")
            && row.job_status.as_deref() == Some("error");
        if !failed {
            return Ok(false);
        }
        // Nobody may have told how it failed: the reconciler sees only that it did.
        let creation = intent_row::Entity::find()
            .filter(intent_row::Column::ServerId.eq(server))
            .filter(intent_row::Column::Kind.eq(intent::CREATE))
            .filter(intent_row::Column::JobId.is_not_null())
            .order_by_desc(intent_row::Column::Id)
            .one(&self.database)
            .await?;
        let Some(job) = creation.and_then(|creation| creation.job_id) else {
            return Ok(false);
        };
        let answer = rapi.get(&format!("/2/jobs/{job}"), &[]).await?;
        let results = answer.get("opresult").and_then(Value::as_array);
        Ok(results.into_iter().flatten().any(job::name_is_taken))
    }

    /// The intents of the same server before this one that may still matter.
    async fn earlier(&self, id: i64, server: i64) -> Result<Vec<intent_row::Model>, DbErr> {
        intent_row::Entity::find()
            .filter(intent_row::Column::ServerId.eq(server))
            .filter(intent_row::Column::Id.lt(id))
            .filter(intent_row::Column::State.is_in([intent::PENDING, intent::SUBMITTED]))
            .order_by_desc(intent_row::Column::Id)
            .limit(20)
            .all(&self.database)
            .await
    }

    async fn intent(&self, id: i64) -> Result<Option<intent_row::Model>, DbErr> {
        intent_row::Entity::find_by_id(id).one(&self.database).await
    }

    /// Leaves an intent for another attempt, each time later.
    ///
    /// # Errors
    /// The database fails.
    pub async fn later(&self, row: &intent_row::Model, reason: &str) -> Result<Outcome, DbErr> {
        let wait = backoff(row.attempts);
        tracing::warn!(intent = row.id, kind = %row.kind, server = row.server_id, %reason,
            retry_seconds = wait.as_secs(), "not submitted");
        let micros = i64::try_from(wait.as_micros()).unwrap_or(0);
        intent::release(&self.database, row.id, micros, reason).await?;
        Ok(Outcome::Queued)
    }

    /// Writes the job down, at the intent and at its server.
    async fn record(&self, row: &intent_row::Model, job: i64) -> Result<(), DbErr> {
        let transaction = database::write(&self.database).await?;
        intent::submitted(&transaction, row.id, job).await?;
        if let Some(id) = row.server_id {
            let found = server::Entity::find_by_id(id)
                .lock_exclusive()
                .one(&transaction)
                .await?;
            if let Some(found) = found
                && found.task_intent == Some(row.id)
            {
                // The job's last message may have been here before its id was.
                let over = register::is_over(&found, job);
                let update = server::Entity::update_many()
                    .col_expr(server::Column::TaskJob, Expr::value(job))
                    .filter(server::Column::Id.eq(id));
                let update = if over {
                    update
                        .col_expr(server::Column::Task, Expr::value(None::<String>))
                        .col_expr(server::Column::TaskIntent, Expr::value(None::<i64>))
                } else {
                    update
                };
                update.exec(&transaction).await?;
            }
        }
        transaction.commit().await
    }
}

/// Gives an instance the tag of a firewall profile in place of the one it has; returns the jobs.
/// Done twice it changes nothing.
async fn retag(rapi: &Rapi, firewall: &Firewall, mark: &str) -> Result<Vec<i64>, RapiError> {
    let Some(found) = rapi.instance(&firewall.instance).await? else {
        // The modification that follows will be refused.
        return Ok(Vec::new());
    };
    let tags: Vec<&str> = found
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let (gone, new) = firewall.change(&tags);
    let path = format!("/2/instances/{}/tags", firewall.instance);
    // Not the intent's own mark: that one stands for the last job.
    let mark = format!("{mark}:tags");
    let mut jobs = Vec::new();
    if !gone.is_empty() {
        let query: Vec<(&str, &str)> = gone.iter().map(|tag| ("tag", *tag)).collect();
        jobs.push(
            rapi.submit(Method::DELETE, &path, &query, None, &mark)
                .await?,
        );
    }
    if let Some(tag) = new {
        let query = [("tag", tag.as_str())];
        jobs.push(rapi.submit(Method::PUT, &path, &query, None, &mark).await?);
    }
    Ok(jobs)
}

enum Attempt {
    Job(i64),
    Later(String),
    /// It fails always.
    Never(String),
    /// There is nothing to remove.
    NeverMade,
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Rapi(#[from] RapiError),
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Two seconds at first, doubling, at most a minute.
fn backoff(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 6)).unwrap_or(1);
    Duration::from_secs(2_u64.saturating_pow(doublings).min(60))
}
