//! A burst of job files, against the broker's ceiling: the same messages, over one connection.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use harness::netns::Netns;
use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike as _;

use crate::rig::{self, Node};
use crate::sample::{Sample, channel, on};
use crate::statistics::median;
use crate::{Report, cpu};

const BURST: u64 = 10_000;
const ROUNDS: usize = 7;

/// Messages without a confirm, as eventd's default.
const WINDOW: usize = 1000;

/// The figures of all rounds.
#[derive(Default)]
struct Figures {
    ceiling: Vec<f64>,
    through: Vec<f64>,
    ratio: Vec<f64>,
    publisher: Vec<f64>,
    broker_at_ceiling: Vec<f64>,
    eventd: Vec<f64>,
    broker: Vec<f64>,
}

/// Measures and prints.
pub fn measure(report: &mut Report) {
    let mut node = Node::new("bench-burst");
    let broker = node.start_broker();
    let uri = broker.uri();
    let sample = Sample::take(&mut node, &uri, &create_job(1));
    report.figure("size of a message", sample.body.len() as f64, "bytes");
    let first = create_job(7);
    let broker_cpu = || cpu(broker.pid().unwrap());
    let each = |time: Duration| time.as_secs_f64() / BURST as f64 * 1e6;
    let mut figures = Figures::default();
    let daemon = node.start();
    // in turn, so that what else the machine does falls on both
    for round in 0..ROUNDS as u64 {
        purge(&node.netns, &uri);
        let before = (own_cpu(), broker_cpu());
        let bare = ceiling(&node.netns, &uri, &sample);
        figures.publisher.push(each(own_cpu() - before.0));
        figures
            .broker_at_ceiling
            .push(each(broker_cpu() - before.1));
        purge(&node.netns, &uri);
        let jobs = round * BURST + 2..(round + 1) * BURST + 2;
        let staged = node.path("staged");
        fs::create_dir_all(&staged).unwrap();
        for job in jobs.clone() {
            let content = first.replacen("\"id\": 7", &format!("\"id\": {job}"), 1);
            fs::write(staged.join(format!("job-{job}")), content).unwrap();
        }
        // as many jobs that are submitted together: their numbers are given out at once
        node.put("ganeti/queue/serial", &format!("{}\n", jobs.end - 1));
        daemon.signal(Signal::SIGSTOP).unwrap();
        for job in jobs {
            let name = format!("job-{job}");
            fs::rename(staged.join(&name), node.queue().join(&name)).unwrap();
        }
        let before = (cpu(daemon.pid()), broker_cpu());
        let begin = || daemon.signal(Signal::SIGCONT).unwrap();
        let took = until_depth(&node.netns, &uri, BURST, begin);
        figures.eventd.push(each(cpu(daemon.pid()) - before.0));
        figures.broker.push(each(broker_cpu() - before.1));
        let through = BURST as f64 / took.as_secs_f64();
        figures.ratio.push(through / bare);
        figures.ceiling.push(bare);
        figures.through.push(through);
    }
    let middle = |all: &[f64]| median(all).unwrap();
    report.figure(
        "broker's ceiling, one connection",
        middle(&figures.ceiling),
        "msg/s",
    );
    let what = "burst of 10000 real job files through eventd";
    report.figure(what, middle(&figures.through), "msg/s");
    let ratio = middle(&figures.ratio);
    let least = figures.ratio.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.ratio.iter().copied().fold(0.0, f64::max);
    report.target(
        &format!("  against the ceiling, median of {ROUNDS} pairs [{least:.2}-{most:.2}]"),
        ratio,
        "",
        ratio >= 0.8,
        ">= 0.8",
    );
    for (what, all) in [
        (
            "CPU for a message at the ceiling: publisher",
            &figures.publisher,
        ),
        ("  broker", &figures.broker_at_ceiling),
        ("CPU for a version in a burst: eventd", &figures.eventd),
        ("  broker", &figures.broker),
    ] {
        report.figure(what, middle(all), "us");
    }
    report.memory(&daemon);
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

fn own_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap()))
        .sum()
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

/// The broker's ceiling: messages a second.
fn ceiling(netns: &Netns, uri: &str, sample: &Sample) -> f64 {
    on(netns, async || {
        let (_connection, channel) = channel(uri).await?;
        let start = Instant::now();
        let mut under_way = FuturesUnordered::new();
        for _ in 0..BURST {
            if under_way.len() >= WINDOW {
                under_way.next().await.unwrap()?;
            }
            under_way.push(sample.publish(&channel, &sample.body));
        }
        while let Some(done) = under_way.next().await {
            done?;
        }
        Ok(BURST as f64 / start.elapsed().as_secs_f64())
    })
}
