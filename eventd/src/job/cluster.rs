//! `OP_CLUSTER_SET_PARAMS`.

use agents::message::{ClusterMessage, Message};

use super::Facts;

/// The message about an opcode on the cluster itself.
pub(super) fn message(facts: &Facts<'_>) -> Message {
    Message::Cluster(ClusterMessage {
        event_time: facts.event_time,
        operation: facts.input.opcode().to_owned(),
        status: facts.op.status.as_str().to_owned(),
        job_id: facts.job.id,
        cluster: facts.cluster.to_owned(),
        logmsg: facts.logmsg(),
        result: facts.op.result(),
    })
}
