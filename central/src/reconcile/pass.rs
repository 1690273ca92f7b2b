//! One pass over a cluster: look, compare, remember, repair, and write down how it went.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, ActiveValue, ColumnTrait, DbErr, EntityTrait, QueryFilter};

use super::compare;
use super::difference::{Difference, Object, What};
use super::known::Known;
use super::memory::{Limit, Memory, Plan};
use super::pools;
use super::repair::{Done, Site};
use super::seen::Seen;
use crate::dispatch::outcome::RouteError;
use crate::ganeti::guard;
use crate::ganeti::submission::Submitter;
use crate::ganeti::traces::Traces;
use crate::metrics;
use crate::model::entity::{backend, pass as pass_row, repair as audit};
use crate::model::moment;

/// What a look at a cluster shows.
pub struct Look {
    /// [`Seen::last_job`].
    pub last_job: i64,
    /// The servers that the cluster or the database has.
    pub servers: usize,
    pub differences: Vec<Difference>,
    /// The cluster's traces of the databases that use it.
    pub traces: Traces,
}

/// How a pass went.
#[derive(Debug, Default)]
pub struct Report {
    /// The backend's name; none: inside the database alone.
    pub backend: Option<String>,
    pub servers: usize,
    pub repaired: Vec<Difference>,
    /// What is left: seen for the first time, not to be repaired, or not repaired.
    pub left: Vec<Difference>,
    /// Why nothing (more) was done.
    pub trouble: Option<String>,
}

/// What does the passes, and remembers between them.
pub struct Reconciler {
    ganeti: Arc<Submitter>,
    limit: Limit,
    /// By backend; none: inside the database alone.
    memories: HashMap<Option<i64>, Memory>,
    /// The backends where it was stopped at the last pass.
    stopped: BTreeSet<i64>,
}

/// Looks at one cluster.
///
/// # Errors
/// See [`RouteError`].
pub async fn look(ganeti: &Arc<Submitter>, backend: &backend::Model) -> Result<Look, RouteError> {
    let rapi = ganeti.clients.of(backend)?;
    let told = Known::last_job(&ganeti.database, backend.id).await?;
    let mut seen = Seen::look(&rapi, &ganeti.naming, told).await?;
    let known = Known::load(&ganeti.database, backend.id).await?;
    seen.look_for(&rapi, known.jobs()).await?;
    let servers = known.servers.len().max(seen.instances.len());
    Ok(Look {
        last_job: seen.last_job,
        servers,
        differences: compare::all(&ganeti.naming, &seen, &known),
        traces: seen.traces,
    })
}

impl Reconciler {
    pub fn new(ganeti: Arc<Submitter>, limit: Limit) -> Self {
        Self {
            ganeti,
            limit,
            memories: HashMap::new(),
            stopped: BTreeSet::new(),
        }
    }

    /// Forgets what it has seen.
    pub fn forget(&mut self) {
        self.memories.clear();
        self.stopped.clear();
    }

    /// One pass over everything, or over one backend.
    ///
    /// # Errors
    /// The database fails.
    pub async fn pass(&mut self, only: Option<&str>) -> Result<Vec<Report>, DbErr> {
        let mut backends = backend::Entity::find()
            .filter(backend::Column::Offline.eq(false))
            .all(&self.ganeti.database)
            .await?;
        backends.retain(|backend| only.is_none_or(|name| name == backend.name));
        let mut reports = Vec::new();
        for backend in backends {
            let report = match self.of_backend(&backend).await {
                Ok(report) => report,
                Err(error) => {
                    self.memories.remove(&Some(backend.id));
                    Report {
                        trouble: Some(error.to_string()),
                        ..Report::default()
                    }
                }
            };
            let report = Report {
                backend: Some(backend.name.clone()),
                ..report
            };
            tell(&report);
            metrics::pass(&backend.name, report.trouble.is_none());
            self.write_down(&backend, &report).await?;
            reports.push(report);
        }
        if only.is_none() {
            let report = self.of_database().await?;
            tell(&report);
            reports.push(report);
        }
        Ok(reports)
    }

    async fn of_backend(&mut self, backend: &backend::Model) -> Result<Report, RouteError> {
        let look = look(&self.ganeti, backend).await?;
        let is_unknown = |found: &&Difference| {
            found.what == What::Orphan && matches!(found.object, Object::Server(_))
        };
        let unknown = look.differences.iter().filter(is_unknown).count();
        let ganeti = Arc::clone(&self.ganeti);
        let held = guard::examine(&ganeti.database, &ganeti.naming, backend, &look.traces).await?;
        ganeti.clients.note_examined(backend.id);
        metrics::cluster(&backend.name, unknown, held.is_some());
        if let Some(reason) = held {
            self.memories.remove(&Some(backend.id));
            return Ok(Report {
                servers: look.servers,
                left: look.differences,
                trouble: Some(reason),
                ..Report::default()
            });
        }
        let memory = self.memories.entry(Some(backend.id)).or_default();
        let plan = memory.pass(look.differences, look.servers, self.limit);
        let mut report = Report {
            servers: look.servers,
            ..Report::default()
        };
        if let Some((changed, allowed)) = plan.stopped {
            let text = format!(
                "{changed} of {} servers would change, and {allowed} may: nothing was repaired; \
                 see `snf-central reconcile --dry-run`",
                look.servers
            );
            if self.stopped.insert(backend.id) {
                tracing::error!(backend = %backend.name, reason = %text, "the reconciler stops");
                self.note_stop(backend, &text).await?;
            }
            report.trouble = Some(text);
        } else {
            self.stopped.remove(&backend.id);
        }
        let rapi = self.ganeti.clients.of(backend)?;
        let place = guard::Place {
            database: &ganeti.database,
            naming: &ganeti.naming,
            backend,
            rapi: &rapi,
        };
        if let Err(error) = place.stamp_if_due(&look.traces).await {
            tracing::warn!(backend = %backend.name, %error, "the cluster is not stamped");
        }
        let site = Site {
            ganeti: &ganeti,
            backend: Some((backend, &rapi)),
            last_job: look.last_job,
        };
        self.carry_out(&site, Some(backend.id), plan, &mut report)
            .await?;
        Ok(report)
    }

    /// What only the database knows.
    async fn of_database(&mut self) -> Result<Report, DbErr> {
        let differences = pools::all(&self.ganeti.database).await?;
        if let Some(reason) = guard::restored(&self.ganeti.database).await? {
            self.memories.remove(&None);
            return Ok(Report {
                left: differences,
                trouble: Some(reason),
                ..Report::default()
            });
        }
        let memory = self.memories.entry(None).or_default();
        let plan = memory.pass(differences, 0, self.limit);
        let mut report = Report::default();
        let ganeti = Arc::clone(&self.ganeti);
        let site = Site {
            ganeti: &ganeti,
            backend: None,
            last_job: 0,
        };
        let done = self.carry_out(&site, None, plan, &mut report).await;
        report.trouble = done.err().map(|error| error.to_string());
        Ok(report)
    }

    async fn carry_out(
        &mut self,
        site: &Site<'_>,
        memory: Option<i64>,
        plan: Plan,
        report: &mut Report,
    ) -> Result<(), RouteError> {
        report.left = plan.waiting;
        let mut due = plan.due.into_iter();
        while let Some(difference) = due.next() {
            let result = site.repair(&difference).await;
            let done = matches!(result, Ok(Done::Repaired));
            if !matches!(result, Err(RouteError::Poison(_)))
                && let Some(memory) = self.memories.get_mut(&memory)
            {
                memory.forget(&difference);
            }
            match result {
                Ok(_) => {}
                Err(RouteError::Poison(reason)) => {
                    tracing::warn!(object = %difference.object, what = %difference.what, %reason,
                        "cannot be repaired");
                }
                Err(error) => {
                    report.left.push(difference);
                    report.left.extend(due);
                    return Err(error);
                }
            }
            if done {
                report.repaired.push(difference);
            } else {
                report.left.push(difference);
            }
        }
        Ok(())
    }

    async fn note_stop(&self, backend: &backend::Model, text: &str) -> Result<(), DbErr> {
        audit::ActiveModel {
            id: ActiveValue::NotSet,
            created_at: ActiveValue::Set(moment::now()),
            backend_id: ActiveValue::Set(Some(backend.id)),
            object: ActiveValue::Set(format!("backend {}", backend.name)),
            what: ActiveValue::Set("stopped".to_owned()),
            before: ActiveValue::Set("-".to_owned()),
            after: ActiveValue::Set(text.to_owned()),
            job_id: ActiveValue::Set(None),
        }
        .insert(&self.ganeti.database)
        .await?;
        Ok(())
    }

    async fn write_down(&self, backend: &backend::Model, report: &Report) -> Result<(), DbErr> {
        let count = |list: &[Difference]| i64::try_from(list.len()).unwrap_or(i64::MAX);
        let row = pass_row::ActiveModel {
            backend_id: ActiveValue::Set(backend.id),
            ended_at: ActiveValue::Set(moment::now()),
            servers: ActiveValue::Set(i64::try_from(report.servers).unwrap_or(i64::MAX)),
            differences: ActiveValue::Set(count(&report.left)),
            repaired: ActiveValue::Set(count(&report.repaired)),
            trouble: ActiveValue::Set(report.trouble.clone()),
        };
        let columns = [
            pass_row::Column::EndedAt,
            pass_row::Column::Servers,
            pass_row::Column::Differences,
            pass_row::Column::Repaired,
            pass_row::Column::Trouble,
        ];
        pass_row::Entity::insert(row)
            .on_conflict(
                OnConflict::column(pass_row::Column::BackendId)
                    .update_columns(columns)
                    .to_owned(),
            )
            .exec_without_returning(&self.ganeti.database)
            .await?;
        Ok(())
    }
}

fn tell(report: &Report) {
    let backend = report.backend.as_deref().unwrap_or("-");
    for difference in &report.repaired {
        metrics::repair(difference.what);
        let instance = match difference.object {
            Object::Server(id) => Some(id),
            _ => None,
        };
        tracing::warn!(%backend, object = %difference.object, instance, what = %difference.what,
            before = %difference.before, after = %difference.after, "repaired");
    }
    match &report.trouble {
        Some(reason) => tracing::warn!(%backend, %reason, "not reconciled"),
        None => tracing::debug!(%backend, servers = report.servers,
            differences = report.left.len(), repaired = report.repaired.len(), "reconciled"),
    }
}
