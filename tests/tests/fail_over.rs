//! eventd on both nodes of a real Ganeti cluster: a guest migrates, then the master fails over.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

#[path = "../../eventd/tests/rig/mod.rs"]
mod rig;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use harness::ganeti::Cluster;
use harness::guest::{BOOT, Image};
use harness::host::Host;
use harness::process::Daemon;
use harness::rabbitmq::{Place, RabbitMq};
use harness::scratch::Scratch;
use rig::{Consumer, Received};
use serde_json::Value;

/// A slow and busy machine is given time.
const SLOW: Duration = Duration::from_secs(300);
const FINAL: [&str; 3] = ["success", "error", "canceled"];

/// Runs one of Ganeti's commands on a node; it must succeed.
fn gnt(node: &Host, command: &str) {
    let output = node.try_sh(command, SLOW).unwrap();
    assert!(
        output.status.success(),
        "{command}: {}{}",
        output.stdout,
        output.stderr
    );
}

/// Messages until the end of this operation has come from this node.
fn until_end(consumer: &Consumer, operation: &str, node: &str, all: &mut Vec<Received>) {
    loop {
        let message = consumer
            .next()
            .unwrap_or_else(|error| panic!("{operation} from {node}: {error}; had {all:#?}"));
        let fits = message.body["operation"] == operation
            && message.status() == "success"
            && message.origin.starts_with(node);
        all.push(message);
        if fits {
            return;
        }
    }
}

/// What the job files of a node say: the final status of every operation on an instance, by job.
fn ended_in_queue(node: &Host) -> HashMap<u64, HashSet<(String, String)>> {
    let queue = node.path("/var/lib/ganeti/queue");
    let mut files: Vec<_> = fs::read_dir(&queue).unwrap().collect();
    for folder in fs::read_dir(queue.join("archive")).unwrap() {
        files.extend(fs::read_dir(folder.unwrap().path()).unwrap());
    }
    let mut ended: HashMap<u64, HashSet<(String, String)>> = HashMap::new();
    for file in files {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let Some(job) = name.strip_prefix("job-").and_then(|id| id.parse().ok()) else {
            continue;
        };
        let content: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        for op in content["ops"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (operation, status) = (text(&op["input"]["OP_ID"]), text(&op["status"]));
            let told = [
                "OP_INSTANCE_CREATE",
                "OP_INSTANCE_MIGRATE",
                "OP_INSTANCE_SHUTDOWN",
                "OP_INSTANCE_STARTUP",
                "OP_INSTANCE_REMOVE",
            ];
            if told.contains(&operation.as_str()) && FINAL.contains(&status.as_str()) {
                ended.entry(job).or_default().insert((operation, status));
            }
        }
    }
    ended
}

#[test]
fn a_migration_and_a_master_fail_over_lose_no_final_state_and_repeat_the_ids() {
    let scratch = Scratch::new("fail-over").unwrap();
    let image = Image::build().unwrap();
    let cluster = Cluster::start(&scratch, &image, 2).unwrap();
    let [first, second] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    let place = Place::Host(first);
    let broker = RabbitMq::start(place, &scratch.join("mq"), "10.66.0.1", rig::PORT).unwrap();
    let consumer = Consumer::new(first.netns(), &broker.uri()).unwrap();
    let logs: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| scratch.join(&format!("eventd-{}.log", node.name())))
        .collect();
    let mut daemons: Vec<Daemon> = Vec::new();
    for (node, log) in cluster.nodes.iter().zip(&logs) {
        let config = format!("[amqp]\nhosts = [\"{}\"]\n", broker.uri());
        node.write("/etc/snf-agents/eventd.toml", &config).unwrap();
        let mut command = node.command(rig::program());
        let mut daemon = node
            .daemon("snf-ganeti-eventd", command.arg("run"), log)
            .unwrap();
        daemon.wait_for_log("connected", SLOW).unwrap();
        daemons.push(daemon);
    }
    daemons[0]
        .wait_for_log("this node is the master", SLOW)
        .unwrap();
    daemons[1]
        .wait_for_log("another node is the master", SLOW)
        .unwrap();

    let mut all = Vec::new();
    let instance = r#"{"__version__":1,"mode":"create","name":"snf-1",
        "disk_template":"diskless","disks":[],"nics":[{}],"os":"snf-image+default",
        "ip_check":false,"name_check":false,"pnode":"node1.gnt.lab"}"#;
    let job = cluster
        .rapi("POST", "/2/instances", Some(instance))
        .unwrap();
    cluster.wait_for_job(job.as_u64().unwrap()).unwrap();
    until_end(&consumer, "OP_INSTANCE_CREATE", "node1", &mut all);
    let mut console = cluster.console(first, "snf-1").unwrap();
    console.wait_for_shell(BOOT).unwrap();

    gnt(first, "gnt-instance migrate -f -n node2.gnt.lab snf-1");
    until_end(&consumer, "OP_INSTANCE_MIGRATE", "node1", &mut all);
    let nodes: Vec<_> = all.iter().map(|message| &message.origin).collect();
    assert!(
        nodes.iter().all(|origin| origin.starts_with("node1")),
        "only the master tells: {nodes:?}"
    );

    gnt(
        second,
        "gnt-cluster master-failover --no-voting --yes-do-it",
    );
    daemons[1]
        .wait_for_log("this node is the master", SLOW)
        .unwrap();
    daemons[0]
        .wait_for_log("another node is the master", SLOW)
        .unwrap();
    gnt(second, "gnt-instance shutdown snf-1");
    until_end(&consumer, "OP_INSTANCE_SHUTDOWN", "node2", &mut all);
    gnt(second, "gnt-instance remove -f snf-1");
    until_end(&consumer, "OP_INSTANCE_REMOVE", "node2", &mut all);
    all.extend(consumer.drain(Duration::from_secs(2)));

    // every end that the queue knows was told
    let mut told: HashMap<u64, HashSet<(String, String)>> = HashMap::new();
    for message in &all {
        let operation = message.body["operation"].as_str().unwrap_or_default();
        if let Some(job) = message.job() {
            let end = (operation.to_owned(), message.status().to_owned());
            told.entry(job).or_default().insert(end);
        }
    }
    let ended = ended_in_queue(second);
    assert!(ended.len() >= 4, "{ended:?}");
    for (job, ends) in &ended {
        let told = told.get(job);
        assert!(
            told.is_some_and(|told| ends.is_subset(told)),
            "job {job}: {ends:?}, told {told:?}"
        );
    }
    // whoever told it: the same end has the same id, and some were told by both
    let mut ids: HashMap<(u64, String), HashSet<&str>> = HashMap::new();
    let mut tellers: HashMap<&str, HashSet<&str>> = HashMap::new();
    for message in &all {
        if let Some(job) = message.job()
            && FINAL.contains(&message.status())
        {
            let key = (job, message.body["operation"].to_string());
            ids.entry(key).or_default().insert(&message.id);
            tellers
                .entry(&message.id)
                .or_default()
                .insert(&message.origin);
        }
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    assert!(
        tellers.values().any(|origins| origins.len() == 2),
        "the new master tells what the old one may not have got out: {tellers:?}"
    );
    for daemon in daemons {
        assert!(daemon.stop(SLOW).unwrap().success());
    }
}
