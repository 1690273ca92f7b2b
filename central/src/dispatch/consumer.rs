//! The connection to the broker: queues, consumers, acknowledgements, and starting all over when
//! anything fails.
//!
//! The queues are quorum queues of our own names: another dispatcher on the same broker has its
//! own. A message is acknowledged after its transaction is committed, with others that are. While the database or a
//! cluster is away, the message at hand is tried again and again, and the prefetch limit keeps
//! the others in the broker: nothing is put back, so nothing is counted as a failed delivery.
//!
//! The messages of a queue are applied several at once, those about one object one after the
//! other, in lanes: while one waits for the database's disk, others go on.
//!
//! What a cluster must be asked for is not waited for in its queue: it goes to another one, where
//! every message is tried by itself for as long as its cluster is away. That changes the order,
//! which the registers ([`crate::model::register`]) put right.

use std::fs;
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agents::message::{Message, MessageError, RoutingKey, Topic};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use sea_orm::DbBackend;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::acknowledgements::{Acknowledgement, Acknowledgements, MANY};
use super::moving;
use super::outcome::{Applied, Asking, RouteError};
use super::route;
use crate::ganeti::submission::Submitter;
use crate::metrics;

/// The exchange of the agents.
pub const EXCHANGE: &str = "ganeti";
/// Where the system keeps the authorities that it trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Seconds between AMQP heartbeats.
const HEARTBEAT: u16 = 20;
/// How long a connection may take to come up, in milliseconds.
const CONNECT_MILLIS: u64 = 10_000;
/// The wait before a broker is tried again: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(15);
/// How long the broker may take for an answer; a queue whose leader is being elected takes long.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the broker may take to close what is given up.
const CLOSE: Duration = Duration::from_secs(2);
/// More often than any message is ever delivered: RabbitMQ 4 would drop it after twenty.
const DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// The header of a message about an operation that was only tried (`--dry-run`): most bodies do
/// not say so.
const DRY_RUN: &str = "x-dry-run";

/// How long what is done waits for more, to be acknowledged together.
const ACKNOWLEDGE: Duration = Duration::from_millis(5);

/// How many messages of a queue are applied at once.
const LANES: usize = 4;

/// How many messages wait for their clusters at once in one process.
const ASKING: u16 = 256;

/// A queue of ours and what is bound to it.
struct Binding {
    queue: String,
    key: RoutingKey,
}

/// The names of what we have in the broker.
struct Names {
    bindings: Vec<Binding>,
    /// Of what a cluster must be asked for.
    ask: String,
    dead: String,
}

impl Names {
    fn new(prefix: &str) -> Self {
        let ours = |word: &str| format!("central.{prefix}.{word}");
        let binding = |word: &str, key: RoutingKey| Binding {
            queue: ours(word),
            key,
        };
        let topic = |word: &str, topic| binding(word, RoutingKey::for_prefix(topic, prefix));
        Self {
            bindings: vec![
                topic("op", Topic::Op),
                topic("network", Topic::Network),
                topic("net", Topic::Net),
                topic("progress", Topic::Progress),
                binding("cluster", RoutingKey::cluster()),
                binding("heartbeat", RoutingKey::heartbeat()),
            ],
            ask: ours("ask"),
            dead: ours("dead"),
        }
    }
}

/// The names of the queues that are consumed, and of the one for dead letters.
pub fn queues(prefix: &str) -> (Vec<String>, String) {
    let names = Names::new(prefix);
    let live = names.bindings.into_iter().map(|binding| binding.queue);
    (live.chain([names.ask]).collect(), names.dead)
}

/// Consumes until `stop` says so. A broker that is away is waited for, and said so once.
pub async fn run(
    ganeti: Arc<Submitter>,
    urls: Vec<String>,
    prefetch: u16,
    mut stop: watch::Receiver<bool>,
) {
    let names = Arc::new(Names::new(ganeti.naming.prefix()));
    let mut wait = RETRY_FIRST;
    let mut away = false;
    for url in urls.iter().cycle() {
        if *stop.borrow() {
            return;
        }
        let shown = shown(url);
        let result = tokio::select! {
            result = session(&ganeti, url, prefetch, &names, || {
                tracing::info!(broker = %shown, "consuming");
            }) => result,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match result {
            Ended::NeverUp(error) if away => tracing::debug!(broker = %shown, %error, "still away"),
            Ended::NeverUp(error) => {
                away = true;
                tracing::warn!(broker = %shown, %error, "the broker is away; trying again");
            }
            Ended::Lost(error) => {
                away = false;
                wait = RETRY_FIRST;
                tracing::warn!(broker = %shown, %error, "the broker is lost; connecting again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        wait = wait.saturating_mul(2).min(RETRY_MOST);
    }
}

/// A URL without its password.
pub fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

enum Ended {
    NeverUp(String),
    Lost(String),
}

async fn session(
    ganeti: &Arc<Submitter>,
    url: &str,
    prefetch: u16,
    names: &Arc<Names>,
    up: impl FnOnce(),
) -> Ended {
    let connection = match open(url, names).await {
        Ok(connection) => Arc::new(connection),
        Err(error) => return Ended::NeverUp(error),
    };
    let mut queues = JoinSet::new();
    for index in 0..names.bindings.len() {
        let ganeti = Arc::clone(ganeti);
        let names = Arc::clone(names);
        let connection = Arc::clone(&connection);
        queues.spawn(async move {
            match names.bindings.get(index) {
                Some(binding) => {
                    let once = || consume(&ganeti, &connection, binding, &names, prefetch);
                    again_and_again(&connection, &binding.queue, once).await
                }
                None => Ok(()),
            }
        });
    }
    queues.spawn({
        let ganeti = Arc::clone(ganeti);
        let names = Arc::clone(names);
        let connection = Arc::clone(&connection);
        async move {
            let once = || consume_asking(&ganeti, &connection, &names);
            again_and_again(&connection, &names.ask, once).await
        }
    });
    queues.spawn({
        let names = Arc::clone(names);
        let connection = Arc::clone(&connection);
        async move {
            again_and_again(&connection, &names.dead, || keep(&connection, &names.dead)).await
        }
    });
    up();
    let reason = match queues.join_next().await {
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(Ok(()))) | None => "the broker ended a consumer".to_owned(),
    };
    queues.shutdown().await;
    let _ = tokio::time::timeout(CLOSE, connection.close(200, "".into())).await;
    Ended::Lost(reason)
}

/// A connection that the broker shows by `name`.
///
/// # Errors
/// The URL is none, or the broker does not answer.
pub async fn connect(url: &str, name: &str) -> Result<Connection, String> {
    let mut uri = AMQPUri::from_str(url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.connection_timeout.get_or_insert(CONNECT_MILLIS);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let work = async {
        let tls = tls(&uri)?;
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connect_uri_with_config(uri, properties, tls, runtime).await
    };
    tokio::time::timeout(ANSWER, work)
        .await
        .map_err(|_| unanswered())?
        .map_err(|error| error.to_string())
}

async fn open(url: &str, names: &Names) -> Result<Connection, String> {
    let connection = connect(url, "snf-central dispatcher").await?;
    let work = async {
        let channel = connection.create_channel().await?;
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        for exchange in [EXCHANGE, names.dead.as_str()] {
            channel
                .exchange_declare(
                    exchange.into(),
                    ExchangeKind::Topic,
                    durable,
                    FieldTable::default(),
                )
                .await?;
        }
        channel.close(200, "".into()).await?;
        Ok::<_, lapin::Error>(connection)
    };
    tokio::time::timeout(ANSWER, work)
        .await
        .map_err(|_| unanswered())?
        .map_err(|error| error.to_string())
}

/// lapin leaves TLS out without a word when a feature of its dependencies is missing, and then
/// sends a password plainly to an `amqps://` host: such a build must fail, and does here.
const _: Option<lapin::tcp::RustlsConnector> = None;

/// The authorities that a broker's certificate may come from: the system's.
fn tls(uri: &AMQPUri) -> io::Result<OwnedTLSConfig> {
    if uri.scheme == AMQPScheme::AMQP {
        return Ok(OwnedTLSConfig::default());
    }
    let authorities = fs::read_to_string(SYSTEM_AUTHORITIES)
        .map_err(|error| io::Error::new(error.kind(), format!("{SYSTEM_AUTHORITIES}: {error}")))?;
    Ok(OwnedTLSConfig {
        identity: None,
        cert_chain: Some(authorities),
    })
}

/// Does what is to be done with one queue until the connection is lost.
///
/// A quorum queue that has no leader, as may be after a broker was killed, does not answer, and
/// neither does the channel that has asked it for anything: so each queue has a channel of its
/// own, and one that is in trouble keeps none of the others waiting.
async fn again_and_again<F>(
    connection: &Connection,
    queue: &str,
    once: impl Fn() -> F,
) -> Result<(), lapin::Error>
where
    F: Future<Output = Result<(), QueueError>>,
{
    let mut wait = RETRY_FIRST;
    loop {
        let begun = Instant::now();
        let result = once().await;
        if !connection.status().connected() {
            return match result {
                Err(QueueError::Broker(error)) => Err(error),
                _ => Ok(()),
            };
        }
        if begun.elapsed() > RETRY_MOST + ANSWER {
            wait = RETRY_FIRST;
        }
        match result {
            Ok(()) => tracing::warn!(%queue, "the broker ended the consumer; trying again"),
            Err(error) => tracing::warn!(%queue, %error, "the queue is not served; trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(RETRY_MOST);
    }
}

/// Why a queue is not served.
#[derive(Debug, thiserror::Error)]
enum QueueError {
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    #[error("{}", unanswered())]
    Unanswered,
}

fn unanswered() -> String {
    format!("no answer for {} s", ANSWER.as_secs())
}

async fn answered<T>(work: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, QueueError> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(QueueError::Unanswered),
    }
}

/// Does `work` with a channel of its own and closes it, which puts back what was not
/// acknowledged.
async fn with_channel<F>(
    connection: &Connection,
    work: impl FnOnce(Channel) -> F,
) -> Result<(), QueueError>
where
    F: Future<Output = Result<(), QueueError>>,
{
    let channel = answered(connection.create_channel()).await?;
    let result = work(channel.clone()).await;
    let _ = tokio::time::timeout(CLOSE, channel.close(200, "".into())).await;
    result
}

async fn declare(
    channel: &Channel,
    queue: &str,
    arguments: FieldTable,
) -> Result<(), lapin::Error> {
    channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
        .await?;
    Ok(())
}

/// Declares a queue whose poison goes to the exchange `dead`.
async fn declare_dying(channel: &Channel, queue: &str, dead: &str) -> Result<(), lapin::Error> {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), text(dead));
    declare(channel, queue, arguments).await
}

async fn bind(
    channel: &Channel,
    queue: &str,
    key: &str,
    exchange: &str,
) -> Result<(), lapin::Error> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            options,
            FieldTable::default(),
        )
        .await
}

async fn subscribe(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
) -> Result<Consumer, lapin::Error> {
    // Before the consumer: it holds for whatever consumes later.
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text.as_bytes()))
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    // Of the dead letters as well: looking at them is a delivery.
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(DELIVERY_LIMIT),
    );
    arguments
}

/// Sees to it that the dead-letter queue is there.
async fn keep(connection: &Connection, dead: &str) -> Result<(), QueueError> {
    with_channel(connection, |channel| async move {
        let begin = async {
            declare(&channel, dead, quorum()).await?;
            bind(&channel, dead, "#", dead).await
        };
        answered(begin).await
    })
    .await?;
    // Nothing more to do on this connection.
    std::future::pending().await
}

/// A message on its way, and what its body says.
struct Arrival {
    delivery: Delivery,
    message: Result<Message, MessageError>,
}

impl Arrival {
    fn new(delivery: Delivery) -> Self {
        let message = Message::parse(&delivery.data);
        Self { delivery, message }
    }

    /// Returns whether the header of our agents says that the operation was only tried.
    fn is_dry_run(&self) -> bool {
        let headers = self.delivery.properties.headers().as_ref();
        let value = headers.and_then(|headers| headers.inner().get(DRY_RUN));
        value == Some(&AMQPValue::Boolean(true))
    }

    /// Which of so many lanes it takes.
    fn lane(&self, lanes: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        match &self.message {
            Ok(message) => route::object(message).hash(&mut hasher),
            // Any: it has no place in an order.
            Err(_) => self.delivery.delivery_tag.hash(&mut hasher),
        }
        usize::try_from(hasher.finish() % lanes as u64).unwrap_or(0)
    }
}

/// SQLite has one writer: others would wait for it asleep, in turns of milliseconds.
fn lane_count(ganeti: &Submitter) -> usize {
    match ganeti.database.get_database_backend() {
        DbBackend::Sqlite => 1,
        _ => LANES,
    }
}

async fn consume(
    ganeti: &Arc<Submitter>,
    connection: &Connection,
    binding: &Binding,
    names: &Arc<Names>,
    prefetch: u16,
) -> Result<(), QueueError> {
    let queue = binding.queue.as_str();
    with_channel(connection, |channel| async move {
        let begin = async {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            declare_dying(&channel, queue, &names.dead).await?;
            // Before anything comes that is for there.
            declare_dying(&channel, &names.ask, &names.dead).await?;
            let key = binding.key.to_string();
            bind(&channel, queue, &key, EXCHANGE).await?;
            subscribe(&channel, queue, prefetch).await
        };
        let mut consumer = answered(begin).await?;
        tracing::debug!(%queue, "served");
        let mut work = JoinSet::new();
        let (done, tags) = mpsc::channel(prefetch.into());
        // The broker waits for acknowledgements as soon as all of the prefetch is on its way.
        let many = usize::from(prefetch / 4).clamp(1, MANY);
        work.spawn(acknowledge(channel.clone(), tags, many));
        let mut lanes = Vec::new();
        for _ in 0..lane_count(ganeti) {
            // The broker gives no more than the prefetch before it has acknowledgements.
            let (lane, mut arrivals) = mpsc::channel::<Arrival>(prefetch.into());
            lanes.push(lane);
            let (ganeti, names, channel) = (Arc::clone(ganeti), Arc::clone(names), channel.clone());
            let (queue, done) = (queue.to_owned(), done.clone());
            work.spawn(async move {
                while let Some(arrival) = arrivals.recv().await {
                    handle(&ganeti, &channel, &queue, &names, &arrival, Asking::Later).await?;
                    if done.send(arrival.delivery.delivery_tag).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
        }
        loop {
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                Some(result) = work.join_next() => return match result {
                    Ok(Err(error)) => Err(QueueError::Broker(error)),
                    // It fell over: what it has not acknowledged comes again with the channel.
                    Ok(Ok(())) | Err(_) => Ok(()),
                },
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            let arrival = Arrival::new(delivery?);
            if let Some(lane) = lanes.get(arrival.lane(lanes.len()))
                && lane.send(arrival).await.is_err()
            {
                return Ok(());
            }
        }
    })
    .await
}

/// Acknowledges what is done, `many` at once if they come fast.
async fn acknowledge(
    channel: Channel,
    mut tags: mpsc::Receiver<u64>,
    many: usize,
) -> Result<(), lapin::Error> {
    let mut done = Acknowledgements::default();
    while let Some(tag) = tags.recv().await {
        done.add(tag);
        let more = async {
            while done.waiting() < many
                && let Some(tag) = tags.recv().await
            {
                done.add(tag);
            }
        };
        let _ = tokio::time::timeout(ACKNOWLEDGE, more).await;
        for Acknowledgement { tag, multiple } in done.take() {
            let options = BasicAckOptions { multiple };
            channel.basic_ack(tag, options).await?;
        }
    }
    Ok(())
}

/// As [`consume`], of the queue of what clusters must be asked for: nothing waits for another one.
async fn consume_asking(
    ganeti: &Arc<Submitter>,
    connection: &Connection,
    names: &Arc<Names>,
) -> Result<(), QueueError> {
    with_channel(connection, |channel| async move {
        let begin = async {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            declare_dying(&channel, &names.ask, &names.dead).await?;
            subscribe(&channel, &names.ask, ASKING).await
        };
        let mut consumer = answered(begin).await?;
        let mut asked = JoinSet::new();
        loop {
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                Some(result) = asked.join_next() => match result {
                    Ok(Err(error)) => return Err(QueueError::Broker(error)),
                    // One that fell over is not acknowledged: it comes again with the channel.
                    _ => continue,
                },
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            let arrival = Arrival::new(delivery?);
            let (ganeti, names, channel) = (Arc::clone(ganeti), Arc::clone(names), channel.clone());
            asked.spawn(async move {
                handle(&ganeti, &channel, &names.ask, &names, &arrival, Asking::Now).await?;
                let done = arrival.delivery.ack(BasicAckOptions::default());
                done.await.map(|_| ())
            });
        }
    })
    .await
}

/// What became of a try, as the metrics call it.
fn outcome(result: &Result<Applied, RouteError>) -> &'static str {
    match result {
        Ok(Applied::Yes) => "applied",
        Ok(Applied::Stale) => "stale",
        Ok(Applied::NotOurs) => "not ours",
        Ok(Applied::DryRun) => "dry run",
        Ok(Applied::OtherCluster) => "another cluster",
        Err(RouteError::Poison(_)) => "dead letter",
        Err(RouteError::Transient(_)) => "failed",
        Err(RouteError::MustAsk) => "set aside",
    }
}

/// Applies a message, however long the database or the cluster may be away, or moves it to where
/// it belongs; then it may be acknowledged.
async fn handle(
    ganeti: &Arc<Submitter>,
    channel: &Channel,
    queue: &str,
    names: &Names,
    arrival: &Arrival,
    asking: Asking,
) -> Result<(), lapin::Error> {
    let delivery = &arrival.delivery;
    let mut wait = RETRY_FIRST;
    loop {
        let begun = Instant::now();
        let result = match &arrival.message {
            Ok(message) if arrival.is_dry_run() && !matches!(message, Message::Heartbeat(_)) => {
                Ok(Applied::DryRun)
            }
            Ok(message) => route::apply(ganeti, message, asking).await,
            Err(error) => Err(RouteError::Poison(error.to_string())),
        };
        metrics::message(queue, outcome(&result), begun.elapsed());
        match result {
            Ok(Applied::DryRun) => {
                let key = &delivery.routing_key;
                tracing::info!(%queue, %key, "an operation that was only tried: not applied");
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(RouteError::Poison(reason)) => {
                tracing::error!(%queue, key = %delivery.routing_key, %reason, "dead letter");
                return moving::bury(channel, &names.dead, queue, delivery, &reason).await;
            }
            Err(RouteError::MustAsk) => {
                return moving::set_aside(channel, &names.ask, queue, delivery).await;
            }
            Err(RouteError::Transient(reason)) => {
                tracing::warn!(%queue, %reason, retry_ms = wait.as_millis(), "not applied yet");
            }
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(RETRY_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(shown("amqp://u:p@h:5672/%2f"), "amqp://h:5672/%2f");
        assert_eq!(shown("amqp://h/"), "amqp://h/");
    }
}
