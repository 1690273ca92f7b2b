//! How fast central's dispatcher and reconciler are: `make bench ONLY="--bench central"`, as root.
//! Words: `throughput`, `latency`, `reconcile`.
//!
//! The peer of the dispatcher is the database itself: the statements that the dispatcher issued,
//! as PostgreSQL logged them, issued again without it in the same run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)] // a benchmark

mod cloud;
#[path = "../shared/report.rs"]
mod report;
#[path = "../shared/served.rs"]
mod served;
#[path = "../shared/servers.rs"]
mod servers;
mod statements;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cloud::{API, Cloud};
use harness::netns::Netns;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use report::Report;
use serde_json::{Value, json};
use served::Served;
use servers::{Base, TOKEN, address, mac};
use statements::Transaction;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Servers and messages of a throughput run: each is stopped and started.
const SERVERS: i64 = 500;
const QUEUE: &str = "central.snf.op";
const PATIENCE: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    // `cargo test --benches` and the like only want to know that it builds
    if !std::env::args().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    let words: Vec<String> = std::env::args()
        .filter(|word| !word.starts_with("--"))
        .skip(1)
        .collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if wanted("throughput") {
        let transactions = on_postgresql(&mut report);
        on_sqlite(&mut report, &transactions);
    }
    if wanted("latency") {
        latency(&mut report);
    }
    if wanted("reconcile") {
        reconcile(&mut report);
    }
    report.exit()
}

/// Runs something on a runtime in a namespace of its own.
fn isolated<T>(work: impl AsyncFnOnce(&Netns) -> T) -> T {
    let netns = Netns::new().unwrap();
    netns.enter().unwrap();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work(&netns))
}

async fn channel(cloud: &Cloud) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&cloud.broker.uri(), properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    (connection, channel)
}

/// Messages that nobody has yet, and consumers; none: there is no such queue.
async fn depth(connection: &Connection) -> Option<(u32, u32)> {
    let channel = connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(QUEUE.into(), passive, FieldTable::default())
        .await
        .ok()?;
    let _ = channel.close(200, "".into()).await;
    Some((queue.message_count(), queue.consumer_count()))
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What eventd says of a job that stops or starts a server.
fn message(server: i64, job: i64, stops: bool, status: &str, time: i64) -> Value {
    let operation = if stops {
        "OP_INSTANCE_SHUTDOWN"
    } else {
        "OP_INSTANCE_STARTUP"
    };
    let mut message = json!({
        "type": "ganeti-op-status", "event_time": [time, 0], "instance": format!("snf-{server}"),
        "operation": operation, "status": status, "jobId": job, "cluster": "cluster.gnt.lab",
        "logmsg": null, "result": null, "job_fields": {}, "tags": [],
    });
    if !stops && status == "success" {
        message["instance_nics"] = json!([{
            "name": format!("snf-nic-{server}"), "network": "snf-net-1", "ip": address(server),
            "mac": mac(server), "mode": "bridged", "link": "br0", "uuid": "u",
        }]);
    }
    message
}

/// Every server stopped and started, the jobs of all side by side.
fn messages() -> Vec<Value> {
    let mut messages = Vec::new();
    for stops in [true, false] {
        for (time, status) in (1..).zip(["queued", "waiting", "running", "success"]) {
            for server in 1..=SERVERS {
                let job = if stops { server } else { SERVERS + server };
                messages.push(message(server, job, stops, status, time));
            }
        }
    }
    messages
}

async fn publish(channel: &Channel, messages: &[Value]) {
    let mut confirms = Vec::new();
    for message in messages {
        let confirm = channel
            .basic_publish(
                "ganeti".into(),
                "ganeti.snf.event.op".into(),
                BasicPublishOptions::default(),
                message.to_string().as_bytes(),
                BasicProperties::default().with_delivery_mode(2),
            )
            .await
            .unwrap();
        confirms.push(confirm);
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
}

/// So many consumers at work on the queue.
async fn consumers(cloud: &Cloud, connection: &Connection, count: usize) -> Vec<Served> {
    let running = (0..count).map(|number| cloud.serve(number)).collect();
    consumed_by(connection, count).await;
    running
}

async fn consumed_by(connection: &Connection, count: usize) {
    until("the consumers", async || {
        depth(connection)
            .await
            .is_some_and(|(_, consumers)| consumers as usize == count)
    })
    .await;
}

/// Has so many consumers apply all messages, which are in the queue before the first consumer is
/// there; how many a second, and the CPU time that they took for each.
///
/// It begins with the first message that a consumer has, so that the start of the processes does
/// not count.
async fn apply(cloud: &Cloud, count: usize, messages: &[Value]) -> (f64, f64) {
    cloud.reset();
    let (connection, channel) = channel(cloud).await;
    // The first consumer that there ever was makes the queue.
    drop(consumers(cloud, &connection, 1).await);
    consumed_by(&connection, 0).await;
    publish(&channel, messages).await;
    let waiting = async || {
        let (ready, _) = depth(&connection).await.unwrap();
        ready as usize
    };
    until("the messages", async || waiting().await == messages.len()).await;
    let running: Vec<Served> = (0..count).map(|number| cloud.serve(number)).collect();
    let cpu = || running.iter().map(Served::cpu).sum::<f64>();
    until("the first messages", async || {
        waiting().await < messages.len()
    })
    .await;
    let (begun, before, first) = (Instant::now(), cpu(), waiting().await);
    until("the queue to be empty", async || waiting().await == 0).await;
    let all = format!(
        "SELECT COUNT(*) FROM servers WHERE state_job = {SERVERS} + id AND state = 'STARTED' \
         AND job_rank = 4;"
    );
    until("the last messages", async || {
        cloud.sql(&all) == SERVERS.to_string()
    })
    .await;
    let applied = first as f64;
    (
        rate(first, begun.elapsed()),
        (cpu() - before) * 1e6 / applied,
    )
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn on_postgresql(report: &mut Report) -> Vec<Transaction> {
    isolated(async |netns| {
        let cloud = Cloud::new(netns, true, SERVERS, 100_000);
        let Base::Postgres(server) = &cloud.base else {
            unreachable!()
        };
        let messages = messages();
        // Once with one consumer, to learn what it asks.
        cloud.sql("ALTER SYSTEM SET log_statement = 'all';\nSELECT pg_reload_conf();\n");
        apply(&cloud, 1, &messages).await;
        cloud.sql("ALTER SYSTEM RESET log_statement;\nSELECT pg_reload_conf();\n");
        let log = fs::read_to_string(cloud.scratch.join("pg/log")).unwrap();
        let transactions = statements::transactions(&log);
        assert!(
            transactions.len() >= messages.len(),
            "{}",
            transactions.len()
        );
        let statements = transactions.iter().map(|one| one.statements.len());
        let per = statements.sum::<usize>() as f64;
        report.figure(
            "statements of a transaction, BEGIN and COMMIT not counted",
            per / transactions.len() as f64,
            "",
        );
        let each = statements::connections(&transactions);
        for consumers in [1, 2, 4] {
            let (ours, cpu) = apply(&cloud, consumers, &messages).await;
            cloud.reset();
            let connections = consumers * each;
            let straight =
                statements::by_psql(server, cloud.scratch.path(), &transactions, connections);
            let peer = rate(transactions.len(), straight);
            report.figure(
                &format!("PostgreSQL, {consumers} consumers"),
                ours,
                "messages/s",
            );
            report.figure(
                &format!("  CPU of {consumers} consumers, of a message"),
                cpu,
                "µs",
            );
            report.figure(
                &format!("  the same statements by psql, {connections} connections"),
                peer,
                "/s",
            );
            let ratio = ours / peer;
            report.target("  ratio", ratio, "", ratio >= 0.7, ">= 0.7");
        }
        transactions
    })
}

fn on_sqlite(report: &mut Report, transactions: &[Transaction]) {
    isolated(async |netns| {
        let cloud = Cloud::new(netns, false, SERVERS, 100_000);
        let Base::Sqlite(file) = &cloud.base else {
            unreachable!()
        };
        let messages = messages();
        let (ours, cpu) = apply(&cloud, 1, &messages).await;
        cloud.reset();
        let straight = statements::by_sqlite(file, cloud.scratch.path(), transactions);
        let peer = rate(transactions.len(), straight);
        report.figure("SQLite, 1 consumer", ours, "messages/s");
        report.figure("  CPU of a message", cpu, "µs");
        report.figure("  the same statements by Python's sqlite3", peer, "/s");
        let ratio = ours / peer;
        report.target("  ratio", ratio, "", ratio >= 0.7, ">= 0.7");
    });
}

/// Asks the API for a server over a connection that is kept.
async fn status(stream: &mut TcpStream, server: i64) -> String {
    let request = format!(
        "GET /compute/v2.0/servers/{server} HTTP/1.1\r\nHost: {API}\r\nX-Auth-Token: {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let read = stream.read_buf(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(read > 0, "the API closed the connection: {text}");
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str::<Value>(body)
        {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            return body["server"]["status"].as_str().unwrap().to_owned();
        }
    }
}

fn latency(report: &mut Report) {
    const EVENTS: i64 = 500;
    for postgres in [true, false] {
        isolated(async |netns| {
            let cloud = Cloud::new(netns, postgres, 20, 100_000);
            let (connection, channel) = channel(&cloud).await;
            let _central = cloud.serve(0);
            until("the consumer", async || {
                depth(&connection)
                    .await
                    .is_some_and(|(_, count)| count == 1)
            })
            .await;
            let mut stream = TcpStream::connect(API).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut taken = Vec::new();
            for job in 1..=EVENTS {
                let stops = job % 2 == 1;
                let wanted = if stops { "SHUTOFF" } else { "ACTIVE" };
                let server = (job / 2) % 20 + 1;
                let server = if stops {
                    server
                } else {
                    ((job - 1) / 2) % 20 + 1
                };
                // idle
                tokio::time::sleep(Duration::from_millis(10)).await;
                let begun = Instant::now();
                publish(&channel, &[message(server, job, stops, "success", 1)]).await;
                while status(&mut stream, server).await != wanted {
                    assert!(begun.elapsed() < PATIENCE, "event {job} is not seen");
                }
                taken.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            taken.sort_by(f64::total_cmp);
            let at = |part: f64| taken[(taken.len() as f64 * part) as usize];
            let base = if postgres { "PostgreSQL" } else { "SQLite" };
            report.figure(&format!("event to API, {base}, p50"), at(0.5), "ms");
            let p99 = at(0.99);
            report.target(
                &format!("event to API, {base}, p99"),
                p99,
                "ms",
                p99 <= 20.0,
                "<= 20 ms",
            );
        });
    }
}

fn reconcile(report: &mut Report) {
    const MANY: i64 = 5000;
    const PASSES: usize = 10;
    for postgres in [true, false] {
        isolated(async |netns| {
            let cloud = Cloud::new(netns, postgres, MANY, 1);
            let base = if postgres { "PostgreSQL" } else { "SQLite" };
            let shown = cloud.central(&["reconcile", "--dry-run"]);
            assert!(shown.contains("nothing differs"), "{shown}");
            let central = cloud.serve(0);
            let looks = || cloud.looks.load(Ordering::Relaxed);
            let first = looks();
            until("the first passes", async || looks() >= first + 5).await;
            let (before, cpu, memory) = (looks(), central.cpu(), central.memory("VmRSS:"));
            until("more passes", async || looks() >= before + PASSES).await;
            let cpu = (central.cpu() - cpu) / (looks() - before) as f64;
            report.target(
                &format!("a pass over {MANY} instances, {base}, CPU"),
                cpu,
                "s",
                cpu <= 2.0,
                "<= 2 s",
            );
            let after = central.memory("VmRSS:");
            report.figure(&format!("  memory after 5 passes, {base}"), memory, "MB");
            report.target(
                &format!("  memory after {} passes, {base}", PASSES + 5),
                after,
                "MB",
                after <= memory * 1.1,
                "10 % more at most",
            );
        });
    }
}
