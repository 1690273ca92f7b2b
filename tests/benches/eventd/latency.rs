//! From the rename of a job file to the message at a consumer, against the bare broker's publish
//! to consume: both in turn, slice by slice, over the same broker.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::netns::Netns;

use crate::rig::{Consumer, Node, shutdown_job};
use crate::sample::{Sample, channel, on};
use crate::statistics::{SLICES, percentile};
use crate::{Report, arrival};

/// A latency in nanoseconds.
type Nanoseconds = u32;

/// Measures and prints.
pub fn measure(report: &mut Report) {
    for (what, pause, slice) in [
        ("idle", Duration::from_millis(20), 100),
        ("200 versions/s", Duration::from_millis(5), 200),
    ] {
        let mut node = Node::new("bench-latency");
        let broker = node.start_broker();
        let uri = broker.uri();
        let sample = Sample::take(&mut node, &uri, &shutdown_job(1, "success"));
        let consumer = Consumer::new(&node.netns, &uri).unwrap();
        let daemon = node.start();
        // a first one, so that nothing is measured that happens once
        node.write_job(2, &shutdown_job(2, "success"));
        arrival(&consumer, 2);
        let last = 2 + SLICES as u64 * slice;
        node.put("ganeti/queue/serial", &format!("{last}\n"));
        let staged = node.path("staged");
        fs::create_dir_all(&staged).unwrap();
        let (mut bare, mut through) = (Vec::new(), Vec::new());
        for first in (3..=last).step_by(slice as usize) {
            let jobs: Vec<u64> = (first..first + slice).collect();
            let sent = publish(&node.netns, &uri, &sample, &jobs, pause);
            bare.extend(taken(&consumer, &jobs, &sent));
            for job in &jobs {
                let content = shutdown_job(*job, "success");
                fs::write(staged.join(format!("job-{job}")), content).unwrap();
            }
            let sent: Vec<Instant> = jobs
                .iter()
                .map(|job| {
                    thread::sleep(pause);
                    let name = format!("job-{job}");
                    let sent = Instant::now();
                    fs::rename(staged.join(&name), node.queue().join(&name)).unwrap();
                    sent
                })
                .collect();
            through.extend(taken(&consumer, &jobs, &sent));
        }
        let mut both = [0.0; 2];
        for share in [0.5, 0.99] {
            both = [&bare, &through].map(|all| percentile(all, share) / 1e6);
            let percent = share * 100.0;
            report.figure(&format!("{what}: bare broker p{percent}"), both[0], "ms");
            let what = format!("{what}: rename -> consumer p{percent}");
            report.figure(&what, both[1], "ms");
        }
        let ratio = both[1] / both[0];
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

/// Sends the sample for each of these jobs; when.
fn publish(
    netns: &Netns,
    uri: &str,
    sample: &Sample,
    jobs: &[u64],
    pause: Duration,
) -> Vec<Instant> {
    on(netns, async || {
        let (_connection, channel) = channel(uri).await?;
        let mut sent = Vec::new();
        for job in jobs {
            let body = sample
                .body
                .replacen("\"jobId\":1,", &format!("\"jobId\":{job},"), 1);
            tokio::time::sleep(pause).await;
            sent.push(Instant::now());
            sample.publish(&channel, &body).await?;
        }
        Ok(sent)
    })
}

/// How long the messages of these jobs took, which were sent then.
fn taken(consumer: &Consumer, jobs: &[u64], sent: &[Instant]) -> Vec<Nanoseconds> {
    let taken = |(job, sent): (&u64, &Instant)| {
        let taken = arrival(consumer, *job) - *sent;
        Nanoseconds::try_from(taken.as_nanos()).unwrap_or(Nanoseconds::MAX)
    };
    jobs.iter().zip(sent).map(taken).collect()
}
