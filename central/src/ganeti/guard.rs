//! Noticing that the database is older than its clusters, as after a restored backup, or that
//! another database gives out the same names in a cluster.
//!
//! Then nothing is asked of the cluster and nothing is repaired until an operator has looked at
//! it. Numbers are moved beyond all that a cluster shows in any case: that can harm nothing.
//!
//! The cluster is looked at first and the database read afterwards: what the database gave out
//! in between is no sign of anything.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr,
    EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QuerySelect,
};

use super::naming::Naming;
use super::rapi::{Rapi, RapiError};
use super::stamp::{self, Stamp};
use super::traces::{Asked, Traces};
use crate::model::database::insert_once;
use crate::model::entity::{
    backend, backend_network, cluster_mark, installation, intent as intent_row, server,
};
use crate::model::ids::{self, Ids};
use crate::model::moment;

/// The id of the only row of the installation.
const ONLY: i64 = 1;
/// The numbers that a stamp reserves, and the fewest that may be left before the next one.
const RESERVE: i64 = 1000;
const RESERVE_LOW: i64 = 250;
/// A stamp is written again when it is this old, in microseconds, and something was asked since.
const STAMP_AGE: i64 = 3_600_000_000;
/// The time until a stamp that was written is seen, in microseconds.
const STAMP_PATIENCE: i64 = 600_000_000;
/// The time limit of jobs on tags when an operator takes a cluster over.
const TAGS: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The most intents that are looked up in one statement.
const CHUNK: usize = 500;

/// A failure to examine or mark a cluster.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// RAPI failed.
    #[error(transparent)]
    Rapi(#[from] RapiError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// The tags of the cluster are not as they were asked to be.
    #[error("cluster {0}: the jobs that change its tags have not ended in time")]
    Tags(String),
}

/// The verdict of a look at a cluster on the database.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Good,
    /// The database is older than the cluster.
    Older(String),
    /// The cluster is not this database's alone, or another one than before.
    Foreign(String),
}

/// The things that the database is held against.
struct Known<'a> {
    installation: &'a installation::Model,
    mark: Option<&'a cluster_mark::Model>,
    given_out: Ids,
    /// The first job that an intent became which the database does not have.
    unknown: Option<Asked>,
}

/// Compares what a cluster shows with what the database knows: pure.
fn judge(cluster: &str, naming: &Naming, known: &Known<'_>, traces: &Traces) -> Finding {
    let before = known.mark.and_then(|mark| mark.cluster_uuid.as_ref());
    if let (Some(before), Some(now)) = (before, &traces.cluster_uuid)
        && before != now
    {
        return Finding::Foreign(format!(
            "backend {cluster} is another cluster now: its uuid is {now}, and was {before}"
        ));
    }
    let own = &known.installation.uuid;
    let (ours, others): (Vec<&Stamp>, Vec<&Stamp>) =
        traces.stamps.iter().partition(|stamp| stamp.uuid == *own);
    if let Some(other) = others.first() {
        return Finding::Foreign(format!(
            "the database {} gives out names with the prefix {} in cluster {cluster}, too; this \
             one is {own}",
            other.uuid,
            naming.prefix()
        ));
    }
    let older = |sign: String| {
        Finding::Older(format!(
            "the database is older than cluster {cluster}: {sign}"
        ))
    };
    let generation = ours.iter().map(|stamp| stamp.generation).max();
    if let Some(generation) = generation
        && generation > known.installation.generation
    {
        return older(format!(
            "generation {generation} is written there, and the database is at {}",
            known.installation.generation
        ));
    }
    if let Some(asked) = known.unknown {
        return older(format!(
            "job {} there is of intent {} of {}, which the database does not have",
            asked.job,
            asked.intent,
            moment::iso(asked.created_at)
        ));
    }
    for (there, given_out, name) in [
        (
            traces.there.server,
            known.given_out.server,
            naming.instance(traces.there.server),
        ),
        (
            traces.there.network,
            known.given_out.network,
            naming.network(traces.there.network),
        ),
    ] {
        if there > given_out {
            return older(format!(
                "{name} is there, and the database has given out numbers up to {given_out}"
            ));
        }
    }
    Finding::Good
}

/// Examines the database by what a cluster shows: writes down why it is held, if it is, and moves
/// the numbers that it gives out beyond all that is there. Returns why nothing is to be done in
/// this cluster.
///
/// # Errors
/// The database fails.
pub async fn examine(
    database: &DatabaseConnection,
    naming: &Naming,
    backend: &backend::Model,
    traces: &Traces,
) -> Result<Option<String>, DbErr> {
    let installation = installation(database).await?;
    let mark = cluster_mark::Entity::find_by_id(backend.id)
        .one(database)
        .await?;
    let accepted = mark.as_ref().map_or(0, |mark| mark.accepted_job);
    let known = Known {
        installation: &installation,
        mark: mark.as_ref(),
        given_out: ids::given_out(database).await?,
        unknown: unknown(database, traces, accepted).await?,
    };
    let finding = judge(&backend.name, naming, &known, traces);
    // First what is held, then the numbers: they are the sign of some of it.
    let mut foreign = None;
    let mut floor = traces.floor();
    match finding {
        // What its own stamp reserves is its own to give out.
        Finding::Good => floor = traces.highest,
        Finding::Older(reason) => hold(database, &reason).await?,
        Finding::Foreign(reason) => foreign = Some(reason),
    }
    mark_cluster(database, backend, mark.as_ref(), traces, foreign).await?;
    ids::raise(database, floor).await?;
    held(database, backend.id).await
}

/// The row of the installation.
///
/// # Errors
/// The database fails.
pub async fn installation(database: &DatabaseConnection) -> Result<installation::Model, DbErr> {
    installation::Entity::find_by_id(ONLY)
        .one(database)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("the row of the installation".to_owned()))
}

/// Returns the reason that nothing is repaired or created; none: all is well.
///
/// # Errors
/// The database fails.
pub async fn restored(database: &DatabaseConnection) -> Result<Option<String>, DbErr> {
    let row = installation::Entity::find_by_id(ONLY).one(database).await?;
    Ok(row.and_then(|row| row.hold))
}

/// Returns the reason that nothing is done in a cluster; none: all is well.
///
/// # Errors
/// The database fails.
pub async fn held(database: &DatabaseConnection, backend: i64) -> Result<Option<String>, DbErr> {
    if let Some(reason) = restored(database).await? {
        return Ok(Some(reason));
    }
    let mark = cluster_mark::Entity::find_by_id(backend)
        .one(database)
        .await?;
    Ok(mark.and_then(|mark| mark.hold))
}

/// The clusters in which nothing is done since they are not this database's alone.
///
/// # Errors
/// The database fails.
pub async fn foreign(database: &impl ConnectionTrait) -> Result<Vec<i64>, DbErr> {
    cluster_mark::Entity::find()
        .select_only()
        .column(cluster_mark::Column::BackendId)
        .filter(cluster_mark::Column::Hold.is_not_null())
        .into_tuple()
        .all(database)
        .await
}

/// The first job whose intent the database does not have, of those after `accepted`.
async fn unknown(
    database: &DatabaseConnection,
    traces: &Traces,
    accepted: i64,
) -> Result<Option<Asked>, DbErr> {
    let asked: Vec<Asked> = traces
        .asked
        .iter()
        .copied()
        .filter(|asked| asked.job > accepted)
        .collect();
    for chunk in asked.chunks(CHUNK) {
        let known: HashMap<i64, i64> = intent_row::Entity::find()
            .select_only()
            .column(intent_row::Column::Id)
            .column(intent_row::Column::CreatedAt)
            .filter(intent_row::Column::Id.is_in(chunk.iter().map(|asked| asked.intent)))
            .into_tuple::<(i64, i64)>()
            .all(database)
            .await?
            .into_iter()
            .collect();
        let is_known = |asked: &&Asked| known.get(&asked.intent) == Some(&asked.created_at);
        if let Some(unknown) = chunk.iter().find(|asked| !is_known(asked)) {
            return Ok(Some(*unknown));
        }
    }
    Ok(None)
}

/// Writes down that the database is older than a cluster. It stays so until an operator accepts
/// it: the signs may go away by themselves.
async fn hold(database: &DatabaseConnection, reason: &str) -> Result<(), DbErr> {
    let done = installation::Entity::update_many()
        .col_expr(installation::Column::Hold, Expr::value(reason))
        .col_expr(installation::Column::HeldSince, Expr::value(moment::now()))
        .filter(installation::Column::Id.eq(ONLY))
        .filter(installation::Column::Hold.is_null())
        .exec(database)
        .await?;
    if done.rows_affected > 0 {
        tracing::error!(%reason, "nothing is repaired and nothing is created any more; see \
            `snf-central status`");
    }
    Ok(())
}

async fn mark_cluster(
    database: &DatabaseConnection,
    backend: &backend::Model,
    known: Option<&cluster_mark::Model>,
    traces: &Traces,
    hold: Option<String>,
) -> Result<(), DbErr> {
    let before = known.and_then(|mark| mark.hold.as_ref());
    match (before, &hold) {
        (None, Some(reason)) => {
            tracing::error!(backend = %backend.name, %reason, "nothing is done in this cluster any \
                more; see `snf-central status`");
        }
        (Some(_), None) => {
            tracing::info!(backend = %backend.name, "the cluster is this database's alone again");
        }
        _ => {}
    }
    if let Some(known) = known {
        if before == hold.as_ref() && known.cluster_uuid.is_some() {
            return Ok(());
        }
        let mut row = known.clone().into_active_model();
        if known.cluster_uuid.is_none() {
            row.cluster_uuid = ActiveValue::Set(traces.cluster_uuid.clone());
        }
        row.hold = ActiveValue::Set(hold);
        row.update(database).await?;
        return Ok(());
    }
    let row = cluster_mark::ActiveModel {
        backend_id: ActiveValue::Set(backend.id),
        cluster_uuid: ActiveValue::Set(traces.cluster_uuid.clone()),
        stamp: ActiveValue::Set(None),
        stamped_at: ActiveValue::Set(0),
        stamped_intent: ActiveValue::Set(0),
        accepted_job: ActiveValue::Set(0),
        hold: ActiveValue::Set(hold),
    };
    insert_once(database, row, [cluster_mark::Column::BackendId]).await?;
    Ok(())
}

/// The destination of a stamp.
pub struct Place<'a> {
    pub database: &'a DatabaseConnection,
    pub naming: &'a Naming,
    pub backend: &'a backend::Model,
    pub rapi: &'a Rapi,
}

impl Place<'_> {
    /// Writes a stamp into a cluster that was found well, if it is time for one; takes off what
    /// is left of older ones.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn stamp_if_due(&self, traces: &Traces) -> Result<(), GuardError> {
        let installation = installation(self.database).await?;
        let mark = cluster_mark::Entity::find_by_id(self.backend.id)
            .one(self.database)
            .await?;
        let now = moment::now();
        let (stamped_at, stamped_intent) = mark
            .as_ref()
            .map_or((0, 0), |mark| (mark.stamped_at, mark.stamped_intent));
        let mut ours: Vec<&Stamp> = traces
            .stamps
            .iter()
            .filter(|stamp| stamp.uuid == installation.uuid)
            .collect();
        ours.sort_by_key(|stamp| stamp.generation);
        let newest = ours.pop();
        let since = now.saturating_sub(stamped_at);
        let due = match newest {
            // A job may be on its way.
            None => since > STAMP_PATIENCE && self.is_used().await?,
            Some(newest) => {
                let given_out = ids::given_out(self.database).await?;
                let low = !given_out.plus(RESERVE_LOW).is_within(newest.reserved);
                let asked = since > STAMP_AGE && self.last_intent().await? > stamped_intent;
                let seen = mark.as_ref().and_then(|mark| mark.stamp.as_deref())
                    == Some(newest.to_string().as_str());
                (low || asked) && (seen || since > STAMP_PATIENCE)
            }
        };
        if due {
            self.stamp().await?;
        }
        self.take_off(&ours).await
    }

    /// Writes a stamp.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn stamp(&self) -> Result<(), GuardError> {
        let last_intent = self.last_intent().await?;
        // In the database before it is in the cluster: a stamp is never ahead of its database.
        installation::Entity::update_many()
            .col_expr(
                installation::Column::Generation,
                Expr::col(installation::Column::Generation).add(1),
            )
            .filter(installation::Column::Id.eq(ONLY))
            .exec(self.database)
            .await?;
        let installation = installation(self.database).await?;
        let stamp = Stamp {
            prefix: self.naming.prefix().to_owned(),
            uuid: installation.uuid,
            generation: installation.generation,
            reserved: ids::given_out(self.database).await?.plus(RESERVE),
        }
        .to_string();
        if stamp.len() > stamp::LIMIT {
            tracing::error!(backend = %self.backend.name, %stamp, "too long for a tag");
            return Ok(());
        }
        cluster_mark::Entity::update_many()
            .col_expr(cluster_mark::Column::Stamp, Expr::value(stamp.as_str()))
            .col_expr(cluster_mark::Column::StampedAt, Expr::value(moment::now()))
            .col_expr(
                cluster_mark::Column::StampedIntent,
                Expr::value(last_intent),
            )
            .filter(cluster_mark::Column::BackendId.eq(self.backend.id))
            .exec(self.database)
            .await?;
        let query = [("tag", stamp.as_str())];
        let job = self.tags(reqwest::Method::PUT, &query).await?;
        tracing::info!(backend = %self.backend.name, job, %stamp, "the cluster is stamped");
        Ok(())
    }

    async fn take_off(&self, stamps: &[&Stamp]) -> Result<(), GuardError> {
        if stamps.is_empty() {
            return Ok(());
        }
        let tags: Vec<String> = stamps.iter().map(ToString::to_string).collect();
        let query: Vec<(&str, &str)> = tags.iter().map(|tag| ("tag", tag.as_str())).collect();
        let job = self.tags(reqwest::Method::DELETE, &query).await?;
        tracing::info!(backend = %self.backend.name, job, ?tags, "stamps are taken off");
        Ok(())
    }

    async fn tags(
        &self,
        method: reqwest::Method,
        query: &[(&str, &str)],
    ) -> Result<i64, RapiError> {
        let reason = format!("snf-central:{}:stamp", self.naming.prefix());
        self.rapi
            .submit(method, "/2/tags", query, None, &reason)
            .await
    }

    /// Returns whether the database has anything in the cluster: one that it does not use is not written
    /// to.
    async fn is_used(&self) -> Result<bool, DbErr> {
        let servers = server::Entity::find()
            .filter(server::Column::BackendId.eq(self.backend.id))
            .count(self.database)
            .await?;
        let networks = backend_network::Entity::find()
            .filter(backend_network::Column::BackendId.eq(self.backend.id))
            .count(self.database)
            .await?;
        Ok(servers > 0 || networks > 0)
    }

    async fn last_intent(&self) -> Result<i64, DbErr> {
        let last = intent_row::Entity::find()
            .select_only()
            .column_as(intent_row::Column::Id.max(), "last")
            .into_tuple::<Option<i64>>()
            .one(self.database)
            .await?;
        Ok(last.flatten().unwrap_or(0))
    }

    /// Accepts for an operator that the database is older than this cluster: its jobs until now
    /// need no intent, and the next stamp is ahead of all that are there.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn accept(&self) -> Result<Traces, GuardError> {
        let traces = Traces::look(self.rapi, self.naming).await?;
        examine(self.database, self.naming, self.backend, &traces).await?;
        ids::raise(self.database, traces.floor()).await?;
        let installation = installation(self.database).await?;
        let ours = traces
            .stamps
            .iter()
            .filter(|stamp| stamp.uuid == installation.uuid);
        let ahead = ours.map(|stamp| stamp.generation).max().unwrap_or(0);
        installation::Entity::update_many()
            .col_expr(installation::Column::Generation, Expr::value(ahead))
            .filter(installation::Column::Id.eq(ONLY))
            .filter(installation::Column::Generation.lt(ahead))
            .exec(self.database)
            .await?;
        cluster_mark::Entity::update_many()
            .col_expr(
                cluster_mark::Column::AcceptedJob,
                Expr::value(traces.last_job),
            )
            .filter(cluster_mark::Column::BackendId.eq(self.backend.id))
            .exec(self.database)
            .await?;
        Ok(traces)
    }

    /// Makes the cluster this database's for an operator: takes off the stamps of other
    /// databases, waits until they are gone, and forgets which cluster was here before.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn take_over(&self) -> Result<(), GuardError> {
        let traces = self.accept().await?;
        let own = installation(self.database).await?.uuid;
        let others: Vec<&Stamp> = traces
            .stamps
            .iter()
            .filter(|stamp| stamp.uuid != own)
            .collect();
        self.take_off(&others).await?;
        let deadline = tokio::time::Instant::now() + TAGS;
        loop {
            let mut now = Traces::default();
            now.note_info(self.naming, &self.rapi.get("/2/info", &[]).await?);
            if now.stamps.iter().all(|stamp| stamp.uuid == own) {
                break;
            }
            if tokio::time::Instant::now() > deadline {
                return Err(GuardError::Tags(self.backend.name.clone()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        cluster_mark::Entity::update_many()
            .col_expr(
                cluster_mark::Column::ClusterUuid,
                Expr::value(traces.cluster_uuid),
            )
            .col_expr(cluster_mark::Column::Hold, Expr::value(None::<String>))
            .filter(cluster_mark::Column::BackendId.eq(self.backend.id))
            .exec(self.database)
            .await?;
        self.stamp().await
    }
}

/// Lets repairs and creations go on after an operator has accepted every cluster.
///
/// # Errors
/// The database fails.
pub async fn go_on(database: &DatabaseConnection) -> Result<(), DbErr> {
    installation::Entity::update_many()
        .col_expr(installation::Column::Hold, Expr::value(None::<String>))
        .col_expr(installation::Column::HeldSince, Expr::value(None::<i64>))
        .filter(installation::Column::Id.eq(ONLY))
        .exec(database)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use agents::ganeti::names::Names;

    use super::*;

    const OWN: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn stamp(uuid: &str, generation: i64) -> Stamp {
        Stamp {
            prefix: "snf".to_owned(),
            uuid: uuid.to_owned(),
            generation,
            reserved: Ids::default(),
        }
    }

    fn finding(change: impl FnOnce(&mut Known<'_>, &mut Traces)) -> Finding {
        let naming = Naming::new(Names::new("snf").unwrap());
        let installation = installation::Model {
            id: ONLY,
            uuid: OWN.to_owned(),
            generation: 5,
            hold: None,
            held_since: None,
        };
        let mark = cluster_mark::Model {
            backend_id: 1,
            cluster_uuid: Some("here".to_owned()),
            stamp: None,
            stamped_at: 0,
            stamped_intent: 0,
            accepted_job: 0,
            hold: None,
        };
        let mut known = Known {
            installation: &installation,
            mark: Some(&mark),
            given_out: Ids {
                server: 7,
                network: 7,
                nic: 7,
                volume: 7,
            },
            unknown: None,
        };
        let mut traces = Traces {
            cluster_uuid: Some("here".to_owned()),
            stamps: vec![stamp(OWN, 5)],
            there: known.given_out,
            ..Traces::default()
        };
        change(&mut known, &mut traces);
        judge("one", &naming, &known, &traces)
    }

    #[test]
    fn what_the_database_knows_is_well() {
        assert_eq!(finding(|_, _| {}), Finding::Good);
        assert_eq!(finding(|_, traces| traces.stamps.clear()), Finding::Good);
        // NICs and disks may be named by hand: that stops nothing.
        let nics = finding(|_, traces| traces.there.nic = 99);
        assert_eq!(nics, Finding::Good);
    }

    #[test]
    fn an_older_database_is_known_by_generation_intent_and_numbers() {
        let is_older = |finding: &Finding, sign: &str| match finding {
            Finding::Older(text) => assert!(text.contains(sign), "{text}"),
            other => panic!("{other:?}"),
        };
        let found = finding(|_, traces| traces.stamps.push(stamp(OWN, 6)));
        is_older(&found, "generation 6");
        let unknown = Asked {
            job: 30,
            intent: 40,
            created_at: 0,
        };
        is_older(&finding(|known, _| known.unknown = Some(unknown)), "job 30");
        is_older(&finding(|_, traces| traces.there.server = 8), "snf-8");
        is_older(&finding(|_, traces| traces.there.network = 8), "snf-net-8");
    }

    #[test]
    fn another_database_and_another_cluster_are_no_older_ones() {
        let is_foreign = |finding: Finding, sign: &str| match finding {
            Finding::Foreign(text) => assert!(text.contains(sign), "{text}"),
            other => panic!("{other:?}"),
        };
        let found = finding(|_, traces| {
            traces.stamps.push(stamp(OTHER, 9));
            traces.there.server = 8;
        });
        is_foreign(found, OTHER);
        let found = finding(|_, traces| traces.cluster_uuid = Some("there".to_owned()));
        is_foreign(found, "another cluster");
    }
}
