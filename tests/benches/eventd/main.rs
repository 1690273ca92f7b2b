//! How fast eventd is, against the broker itself in the same run:
//! `make bench ONLY="--bench eventd"`, as root.
//!
//! Every figure is printed with the target it is held against; the exit status is 1 if one is
//! missed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)] // a benchmark

#[path = "../../../eventd/tests/rig/mod.rs"]
mod rig;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use harness::netns::Netns;
use harness::process::Daemon;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike as _;
use rig::{Consumer, Node, shutdown_job};

const BURST: u64 = 10_000;
const ROUNDS: usize = 5;
const KEY: &str = "ganeti.snf.event.op";

fn main() -> ExitCode {
    // `cargo test --benches` and the like only want to know that it builds
    if !std::env::args().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut report = Report { missed: false };
    let all: Vec<String> = std::env::args()
        .filter(|word| !word.starts_with("--"))
        .skip(1)
        .collect();
    let wanted = |part: &str| all.is_empty() || all.iter().any(|word| word == part);
    if wanted("throughput") {
        throughput(&mut report);
    }
    if wanted("latency") {
        latency(&mut report);
    }
    if wanted("states") {
        states(&mut report);
    }
    if wanted("start") {
        start(&mut report);
    }
    if wanted("hook") {
        hook(&mut report);
    }
    if report.missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

struct Report {
    missed: bool,
}

impl Report {
    fn figure(&self, what: &str, value: f64, unit: &str) {
        println!("{what:<58} {value:>10.2} {unit}");
    }

    fn target(&mut self, what: &str, value: f64, unit: &str, good: bool, target: &str) {
        self.missed |= !good;
        let verdict = if good { "ok" } else { "MISSED" };
        println!("{what:<58} {value:>10.2} {unit:<8} {verdict} (target {target})");
    }
}

impl Report {
    fn memory(&mut self, daemon: &Daemon) {
        let rss = rss_mib(daemon);
        self.target("  memory at most", rss, "MiB", rss <= 40.0, "<= 40");
    }
}

/// The captured version of a successful create, as the job of this number.
fn create_job(job: u64) -> String {
    let version = rig::captured()
        .into_iter()
        .rfind(|version| version.step == "02-create-bridged")
        .unwrap();
    version
        .content
        .replacen("\"id\": 7", &format!("\"id\": {job}"), 1)
}

/// Runs something on a runtime in the namespace.
fn on<T: Send>(netns: &Netns, work: impl AsyncFnOnce() -> anyhow::Result<T> + Send) -> T {
    netns
        .run(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(work())
        })
        .unwrap()
}

async fn channel(uri: &str) -> anyhow::Result<(Connection, Channel)> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok((connection, channel))
}

/// Begins something, and waits until the broker has so many messages in the queue; how long
/// that took.
fn until_depth(netns: &Netns, uri: &str, wanted: u64, begin: impl FnOnce() + Send) -> Duration {
    on(netns, async || {
        let (_connection, channel) = channel(uri).await?;
        let start = Instant::now();
        begin();
        loop {
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let queue = channel
                .queue_declare("test".into(), passive, FieldTable::default())
                .await?;
            if u64::from(queue.message_count()) >= wanted {
                return Ok(start.elapsed());
            }
            anyhow::ensure!(start.elapsed() < Duration::from_secs(120), "not all came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

fn purge(netns: &Netns, uri: &str) {
    on(netns, async || {
        let (_connection, channel) = channel(uri).await?;
        channel
            .queue_purge("test".into(), QueuePurgeOptions::default())
            .await?;
        Ok(())
    });
}

/// The broker's ceiling: bodies of this size, one connection, persistent, confirmed, a window
/// like eventd's.
fn ceiling(netns: &Netns, uri: &str, body: &[u8]) -> f64 {
    on(netns, async || {
        let (_connection, channel) = channel(uri).await?;
        let publish = async || -> lapin::Result<()> {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type("application/json".into());
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            channel
                .basic_publish("ganeti".into(), KEY.into(), options, body, properties)
                .await?
                .await?;
            Ok(())
        };
        let start = Instant::now();
        let mut under_way = FuturesUnordered::new();
        for _ in 0..BURST {
            if under_way.len() >= 1000 {
                under_way.next().await.unwrap()?;
            }
            under_way.push(publish());
        }
        while let Some(done) = under_way.next().await {
            done?;
        }
        Ok(BURST as f64 / start.elapsed().as_secs_f64())
    })
}

/// CPU time that a process has used.
fn cpu(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn rss_mib(daemon: &Daemon) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}

fn throughput(report: &mut Report) {
    let mut node = Node::new("bench-throughput");
    let broker = node.start_broker();
    let uri = broker.uri();
    // makes exchange and queue; nobody consumes during the measurement
    drop(Consumer::new(&node.netns, &uri).unwrap());
    let printed = {
        node.write_job(1, &create_job(1));
        node.run("replay --print 1").stdout
    };
    let entry: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let body = entry["body"].to_string().into_bytes();
    report.figure("size of a message", body.len() as f64, "bytes");

    let (mut ceilings, mut ours) = (Vec::new(), Vec::new());
    let (mut ratios, mut each) = (Vec::new(), Vec::new());
    let daemon = node.start();
    let mut job = 1;
    // in turn, so that what else the machine does falls on both
    for _ in 0..ROUNDS {
        purge(&node.netns, &uri);
        let bare = ceiling(&node.netns, &uri, &body);
        purge(&node.netns, &uri);
        daemon.signal(Signal::SIGSTOP).unwrap();
        for _ in 0..BURST {
            job += 1;
            node.write_job(job, &create_job_cached(job));
        }
        let before = cpu(&daemon);
        let begin = || daemon.signal(Signal::SIGCONT).unwrap();
        let took = until_depth(&node.netns, &uri, BURST, begin);
        let through = BURST as f64 / took.as_secs_f64();
        ratios.push(through / bare);
        ceilings.push(bare);
        ours.push(through);
        each.push((cpu(&daemon) - before).as_secs_f64() / BURST as f64 * 1e6);
    }
    report.figure(
        "broker's ceiling, one connection, median",
        median(&mut ceilings),
        "msg/s",
    );
    report.figure(
        "burst of 10000 real job files through eventd, median",
        median(&mut ours),
        "msg/s",
    );
    let spread = format!("{:.2}-{:.2}", least(&ratios), most(&ratios));
    let ratio = median(&mut ratios);
    report.target(
        &format!("  against the ceiling, median of {ROUNDS} pairs [{spread}]"),
        ratio,
        "",
        ratio >= 0.8,
        ">= 0.8",
    );
    report.figure(
        "CPU for a version in a burst, median",
        median(&mut each),
        "us",
    );
    report.memory(&daemon);
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn least(all: &[f64]) -> f64 {
    all.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(all: &[f64]) -> f64 {
    all.iter().copied().fold(0.0, f64::max)
}

fn create_job_cached(job: u64) -> String {
    use std::sync::LazyLock;
    static FIRST: LazyLock<String> = LazyLock::new(|| create_job(7));
    FIRST.replacen("\"id\": 7", &format!("\"id\": {job}"), 1)
}

/// Waits for the next message with this job.
fn arrival(consumer: &Consumer, job: u64) -> Instant {
    let all = consumer
        .until(|message| message.job() == Some(job))
        .unwrap();
    all.last().unwrap().at
}

struct Percentiles {
    p50: f64,
    p99: f64,
}

fn percentiles(mut all: Vec<Duration>) -> Percentiles {
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    Percentiles {
        p50: at(0.5),
        p99: at(0.99),
    }
}

fn latency(report: &mut Report) {
    for (what, pause, count) in [
        ("idle", Duration::from_millis(20), 300u64),
        ("200 versions/s", Duration::from_millis(5), 1000),
    ] {
        let mut node = Node::new("bench-latency");
        let broker = node.start_broker();
        let uri = broker.uri();
        let consumer = Consumer::new(&node.netns, &uri).unwrap();
        // the bare broker: publish -> consume
        let bodies: Vec<_> = (1..=count)
            .map(|job| format!("{{\"jobId\": {job}, \"pad\": \"{}\"}}", "x".repeat(400)))
            .collect();
        let sent = on(&node.netns, async || {
            let (_connection, channel) = channel(&uri).await?;
            let mut sent = Vec::new();
            for body in &bodies {
                tokio::time::sleep(pause).await;
                sent.push(Instant::now());
                let properties = BasicProperties::default().with_delivery_mode(2);
                channel
                    .basic_publish(
                        "ganeti".into(),
                        KEY.into(),
                        BasicPublishOptions::default(),
                        body.as_bytes(),
                        properties,
                    )
                    .await?
                    .await?;
            }
            Ok(sent)
        });
        let bare = percentiles(
            sent.iter()
                .zip(1..)
                .map(|(sent, job)| arrival(&consumer, job) - *sent)
                .collect(),
        );
        let daemon = node.start();
        // a first one, so that nothing is measured that happens once
        node.write_job(count + 1, &shutdown_job(count + 1, "success"));
        arrival(&consumer, count + 1);
        let mut sent = HashMap::new();
        for job in count + 2..=2 * count + 1 {
            thread::sleep(pause);
            let temporary = node.queue().join(format!("job-{job}abcdefgh.new"));
            fs::write(&temporary, shutdown_job(job, "success")).unwrap();
            let target = node.queue().join(format!("job-{job}"));
            sent.insert(job, Instant::now());
            fs::rename(temporary, target).unwrap();
        }
        let through = percentiles(
            (count + 2..=2 * count + 1)
                .map(|job| arrival(&consumer, job) - sent[&job])
                .collect(),
        );
        report.figure(&format!("{what}: bare broker p50"), bare.p50, "ms");
        report.figure(&format!("{what}: bare broker p99"), bare.p99, "ms");
        report.figure(
            &format!("{what}: rename -> consumer p50"),
            through.p50,
            "ms",
        );
        report.figure(
            &format!("{what}: rename -> consumer p99"),
            through.p99,
            "ms",
        );
        let ratio = through.p99 / bare.p99;
        report.target(
            "  p99 against the bare broker",
            ratio,
            "",
            ratio <= 1.5,
            "<= 1.5",
        );
        report.memory(&daemon);
        drop(daemon);
    }
}

fn states(report: &mut Report) {
    let mut node = Node::new("bench-states");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(5000, &shutdown_job(5000, "success"));
    arrival(&consumer, 5000);
    let before = cpu(&daemon);
    let start = Instant::now();
    for state in ["queued", "waiting", "running", "success"] {
        for job in 1..=1000 {
            node.write_job(job, &shutdown_job(job, state));
        }
    }
    let mut missing: HashSet<u64> = (1..=1000).collect();
    let mut ids = HashSet::new();
    let mut duplicates = 0;
    while !missing.is_empty() {
        let message = consumer.next().unwrap();
        if message.status() == "success" {
            missing.remove(&message.job().unwrap());
        }
        duplicates += u32::from(!ids.insert(message.id));
    }
    let seconds = start.elapsed().as_secs_f64();
    report.figure("1000 jobs x 4 states: messages", ids.len() as f64, "");
    report.figure(
        "1000 jobs x 4 states: messages/s",
        ids.len() as f64 / seconds,
        "msg/s",
    );
    report.target(
        "  duplicates",
        f64::from(duplicates),
        "",
        duplicates == 0,
        "0",
    );
    let each = (cpu(&daemon) - before).as_secs_f64() / 4000.0 * 1e6;
    report.target(
        "CPU for a version",
        each,
        "us",
        each <= 85.0,
        "<= 85, the original's / 10",
    );
    report.memory(&daemon);
}

fn start(report: &mut Report) {
    let mut node = Node::new("bench-start");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let (archived, queued) = (100_000u64, 5_000u64);
    for job in 1..=archived {
        let folder = node.queue().join(format!("archive/{}", job / 10_000));
        if job == 1 || job % 10_000 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(
            folder.join(format!("job-{job}")),
            shutdown_job(job, "success"),
        )
        .unwrap();
    }
    for job in archived + 1..=archived + queued {
        fs::write(
            node.queue().join(format!("job-{job}")),
            shutdown_job(job, "success"),
        )
        .unwrap();
    }
    fs::write(
        node.queue().join("serial"),
        format!("{}\n", archived + queued),
    )
    .unwrap();
    for what in [
        "first start",
        "start with a cursor",
        "start after all of it was missed",
    ] {
        if what == "start after all of it was missed" {
            let cursor = format!(
                "{{\"cluster\":\"{}\",\"master\":true,\"done\":[[0,1]],\"open\":{{}}}}",
                rig::CLUSTER
            );
            fs::write(node.path("state/cursor.json"), cursor).unwrap();
        }
        let log = node.path("eventd.log");
        let begin = Instant::now();
        let daemon = Daemon::spawn("eventd", node.command().arg("run"), &log).unwrap();
        let mut live = archived + queued;
        let seconds = loop {
            // a job that is submitted now
            live += 1;
            node.write_job(live, &shutdown_job(live, "success"));
            let waited = Instant::now();
            let mut seen = false;
            while waited.elapsed() < Duration::from_millis(100) && !seen {
                let message = consumer.within(Duration::from_millis(20)).unwrap();
                seen = message.is_some_and(|message| {
                    message.job().is_some_and(|job| job > archived + queued)
                });
            }
            if seen {
                break begin.elapsed().as_secs_f64();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{}",
                daemon.log_tail()
            );
        };
        let what = format!("{what}, 100000 archived and 5000 queued: first live event");
        report.target(&what, seconds, "s", seconds <= 2.0, "<= 2");
        consumer.drain(Duration::from_millis(1500));
        report.memory(&daemon);
        assert!(daemon.stop(harness::wait::USUAL).unwrap().success());
        for job in archived + queued + 1..=live {
            let _ = fs::remove_file(node.queue().join(format!("job-{job}")));
        }
    }
}

/// CPU time of all children that have been waited for.
fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap()))
        .sum()
}

/// Runs a program some times, one after the other: how long each took, and the CPU time of one.
fn run_often(command: &mut Command) -> (Percentiles, f64) {
    const TIMES: u32 = 200;
    let before = cpu_of_children();
    let mut all = Vec::new();
    for _ in 0..TIMES {
        let begin = Instant::now();
        let status = command.status().unwrap();
        all.push(begin.elapsed());
        assert!(status.success());
    }
    let cpu = (cpu_of_children() - before) / TIMES;
    (percentiles(all), cpu.as_secs_f64() * 1e3)
}

fn hook(report: &mut Report) {
    let program = harness::program("snf-ganeti-hook").unwrap();
    let node = Node::new("bench-hook");
    let environment: HashMap<String, String> = serde_json::from_str(include_str!(
        "../../../agents/testdata/hook-instance-add-post.json"
    ))
    .unwrap();
    let config = node.path("hooks.toml");
    fs::write(
        &config,
        format!(
            "outbox_dir = \"{}\"\nnode_name = \"{}\"\n",
            node.outbox().display(),
            rig::NODE
        ),
    )
    .unwrap();
    let (nothing, cpu) = run_often(Command::new("true").env_clear());
    report.figure("a process that does nothing, p50", nothing.p50, "ms");
    report.figure("a process that does nothing, CPU", cpu, "ms");
    let daemon = node.start();
    let mut measure = |broker: &str| {
        let (hook, cpu) = run_often(
            Command::new(&program)
                .arg("--config")
                .arg(&config)
                .env_clear()
                .envs(&environment)
                .stdin(Stdio::null()),
        );
        let what = format!("hook, whole process, broker {broker}, p50");
        report.target(&what, hook.p50, "ms", hook.p50 <= 5.0, "<= 5");
        let what = format!("hook, whole process, broker {broker}, p99");
        report.figure(&what, hook.p99, "ms");
        let what = format!("hook, whole process, broker {broker}, CPU");
        report.figure(&what, cpu, "ms");
    };
    measure("away");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    consumer.next().unwrap(); // eventd is connected
    consumer.drain(Duration::from_secs(2));
    measure("up");
    drop(daemon);
}
