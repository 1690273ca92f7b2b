//! Where a message goes that can never be applied: the dead-letter queue, whole, with the reason.

use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, LongString};
use lapin::{Channel, Confirmation};

/// The header that says why a message is here.
pub const REASON: &str = "x-reason";
/// The header that says from which queue it came.
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
    let mut headers = delivery.properties.headers().clone().unwrap_or_default();
    let reason = reason
        .get(..reason.floor_char_boundary(REASON_LIMIT))
        .unwrap_or_default();
    headers.insert(
        REASON.into(),
        AMQPValue::LongString(LongString::from(reason.as_bytes())),
    );
    headers.insert(
        QUEUE.into(),
        AMQPValue::LongString(LongString::from(queue.as_bytes())),
    );
    if !headers.contains_key(ROUTING_KEY) {
        let key = delivery.routing_key.as_str().as_bytes();
        headers.insert(
            ROUTING_KEY.into(),
            AMQPValue::LongString(LongString::from(key)),
        );
    }
    let properties = delivery
        .properties
        .clone()
        .with_headers(headers)
        .with_delivery_mode(2);
    let confirmed = channel
        .basic_publish(
            exchange.into(),
            delivery.routing_key.clone(),
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
            "the dead-letter queue does not take the message",
        )
        .into()),
    }
}
