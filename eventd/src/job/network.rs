//! `OP_NETWORK_*`.

use agents::message::{Message, NetworkFields, NetworkMessage};

use super::Facts;

/// The message about an opcode on a network; none if it names no network.
pub(super) fn message(facts: &Facts<'_>) -> Option<Message> {
    let input = facts.input;
    let text = |name: &str| input.text(name).map(str::to_owned);
    Some(Message::Network(Box::new(NetworkMessage {
        event_time: facts.event_time,
        network: text("network_name")?,
        operation: input.opcode().to_owned(),
        status: facts.op.status.as_str().to_owned(),
        job_id: facts.job.id,
        cluster: facts.cluster.to_owned(),
        logmsg: facts.logmsg(),
        result: facts.op.result(),
        job_fields: NetworkFields {
            subnet: text("network"),
            gateway: text("gateway"),
            add_reserved_ips: input.texts("add_reserved_ips"),
            remove_reserved_ips: input.texts("remove_reserved_ips"),
            group_name: text("group_name"),
        },
    })))
}
