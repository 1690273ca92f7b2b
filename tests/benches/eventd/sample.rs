//! The very message that eventd makes of a job, sent without eventd: what the broker can do.

use harness::netns::Netns;
use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::rig::{Consumer, Node};

/// A message that eventd has sent.
pub struct Sample {
    key: ShortString,
    properties: BasicProperties,
    pub body: String,
}

impl Sample {
    /// What eventd sends when it finds this as the file of job 1. Leaves exchange and queue, and
    /// nothing in it; nobody consumes, and eventd does not run.
    pub fn take(node: &mut Node, uri: &str, job: &str) -> Self {
        drop(Consumer::new(&node.netns, uri).unwrap());
        let daemon = node.start();
        node.write_job(1, job);
        let delivery = on(&node.netns, async || {
            let (_connection, channel) = channel(uri).await?;
            loop {
                let options = BasicGetOptions { no_ack: true };
                if let Some(message) = channel.basic_get("test".into(), options).await? {
                    return Ok(message.delivery);
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        assert!(daemon.stop(harness::wait::USUAL).unwrap().success());
        let Delivery {
            routing_key,
            properties,
            data,
            ..
        } = delivery;
        Self {
            key: routing_key,
            properties,
            body: String::from_utf8(data).unwrap(),
        }
    }

    /// Sends it, perhaps with another body, and waits for the confirm.
    pub async fn publish(&self, channel: &Channel, body: &str) -> lapin::Result<()> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let (key, properties) = (self.key.clone(), self.properties.clone());
        channel
            .basic_publish("ganeti".into(), key, options, body.as_bytes(), properties)
            .await?
            .await?;
        Ok(())
    }
}

/// Runs something on a runtime in the namespace.
pub fn on<T: Send>(netns: &Netns, work: impl AsyncFnOnce() -> anyhow::Result<T> + Send) -> T {
    netns
        .run(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(work())
        })
        .unwrap()
}

/// A connection with a channel on which what is published is confirmed.
pub async fn channel(uri: &str) -> anyhow::Result<(Connection, Channel)> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok((connection, channel))
}
