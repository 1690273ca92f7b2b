//! `OP_TAGS_SET` and `OP_TAGS_DEL`: of an instance, or a dispatcher's question.

use agents::message::{HeartbeatMessage, Message, OpMessage};
use serde_json::Value;

use super::Facts;

/// A dispatcher asks whether we are alive by setting, in a dry run, a cluster tag that begins
/// so.
const QUESTION: &str = "snf:eventd:heartbeat";

/// The message about a tag opcode; none if it is on something that nobody asks about.
pub(super) fn message(facts: &Facts<'_>) -> Option<Message> {
    let tags = facts.input.texts("tags").unwrap_or_default();
    match facts.input.text("kind")? {
        "instance" => of_instance(facts, tags),
        "cluster" if is_question(facts, &tags) => Some(answer(facts)),
        _ => None,
    }
}

fn of_instance(facts: &Facts<'_>, tags: Vec<String>) -> Option<Message> {
    if !matches!(facts.op.status.as_str(), "success" | "error") {
        return None;
    }
    let dry_run = facts.input.get("dry_run").clone();
    Some(Message::Op(Box::new(OpMessage {
        event_time: facts.event_time,
        instance: facts.input.text("name")?.to_owned(),
        operation: facts.input.opcode().to_owned(),
        status: facts.op.status.as_str().to_owned(),
        job_id: facts.job.id,
        cluster: facts.cluster.to_owned(),
        logmsg: facts.logmsg(),
        result: facts.op.result(),
        job_fields: serde_json::json!({ "dry_run": dry_run }),
        tags,
        instance_nics: None,
        instance_disks: None,
        instance_hvparams: None,
    })))
}

/// It is answered once, when its job is first seen waiting (or later, if it was quick).
fn is_question(facts: &Facts<'_>, tags: &[String]) -> bool {
    let input = facts.input;
    input.opcode() == "OP_TAGS_SET"
        && input.get("dry_run") == &Value::Bool(true)
        && tags.iter().any(|tag| tag.starts_with(QUESTION))
        && facts.op.status.as_str() != "queued"
        && matches!(facts.before, None | Some("queued"))
}

fn answer(facts: &Facts<'_>) -> Message {
    Message::Heartbeat(HeartbeatMessage {
        event_time: facts.event_time,
        operation: facts.input.opcode().to_owned(),
        status: facts.op.status.as_str().to_owned(),
        job_id: facts.job.id,
        cluster: facts.cluster.to_owned(),
        logmsg: facts.logmsg(),
        result: facts.op.result(),
    })
}
