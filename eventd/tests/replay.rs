//! Every captured job file goes through the real watcher and a real broker, and what a
//! consumer gets is what those files say.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::collections::HashMap;

use rig::{CLUSTER, Consumer, NODE, Node, Received};
use serde_json::{Value, json};

/// What a version must give, by the file alone: nothing, or one message (no captured job has
/// several opcodes, or more than one instance).
fn expected(file: &Value, before: Option<&Value>) -> Option<Value> {
    let op = &file["ops"][0];
    let mark = |op: &Value| (op["status"].clone(), op["log"].as_array().unwrap().len());
    if before.is_some_and(|before| mark(&before["ops"][0]) == mark(op)) {
        return None;
    }
    let input = &op["input"];
    let opcode = input["OP_ID"].as_str().unwrap();
    let status = op["status"].as_str().unwrap();
    let event_time = match status {
        "queued" => &file["received_timestamp"],
        "waiting" | "canceling" => &op["start_timestamp"],
        "running" => &op["exec_timestamp"],
        _ if op["end_timestamp"].is_null() => &file["end_timestamp"],
        _ => &op["end_timestamp"],
    };
    let log = op["log"].as_array().unwrap();
    let mut message = json!({
        "event_time": event_time, "operation": opcode, "status": status, "jobId": file["id"],
        "cluster": CLUSTER, "logmsg": log.last().map(|line| &line[3]), "result": op["result"],
    });
    let fields = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| ((*name).to_owned(), input[*name].clone()))
            .collect()
    };
    if opcode.starts_with("OP_INSTANCE_") {
        message["type"] = json!("ganeti-op-status");
        message["instance"] = input
            .get("instance_name")
            .unwrap_or_else(|| &input["instances"][0])
            .clone();
        message["tags"] = if opcode == "OP_INSTANCE_CREATE" {
            input["tags"].clone()
        } else {
            json!([])
        };
        message["job_fields"] = match (opcode, status) {
            ("OP_INSTANCE_CREATE", "error") => input.clone(),
            ("OP_INSTANCE_CREATE" | "OP_INSTANCE_SET_PARAMS", _) => {
                fields(&["nics", "disks", "hvparams", "beparams"])
            }
            _ => json!({}),
        };
    } else if opcode.starts_with("OP_NETWORK_") {
        message["type"] = json!("ganeti-network-status");
        message["network"] = input["network_name"].clone();
        let mut job_fields = fields(&[
            "gateway",
            "add_reserved_ips",
            "remove_reserved_ips",
            "group_name",
        ]);
        job_fields["subnet"] = input["network"].clone();
        message["job_fields"] = job_fields;
    } else if opcode.starts_with("OP_TAGS_") && input["kind"] == "instance" {
        if !["success", "error"].contains(&status) {
            return None;
        }
        message["type"] = json!("ganeti-op-status");
        message["instance"] = input["name"].clone();
        message["tags"] = input["tags"].clone();
        message["job_fields"] = json!({"dry_run": input["dry_run"]});
    } else if opcode == "OP_CLUSTER_SET_PARAMS" {
        message["type"] = json!("ganeti-cluster-status");
    } else {
        return None;
    }
    Some(message)
}

/// Takes off what comes from the configuration, and checks that it is there exactly when it
/// should be.
fn without_parts(mut message: Value) -> Value {
    let operation = message["operation"].as_str().unwrap();
    let status = message["status"].as_str().unwrap();
    let instance = message["instance"].as_str().unwrap_or_default().to_owned();
    let wanted = match operation {
        "OP_INSTANCE_CREATE" | "OP_INSTANCE_STARTUP" => status == "success",
        "OP_INSTANCE_SET_PARAMS" | "OP_INSTANCE_GROW_DISK" => {
            ["success", "error", "canceled"].contains(&status)
        }
        _ => false,
    };
    // the configuration in use is that of the end of the scenario: only these are left
    let known = matches!(instance.as_str(), "snf-1" | "snf-4");
    let parts = ["instance_nics", "instance_disks", "instance_hvparams"];
    for part in parts {
        let found = message.as_object_mut().unwrap().shift_remove(part);
        assert_eq!(found.is_some(), wanted && known, "{part} in {message}");
        let Some(nics) = found else { continue };
        if part == "instance_nics" && instance == "snf-1" {
            assert_eq!(
                nics[0],
                json!({"ip": "10.66.1.7", "name": "snf-nic-1", "mac": "aa:00:00:e1:87:fc",
                    "mode": "bridged", "network": "net-br", "link": "br0",
                    "uuid": "55ef7b59-0918-45ef-b63d-c4266f7ab9bc", "firewall": "protected"})
            );
            assert_eq!(nics.as_array().unwrap().len(), 2);
        }
    }
    message
}

fn check(received: &Received, expected: &Value) {
    let body = without_parts(received.body.clone());
    let sort = |value: &Value| -> Value {
        let object = value.as_object().unwrap();
        let sorted: std::collections::BTreeMap<_, _> = object.iter().collect();
        json!(sorted)
    };
    assert_eq!(sort(&body), sort(expected));
    assert!(received.persistent);
    assert_eq!(received.cluster, CLUSTER);
    assert_eq!(received.origin, format!("{NODE}/snf-ganeti-eventd"));
}

#[test]
fn every_captured_version_gives_the_messages_it_should() {
    let mut node = Node::new("replay");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    let mut before: HashMap<u64, Value> = HashMap::new();
    let mut ids = HashMap::new();
    let mut count = 0;
    for version in rig::captured() {
        let (mut job, mut content) = (version.job, version.content);
        if version.step == "cancel-while-waiting" {
            // captured on another cluster: the number is taken here
            let other = job + 1000;
            content = content
                .replacen(&format!("\"id\":{job}"), &format!("\"id\":{other}"), 1)
                .replacen(&format!("\"id\": {job}"), &format!("\"id\": {other}"), 1);
            job = other;
        }
        let file: Value = serde_json::from_str(&content).unwrap();
        node.write_job(job, &content);
        if let Some(expected) = expected(&file, before.get(&job)) {
            let received = consumer.next().unwrap_or_else(|error| {
                panic!(
                    "{error} in {}: {expected}\n{}",
                    version.step,
                    daemon.log_tail()
                )
            });
            check(&received, &expected);
            let first = ids.insert(received.id.clone(), received.body.clone());
            assert_eq!(first, None, "an id twice");
            count += 1;
        }
        before.insert(job, file);
    }
    assert!(count > 300, "only {count} messages");
    let surplus = consumer.drain(std::time::Duration::from_millis(500));
    assert!(surplus.is_empty(), "{surplus:?}");
    let status = daemon.stop(harness::wait::USUAL).unwrap();
    assert!(status.success(), "{status}");

    // After a restart all is known: nothing is told again, and nothing was left behind.
    let daemon = node.start();
    let again = consumer.drain(std::time::Duration::from_secs(2));
    assert!(again.is_empty(), "{again:?}");
    let left = agents::outbox::Outbox::existing(&node.outbox())
        .list()
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
    drop(daemon);
}
