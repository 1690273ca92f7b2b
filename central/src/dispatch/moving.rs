//! Moving a message, whole, to another queue: to the dead letters, with the reason, what can never
//! be applied; to a queue of its own what a cluster must be asked for, so that nothing waits
//! behind it while the cluster is away.

use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation};

/// The header that says why a message is here.
pub const REASON: &str = "x-reason";
/// The header that says from which queue it came first.
pub const QUEUE: &str = "x-queue";
/// The header that keeps the routing key that the message was sent with: a second try comes
/// without it.
pub const ROUTING_KEY: &str = "x-routing-key";

/// The longest reason that is kept, in bytes.
const REASON_LIMIT: usize = 1000;

/// Puts a message into the dead-letter exchange and waits until the broker has it.
///
/// # Errors
/// The broker does not confirm: the message must stay where it was.
pub async fn bury(
    channel: &Channel,
    exchange: &str,
    queue: &str,
    delivery: &Delivery,
    reason: &str,
) -> Result<(), lapin::Error> {
    let mut headers = headers(delivery, queue);
    let reason = reason
        .get(..reason.floor_char_boundary(REASON_LIMIT))
        .unwrap_or_default();
    headers.insert(REASON.into(), text(reason));
    send(
        channel,
        exchange,
        delivery.routing_key.as_str(),
        delivery,
        headers,
    )
    .await
}

/// Puts a message that came from `queue` into the queue `aside` and waits until the broker has it.
///
/// # Errors
/// The broker does not confirm: the message must stay where it was.
pub async fn set_aside(
    channel: &Channel,
    aside: &str,
    queue: &str,
    delivery: &Delivery,
) -> Result<(), lapin::Error> {
    send(channel, "", aside, delivery, headers(delivery, queue)).await
}

/// A message's headers, and in them where it came from, if they do not say so already.
fn headers(delivery: &Delivery, queue: &str) -> FieldTable {
    let mut headers = delivery.properties.headers().clone().unwrap_or_default();
    for (name, value) in [(QUEUE, queue), (ROUTING_KEY, delivery.routing_key.as_str())] {
        if !headers.contains_key(name) {
            headers.insert(name.into(), text(value));
        }
    }
    headers
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text.as_bytes()))
}

async fn send(
    channel: &Channel,
    exchange: &str,
    key: &str,
    delivery: &Delivery,
    headers: FieldTable,
) -> Result<(), lapin::Error> {
    let properties: BasicProperties = delivery
        .properties
        .clone()
        .with_headers(headers)
        .with_delivery_mode(2);
    let confirmed = channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            },
            &delivery.data,
            properties,
        )
        .await?
        .await?;
    match confirmed {
        Confirmation::Ack(None) => Ok(()),
        // Refused, or no queue behind the exchange: as good as a lost channel.
        _ => Err(lapin::ErrorKind::InvalidChannelState(
            lapin::ChannelState::Error,
            "the queue that the message is to go to does not take it",
        )
        .into()),
    }
}
