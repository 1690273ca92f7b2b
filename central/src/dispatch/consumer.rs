//! The connection to the broker: queues, consumers, acknowledgements, and starting all over when
//! anything fails.
//!
//! The queues are quorum queues of our own names: another dispatcher on the same broker has its
//! own. A message is acknowledged when its transaction is committed. While the database or a
//! cluster is away, the message at hand is tried again and again, and the prefetch limit keeps
//! the others in the broker: nothing is put back, so nothing is counted as a failed delivery.

use std::fs;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use agents::message::{RoutingKey, Topic};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::poison;
use super::route::{self, Applied, RouteError};
use crate::ganeti::submission::Submitter;

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
/// More often than any message is ever delivered: RabbitMQ 4 would drop it after twenty.
const DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// A queue of ours and what is bound to it.
struct Binding {
    queue: String,
    key: RoutingKey,
}

/// The names of what we have in the broker.
struct Names {
    bindings: Vec<Binding>,
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
            dead: ours("dead"),
        }
    }
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
fn shown(url: &str) -> String {
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
    let (connection, channel) = match open(url, prefetch, names).await {
        Ok(open) => open,
        Err(error) => return Ended::NeverUp(error),
    };
    let mut consumers = JoinSet::new();
    for index in 0..names.bindings.len() {
        let ganeti = Arc::clone(ganeti);
        let names = Arc::clone(names);
        let channel = channel.clone();
        consumers.spawn(async move {
            match names.bindings.get(index) {
                Some(binding) => consume(&ganeti, &channel, &binding.queue, &names.dead).await,
                None => Ok(()),
            }
        });
    }
    up();
    let reason = match consumers.join_next().await {
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(Ok(()))) | None => "the broker ended a consumer".to_owned(),
    };
    consumers.shutdown().await;
    let _ = tokio::time::timeout(Duration::from_secs(2), connection.close(200, "".into())).await;
    Ended::Lost(reason)
}

async fn open(url: &str, prefetch: u16, names: &Names) -> Result<(Connection, Channel), String> {
    let mut uri = AMQPUri::from_str(url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.connection_timeout.get_or_insert(CONNECT_MILLIS);
    let properties =
        ConnectionProperties::default().with_connection_name("snf-central dispatcher".into());
    let work = async {
        let tls = tls(&uri)?;
        let runtime = lapin::runtime::default_runtime()?;
        let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        declare(&channel, names).await?;
        // Of the channel, not of the consumer: it holds for whatever consumes later.
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        Ok::<_, lapin::Error>((connection, channel))
    };
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .map_err(|_| "no answer for 30 s".to_owned())?
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

async fn declare(channel: &Channel, names: &Names) -> Result<(), lapin::Error> {
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
    let text = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
    let mut dead = FieldTable::default();
    dead.insert("x-queue-type".into(), text("quorum"));
    let mut live = dead.clone();
    live.insert("x-dead-letter-exchange".into(), text(&names.dead));
    live.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(DELIVERY_LIMIT),
    );
    let queue = |name: String, key: String, exchange: String, arguments: FieldTable| async move {
        channel
            .queue_declare(
                name.as_str().into(),
                QueueDeclareOptions::durable(),
                arguments,
            )
            .await?;
        channel
            .queue_bind(
                name.into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
    };
    queue(names.dead.clone(), "#".to_owned(), names.dead.clone(), dead).await?;
    for binding in &names.bindings {
        queue(
            binding.queue.clone(),
            binding.key.to_string(),
            EXCHANGE.to_owned(),
            live.clone(),
        )
        .await?;
    }
    Ok(())
}

async fn consume(
    ganeti: &Arc<Submitter>,
    channel: &Channel,
    queue: &str,
    dead: &str,
) -> Result<(), lapin::Error> {
    let mut consumer = channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        handle(ganeti, channel, queue, dead, &delivery).await?;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// Applies a message, however long the database or the cluster may be away, or buries it.
async fn handle(
    ganeti: &Arc<Submitter>,
    channel: &Channel,
    queue: &str,
    dead: &str,
    delivery: &Delivery,
) -> Result<(), lapin::Error> {
    let mut wait = RETRY_FIRST;
    loop {
        match route::apply(ganeti, &delivery.data).await {
            Ok(Applied::Yes | Applied::Stale | Applied::NotOurs) => return Ok(()),
            Err(RouteError::Poison(reason)) => {
                tracing::error!(%queue, key = %delivery.routing_key, %reason, "dead letter");
                return poison::bury(channel, dead, queue, delivery, &reason).await;
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
