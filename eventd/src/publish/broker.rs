//! A connection to a broker, ready to publish on. It is never repaired: on any error it is
//! dropped whole and another is made (lapin's own recovery leaves confirms hanging for the
//! whole of an outage).

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agents::outbox::Entry;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Event};
use lapin::{ErrorKind, ExchangeKind};

use super::confirms::{Confirm, Reply};
use super::{Host, Refusal};
use crate::config::{Amqp, ExchangeMissing};

/// Where the system keeps the authorities that it trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// lapin leaves TLS out without a word when a feature of its dependencies is missing, and then
/// sends a password plainly to an `amqps://` host: such a build must fail, and does here.
const _: Option<lapin::tcp::RustlsConnector> = None;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker said no, or is not there.
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    /// Nothing happened for so many seconds.
    #[error("no answer within {0} s")]
    Timeout(u64),
    /// A certificate file cannot be read.
    #[error("cannot read {path}: {source}")]
    Certificate {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The exchange is not there, and the configuration says to wait for it.
    #[error("there is no exchange {0:?}, and amqp.exchange_missing is \"wait\"")]
    NoExchange(String),
}

/// The longest frame, in bytes, unless the URI says otherwise; what is longer goes in several.
/// The client keeps buffers of many times this, and the broker's own default (128 KiB) would
/// make them most of this process. Brokers refuse less than 4 KiB, and from 4.1 on 8 KiB.
const FRAME_MAX: u32 = 32 << 10;

/// The header with a message's number.
const SEQ: &str = "x-seq";

/// The header of a message about an operation that was only tried.
const DRY_RUN: &str = "x-dry-run";

/// The time limit of the answer to a message that is sent alone.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The broker gives back what no queue wants.
const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};

/// The result of publishing messages one after the other.
#[derive(Debug)]
pub(super) struct InTurn {
    /// So many of the first were taken.
    pub taken: usize,
    /// The reason that the next one was not published; `None` if all were.
    pub stop: Option<Stop>,
}

/// The reason that a message was not taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// No queue wanted it.
    Returned,
    /// A queue refused it.
    Nacked,
    /// The broker refused it, or is gone.
    Refused(Refusal),
}

/// How to get a connection.
#[derive(Debug, Clone)]
pub struct Broker {
    /// The exchange.
    pub exchange: String,
    /// What if it is not there.
    pub exchange_missing: ExchangeMissing,
    /// Seconds between heartbeats.
    pub heartbeat: u16,
    /// When an attempt is given up.
    pub timeout: Duration,
    /// Whether messages carry CloudEvents headers too.
    pub cloudevents: bool,
    /// Certificates.
    pub tls: crate::config::Tls,
    /// What the broker's operator sees: `snf-ganeti-eventd@node1.gnt.lab`.
    pub name: String,
}

impl Broker {
    /// As the configuration says, for the node of this name.
    pub fn new(amqp: &Amqp, node: &str) -> Self {
        Self {
            exchange: amqp.exchange.clone(),
            exchange_missing: amqp.exchange_missing,
            heartbeat: amqp.heartbeat,
            timeout: Duration::from_secs(u64::from(amqp.connect_timeout)),
            cloudevents: amqp.cloudevents,
            tls: amqp.tls.clone(),
            name: format!("snf-ganeti-eventd@{node}"),
        }
    }
}

/// A connection with a channel in confirm mode, and an exchange that is there.
pub struct Link {
    connection: Arc<Connection>,
    channel: Channel,
    exchange: ShortString,
    cloudevents: bool,
    events: BoxStream<'static, Event>,
}

/// Connects to one broker.
///
/// # Errors
/// See [`BrokerError`].
pub async fn connect(broker: &Broker, host: &Host) -> Result<Link, BrokerError> {
    let attempt = attempt(broker, host);
    tokio::time::timeout(broker.timeout, attempt)
        .await
        .unwrap_or(Err(BrokerError::Timeout(broker.timeout.as_secs())))
}

async fn attempt(broker: &Broker, host: &Host) -> Result<Link, BrokerError> {
    let mut uri = host.uri().clone();
    uri.query.heartbeat.get_or_insert(broker.heartbeat);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    let tls = if host.is_tls() {
        certificates(&broker.tls)?
    } else {
        OwnedTLSConfig::default()
    };
    let properties =
        ConnectionProperties::default().with_connection_name(broker.name.as_str().into());
    let runtime = lapin::runtime::default_runtime()?;
    let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime).await?;
    let exchange = ShortString::from(broker.exchange.as_str());
    let mut channel = connection.create_channel().await?;
    if let Err(error) = declare(&channel, &exchange, true).await {
        if !is_not_found(&error) {
            return Err(error.into());
        }
        if broker.exchange_missing == ExchangeMissing::Wait {
            return Err(BrokerError::NoExchange(broker.exchange.clone()));
        }
        // the broker closed the channel on that
        channel = connection.create_channel().await?;
        declare(&channel, &exchange, false).await?;
        tracing::info!(exchange = broker.exchange, "declared the exchange");
    }
    // from here on: that the exchange was missing is told as an event too, and is none
    let events = connection.events_listener().boxed();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(Link {
        connection: Arc::new(connection),
        channel,
        exchange,
        cloudevents: broker.cloudevents,
        events,
    })
}

async fn declare(channel: &Channel, exchange: &ShortString, passive: bool) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        passive,
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            exchange.clone(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        )
        .await
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == 404)
}

fn certificates(tls: &crate::config::Tls) -> Result<OwnedTLSConfig, BrokerError> {
    let read = |path: &std::path::Path| {
        fs::read(path).map_err(|source| BrokerError::Certificate {
            path: path.display().to_string(),
            source,
        })
    };
    let authorities = tls
        .ca_file
        .as_deref()
        .unwrap_or(SYSTEM_AUTHORITIES.as_ref());
    let identity = match (&tls.certificate_file, &tls.key_file) {
        (Some(certificate), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read(certificate)?,
            key: read(key)?,
        }),
        _ => None,
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain: Some(String::from_utf8_lossy(&read(authorities)?).into_owned()),
    })
}

impl Link {
    /// Publishes a message, as the `seq`-th of this process. The message is on its way, in
    /// order, when the future was polled once; it ends with the broker's confirm.
    pub(super) fn publish(&self, entry: &Entry, origin: &str, seq: u64) -> Confirm {
        let channel = self.channel.clone();
        let exchange = self.exchange.clone();
        let key = ShortString::from(entry.key.as_str());
        let properties = properties(entry, origin, seq, self.cloudevents);
        let body = entry.body_bytes().to_vec();
        Box::pin(async move {
            let sent = channel
                .basic_publish(exchange, key, MANDATORY, &body, properties)
                .await;
            let confirmation = match sent {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            reply(confirmation, seq)
        })
    }

    /// Publishes messages on a channel of their own, each when the one before it was taken, and
    /// stops at the first one that is not: an exception closes that channel alone, and nothing
    /// more is repeated than the one message.
    pub(super) fn publish_in_turn(
        &self,
        entries: Vec<Entry>,
        origin: String,
        first_seq: u64,
    ) -> BoxFuture<'static, InTurn> {
        let connection = Arc::clone(&self.connection);
        let exchange = self.exchange.clone();
        let cloudevents = self.cloudevents;
        Box::pin(async move {
            let mut taken = 0usize;
            let work = async {
                let channel = confirming_channel(&connection).await?;
                for (entry, seq) in entries.iter().zip(first_seq..) {
                    let properties = properties(entry, &origin, seq, cloudevents);
                    let sent = channel.basic_publish(
                        exchange.clone(),
                        ShortString::from(entry.key.as_str()),
                        MANDATORY,
                        entry.body_bytes(),
                        properties,
                    );
                    let answer = tokio::time::timeout(ANSWER_LIMIT, async { sent.await?.await });
                    let Ok(answer) = answer.await else {
                        let reason = format!("no confirm within {} s", ANSWER_LIMIT.as_secs());
                        return Err(Refusal::Lost(reason));
                    };
                    let reply = reply(answer, seq)?;
                    if reply.returned.is_some() {
                        return Ok(Some(Stop::Returned));
                    }
                    if reply.nacked {
                        return Ok(Some(Stop::Nacked));
                    }
                    taken = taken.saturating_add(1);
                }
                let _ = channel.close(200, "done".into()).await;
                Ok(None)
            };
            let stop = work
                .await
                .unwrap_or_else(|refusal| Some(Stop::Refused(refusal)));
            InTurn { taken, stop }
        })
    }

    /// Finds out, without a message for anybody, whether a message of so many bytes with this key
    /// may be published: what is sent has an expiration that is none, which brokers refuse (406)
    /// after they have looked at the size and the permissions. A broker that does not look at the
    /// expiration has the message without effect: no queue should want the key.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn try_permission(&self, key: &str, length: usize) -> Result<(), Refusal> {
        let channel = confirming_channel(&self.connection).await?;
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_expiration("none".into());
        // a JSON document of that length
        let mut body = b"{}".to_vec();
        body.resize(length.max(2), b' ');
        let sent = channel.basic_publish(
            self.exchange.clone(),
            ShortString::from(key),
            MANDATORY,
            &body,
            properties,
        );
        let answer = tokio::time::timeout(ANSWER_LIMIT, async { sent.await?.await }).await;
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => match Refusal::from(&error) {
                Refusal::Exception { code: 406, text } if text.contains("expiration") => Ok(()),
                refusal => Err(refusal),
            },
            Err(_) => {
                let reason = format!("no answer within {} s", ANSWER_LIMIT.as_secs());
                Err(Refusal::Lost(reason))
            }
        }
    }

    /// Returns whether messages can be published still.
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// What happens to the connection itself: the broker blocks it, or it breaks.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.next().await
    }

    /// Ends the connection in order.
    pub async fn close(self) {
        let closing = self.connection.close(200, "bye".into());
        if tokio::time::timeout(Duration::from_secs(2), closing)
            .await
            .is_err()
        {
            tracing::debug!("the broker does not answer our goodbye");
        }
    }
}

async fn confirming_channel(connection: &Connection) -> Result<Channel, Refusal> {
    let refusal = |error: lapin::Error| Refusal::from(&error);
    let channel = connection.create_channel().await.map_err(refusal)?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(refusal)?;
    Ok(channel)
}

/// Returns the broker's answer to the message with this number.
fn reply(confirmation: lapin::Result<Confirmation>, seq: u64) -> Result<Reply, Refusal> {
    let number = |returned: Option<lapin::message::BasicReturnMessage>| {
        returned.map(|message| seq_of(&message.properties).unwrap_or(seq))
    };
    match confirmation {
        Ok(Confirmation::Ack(returned)) => Ok(Reply {
            nacked: false,
            returned: number(returned),
        }),
        Ok(Confirmation::Nack(returned)) => Ok(Reply {
            nacked: true,
            returned: number(returned),
        }),
        Ok(Confirmation::NotRequested) => {
            let reason = "the channel gives no confirms".to_owned();
            Err(Refusal::Lost(reason))
        }
        Err(error) => Err(Refusal::from(&error)),
    }
}

/// The number in the headers that [`properties`] made.
fn seq_of(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(SEQ)? {
        AMQPValue::LongLongInt(seq) => u64::try_from(*seq).ok(),
        _ => None,
    }
}

fn properties(entry: &Entry, origin: &str, seq: u64, cloudevents: bool) -> BasicProperties {
    let mut headers = FieldTable::default();
    let text = |value: &str| AMQPValue::LongString(value.into());
    if let Some(cluster) = &entry.cluster {
        headers.insert("x-cluster".into(), text(cluster));
    }
    let origin = entry.origin.as_deref().unwrap_or(origin);
    headers.insert("x-origin".into(), text(origin));
    if entry.dry_run {
        headers.insert(DRY_RUN.into(), AMQPValue::Boolean(true));
    }
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    headers.insert(SEQ.into(), AMQPValue::LongLongInt(seq));
    if cloudevents {
        // the AMQP binding's prefix; the type is what the message is about
        let cluster = entry.cluster.as_deref().unwrap_or_default();
        let kind = entry.key.as_str().rsplit('.').next().unwrap_or_default();
        for (name, value) in [
            ("cloudEvents:specversion", "1.0"),
            ("cloudEvents:id", &entry.id.to_string()),
            // without the node: of two masters each may tell of it, and it is one event
            ("cloudEvents:source", &format!("//{cluster}")),
            ("cloudEvents:type", &format!("ganeti.{kind}")),
        ] {
            headers.insert(name.into(), text(value));
        }
    }
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(entry.id.to_string().into())
        .with_timestamp(entry.time.seconds())
        .with_app_id("snf-ganeti-eventd".into())
        .with_headers(headers)
}
