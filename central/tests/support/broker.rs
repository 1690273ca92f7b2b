//! A network namespace with a broker, agents that speak to it, and recorded messages.
#![allow(dead_code)]

use std::future::Future;
use std::time::{Duration, Instant};

use harness::netns::Netns;
use harness::rabbitmq::{Place, RabbitMq};
use harness::scratch::Scratch;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use serde_json::{Value, json};

use super::rapi::FakeRapi;
use super::{Central, until};

const PORT: u16 = 5672;

/// Runs a test in a network namespace of its own, with a broker that may be started there.
pub fn isolated<F: Future<Output = ()>>(test: impl FnOnce(Site) -> F) {
    let netns = Netns::new().unwrap();
    netns.enter().unwrap();
    let site = Site {
        scratch: Scratch::new("central-dispatch").unwrap(),
        netns,
    };
    // Its threads are in the namespace, since this one is.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(site));
}

pub struct Site {
    pub scratch: Scratch,
    pub netns: Netns,
}

impl Site {
    pub fn broker(&self) -> RabbitMq {
        let folder = self.scratch.join("rabbitmq");
        RabbitMq::start(Place::Netns(&self.netns), &folder, "127.0.0.1", PORT).unwrap()
    }

    pub async fn central(&self) -> Central {
        let url = format!("amqp://guest:guest@127.0.0.1:{PORT}/%2f");
        let more = format!("[broker]\nurls = ['{url}']\n");
        Central::with(FakeRapi::start().await, &more).await
    }
}

/// Speaks to the broker as eventd does.
pub struct Agents {
    pub channel: Channel,
    _connection: Connection,
}

impl Agents {
    pub async fn connect(broker: &RabbitMq) -> Self {
        Self::connect_to(&broker.uri()).await.unwrap()
    }

    async fn connect_to(url: &str) -> Result<Self, lapin::Error> {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(url, properties).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(
                "ganeti".into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await?;
        Ok(Self {
            channel,
            _connection: connection,
        })
    }

    pub async fn send_raw(&self, key: &str, body: &[u8]) {
        let headers = FieldTable::default();
        self.send_with(key, body, headers).await;
    }

    /// Sends a message about an operation that Ganeti only tried.
    pub async fn send_dry_run(&self, topic: &str, message: &Value) {
        let key = format!("ganeti.snf.event.{topic}");
        let mut headers = FieldTable::default();
        headers.insert("x-dry-run".into(), AMQPValue::Boolean(true));
        let body = message.to_string();
        self.send_with(&key, body.as_bytes(), headers).await;
    }

    async fn send_with(&self, key: &str, body: &[u8], headers: FieldTable) {
        self.channel
            .basic_publish(
                "ganeti".into(),
                key.into(),
                BasicPublishOptions::default(),
                body,
                BasicProperties::default()
                    .with_delivery_mode(2)
                    .with_headers(headers),
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// Sends the next messages of a list, without waiting in between; returns where it goes on.
    pub async fn send_many(
        &self,
        messages: &[(&'static str, Value)],
        from: usize,
        count: usize,
    ) -> usize {
        let end = messages.len().min(from + count);
        self.try_many(&messages[from..end]).await.unwrap();
        end
    }

    /// Sends messages without waiting in between; the broker has all of them in the end.
    async fn try_many(&self, messages: &[(&'static str, Value)]) -> Result<(), lapin::Error> {
        let mut confirms = Vec::new();
        for (topic, message) in messages {
            let key = format!("ganeti.snf.event.{topic}");
            let body = message.to_string();
            let confirm = self
                .channel
                .basic_publish(
                    "ganeti".into(),
                    key.as_str().into(),
                    // A confirm alone does not say that a queue has it.
                    BasicPublishOptions {
                        mandatory: true,
                        ..BasicPublishOptions::default()
                    },
                    body.as_bytes(),
                    BasicProperties::default().with_delivery_mode(2),
                )
                .await?;
            confirms.push(confirm);
        }
        for confirm in confirms {
            if !matches!(confirm.await?, Confirmation::Ack(None)) {
                return Err(lapin::ErrorKind::InvalidChannelState(
                    lapin::ChannelState::Error,
                    "the broker does not take the message",
                )
                .into());
            }
        }
        Ok(())
    }

    pub async fn send(&self, topic: &str, message: &Value) {
        let key = format!("ganeti.snf.event.{topic}");
        self.send_raw(&key, message.to_string().as_bytes()).await;
    }
}

/// Sends messages in order to whichever broker answers; what was not confirmed is sent again, as
/// eventd does.
pub async fn send_to_any(urls: &[String], messages: &[(&'static str, Value)]) {
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut urls = urls.iter().cycle();
    let mut portions = messages.chunks(20).peekable();
    while portions.peek().is_some() {
        assert!(Instant::now() < deadline, "no broker takes the messages");
        let url = urls.next().unwrap();
        let work = async {
            let agents = Agents::connect_to(url).await?;
            while let Some(portion) = portions.peek() {
                agents.try_many(portion).await?;
                portions.next();
            }
            Ok::<_, lapin::Error>(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(30), work).await;
    }
}

pub fn recorded(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../data/messages.json")).unwrap();
    all[name].as_array().unwrap().clone()
}

/// The recorded messages of one kind of job, as of `job` on `instance`.
pub fn story(operation: &str, instance: &str, job: i64, address: &str) -> Vec<Value> {
    let mut messages = recorded("life");
    messages.retain(|message| message["operation"] == operation);
    for message in &mut messages {
        message["jobId"] = json!(job);
        message["instance"] = json!(instance);
        if let Some(nic) = message.pointer_mut("/instance_nics/0") {
            nic["ip"] = json!(address);
        }
    }
    messages
}

/// Whether somebody consumes a queue of the dispatcher.
pub fn is_served(broker: &RabbitMq, queue: &str) -> bool {
    let listed = broker.ctl("list_consumers queue_name").unwrap().stdout;
    listed.contains(&format!("central.snf.{queue}"))
}

/// Waits until somebody consumes a queue of the dispatcher: what comes before it is there is
/// nobody's.
pub async fn served(broker: &RabbitMq, queue: &str) {
    until(queue, async || is_served(broker, queue)).await;
}
