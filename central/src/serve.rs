//! The running service: the API, the dispatcher, and what has to be done from time to time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agents::service::notify;
use anyhow::Context as _;
use sea_orm::DatabaseConnection;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::api;
use crate::api::context::Context;
use crate::api::identity::issue;
use crate::api::one_shot;
use crate::config::{Config, admits};
use crate::dispatch::consumer;
use crate::ganeti::clients::Clients;
use crate::ganeti::measurement;
use crate::ganeti::naming::Naming;
use crate::ganeti::submission::Submitter;
use crate::listener::{self, descriptors};
use crate::metrics;
use crate::model::{availability, database};
use crate::reconcile::{leader, pending, polling};

/// How often pending intents are tried.
const SUBMIT: Duration = Duration::from_secs(5);
/// How often what was told in vain is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// How often the clusters are measured.
const MEASURE: Duration = Duration::from_secs(30);
/// How often jobs are asked for where there is no broker, and where there is one.
const FOLLOW_ALONE: Duration = Duration::from_secs(1);
const FOLLOW: Duration = Duration::from_secs(30);
/// How long a job's messages are waited for before it is asked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long requests may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(20);

/// Makes rustls use ring; to be called before anything else has to do with TLS. A second call
/// does nothing.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Serves until `stop` is done; `listening` hears the address as soon as the API answers there.
///
/// # Errors
/// The database cannot be opened or lacks migrations; the address cannot be bound.
pub async fn run(
    mut config: Config,
    listening: impl FnOnce(std::net::SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let database = open(&config).await.context("cannot open the database")?;
    database::migrate(&database)
        .await
        .context("cannot bring the database up to date")?;
    let ganeti = submitter(&config, database);
    let limit = descriptors::raise();
    let wanted = config.connections.most;
    config.connections.most = descriptors::connections(limit, wanted, config.database_connections);
    if config.connections.most < wanted {
        tracing::warn!(
            "api.connections = {wanted}: only {} fit into the limit of {limit} open descriptors",
            config.connections.most
        );
    }
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    if let Some(address) = config.metrics {
        let address = agents::service::metrics::serve(address, metrics::render)
            .with_context(|| format!("metrics: cannot listen on {address}"))?;
        tracing::info!(%address, "metrics");
    }
    let (stopping, stopped) = watch::channel(false);
    let mut background = JoinSet::new();
    background.spawn(periodically(SUBMIT, "submit", stopped.clone(), {
        let ganeti = Arc::clone(&ganeti);
        move || {
            let ganeti = Arc::clone(&ganeti);
            async move { pending::submit(&ganeti).await }
        }
    }));
    background.spawn(periodically(MEASURE, "measure", stopped.clone(), {
        let ganeti = Arc::clone(&ganeti);
        move || {
            let ganeti = Arc::clone(&ganeti);
            async move { measurement::measure_all(&ganeti).await }
        }
    }));
    background.spawn(periodically(FORGET, "forget", stopped.clone(), {
        let ganeti = Arc::clone(&ganeti);
        move || {
            let ganeti = Arc::clone(&ganeti);
            async move {
                one_shot::purge(&ganeti.database).await?;
                issue::purge(&ganeti.database).await
            }
        }
    }));
    let alone = config.broker_urls.is_empty();
    let (interval, patience) = if alone {
        (FOLLOW_ALONE, Duration::ZERO)
    } else {
        (FOLLOW, PATIENCE)
    };
    background.spawn(periodically(interval, "follow jobs", stopped.clone(), {
        let ganeti = Arc::clone(&ganeti);
        let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        move || {
            let ganeti = Arc::clone(&ganeti);
            async move { polling::follow(&ganeti, patience).await }
        }
    }));
    if alone {
        tracing::warn!("no broker is configured: jobs are followed by asking for them");
    } else {
        background.spawn(consumer::run(
            Arc::clone(&ganeti),
            config.broker_urls.clone(),
            config.prefetch,
            stopped.clone(),
        ));
    }
    background.spawn(leader::run(
        Arc::clone(&ganeti),
        config.reconcile_interval,
        config.reconcile_limit,
        stopped.clone(),
    ));
    let limits = config.connections;
    let proxies = config.trusted_proxies.clone();
    let is_proxy = move |address| admits(&proxies, address);
    let database_url = config.database_url.clone();
    let context = Context::new(config, ganeti)?;
    let availability = context.availability().clone();
    background.spawn(availability.follow(database_url, stopped.clone()));
    let service = api::service(context);
    tracing::info!(%address, "serving");
    listening(address);
    notify::ready();
    background.spawn(tell_that_we_go_on(stopped.clone()));
    let server = listener::serve(listener, limits, is_proxy, service, stopped.clone());
    tokio::pin!(server);
    tokio::select! {
        () = &mut server => {}
        () = stop => {
            tracing::info!("stopping");
            notify::stopping();
            let _ = stopping.send(true);
            if tokio::time::timeout(GRACE, &mut server).await.is_err() {
                tracing::warn!("requests did not end in time");
            }
        }
    }
    let _ = stopping.send(true);
    let drained = async { while background.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        tracing::warn!("background work did not end in time");
    }
    Ok(())
}

/// Opens the database; while its server starts, as it does after a boot, that may take a while.
async fn open(config: &Config) -> anyhow::Result<DatabaseConnection> {
    let url = &config.database_url;
    let (most, wait) = (config.database_connections, config.database_acquire_timeout);
    match database::connect_waiting(url, most, wait).await {
        Ok(database) => Ok(database),
        Err(error) => {
            // The pool says only that it waited in vain.
            availability::probe(url, admin::PATIENCE).await?;
            Err(error.into())
        }
    }
}

/// For the service manager's watchdog: a runtime that hangs tells nothing.
async fn tell_that_we_go_on(mut stopped: watch::Receiver<bool>) {
    let Some(interval) = notify::watchdog_interval() else {
        return;
    };
    let mut timer = tokio::time::interval(interval / 3);
    loop {
        tokio::select! {
            _ = timer.tick() => notify::alive(),
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// What asks Ganeti.
pub(crate) fn submitter(config: &Config, database: DatabaseConnection) -> Arc<Submitter> {
    Arc::new(Submitter {
        database,
        clients: Clients::new(config.rapi_timeout),
        naming: Naming::new(config.names.clone()),
    })
}

/// Does `work` at an interval until told to stop. A failure is logged and the work goes on.
async fn periodically<F, E>(
    interval: Duration,
    name: &'static str,
    mut stop: watch::Receiver<bool>,
    work: impl Fn() -> F,
) where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        tokio::select! {
            result = work() => if let Err(error) = result {
                tracing::error!(work = name, %error, "failed; it will be tried again");
            },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
