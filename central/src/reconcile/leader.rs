//! Passes at an interval, in the one process that has the lease.
//!
//! The lease is short and renewed all the time, whatever a pass is at: when the process that has
//! it dies, another one takes over soon.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::lease::{self, RECONCILER};
use super::memory::Limit;
use super::pass::Reconciler;
use crate::arenas;
use crate::ganeti::submission::Submitter;

/// How long a lease is good for when it is not renewed: longer than clocks differ.
const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed, or looked at by those who do not have it.
const RENEW: Duration = Duration::from_secs(10);
/// How much longer than the interval a pass may take.
const SPARE: Duration = Duration::from_secs(120);

/// Reconciles until told to stop.
pub async fn run(
    ganeti: Arc<Submitter>,
    every: Duration,
    limit: Limit,
    mut stop: watch::Receiver<bool>,
) {
    let me = lease::holder();
    let mut reconciler = Reconciler::new(Arc::clone(&ganeti), limit);
    loop {
        let leading = async {
            until_mine(&ganeti, &me).await;
            tracing::info!(holder = %me, "this process reconciles");
            reconciler.forget();
            tokio::select! {
                () = passes(&mut reconciler, every) => {}
                () = while_mine(&ganeti, &me) => {}
            }
            tracing::warn!(holder = %me, "this process reconciles no more: it lost its lease");
        };
        tokio::select! {
            () = leading => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    if let Err(error) = lease::give_back(&ganeti.database, RECONCILER, &me).await {
        tracing::debug!(%error, "the lease is not given back; it ends by itself");
    }
}

async fn take(ganeti: &Submitter, me: &str) -> Result<bool, DbErr> {
    let micros = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
    lease::take(&ganeti.database, RECONCILER, me, micros).await
}

/// Ends when the lease is taken.
async fn until_mine(ganeti: &Submitter, me: &str) {
    let mut timer = interval(RENEW);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        match take(ganeti, me).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot ask who reconciles; trying again"),
        }
    }
}

/// Renews the lease; ends when somebody else has it, or might.
async fn while_mine(ganeti: &Submitter, me: &str) {
    let mut timer = interval(RENEW);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let renewed = async {
            loop {
                match take(ganeti, me).await {
                    Ok(mine) => return mine,
                    Err(error) => {
                        tracing::error!(%error, "cannot renew the lease; trying again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        };
        let patience = LEASE.saturating_sub(RENEW * 2);
        if !tokio::time::timeout(patience, renewed)
            .await
            .unwrap_or(false)
        {
            return;
        }
    }
}

/// Passes, for ever.
async fn passes(reconciler: &mut Reconciler, every: Duration) {
    let longest = every.saturating_add(SPARE);
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        match tokio::time::timeout(longest, reconciler.pass(None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot reconcile; it will be tried again");
            }
            Err(_) => {
                let seconds = longest.as_secs();
                tracing::error!(seconds, "a pass took too long and was given up");
            }
        }
        // A pass knows all servers at once, and the next one may be far off.
        arenas::give_back();
    }
}
