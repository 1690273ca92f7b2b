//! Fail-overs between nodes of one cluster, each with a queue, an outbox and a daemon of its
//! own: whatever was away at the time, every end of a job is told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use harness::process::Daemon;
use harness::wait;
use rig::{CLUSTER, Consumer, Node, PATIENCE, PORT, Received, shutdown_job};

const MINUTE: Duration = Duration::from_secs(60);

/// One node of the cluster.
struct Member {
    name: String,
    root: PathBuf,
    daemon: Option<Daemon>,
    /// The process whose mount namespace has a small disk in the place of the outbox.
    small_disk: Option<Daemon>,
}

/// The cluster: the first node's folders hold the others', and its namespace all of them.
struct Cluster {
    node: Node,
    members: Vec<Member>,
    /// The age of the next job that is written.
    age: Duration,
    last: u64,
}

impl Cluster {
    fn new(name: &str, count: usize) -> Self {
        let node = Node::new(name);
        let members = (1..=count)
            .map(|number| {
                let root = node.path(&format!("member{number}"));
                let ganeti = root.join("ganeti");
                fs::create_dir_all(ganeti.join("queue/archive")).unwrap();
                fs::create_dir_all(root.join("outbox")).unwrap();
                fs::write(ganeti.join("ssconf_cluster_name"), format!("{CLUSTER}\n")).unwrap();
                fs::copy(node.path("ganeti/config.data"), ganeti.join("config.data")).unwrap();
                let name = format!("node{number}.gnt.lab");
                let shown = root.display();
                let text = format!(
                    "queue_dir = \"{shown}/ganeti/queue\"\nssconf_dir = \"{shown}/ganeti\"\n\
                     config_data = \"{shown}/ganeti/config.data\"\n\
                     outbox_dir = \"{shown}/outbox\"\n\
                     cursor_file = \"{shown}/state/cursor.json\"\nnode_name = \"{name}\"\n\
                     log = \"info,lapin=off\"\n[amqp]\nretry_max = 1\n\
                     hosts = [\"amqp://guest:guest@127.0.0.1:{PORT}/%2f\"]\n"
                );
                fs::write(root.join("eventd.toml"), text).unwrap();
                Member {
                    name,
                    root,
                    daemon: None,
                    small_disk: None,
                }
            })
            .collect();
        let cluster = Self {
            node,
            members,
            age: Duration::ZERO,
            last: 0,
        };
        cluster.fail_over(0);
        cluster
    }

    /// Makes a node the master, on all of them.
    fn fail_over(&self, to: usize) {
        for member in &self.members {
            let temporary = member.root.join("ganeti/ssconf_master_node.new");
            fs::write(&temporary, format!("{}\n", self.members[to].name)).unwrap();
            fs::rename(&temporary, temporary.with_extension("")).unwrap();
        }
    }

    /// Fails over to a node, and waits until the daemons that run have noticed.
    fn fail_over_and_wait(&mut self, to: usize) {
        let said = |member: &Member, text: &str| {
            let daemon = member.daemon.as_ref();
            daemon.map_or(usize::MAX, |daemon| daemon.log().matches(text).count())
        };
        let words = |index: usize| {
            if index == to {
                "this node is the master"
            } else {
                "another node is the master"
            }
        };
        let is_new = |member: &Member| {
            let text = fs::read_to_string(member.root.join("ganeti/ssconf_master_node"));
            text.unwrap().trim() != self.members[to].name
        };
        let waits: Vec<(usize, usize)> = self
            .members
            .iter()
            .enumerate()
            .filter(|(index, member)| {
                let master = fs::read_to_string(member.root.join("ganeti/ssconf_master_node"));
                let was_master = master.unwrap().trim() == member.name;
                member.daemon.is_some() && is_new(member) && (*index == to || was_master)
            })
            .map(|(index, member)| (index, said(member, words(index))))
            .collect();
        self.fail_over(to);
        for (index, before) in waits {
            wait::until_true("the daemon to notice the fail-over", PATIENCE, || {
                said(&self.members[index], words(index)) > before
            })
            .unwrap();
        }
    }

    /// Gives a node an outbox on a disk of so many KiB, which outlives its daemon.
    fn give_small_disk(&mut self, index: usize, kibibytes: usize) {
        let member = &mut self.members[index];
        let script = format!(
            "mount -t tmpfs -o size={kibibytes}k,mode=700 none {} && echo mounted && sleep 3600",
            member.root.join("outbox").display()
        );
        let mut command = self.node.netns.command("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let log = member.root.join("disk.log");
        let mut holder = Daemon::spawn("small disk", &mut command, &log).unwrap();
        holder.wait_for_log("mounted", wait::USUAL).unwrap();
        member.small_disk = Some(holder);
    }

    fn start(&mut self, index: usize) {
        let member = &mut self.members[index];
        let mut command: Command = match &member.small_disk {
            Some(holder) => {
                let mut command = self.node.netns.command("nsenter");
                let pid = holder.pid().to_string();
                command
                    .args(["--mount", "--target", &pid])
                    .arg(rig::program());
                command
            }
            None => self.node.netns.command(rig::program()),
        };
        command
            .arg("--config")
            .arg(member.root.join("eventd.toml"))
            .arg("run")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM");
        let log = member.root.join("eventd.log");
        let before = fs::read_to_string(&log).map_or(0, |log| log.matches("started").count());
        let daemon = Daemon::spawn(&member.name, &mut command, &log).unwrap();
        wait::until_true("eventd to start", PATIENCE, || {
            daemon.log().matches("started").count() > before
        })
        .unwrap();
        member.daemon = Some(daemon);
    }

    fn stop(&mut self, index: usize) {
        let daemon = self.members[index].daemon.take().unwrap();
        assert!(daemon.stop(wait::USUAL).unwrap().success());
    }

    fn kill(&mut self, index: usize) {
        self.members[index].daemon.take().unwrap().kill();
    }

    fn log(&self, index: usize) -> String {
        fs::read_to_string(self.members[index].root.join("eventd.log")).unwrap_or_default()
    }

    /// Writes a version of a job file into every node's queue, as old as the cluster's time is.
    fn write(&self, job: u64, content: &str) {
        let time = SystemTime::now() - self.age;
        for member in &self.members {
            let queue = member.root.join("ganeti/queue");
            for (name, content) in [
                ("serial".to_owned(), job.to_string()),
                (format!("job-{job}"), content.to_owned()),
            ] {
                let temporary = queue.join(format!("{name}x.new"));
                fs::write(&temporary, content).unwrap();
                let file = fs::File::options().write(true).open(&temporary).unwrap();
                file.set_modified(time).unwrap();
                fs::rename(temporary, queue.join(name)).unwrap();
            }
        }
    }

    /// Runs so many jobs one after the other, spread over a time.
    fn run_jobs(&mut self, count: u32, over: Duration) {
        for _ in 0..count {
            self.last += 1;
            // many need only end
            let states = ["queued", "running", "success"];
            for state in states.iter().skip(if count > 200 { 2 } else { 0 }) {
                self.write(self.last, &shutdown_job(self.last, state));
            }
            self.age = self.age.saturating_sub(over / count);
        }
    }

    /// Moves the files of jobs into the archive, on every node.
    fn archive(&self, jobs: impl Iterator<Item = u64>) {
        for job in jobs {
            for member in &self.members {
                let queue = member.root.join("ganeti/queue");
                let folder = queue.join(format!("archive/{}", job / 10_000));
                fs::create_dir_all(&folder).unwrap();
                let name = format!("job-{job}");
                fs::rename(queue.join(&name), folder.join(&name)).unwrap();
            }
        }
    }

    /// Takes messages until every job's end has come; fails with the number of lost ones.
    fn expect_all_ends(&self, consumer: &Consumer, had: &[Received]) -> Vec<Received> {
        let is_end = |message: &&Received| message.status() == "success";
        let ended: HashSet<u64> = had
            .iter()
            .filter(is_end)
            .filter_map(Received::job)
            .collect();
        let mut missing: BTreeSet<u64> =
            (1..=self.last).filter(|job| !ended.contains(job)).collect();
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(40);
        while !missing.is_empty() {
            let limit = deadline.saturating_duration_since(Instant::now());
            let Ok(Some(message)) = consumer.within(limit) else {
                panic!(
                    "{} of {} ends are lost: {missing:?}",
                    missing.len(),
                    self.last
                );
            };
            if message.status() == "success" {
                missing.remove(&message.job().unwrap());
            }
            all.push(message);
        }
        all
    }
}

/// Checks that every event has one id, whoever told it.
fn one_id_for_one_event(messages: &[Received]) {
    let mut ids: HashMap<(u64, String), HashSet<String>> = HashMap::new();
    for message in messages {
        let event = (message.job().unwrap(), message.status().to_owned());
        ids.entry(event).or_default().insert(message.id.clone());
    }
    assert!(ids.values().all(|ids| ids.len() == 1));
}

#[test]
fn a_daemon_that_was_away_before_the_fail_over_tells_what_it_owes_as_the_old_master() {
    let mut cluster = Cluster::new("owed-restart", 2);
    let broker = cluster.node.start_broker();
    let consumer = Consumer::new(&cluster.node.netns, &broker.uri()).unwrap();
    cluster.age = MINUTE * 50;
    cluster.start(0);
    cluster.start(1);
    cluster.run_jobs(5, MINUTE * 5);
    let mut had = consumer
        .until(|one| one.job() == Some(5) && one.status() == "success")
        .unwrap();
    // 45 minutes of jobs without it; some are archived
    cluster.stop(0);
    cluster.run_jobs(100, MINUTE * 45);
    cluster.archive(6..=40);
    cluster.fail_over_and_wait(1);
    cluster.run_jobs(3, Duration::ZERO);
    had.extend(consumer.drain(Duration::from_millis(500)));
    cluster.start(0);
    let rest = cluster.expect_all_ends(&consumer, &had);
    had.extend(rest);
    one_id_for_one_event(&had);
    // and once only: a restart tells nothing again
    wait::until_true("the cursor to have all", PATIENCE, || {
        let cursor = fs::read_to_string(cluster.members[0].root.join("state/cursor.json"));
        cursor.is_ok_and(|cursor| !cursor.contains("arrears"))
    })
    .unwrap();
    consumer.drain(Duration::from_millis(500));
    cluster.kill(0);
    cluster.start(0);
    assert_eq!(consumer.drain(Duration::from_secs(1)).len(), 0);
    cluster.stop(0);
    cluster.stop(1);
}

fn full_disk_and_fail_over(name: &str, killed: bool) {
    let mut cluster = Cluster::new(name, 2);
    cluster.age = MINUTE * 50;
    cluster.give_small_disk(0, 128);
    cluster.start(0);
    cluster.start(1);
    cluster.run_jobs(500, MINUTE * 48);
    wait::until_true("the disk to be full", PATIENCE, || {
        cluster.log(0).contains("cannot write the outbox")
    })
    .unwrap();
    cluster.fail_over_and_wait(1);
    cluster.run_jobs(20, MINUTE);
    if killed {
        cluster.kill(0);
        cluster.start(0);
    }
    let broker = cluster.node.start_broker();
    let consumer = Consumer::new(&cluster.node.netns, &broker.uri()).unwrap();
    let all = cluster.expect_all_ends(&consumer, &[]);
    one_id_for_one_event(&all);
    cluster.stop(0);
    cluster.stop(1);
}

#[test]
fn what_a_full_disk_and_a_broker_that_was_away_held_back_is_told_after_the_fail_over() {
    full_disk_and_fail_over("owed-full-disk", false);
}

#[test]
fn what_a_full_disk_held_back_is_told_by_an_old_master_that_was_killed() {
    full_disk_and_fail_over("owed-full-killed", true);
}

#[test]
fn fail_overs_back_and_forth_with_kills_and_an_outage_lose_nothing() {
    let mut cluster = Cluster::new("owed-back", 3);
    let mut broker = cluster.node.start_broker();
    let mut consumer = Consumer::new(&cluster.node.netns, &broker.uri()).unwrap();
    cluster.age = MINUTE * 400;
    for index in 0..3 {
        cluster.start(index);
    }
    cluster.run_jobs(10, MINUTE * 30);
    let mut had = consumer
        .until(|one| one.job() == Some(10) && one.status() == "success")
        .unwrap();
    had.extend(consumer.drain(Duration::from_millis(100)));
    broker.kill();
    for round in 0..6 {
        // the master's daemon dies, jobs go on, another node becomes the master, and later it
        // is back
        let master = round % 3;
        cluster.run_jobs(10, MINUTE * 20);
        cluster.kill(master);
        cluster.run_jobs(20, MINUTE * 35);
        cluster.fail_over_and_wait((round + 1) % 3);
        cluster.start(master);
        if round % 2 == 0 {
            // at once again, in the middle of what it has to tell
            cluster.kill(master);
            cluster.start(master);
        }
        if round == 3 {
            broker.restart().unwrap();
            consumer.reconnect().unwrap();
        }
    }
    let rest = cluster.expect_all_ends(&consumer, &had);
    had.extend(rest);
    one_id_for_one_event(&had);
    for index in 0..3 {
        cluster.stop(index);
    }
}

#[test]
fn the_new_masters_daemon_that_comes_late_tells_what_ended_since_it_was_away() {
    let mut cluster = Cluster::new("owed-late", 2);
    let broker = cluster.node.start_broker();
    let consumer = Consumer::new(&cluster.node.netns, &broker.uri()).unwrap();
    cluster.start(0);
    cluster.start(1);
    cluster.run_jobs(5, Duration::ZERO);
    let had = consumer
        .until(|one| one.job() == Some(5) && one.status() == "success")
        .unwrap();
    cluster.stop(1);
    // The file times say that 90 minutes pass; what the daemon wrote down is as much older.
    let cursor = cluster.members[1].root.join("state/cursor.json");
    let text = fs::read_to_string(&cursor).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let seconds = json["other_master"]["seconds"].as_u64().unwrap();
    json["other_master"]["seconds"] = (seconds - 90 * 60).into();
    fs::write(&cursor, json.to_string()).unwrap();
    cluster.fail_over_and_wait(1);
    cluster.age = MINUTE * 90;
    cluster.run_jobs(1200, MINUTE * 90);
    cluster.archive(6..=100);
    cluster.start(1);
    cluster.expect_all_ends(&consumer, &had);
    cluster.stop(0);
    cluster.stop(1);
}

#[test]
fn a_queue_that_cannot_be_listed_at_the_fail_over_is_looked_through_later() {
    let mut cluster = Cluster::new("owed-unreadable", 2);
    let broker = cluster.node.start_broker();
    let consumer = Consumer::new(&cluster.node.netns, &broker.uri()).unwrap();
    cluster.age = MINUTE * 60;
    cluster.start(0);
    cluster.run_jobs(3, MINUTE);
    let had = consumer
        .until(|one| one.job() == Some(3) && one.status() == "success")
        .unwrap();
    cluster.stop(0);
    cluster.run_jobs(50, MINUTE * 50);
    cluster.fail_over(1);
    let queue = cluster.members[0].root.join("ganeti/queue");
    let away = queue.with_extension("away");
    fs::rename(&queue, &away).unwrap();
    cluster.start(0);
    std::thread::sleep(Duration::from_millis(600));
    cluster.kill(0);
    cluster.start(0);
    std::thread::sleep(Duration::from_millis(600));
    fs::rename(&away, &queue).unwrap();
    cluster.expect_all_ends(&consumer, &had);
    cluster.stop(0);
}
