//! Refusals of a real broker or queue: nothing is repeated without pause, and
//! nothing waits behind it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::{Duration, Instant};

use agents::message::{EventId, Message};
use agents::outbox::{Class, Entry, Outbox, Producer};
use harness::rabbitmq::{Place, RabbitMq};
use harness::wait;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use rig::{Consumer, Node, PATIENCE, PORT, Received, shutdown_job};

/// Connections that the broker has accepted.
fn connections(node: &Node) -> usize {
    let log = fs::read_to_string(node.path("mq/rabbitmq.log")).unwrap();
    log.matches("accepting AMQP connection").count()
}

fn ctl(broker: &RabbitMq, words: &str) {
    let output = broker.ctl(words).unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
}

/// Takes messages until each of these jobs has ended.
fn until_all_ended(consumer: &Consumer, jobs: impl Iterator<Item = u64>) -> Vec<Received> {
    let mut missing: BTreeSet<u64> = jobs.collect();
    let mut all = Vec::new();
    while !missing.is_empty() {
        let message = match consumer.next() {
            Ok(message) => message,
            Err(error) => panic!("{error}; not told: {missing:?}"),
        };
        if message.status() == "success" {
            missing.remove(&message.job().unwrap());
        }
        all.push(message);
    }
    all
}

fn net_entry(number: u64, instance: &str, length: usize) -> Entry {
    let body = serde_json::json!({"type": "ganeti-net-status", "event_time": [number, 0],
        "instance": instance, "nics": [{"mac": "aa:00:00:00:00:01", "name": "n".repeat(length)}]});
    let message = Message::parse(body.to_string().as_bytes()).unwrap();
    let id = EventId::of_parts(&[&number.to_string()]);
    Entry::new(id, Class::Final, &message).unwrap()
}

/// A job whose end has a result of so many bytes.
fn long_job(job: u64, length: usize) -> String {
    let result = format!("\"result\": \"{}\"", "x".repeat(length));
    shutdown_job(job, "success").replacen("\"result\": null", &result, 1)
}

/// Uses another user, who has these permissions (configure, write, read).
fn as_user(node: &Node, broker: &RabbitMq, permissions: &str) {
    ctl(broker, "add_user agent agent");
    ctl(broker, &format!("set_permissions agent {permissions}"));
    let config = fs::read_to_string(node.config()).unwrap();
    let config = config.replace("guest:guest", "agent:agent");
    fs::write(node.config(), config).unwrap();
}

/// Declares a queue that takes so many messages and refuses more, bound to all keys; or deletes
/// what is in it.
fn bounded_queue(node: &Node, uri: &str, length: i32) {
    node.netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
                let channel = connection.create_channel().await?;
                let mut arguments = FieldTable::default();
                arguments.insert("x-max-length".into(), AMQPValue::LongInt(length));
                let overflow = AMQPValue::LongString("reject-publish".into());
                arguments.insert("x-overflow".into(), overflow);
                let durable = QueueDeclareOptions::durable();
                channel
                    .queue_declare("bounded".into(), durable, arguments)
                    .await?;
                channel
                    .queue_bind(
                        "bounded".into(),
                        "ganeti".into(),
                        "#".into(),
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await?;
                Ok(())
            })
        })
        .unwrap();
}

/// Takes everything out of the bounded queue.
fn take_from_bounded(node: &Node, uri: &str) -> Vec<(u64, String)> {
    node.netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
                let channel = connection.create_channel().await?;
                let mut all = Vec::new();
                let options = lapin::options::BasicGetOptions { no_ack: true };
                while let Some(got) = channel.basic_get("bounded".into(), options).await? {
                    let body: serde_json::Value = serde_json::from_slice(&got.delivery.data)?;
                    let status = body["status"].as_str().unwrap_or_default().to_owned();
                    all.push((body["jobId"].as_u64().unwrap_or(0), status));
                }
                Ok(all)
            })
        })
        .unwrap()
}

/// All that comes in this time.
fn during(consumer: &Consumer, time: Duration) -> Vec<Received> {
    let until = Instant::now() + time;
    let mut all = Vec::new();
    while let Ok(Some(message)) = consumer.within(until.saturating_duration_since(Instant::now())) {
        all.push(message);
    }
    all
}

fn files(node: &Node, folder: &str) -> usize {
    Outbox::existing(&node.outbox().join(folder))
        .list()
        .map_or(0, |list| list.len())
}

#[test]
fn a_message_above_the_size_limit_of_the_broker_goes_shortened_or_aside_and_all_others_go_on() {
    let mut node = Node::new("refused-size");
    let place = Place::Netns(&node.netns);
    let limit = "max_message_size = 131072";
    let broker = RabbitMq::start_with(place, &node.path("mq"), "127.0.0.1", PORT, limit).unwrap();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    // first those of a backlog in the outbox, then straight from the queue
    node.write_job(1, &shutdown_job(1, "success"));
    let mut producer = Producer::new(&node.outbox()).unwrap();
    producer.put(&net_entry(1, "snf-1", 1)).unwrap();
    producer.put(&net_entry(2, "snf-2", 200_000)).unwrap();
    producer.put(&net_entry(3, "snf-3", 1)).unwrap();
    let before = connections(&node);
    let daemon = node.start();
    for job in 2..=60 {
        let length = if job % 20 == 2 { 200_000 } else { 10 };
        node.write_job(job, &long_job(job, length));
    }
    let all = until_all_ended(&consumer, 1..=60);
    for message in &all {
        let Some(job) = message.job() else { continue };
        let length = message.body["result"].as_str().map(str::len);
        let expected = match job {
            1 => None,
            _ if job % 20 == 2 => None,
            _ => Some(10),
        };
        assert_eq!(length, expected, "job {job}");
    }
    let nets: Vec<_> = all
        .iter()
        .filter(|one| one.key == "ganeti.snf.event.net")
        .map(|one| one.body["event_time"][0].as_u64().unwrap())
        .collect();
    assert!(nets.contains(&1) && nets.contains(&3), "{nets:?}");
    let made = connections(&node) - before;
    assert!(made <= 6, "{made} connections");
    wait::until_true("the message to be set aside", PATIENCE, || {
        files(&node, "dead-letters") == 1
    })
    .unwrap();
    let log = daemon.log();
    assert!(log.contains("without its result and log"), "{log}");
    assert!(
        log.contains("snf-2") && log.contains("dead-letters"),
        "{log}"
    );
    let list = node.run("messages list dead-letters");
    assert!(list.stdout.contains("snf-2"), "{}", list.stdout);
    assert!(node.run("status").stdout.contains("dead-letters"));
    // the operator drops it, or has it tried again
    assert!(
        node.run("messages retry dead-letters --all")
            .status
            .success()
    );
    wait::until_true("the message to be refused again", PATIENCE, || {
        files(&node, "dead-letters") == 1
    })
    .unwrap();
    assert!(
        node.run("messages drop dead-letters --all")
            .status
            .success()
    );
    assert_eq!(files(&node, "dead-letters"), 0);
    node.write_job(61, &long_job(61, 300_000));
    until_all_ended(&consumer, 61..=61);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_user_who_may_not_write_is_retried_with_pauses_and_check_says_so() {
    let mut node = Node::new("refused-write");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    as_user(&node, &broker, ".* ^$ .*");
    let check = node.run("check");
    assert_eq!(check.status.code(), Some(1), "{}", check.stdout);
    assert!(check.stdout.contains("403"), "{}", check.stdout);
    let before = connections(&node);
    let began = Instant::now();
    let mut producer = Producer::new(&node.outbox()).unwrap();
    producer.put(&net_entry(1, "snf-1", 1)).unwrap();
    let daemon = node.start();
    for job in 1..=100 {
        for status in ["queued", "running", "success"] {
            node.write_job(job, &shutdown_job(job, status));
        }
    }
    std::thread::sleep(Duration::from_secs(8));
    let made = connections(&node) - before;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    // pauses are half of the limit of 1 s at the least
    assert!(made <= 8 + 2 * seconds, "{made} connections in {seconds} s");
    let log = daemon.log();
    assert!(!log.contains("the broker is back"), "{log}");
    assert!(log.matches("connected").count() <= 3, "{log}");
    assert!(log.contains("403"), "{log}");
    // an operator mends it
    ctl(&broker, "set_permissions agent .* .* .*");
    let check = node.run("check");
    assert!(check.status.success(), "{}", check.stdout);
    assert!(
        check.stdout.contains("may be published"),
        "{}",
        check.stdout
    );
    let all = until_all_ended(&consumer, 1..=100);
    let mut last: HashMap<u64, usize> = HashMap::new();
    let mut seen = BTreeSet::new();
    for message in all.iter().filter(|one| one.job().is_some()) {
        if !seen.insert(message.id.clone()) {
            continue;
        }
        let rank = ["queued", "running", "success"]
            .iter()
            .position(|status| *status == message.status());
        let before = last.insert(message.job().unwrap(), rank.unwrap());
        assert!(before < rank, "job {:?} out of order", message.job());
    }
    wait::until_true("the end of the outage to be told", PATIENCE, || {
        daemon.log().contains("the broker is back")
    })
    .unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_key_that_may_not_be_written_stops_no_other() {
    let mut node = Node::new("refused-topic");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    as_user(&node, &broker, ".* .* .*");
    ctl(
        &broker,
        "set_topic_permissions agent ganeti event.(op|cluster)$ .*",
    );
    let mut producer = Producer::new(&node.outbox()).unwrap();
    for number in 1..=5 {
        producer
            .put(&net_entry(number, &format!("snf-{number}"), 1))
            .unwrap();
    }
    let before = connections(&node);
    let daemon = node.start();
    for job in 1..=100 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    let all = until_all_ended(&consumer, 1..=100);
    assert!(all.iter().all(|one| one.job().is_some()));
    assert!(connections(&node) - before <= 6, "{}", daemon.log());
    assert!(daemon.log().contains("ganeti.snf.event.net"));
    ctl(&broker, "set_topic_permissions agent ganeti .* .*");
    let mut nets = BTreeSet::new();
    while nets.len() < 5 {
        let message = consumer.next().unwrap();
        if message.job().is_none() {
            nets.insert(message.body["event_time"][0].as_u64());
        }
    }
    wait::until_true("nothing to be kept", PATIENCE, || {
        files(&node, "refused") == 0 && files(&node, ".") == 0
    })
    .unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_full_queue_that_refuses_gets_all_later_and_the_others_get_little_twice() {
    let mut node = Node::new("refused-queue");
    let broker = node.start_broker();
    let healthy = Consumer::new(&node.netns, &broker.uri()).unwrap();
    bounded_queue(&node, &broker.uri(), 5);
    let before = connections(&node);
    let daemon = node.start();
    let began = Instant::now();
    for job in 1..=100 {
        for status in ["queued", "success"] {
            node.write_job(job, &shutdown_job(job, status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // the healthy queue has everything at once
    let mut had = until_all_ended(&healthy, 1..=100);
    had.extend(during(&healthy, Duration::from_secs(5)));
    let ids: BTreeSet<_> = had.iter().map(|one| &one.id).collect();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let repeated = had.len() - ids.len();
    assert!(
        repeated <= 8 + 2 * seconds,
        "{repeated} repeated in {seconds} s"
    );
    assert!(connections(&node) - before <= 3, "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("a queue refuses"), "{log}");
    // a restart forgets nothing
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    let daemon = node.start();
    let mut last: HashMap<u64, String> = HashMap::new();
    wait::until_true("the full queue to get everything", PATIENCE, || {
        for (job, status) in take_from_bounded(&node, &broker.uri()) {
            last.insert(job, status);
        }
        last.len() == 100
            && last.values().all(|status| status == "success")
            && files(&node, "refused") == 0
    })
    .unwrap();
    had.extend(healthy.drain(Duration::from_secs(1)));
    let mut times: HashMap<&String, usize> = HashMap::new();
    for message in &had {
        *times.entry(&message.id).or_default() += 1;
    }
    let total = had.len();
    // what was tried while the queue was full, and once for each when it was not
    assert!(total <= 3 * times.len() + 100, "{total}");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_check_disturbs_no_consumer() {
    let node = Node::new("refused-check");
    let place = Place::Netns(&node.netns);
    let limit = "max_message_size = 131072";
    let broker = RabbitMq::start_with(place, &node.path("mq"), "127.0.0.1", PORT, limit).unwrap();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let check = node.run("check");
    assert!(check.status.success(), "{}", check.stdout);
    assert!(
        check.stdout.contains("may be published"),
        "{}",
        check.stdout
    );
    assert!(check.stdout.contains("131072"), "{}", check.stdout);
    assert_eq!(consumer.drain(Duration::from_secs(1)).len(), 0);
    ctl(&broker, "delete_vhost /");
    let check = node.run("check");
    assert_eq!(check.status.code(), Some(1), "{}", check.stdout);
}

/// The virtual host vanishes under the connection, and comes back with nothing in it.
#[test]
fn a_virtual_host_that_is_made_anew_gets_what_waited_for_the_broker() {
    let mut node = Node::new("refused-vhost");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_ended(&consumer, 1..=1);
    ctl(&broker, "delete_vhost /");
    let before = connections(&node);
    let began = Instant::now();
    for job in 2..=50 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    std::thread::sleep(Duration::from_secs(4));
    let made = connections(&node) - before;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(made <= 8 + 2 * seconds, "{made} connections in {seconds} s");
    ctl(&broker, "add_vhost /");
    ctl(&broker, "set_permissions guest .* .* .*");
    consumer.reconnect().unwrap();
    until_all_ended(&consumer, 2..=50);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

/// The bindings of a dispatcher that has no queue for `net`, and a hook for every start.
#[test]
fn nics_that_no_queue_wants_leave_a_bounded_number_of_files_and_the_last_word_of_each() {
    let mut node = Node::new("parked-net");
    node.configure("[outbox]\nmax_mib = 1\nmax_hours = 1\nparked_max_messages = 300");
    let broker = node.start_broker();
    let wanted = Consumer::of_keys(&node.netns, &broker.uri(), "ganeti.*.event.op").unwrap();
    let mut producer = Producer::new(&node.outbox()).unwrap();
    let daemon = node.start();
    for number in 0..2500u64 {
        let instance = format!("snf-{}", number % 50);
        producer.put(&net_entry(number, &instance, 1)).unwrap();
    }
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_ended(&wanted, 1..=1);
    wait::until_true("the outbox to be empty", PATIENCE, || {
        files(&node, ".") == 0
    })
    .unwrap();
    let left = files(&node, "parked");
    assert!(left <= 50, "{left} files");
    let status = node.run("status").stdout;
    // beside the last word of each, at most what came since files were last joined
    let counted = status.lines().find_map(|line| {
        let (_, count) = line.split_once("ganeti.snf.event.net: ")?;
        count.split_once(' ')?.0.parse::<usize>().ok()
    });
    assert!((50..=100).contains(&counted.unwrap()), "{status}");
    // many instances outside the prefix of anybody: the bound, and a line that says so
    for number in 0..600u64 {
        let instance = format!("vm{number}.example.org");
        producer
            .put(&net_entry(10_000 + number, &instance, 1))
            .unwrap();
    }
    wait::until_true("the oldest to be dropped", PATIENCE, || {
        let kept = node.run("messages list parked").stdout.lines().count();
        files(&node, ".") == 0 && kept <= 340
    })
    .unwrap();
    let log = daemon.log();
    assert!(log.contains("dropped the oldest"), "{log}");
    assert!(
        node.run("messages drop parked --key ganeti.vm599.example.org.event.net")
            .status
            .success()
    );
    let list = node.run("messages list parked").stdout;
    assert!(
        list.contains("vm598.example.org") && !list.contains("vm599.example.org"),
        "{list}"
    );
    assert!(
        node.run("messages drop parked --older-than 1")
            .stdout
            .contains("dropped 0")
    );
    assert_eq!(node.run("messages drop parked").status.code(), Some(2));
    assert!(node.run("messages drop parked --all").status.success());
    assert_eq!(files(&node, "parked"), 0);
    // what is wanted from now on is not kept behind what was dropped
    for number in 0..3u64 {
        producer
            .put(&net_entry(20_000 + number, "snf-7", 1))
            .unwrap();
    }
    drop(wanted);
    let all = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let last = all
        .until(|one| one.body["event_time"][0].as_u64() == Some(20_002))
        .unwrap();
    assert!(
        last.iter().all(|one| one.body["instance"] == "snf-7"),
        "{last:?}"
    );
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}
