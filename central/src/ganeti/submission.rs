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
use super::intent;
use super::naming::Naming;
use super::networks::{self, NetworkError};
use super::rapi::{Rapi, RapiError};
use super::request::{Firewall, Request};
use crate::model::entity::{backend, intent as intent_row, server};
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
            return self.later(&row, "its backend is gone").await;
        };
        let rapi = match self.clients.of(&backend) {
            Ok(rapi) => rapi,
            Err(error) => return Ok(Outcome::NotSent(error)),
        };
        match self.attempt(&row, &backend, &rapi).await {
            Ok(Attempt::Job(job)) => {
                self.record(&row, job).await?;
                Ok(Outcome::Submitted)
            }
            Ok(Attempt::Later(reason)) => self.later(&row, &reason).await,
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

    async fn attempt(
        &self,
        row: &intent_row::Model,
        backend: &backend::Model,
        rapi: &Rapi,
    ) -> Result<Attempt, AttemptError> {
        let request: Request = match serde_json::from_value(row.request.clone()) {
            Ok(request) => request,
            Err(error) => return Ok(Attempt::Later(format!("unreadable: {error}"))),
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
        for network in &request.networks {
            let jobs = match networks::ensure(&self.database, &self.naming, rapi, backend, *network)
                .await
            {
                Ok(jobs) => jobs,
                Err(NetworkError::Rapi(error)) => return Err(error.into()),
                Err(NetworkError::Database(error)) => return Err(error.into()),
                Err(other) => return Ok(Attempt::Later(other.to_string())),
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
