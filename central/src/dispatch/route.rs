//! From a message's bytes to its application.

use std::sync::Arc;

use agents::message::Message;

use super::outcome::{Applied, Asking, RouteError};
use super::{cluster, heartbeat, net, network, op, progress};
use crate::ganeti::submission::Submitter;

/// What a message is about: those about one object are to stay in order.
pub fn object(message: &Message) -> &str {
    match message {
        Message::Op(message) => &message.instance,
        Message::Network(message) => &message.network,
        Message::Net(message) => &message.instance,
        Message::Progress(message) => &message.instance,
        Message::Cluster(message) => &message.cluster,
        Message::Heartbeat(message) => &message.cluster,
    }
}

/// Applies one message.
///
/// # Errors
/// See [`RouteError`].
pub async fn apply(
    ganeti: &Arc<Submitter>,
    message: &Message,
    asking: Asking,
) -> Result<Applied, RouteError> {
    match message {
        Message::Op(message) => op::apply(ganeti, message, asking).await,
        Message::Network(message) => network::apply(ganeti, message, asking).await,
        Message::Net(message) => net::apply(ganeti, message).await,
        Message::Progress(message) => progress::apply(ganeti, message).await,
        Message::Cluster(message) => cluster::apply(ganeti, message, asking).await,
        Message::Heartbeat(message) => Ok(heartbeat::apply(message)),
    }
}
