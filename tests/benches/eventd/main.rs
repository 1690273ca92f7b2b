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

mod burst;
mod latency;
#[path = "../shared/priority.rs"]
mod priority;
#[path = "../shared/report.rs"]
mod report;
#[path = "../../../eventd/tests/rig/mod.rs"]
mod rig;
mod sample;
#[path = "../shared/statistics.rs"]
mod statistics;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use harness::process::Daemon;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;
use report::Report;
use rig::{Consumer, Node, shutdown_job};

fn main() -> ExitCode {
    // `cargo test --benches` and the like only want to know that it builds
    if !std::env::args().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let _preferred = priority::Preferred::take().unwrap();
    let mut report = Report::default();
    let all: Vec<String> = std::env::args()
        .filter(|word| !word.starts_with("--"))
        .skip(1)
        .collect();
    let wanted = |part: &str| all.is_empty() || all.iter().any(|word| word == part);
    if wanted("throughput") {
        burst::measure(&mut report);
    }
    if wanted("latency") {
        latency::measure(&mut report);
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
    report.exit()
}

impl Report {
    fn memory(&mut self, daemon: &Daemon) {
        let rss = rss_mib(daemon);
        self.target("  memory at most", rss, "MiB", rss <= 40.0, "<= 40");
    }
}

/// CPU time that a process has used, and all that descend from it.
fn cpu(pid: Pid) -> Duration {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let stat = read(format!("/proc/{pid}/stat"));
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).flat_map(str::parse::<u64>).sum();
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let children = threads.into_iter().flatten().flat_map(|thread| {
        let children = read(format!("{}/children", thread.unwrap().path().display()));
        let pids: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        pids
    });
    let descended: Duration = children.map(|child| cpu(Pid::from_raw(child))).sum();
    Duration::from_millis(ticks * 10) + descended
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

/// Waits for the next message with this job.
fn arrival(consumer: &Consumer, job: u64) -> Instant {
    let all = consumer
        .until(|message| message.job() == Some(job))
        .unwrap();
    all.last().unwrap().at
}

fn states(report: &mut Report) {
    let mut node = Node::new("bench-states");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(5000, &shutdown_job(5000, "success"));
    arrival(&consumer, 5000);
    let before = cpu(daemon.pid());
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
    let each = (cpu(daemon.pid()) - before).as_secs_f64() / 4000.0 * 1e6;
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

fn percentiles(mut all: Vec<Duration>) -> Percentiles {
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    Percentiles {
        p50: at(0.5),
        p99: at(0.99),
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

/// How long something took, in milliseconds.
struct Percentiles {
    p50: f64,
    p99: f64,
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
