//! Two masters at once: the cluster has come apart, and each half believes in itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use harness::process::Daemon;
use harness::wait;
use rig::{CLUSTER, Consumer, Node, PORT, Received, shutdown_job};

const OTHER: &str = "node2.gnt.lab";
const STATES: [&str; 4] = ["queued", "waiting", "running", "success"];

/// The daemon of another node, which is a master as well, with a queue of its own.
struct Other {
    daemon: Daemon,
    queue: std::path::PathBuf,
}

impl Other {
    fn start(node: &Node) -> Self {
        let root = node.path("other");
        let queue = root.join("ganeti/queue");
        fs::create_dir_all(queue.join("archive")).unwrap();
        let ganeti = root.join("ganeti");
        fs::write(ganeti.join("ssconf_master_node"), format!("{OTHER}\n")).unwrap();
        fs::write(ganeti.join("ssconf_cluster_name"), format!("{CLUSTER}\n")).unwrap();
        fs::copy(node.path("ganeti/config.data"), ganeti.join("config.data")).unwrap();
        let config = root.join("eventd.toml");
        let root = root.display();
        let text = format!(
            "queue_dir = \"{root}/ganeti/queue\"\nssconf_dir = \"{root}/ganeti\"\n\
             config_data = \"{root}/ganeti/config.data\"\noutbox_dir = \"{root}/outbox\"\n\
             cursor_file = \"{root}/state/cursor.json\"\nnode_name = \"{OTHER}\"\n\
             [amqp]\nretry_max = 1\nhosts = [\"amqp://guest:guest@127.0.0.1:{PORT}/%2f\"]\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = node.netns.command(rig::program());
        command.arg("--config").arg(&config).arg("run");
        command.env_remove("NOTIFY_SOCKET");
        command.env_remove("JOURNAL_STREAM");
        let log = node.path("other/eventd.log");
        let mut daemon = Daemon::spawn("the other eventd", &mut command, &log).unwrap();
        daemon
            .wait_for_log("this node is the master", wait::USUAL)
            .unwrap();
        Self { daemon, queue }
    }

    /// What the first node's queue has, this one gets, too.
    fn copy(&self, from: &Path, job: u64) {
        for name in ["serial".to_owned(), format!("job-{job}")] {
            let temporary = self.queue.join(format!("{name}x.new"));
            fs::copy(from.join(&name), &temporary).unwrap();
            fs::rename(temporary, self.queue.join(name)).unwrap();
        }
    }
}

/// What a consumer has that drops every id that it has seen.
fn without_repeats(all: &[Received]) -> Vec<&Received> {
    let mut seen = HashSet::new();
    all.iter().filter(|one| seen.insert(&one.id)).collect()
}

#[test]
fn two_masters_at_once_give_a_consumer_every_final_state_once_and_each_in_order() {
    let mut node = Node::new("two-masters");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut first = node.start();
    let mut other = Other::start(&node);
    let jobs = 100u64;
    for job in 1..=jobs {
        for state in STATES {
            node.write_job(job, &shutdown_job(job, state));
            other.copy(&node.queue(), job);
        }
        // each of them dies at some time, and goes on where it was
        if job == 40 {
            first.kill();
            first = node.start();
        }
        if job == 70 {
            other.daemon.kill();
            other = Other::start(&node);
        }
    }
    let mut all: Vec<Received> = Vec::new();
    let mut finals: HashMap<(u64, String), u32> = HashMap::new();
    while finals.len() < 2 * usize::try_from(jobs).unwrap() {
        let message = consumer.next().unwrap();
        if message.status() == "success" {
            let from = (message.job().unwrap(), message.origin.clone());
            *finals.entry(from).or_default() += 1;
        }
        all.push(message);
    }
    // both have told every end; whoever drops repeated ids sees each once
    let deduplicated = without_repeats(&all);
    assert!(deduplicated.len() < all.len());
    // of each of them; one may tell of a state that the other was too late to see
    let mut ranks: HashMap<(u64, &str), usize> = HashMap::new();
    let mut ended: HashMap<u64, u32> = HashMap::new();
    for message in deduplicated {
        let job = message.job().unwrap();
        let rank = STATES
            .iter()
            .position(|state| *state == message.status())
            .unwrap();
        let before = ranks.insert((job, &message.origin), rank);
        assert!(
            before.is_none_or(|before| before < rank),
            "job {job}: {before:?} then {rank}"
        );
        *ended.entry(job).or_default() += u32::from(message.status() == "success");
    }
    let expected: HashMap<u64, u32> = (1..=jobs).map(|job| (job, 1)).collect();
    assert_eq!(ended, expected);
    assert!(first.stop(wait::USUAL).unwrap().success());
    assert!(other.daemon.stop(wait::USUAL).unwrap().success());
}
