//! `OP_INSTANCE_*`.

use agents::ganeti::config_data::InstanceParts;
use agents::message::{Message, OpMessage};
use serde_json::{Map, Value};

use super::Facts;

/// A result longer than this is not repeated in each of several messages.
const SHARED_RESULT_LIMIT: usize = 16 << 10;

/// One message for each instance that the opcode is on, with its name where there are several.
pub(super) fn messages(
    facts: &Facts<'_>,
    parts: &mut dyn FnMut(&str) -> Option<InstanceParts>,
) -> Vec<(String, Message)> {
    if let Some(instance) = facts.input.text("instance_name") {
        let result = facts.op.result();
        let message = message(facts, instance, result, parts);
        return vec![(String::new(), message)];
    }
    let Some(instances) = facts.input.get("instances").as_array() else {
        return Vec::new();
    };
    let shared = if facts.op.result_length() > SHARED_RESULT_LIMIT {
        None
    } else {
        Some(facts.op.result())
    };
    let whole = shared.is_none().then(|| facts.op.result());
    instances
        .iter()
        .filter_map(|instance| {
            // OP_INSTANCE_MULTI_ALLOC has whole create opcodes here, the others names.
            let name = instance
                .as_str()
                .or_else(|| instance.get("instance_name")?.as_str())
                .filter(|name| !name.is_empty())?;
            let result = match (&shared, &whole) {
                (Some(result), _) => result.clone(),
                // of a result by instance, each gets its own part
                (None, Some(Value::Object(by_name))) => {
                    by_name.get(name).cloned().unwrap_or_default()
                }
                _ => Value::Null,
            };
            Some((name.to_owned(), message(facts, name, result, parts)))
        })
        .collect()
}

fn message(
    facts: &Facts<'_>,
    instance: &str,
    result: Value,
    parts: &mut dyn FnMut(&str) -> Option<InstanceParts>,
) -> Message {
    let opcode = facts.input.opcode();
    let status = facts.op.status.as_str();
    let parts = if changes_parts(opcode, status) {
        parts(instance)
    } else {
        None
    };
    let (nics, disks, hvparams) = parts.map_or((None, None, None), |parts| {
        (Some(parts.nics), Some(parts.disks), Some(parts.hvparams))
    });
    let job_fields = match (opcode, status) {
        ("OP_INSTANCE_CREATE", "error") => facts.op.whole_input(),
        ("OP_INSTANCE_CREATE" | "OP_INSTANCE_SET_PARAMS", _) => {
            let fields = ["nics", "disks", "hvparams", "beparams"];
            Value::Object(Map::from_iter(
                fields.map(|name| (name.to_owned(), facts.input.get(name).clone())),
            ))
        }
        // Of the others it may hold for one start alone: a dispatcher would take it for a change.
        _ => Value::Object(Map::new()),
    };
    let tags = match opcode {
        "OP_INSTANCE_CREATE" => facts.input.texts("tags").unwrap_or_default(),
        _ => Vec::new(),
    };
    Message::Op(Box::new(OpMessage {
        event_time: facts.event_time,
        instance: instance.to_owned(),
        operation: opcode.to_owned(),
        status: status.to_owned(),
        job_id: facts.job.id,
        cluster: facts.cluster.to_owned(),
        logmsg: facts.logmsg(),
        result,
        job_fields,
        tags,
        instance_nics: nics,
        instance_disks: disks,
        instance_hvparams: hvparams,
    }))
}

/// Whether the message says what the instance is made of afterwards. A modify that failed or
/// was canceled may have done a part of its work.
fn changes_parts(opcode: &str, status: &str) -> bool {
    match opcode {
        "OP_INSTANCE_CREATE" | "OP_INSTANCE_STARTUP" => status == "success",
        "OP_INSTANCE_SET_PARAMS" | "OP_INSTANCE_GROW_DISK" => {
            matches!(status, "success" | "error" | "canceled")
        }
        _ => false,
    }
}
