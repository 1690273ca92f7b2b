//! Passes at an interval, in the one process that has the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::lease::{self, RECONCILER};
use super::memory::Limit;
use super::pass::Reconciler;
use crate::ganeti::submission::Submitter;

/// How long the lease is good for after a pass would have begun: longer than clocks differ and
/// passes take.
const SPARE: Duration = Duration::from_secs(120);

/// Reconciles until told to stop.
pub async fn run(
    ganeti: Arc<Submitter>,
    interval: Duration,
    limit: Limit,
    mut stop: watch::Receiver<bool>,
) {
    let me = lease::holder();
    let life = interval.saturating_add(SPARE);
    let mut reconciler = Reconciler::new(Arc::clone(&ganeti), limit);
    let mut leads = false;
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let work = async {
            let micros = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
            let mine = lease::take(&ganeti.database, RECONCILER, &me, micros).await?;
            if mine && !leads {
                tracing::info!(holder = %me, "this process reconciles");
                reconciler.forget();
            }
            leads = mine;
            if mine {
                reconciler.pass(None).await?;
            }
            Ok::<_, sea_orm::DbErr>(())
        };
        tokio::select! {
            result = tokio::time::timeout(life, work) => match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "cannot reconcile; it will be tried again"),
                Err(_) => tracing::error!(seconds = life.as_secs(), "a pass took too long and was given up"),
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    if leads && let Err(error) = lease::give_back(&ganeti.database, RECONCILER, &me).await {
        tracing::debug!(%error, "the lease is not given back; it ends by itself");
    }
}
