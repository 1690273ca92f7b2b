//! `snf-central status`: are the clusters, their eventds, the broker and the reconciler well?

use std::sync::Arc;
use std::time::{Duration, Instant};

use agents::message::{Message, RoutingKey};
use anyhow::bail;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, Consumer};
use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QuerySelect};

use super::table;
use crate::config::Config;
use crate::dispatch::{consumer, letters};
use crate::ganeti::guard;
use crate::ganeti::intent;
use crate::ganeti::submission::Submitter;
use crate::model::entity::{backend, backend_network, intent as intent_row, pass, server};
use crate::model::moment;
use crate::reconcile::difference::What;
use crate::reconcile::lease::{self, RECONCILER};
use crate::reconcile::pass::look;
use crate::serve;

/// What an eventd takes for a question whether it is there.
const QUESTION: &str = "snf:eventd:heartbeat";

/// In microseconds: what waits longer to be asked of Ganeti is not well.
const LONG: i64 = 3_600_000_000;
/// The most names that are shown of many.
const FEW: usize = 3;

/// How to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long the answer of an eventd is waited for, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub wait: u64,
}

/// What was found out: one line each, and whether it is well.
#[derive(Debug, Default)]
struct Findings {
    rows: Vec<[String; 3]>,
    bad: usize,
}

impl Findings {
    fn good(&mut self, part: &str, text: String) {
        self.rows.push([part.to_owned(), "ok".to_owned(), text]);
    }

    fn bad(&mut self, part: &str, text: String) {
        self.bad += 1;
        self.rows.push([part.to_owned(), "FAIL".to_owned(), text]);
    }
}

/// Prints how everything is.
///
/// # Errors
/// Something is not well; all has been printed by then.
pub async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let database = super::open(config).await?;
    let ganeti = serve::submitter(config, database);
    let database = &ganeti.database;
    let mut findings = Findings::default();
    let broker = broker(config, &mut findings).await;
    for backend in backend::Entity::find().all(database).await? {
        let part = format!("backend {}", backend.name);
        if backend.offline {
            findings.good(&part, "offline, as the operator says".to_owned());
            continue;
        }
        let answer = ganeti.clients.of(&backend);
        let began = Instant::now();
        let version = match &answer {
            Ok(rapi) => rapi
                .get("/2/info", &[])
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match version {
            Err(error) => findings.bad(&part, error),
            Ok(info) => {
                let text = |name: &str| {
                    let value = info.get(name).and_then(serde_json::Value::as_str);
                    value.unwrap_or("?").to_owned()
                };
                let millis = began.elapsed().as_millis();
                let version = text("software_version");
                findings.good(
                    &part,
                    format!("RAPI of Ganeti {version} answers in {millis} ms"),
                );
                if let (Some(broker), Ok(rapi)) = (&broker, &answer) {
                    let cluster = text("name");
                    let wait = Duration::from_secs(options.wait);
                    match heartbeat(broker, rapi, &cluster, wait).await {
                        Ok(took) => findings
                            .good(&part, format!("eventd answers in {} ms", took.as_millis())),
                        Err(reason) => findings.bad(&part, format!("eventd: {reason}")),
                    }
                }
            }
        }
        held(&ganeti, &backend, &part, &mut findings).await?;
        events(database, &backend, &part, &mut findings).await?;
        last_pass(config, database, &backend, &part, &mut findings).await?;
    }
    match lease::held(database, RECONCILER).await? {
        Some(holder) => findings.good("reconciler", format!("{holder} reconciles")),
        None => findings.bad("reconciler", "no process reconciles".to_owned()),
    }
    let waiting = intent_row::Entity::find()
        .select_only()
        .column_as(intent_row::Column::Id.count(), "count")
        .filter(intent_row::Column::State.eq(intent::PENDING))
        .into_tuple::<i64>()
        .one(database)
        .await?
        .unwrap_or(0);
    let oldest = intent_row::Entity::find()
        .select_only()
        .column_as(intent_row::Column::CreatedAt.min(), "oldest")
        .filter(intent_row::Column::State.eq(intent::PENDING))
        .into_tuple::<Option<i64>>()
        .one(database)
        .await?
        .flatten();
    let text = format!("{waiting} wait to be asked of Ganeti");
    match oldest {
        Some(oldest) if moment::now().saturating_sub(oldest) > LONG => {
            findings.bad(
                "intents",
                format!("{text}, the oldest since {}", age(oldest)),
            );
        }
        _ => findings.good("intents", text),
    }
    print!("{}", table::lines(&findings.rows));
    match findings.bad {
        0 => Ok(()),
        1 => bail!("1 thing is not well"),
        bad => bail!("{bad} things are not well"),
    }
}

/// Adds lines about held clusters and about unknown objects in them.
async fn held(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
    part: &str,
    findings: &mut Findings,
) -> Result<(), DbErr> {
    // That it does not answer has been said.
    let Ok(look) = look(ganeti, backend).await else {
        return Ok(());
    };
    let database = &ganeti.database;
    if let Some(reason) = guard::examine(database, &ganeti.naming, backend, &look.traces).await? {
        findings.bad(
            part,
            format!("nothing is repaired or asked for: {reason}; see `snf-central reconcile`"),
        );
    }
    let unknown: Vec<&str> = look
        .differences
        .iter()
        .filter(|found| found.what == What::Orphan)
        .map(|found| found.after.as_str())
        .collect();
    if !unknown.is_empty() {
        let few = unknown.get(..FEW).unwrap_or(&unknown).join(", ");
        let text = format!(
            "{} unknown instances and networks, as {few}: see `snf-central instance list`",
            unknown.len()
        );
        findings.bad(part, text);
    }
    Ok(())
}

/// The broker: its queues, who consumes them, the dead letters.
async fn broker(config: &Config, findings: &mut Findings) -> Option<Connection> {
    if config.broker_urls.is_empty() {
        findings.good(
            "broker",
            "none is configured: jobs are asked for".to_owned(),
        );
        return None;
    }
    let connection = match letters::connect(&config.broker_urls, "snf-central status").await {
        Ok(connection) => connection,
        Err(error) => {
            findings.bad("broker", error.to_string());
            return None;
        }
    };
    let (live, dead) = consumer::queues(config.names.prefix());
    for queue in live {
        let part = format!("queue {queue}");
        match depth(&connection, &queue).await {
            Ok((messages, 0)) => {
                findings.bad(&part, format!("{messages} messages, and nobody consumes"));
            }
            Ok((messages, consumers)) => {
                findings.good(&part, format!("{messages} messages, {consumers} consumers"));
            }
            Err(error) => findings.bad(&part, error.to_string()),
        }
    }
    let part = format!("queue {dead}");
    match depth(&connection, &dead).await {
        Ok((0, _)) => findings.good(&part, "no dead letters".to_owned()),
        Ok((letters, _)) => findings.bad(
            &part,
            format!("{letters} dead letters: see `snf-central queue list`"),
        ),
        Err(error) => findings.bad(&part, error.to_string()),
    }
    Some(connection)
}

/// The messages in a queue that nobody has yet, and its consumers.
async fn depth(connection: &Connection, queue: &str) -> Result<(u32, u32), lapin::Error> {
    // A queue that is not there ends the channel.
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(queue.into(), passive, FieldTable::default())
        .await?;
    Ok((queue.message_count(), queue.consumer_count()))
}

/// Asks a cluster's eventd through the cluster, and waits for its answer at the broker.
async fn heartbeat(
    broker: &Connection,
    rapi: &crate::ganeti::rapi::Rapi,
    cluster: &str,
    wait: Duration,
) -> Result<Duration, String> {
    let mut answers = heartbeats(broker)
        .await
        .map_err(|error| error.to_string())?;
    let tag = format!("{QUESTION}:{}:{}", lease::host(), std::process::id());
    let query = [("tag", tag.as_str()), ("dry-run", "1")];
    let began = Instant::now();
    let job = rapi
        .submit(
            reqwest::Method::PUT,
            "/2/tags",
            &query,
            None,
            "snf-central status",
        )
        .await
        .map_err(|error| error.to_string())?;
    let answer = async {
        while let Some(delivery) = answers.next().await {
            let delivery = delivery.map_err(|error| error.to_string())?;
            let Ok(Message::Heartbeat(message)) = Message::parse(&delivery.data) else {
                continue;
            };
            if message.cluster == cluster && i64::try_from(message.job_id) == Ok(job) {
                return Ok(began.elapsed());
            }
        }
        Err("the broker ended the wait".to_owned())
    };
    tokio::time::timeout(wait, answer)
        .await
        .unwrap_or_else(|_| {
            let seconds = wait.as_secs();
            Err(format!("no answer to job {job} for {seconds} s"))
        })
}

/// A queue of our own for as long as we are here, with all heartbeats that come now.
async fn heartbeats(broker: &Connection) -> Result<Consumer, lapin::Error> {
    let channel = broker.create_channel().await?;
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), own, FieldTable::default())
        .await?;
    channel
        .queue_bind(
            queue.name().clone(),
            consumer::EXCHANGE.into(),
            RoutingKey::heartbeat().to_string().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(
            queue.name().clone(),
            "".into(),
            options,
            FieldTable::default(),
        )
        .await
}

/// How old the newest event is.
async fn events(
    database: &DatabaseConnection,
    backend: &backend::Model,
    part: &str,
    findings: &mut Findings,
) -> Result<(), DbErr> {
    let servers = server::Entity::find()
        .select_only()
        .column_as(server::Column::JobTime.max(), "newest")
        .filter(server::Column::BackendId.eq(backend.id))
        .into_tuple::<Option<i64>>()
        .one(database)
        .await?;
    let networks = backend_network::Entity::find()
        .select_only()
        .column_as(backend_network::Column::JobTime.max(), "newest")
        .filter(backend_network::Column::BackendId.eq(backend.id))
        .into_tuple::<Option<i64>>()
        .one(database)
        .await?;
    let newest = servers.flatten().max(networks.flatten()).unwrap_or(0);
    let text = match newest {
        0 => "no event has ever come".to_owned(),
        newest => format!("the newest event is {} old", age(newest)),
    };
    findings.good(part, text);
    Ok(())
}

/// The reconciler's last pass over a backend, whoever made it.
async fn last_pass(
    config: &Config,
    database: &DatabaseConnection,
    backend: &backend::Model,
    part: &str,
    findings: &mut Findings,
) -> Result<(), DbErr> {
    let Some(row) = pass::Entity::find_by_id(backend.id).one(database).await? else {
        findings.bad(part, "never reconciled".to_owned());
        return Ok(());
    };
    let interval = i64::try_from(config.reconcile_interval.as_micros()).unwrap_or(i64::MAX);
    let late = interval.saturating_mul(3).saturating_add(60_000_000);
    let old = age(row.ended_at);
    if let Some(reason) = row.trouble {
        findings.bad(part, format!("not reconciled {old} ago: {reason}"));
    } else if moment::now().saturating_sub(row.ended_at) > late {
        findings.bad(
            part,
            format!("reconciled {old} ago: nobody does it any more"),
        );
    } else {
        findings.good(
            part,
            format!(
                "reconciled {old} ago: {} servers, {} repairs, {} differences left",
                row.servers, row.repaired, row.differences
            ),
        );
    }
    Ok(())
}

/// How long ago that was: `3 s`, `5 min`, `7 h`, `2 d`.
fn age(micros: i64) -> String {
    let seconds = moment::now().saturating_sub(micros).max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
