//! Messages that are too long for a broker go without what makes them so. What happened to what,
//! they always say.

use agents::message::{Message, NetworkFields};
use agents::outbox::Entry;
use serde_json::Value;

/// Takes the operation's result and log out of a message; returns whether the message can have
/// them.
pub fn drop_result_and_log(message: &mut Message) -> bool {
    let (result, logmsg) = match message {
        Message::Op(op) => (&mut op.result, &mut op.logmsg),
        Message::Network(network) => (&mut network.result, &mut network.logmsg),
        Message::Cluster(cluster) => (&mut cluster.result, &mut cluster.logmsg),
        Message::Heartbeat(heartbeat) => (&mut heartbeat.result, &mut heartbeat.logmsg),
        Message::Net(_) | Message::Progress(_) => return false,
    };
    *result = Value::Null;
    *logmsg = Value::Null;
    true
}

/// Takes the operation's input out of a message.
pub fn drop_input(message: &mut Message) {
    match message {
        Message::Op(op) => {
            op.job_fields = Value::Object(serde_json::Map::new());
            op.tags = Vec::new();
        }
        Message::Network(network) => network.job_fields = NetworkFields::default(),
        Message::Cluster(_) | Message::Heartbeat(_) | Message::Net(_) | Message::Progress(_) => {}
    }
}

/// The entry with a shorter body of at most `limit` bytes, under the same id: without result and
/// log, and if that is not enough, without the input. `None` if it cannot be made so short, or no
/// shorter at all.
pub fn shortened(entry: &Entry, limit: usize) -> Option<Entry> {
    let mut message = Message::parse(entry.body_bytes()).ok()?;
    let before = entry.body_bytes().len();
    for step in [
        |message: &mut Message| {
            drop_result_and_log(message);
        },
        drop_input,
    ] {
        step(&mut message);
        let body = serde_json::value::to_raw_value(&message).ok()?;
        let length = body.get().len();
        if length <= limit && length < before {
            let mut short = entry.clone();
            short.body = body;
            return Some(short);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::message::EventId;
    use agents::outbox::Class;
    use serde_json::json;

    fn entry(result: usize, input: usize) -> Entry {
        let body = json!({"type": "ganeti-op-status", "event_time": [1, 0], "instance": "snf-1",
            "operation": "OP_INSTANCE_REMOVE", "status": "success", "jobId": 7, "cluster": "c",
            "logmsg": "l", "result": "r".repeat(result), "tags": [],
            "job_fields": {"x": "i".repeat(input)}});
        let message = Message::parse(body.to_string().as_bytes()).unwrap();
        Entry::new(EventId::of_parts(&["x"]), Class::Final, &message).unwrap()
    }

    fn parts(entry: &Entry) -> (Value, Value) {
        let body: Value = serde_json::from_str(entry.body.get()).unwrap();
        assert_eq!(
            (&body["jobId"], &body["status"]),
            (&json!(7), &json!("success"))
        );
        (body["result"].clone(), body["job_fields"].clone())
    }

    #[test]
    fn result_and_log_go_first_and_the_input_only_if_that_is_not_enough() {
        let long = entry(5000, 10);
        let short = shortened(&long, 1000).unwrap();
        assert_eq!((short.id, &short.key), (long.id, &long.key));
        assert_eq!(parts(&short), (Value::Null, json!({"x": "i".repeat(10)})));
        let shorter = shortened(&entry(10, 5000), 1000).unwrap();
        assert_eq!(parts(&shorter), (Value::Null, json!({})));
        assert_eq!(shortened(&long, 20), None);
        // once it is as short as it gets, it is not tried again
        let least = shortened(&shorter, usize::MAX);
        assert_eq!(least, None);
    }

    #[test]
    fn nics_and_progress_have_nothing_to_go_without() {
        let body = json!({"type": "ganeti-net-status", "event_time": [1, 0],
            "instance": "snf-1", "nics": []});
        let message = Message::parse(body.to_string().as_bytes()).unwrap();
        let entry = Entry::new(EventId::of_parts(&["x"]), Class::Final, &message).unwrap();
        assert_eq!(shortened(&entry, 10), None);
        assert_eq!(shortened(&entry, usize::MAX), None);
    }
}
