//! What goes wrong around the daemon, with a real broker: whatever it is, every final state
//! arrives, in order per job.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use agents::message::{EventId, Message};
use agents::outbox::{Class, Entry, Outbox, Producer};
use harness::process::Daemon;
use harness::rabbitmq::{Place, RabbitMq};
use harness::wait;
use nix::sys::signal::Signal;
use rig::{Consumer, NODE, Node, PATIENCE, Received, shutdown_job};

const STATES: [&str; 4] = ["queued", "waiting", "running", "success"];

fn rank(status: &str) -> usize {
    STATES.iter().position(|state| *state == status).unwrap()
}

/// Checks that the messages of each job came in the order of its states.
fn in_order(messages: &[Received]) {
    let mut last: HashMap<u64, usize> = HashMap::new();
    let mut seen = HashSet::new();
    for message in messages {
        if !seen.insert(message.id.clone()) {
            continue; // the same again, with the same id: harmless
        }
        let job = message.job().unwrap();
        let rank = rank(message.status());
        let before = last.insert(job, rank);
        assert!(
            before.is_none_or(|before| before < rank),
            "job {job}: {before:?} then {rank}"
        );
    }
}

/// Takes messages until the final state of each of these jobs has come.
fn until_all_final(consumer: &mut Consumer, jobs: impl Iterator<Item = u64>) -> Vec<Received> {
    let mut missing: HashSet<u64> = jobs.collect();
    let mut all = Vec::new();
    while !missing.is_empty() {
        let message = match consumer.next() {
            Ok(message) => message,
            Err(error) => panic!("{error}; {} jobs missing: {missing:?}", missing.len()),
        };
        if message.status() == "success" {
            missing.remove(&message.job().unwrap());
        }
        all.push(message);
    }
    all
}

fn hook_entry(number: u64) -> Entry {
    let body = serde_json::json!({"type": "ganeti-net-status", "event_time": [number, 0],
        "instance": "snf-1", "nics": []});
    let message = Message::parse(body.to_string().as_bytes()).unwrap();
    let id = EventId::of_parts(&[&number.to_string()]);
    Entry::new(id, Class::Final, &message).unwrap()
}

/// Checks that of an outage that has begun no earlier than `since` no more is said than that.
fn at_most_a_line_a_minute(daemon: &Daemon, since: Instant) {
    let log = daemon.log();
    let lines = log.matches("WARN").count();
    let minutes = usize::try_from(since.elapsed().as_secs() / 60).unwrap();
    assert!(
        lines <= minutes + 1,
        "{lines} lines in {minutes} minutes:\n{log}"
    );
}

fn outbox_files(node: &Node) -> usize {
    Outbox::existing(&node.outbox()).list().unwrap().len()
}

#[test]
fn a_broker_that_is_away_at_the_start_is_told_once_and_gets_everything_later() {
    let began = Instant::now();
    let mut node = Node::new("away");
    let daemon = node.start();
    let mut producer = Producer::new(&node.outbox()).unwrap();
    for number in 0..3 {
        producer.put(&hook_entry(number)).unwrap();
    }
    for job in 1..=50 {
        for state in STATES {
            node.write_job(job, &shutdown_job(job, state));
        }
    }
    wait::until_true("the cursor to have all", wait::USUAL, || {
        fs::read_to_string(node.path("state/cursor.json"))
            .is_ok_and(|cursor| cursor.contains("[1,50]"))
    })
    .unwrap();
    assert!(outbox_files(&node) > 3);
    std::thread::sleep(Duration::from_secs(3));
    assert!(daemon.log().contains("WARN"), "{}", daemon.log());
    at_most_a_line_a_minute(&daemon, began);

    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let all = until_all_final(&mut consumer, 1..=50);
    let (net, op): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|message| message.key == "ganeti.snf.event.net");
    in_order(&op);
    let times: Vec<_> = net
        .iter()
        .map(|message| message.body["event_time"][0].clone())
        .collect();
    assert_eq!(times, [0, 1, 2]);
    assert!(
        net.iter()
            .all(|message| message.origin == format!("{NODE}/snf-ganeti-eventd"))
    );
    wait::until_true("the outbox to be empty", wait::USUAL, || {
        outbox_files(&node) == 0
    })
    .unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_broker_that_dies_in_the_middle_loses_nothing() {
    let began = Instant::now();
    let mut node = Node::new("broker-dies");
    let mut broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    let mut all = Vec::new();
    for round in 0..3u64 {
        for job in round * 100 + 1..=round * 100 + 100 {
            for state in STATES {
                node.write_job(job, &shutdown_job(job, state));
            }
            if job % 100 == 50 {
                all.extend(consumer.drain(Duration::ZERO));
                broker.kill();
            }
        }
        all.extend(consumer.drain(Duration::ZERO));
        broker.restart().unwrap();
        consumer.reconnect().unwrap();
    }
    let had: HashSet<u64> = all
        .iter()
        .filter(|message| message.status() == "success")
        .filter_map(Received::job)
        .collect();
    let rest = (1..=300).filter(|job| !had.contains(job));
    all.extend(until_all_final(&mut consumer, rest));
    in_order(&all);
    at_most_a_line_a_minute(&daemon, began);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_broker_that_is_away_for_a_minute_is_told_of_once_and_gets_everything() {
    let mut node = Node::new("minute");
    let mut broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_final(&mut consumer, 1..=1);
    let link = |node: &Node, state: &str| {
        let mut command = node.netns.command("ip");
        command.args(["link", "set", "lo", state]);
        assert!(command.status().unwrap().success());
    };
    // half of the time nothing gets through and nothing answers, then nobody is there
    link(&node, "down");
    let away = Instant::now();
    let mut job = 1;
    let mut run_until = |node: &mut Node, seconds: u64| {
        while away.elapsed() < Duration::from_secs(seconds) {
            job += 1;
            for state in STATES {
                node.write_job(job, &shutdown_job(job, state));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        job
    };
    let last = run_until(&mut node, 30);
    link(&node, "up");
    broker.kill();
    let last = run_until(&mut node, 60).max(last);
    assert!(outbox_files(&node) > 0);
    at_most_a_line_a_minute(&daemon, away);
    broker.restart().unwrap();
    consumer.reconnect().unwrap();
    let all = until_all_final(&mut consumer, 2..=last);
    in_order(&all);
    wait::until_true("the outbox to be empty", wait::USUAL, || {
        outbox_files(&node) == 0
    })
    .unwrap();
    at_most_a_line_a_minute(&daemon, away);
    assert!(daemon.log().contains("the broker is back"));
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn killed_at_any_instant_it_loses_no_final_state() {
    let mut node = Node::new("killed");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut random = 88_172_645_463_325_252u64;
    let mut random = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut job = 0;
    let mut states: BTreeMap<u64, usize> = BTreeMap::new();
    for _ in 0..200 {
        let log = node.path("eventd.log");
        let daemon =
            harness::process::Daemon::spawn("eventd", node.command().arg("run"), &log).unwrap();
        let until = std::time::Instant::now() + Duration::from_micros(random(60_000));
        while std::time::Instant::now() < until {
            // some jobs at once, each a step further
            if states.len() < 8 {
                job += 1;
                states.insert(job, 0);
            }
            let nth = usize::try_from(random(8)).unwrap() % states.len();
            let (&id, state) = states.iter_mut().nth(nth).unwrap();
            node.write_job(id, &shutdown_job(id, STATES[*state]));
            *state += 1;
            if *state == STATES.len() {
                states.remove(&id);
                if random(3) == 0 {
                    node.archive(id);
                }
            }
        }
        daemon.kill();
    }
    for &id in states.keys() {
        node.write_job(id, &shutdown_job(id, "success"));
    }
    let daemon = node.start();
    let all = until_all_final(&mut consumer, 1..=job);
    in_order(&all);
    let distinct: HashSet<_> = all.iter().map(|message| &message.id).collect();
    println!(
        "{job} jobs, {} messages, {} of them twice",
        all.len(),
        all.len() - distinct.len()
    );
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn killed_right_after_its_first_start_it_does_not_take_what_follows_for_old() {
    let mut node = Node::new("killed-first");
    let mut daemon = node.start();
    daemon
        .wait_for_log("this node is the master", wait::USUAL)
        .unwrap();
    daemon.kill();
    // more than the numbers that are looked at in an archive without a cursor
    let jobs = 1200;
    for job in 1..=jobs {
        node.write_job(job, &shutdown_job(job, "success"));
        node.archive(job);
    }
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    until_all_final(&mut consumer, 1..=jobs);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn what_ended_and_was_archived_while_it_was_down_is_told() {
    let mut node = Node::new("archived");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(1, &shutdown_job(1, "success"));
    node.write_job(2, &shutdown_job(2, "running"));
    consumer.until(|message| message.job() == Some(2)).unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());

    node.write_job(2, &shutdown_job(2, "success"));
    node.archive(1);
    node.archive(2);
    for job in 3..10 {
        node.write_job(job, &shutdown_job(job, "success"));
        node.archive(job);
    }
    let daemon = node.start();
    let all = until_all_final(&mut consumer, 2..10);
    assert_eq!(all.len(), 8, "each of them once, and nothing again");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn an_overflow_of_inotify_loses_no_final_state() {
    let mut node = Node::new("overflow");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    // The limit belongs to an instance from its beginning: it is lowered only for that long.
    let limit = "/proc/sys/fs/inotify/max_queued_events";
    let usual = fs::read_to_string(limit).unwrap();
    fs::write(limit, "16").unwrap();
    let daemon = node.start();
    fs::write(limit, usual).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    for job in 1..=500 {
        for state in STATES {
            node.write_job(job, &shutdown_job(job, state));
        }
    }
    daemon.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    let all = until_all_final(&mut consumer, 1..=500);
    in_order(&all);
    assert!(daemon.log().contains("looked through the queue"));
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_file_that_is_no_job_stops_nothing() {
    let mut node = Node::new("garbage");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    let whole = shutdown_job(3, "success");
    for (job, content) in [
        (1, "garbage"),
        (2, "{\"id\": 99, \"ops\": []}"),
        (3, &whole[..200]),
        (4, ""),
        (
            5,
            "{\"id\": 5, \"ops\": [{\"input\": [], \"status\": \"success\"}]}",
        ),
    ] {
        node.write_job(job, content);
    }
    // one that may not be read, for a while: a folder in its place
    fs::create_dir(node.queue().join("x")).unwrap();
    fs::rename(node.queue().join("x"), node.queue().join("job-6")).unwrap();
    node.write_job(7, &shutdown_job(7, "success"));
    assert_eq!(consumer.next().unwrap().job(), Some(7));
    for job in [1, 2, 3, 4] {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    until_all_final(&mut consumer, 1..5);
    let log = daemon.log();
    for said in ["job=1", "job=2", "99", "job=3", "job=4", "job=5", "job-6"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(log.matches("WARN").count() <= 8, "{log}");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_torn_file_is_read_again() {
    let node = Node::new("torn");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    let whole = shutdown_job(1, "success");
    let temporary = node.queue().join("x");
    fs::write(&temporary, &whole[..100]).unwrap();
    let job = node.queue().join("job-1");
    fs::rename(temporary, &job).unwrap();
    std::thread::sleep(Duration::from_millis(150));
    fs::write(&job, &whole).unwrap(); // in place: inotify announces nothing
    assert_eq!(consumer.next().unwrap().status(), "success");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn only_the_master_tells_of_jobs_and_a_new_one_repeats_the_ids() {
    let mut node = Node::new("master");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    for job in 1..=3 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    let first = until_all_final(&mut consumer, 1..=3);

    node.set_master("node2.gnt.lab");
    wait::until_true("it to step down", wait::USUAL, || {
        daemon.log().contains("another node")
    })
    .unwrap();
    for job in 4..=6 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    let mut producer = Producer::new(&node.outbox()).unwrap();
    producer.put(&hook_entry(1)).unwrap();
    let only = consumer.next().unwrap();
    assert_eq!(only.key, "ganeti.snf.event.net");
    assert!(consumer.drain(Duration::from_millis(500)).is_empty());

    node.set_master(NODE);
    let second = until_all_final(&mut consumer, 4..=6);
    assert_eq!(
        second.len(),
        3,
        "what it told itself it does not tell again"
    );

    // Another node, which has seen nothing yet, takes over: what is new in the queue is told,
    // with the ids that it was told with before.
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    fs::remove_file(node.path("state/cursor.json")).unwrap();
    let daemon = node.start();
    let again = until_all_final(&mut consumer, 1..=6);
    let ids = |messages: &[Received]| -> HashSet<String> {
        messages.iter().map(|message| message.id.clone()).collect()
    };
    let before: HashSet<_> = ids(&first).union(&ids(&second)).cloned().collect();
    assert_eq!(ids(&again), before);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_new_master_leaves_old_jobs_alone() {
    let mut node = Node::new("takeover");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    for job in 1..=4 {
        let state = if job == 2 { "running" } else { "success" };
        node.write_job(job, &shutdown_job(job, state));
        if job <= 2 {
            let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
            let file = fs::File::options()
                .write(true)
                .open(node.queue().join(format!("job-{job}")))
                .unwrap();
            file.set_modified(long_ago).unwrap();
        }
    }
    let daemon = node.start();
    let all = until_all_final(&mut consumer, 3..=4);
    let jobs: Vec<_> = all.iter().filter_map(Received::job).collect();
    assert_eq!(
        jobs,
        [2, 3, 4],
        "not job 1, which ended an hour before the others"
    );
    node.write_job(2, &shutdown_job(2, "success"));
    until_all_final(&mut consumer, 2..=2);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn what_was_archived_before_the_first_start_is_never_told() {
    let mut node = Node::new("old-archive");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    for job in 1..=1500 {
        node.write_job(job, &shutdown_job(job, "success"));
        if job <= 1490 {
            node.archive(job);
        }
    }
    let daemon = node.start();
    let first = until_all_final(&mut consumer, 1491..=1500);
    let all = first
        .into_iter()
        .chain(consumer.drain(Duration::from_secs(1)));
    assert!(
        all.filter_map(|message| message.job())
            .all(|job| job >= 500)
    );
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    let daemon = node.start();
    let again = consumer.drain(Duration::from_secs(2));
    assert!(again.is_empty(), "{} messages again", again.len());
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn what_another_master_told_is_not_told_after_a_restart_even_if_something_was_under_way() {
    let mut node = Node::new("old-archive-blocked");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut daemon = node.start();
    let alarm = broker
        .ctl("set_vm_memory_high_watermark absolute 1000")
        .unwrap();
    assert!(alarm.status.success(), "{alarm:?}");
    node.write_job(1, &shutdown_job(1, "success"));
    daemon
        .wait_for_log("takes no messages", wait::USUAL)
        .unwrap();
    node.set_master("node2.gnt.lab");
    daemon.wait_for_log("another node", wait::USUAL).unwrap();
    for job in 2..=1510 {
        node.write_job(job, &shutdown_job(job, "success"));
        if job <= 1500 {
            node.archive(job);
        }
    }
    node.archive(1);
    node.set_master(NODE);
    // what waits for the broker is job 1 and what is new
    wait::until_true("it to be the master again", wait::USUAL, || {
        daemon.log().matches("this node is the master").count() == 2
    })
    .unwrap();
    let over = broker
        .ctl("set_vm_memory_high_watermark absolute 2GB")
        .unwrap();
    assert!(over.status.success(), "{over:?}");
    let is_old = |message: &Received| message.job().is_some_and(|job| (2..500).contains(&job));
    let first = until_all_final(&mut consumer, (1..=1).chain(1501..=1510));
    assert!(!first.iter().any(is_old));
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    let daemon = node.start();
    node.write_job(1511, &shutdown_job(1511, "success"));
    let again = until_all_final(&mut consumer, 1511..=1511);
    let later = consumer.drain(Duration::from_secs(1));
    let old = again.iter().chain(&later).filter(|one| is_old(one)).count();
    assert_eq!(old, 0, "old jobs told after the restart");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn messages_that_no_queue_wants_are_kept_until_one_does() {
    let mut node = Node::new("parked");
    let broker = node.start_broker();
    let daemon = node.start();
    for job in 1..=20 {
        for state in STATES {
            node.write_job(job, &shutdown_job(job, state));
        }
    }
    wait::until_true("messages to be parked", wait::USUAL, || {
        fs::read_to_string(node.path("state/cursor.json"))
            .is_ok_and(|cursor| cursor.contains("[1,20]"))
    })
    .unwrap();
    assert!(
        daemon.log().contains("no queue is bound"),
        "{}",
        daemon.log()
    );
    // a restart does not forget them
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    let daemon = node.start();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    node.write_job(21, &shutdown_job(21, "success"));
    let all = until_all_final(&mut consumer, 1..=21);
    in_order(&all);
    let ids: HashSet<_> = all.iter().map(|message| &message.id).collect();
    assert_eq!(ids.len(), all.len(), "none of them twice");
    assert_eq!(
        all.last().unwrap().job(),
        Some(21),
        "in order of the key as well"
    );
    wait::until_true("nothing to be parked", wait::USUAL, || {
        fs::read_dir(node.outbox().join("parked")).unwrap().count() == 0
    })
    .unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

/// The broker confirms what it gave back together with what it took, and says of neither which it
/// was but by giving the former back.
#[test]
fn what_no_queue_wants_is_told_from_what_one_took() {
    let mut node = Node::new("mixed");
    let broker = node.start_broker();
    let consumer = Consumer::of_keys(&node.netns, &broker.uri(), "ganeti.snf.#").unwrap();
    let daemon = node.start();
    node.write_job(1000, &shutdown_job(1000, "success"));
    consumer
        .until(|message| message.job() == Some(1000))
        .unwrap();
    daemon.signal(Signal::SIGSTOP).unwrap();
    for job in 1..=400 {
        let wanted = shutdown_job(job, "success");
        let content = match job % 2 {
            0 => wanted,
            // a key of its own
            _ => wanted.replace("snf-", &format!("k{job}-")),
        };
        node.write_job(job, &content);
    }
    daemon.signal(Signal::SIGCONT).unwrap();
    let mut wanted: HashSet<u64> = (1..=400).filter(|job| job % 2 == 0).collect();
    while !wanted.is_empty() {
        let job = consumer.next().unwrap().job().unwrap();
        assert!(wanted.remove(&job), "job {job} came twice");
    }
    drop(consumer);
    let all = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut kept: HashSet<u64> = (1..=400).filter(|job| job % 2 == 1).collect();
    while !kept.is_empty() {
        let job = all.next().unwrap().job().unwrap();
        assert!(kept.remove(&job), "job {job} came twice");
    }
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn an_exchange_that_vanishes_is_declared_again() {
    let mut node = Node::new("exchange");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_final(&mut consumer, 1..=1);
    rig::delete_exchange(&node.netns, &broker.uri()).unwrap();
    for job in 2..=10 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    wait::until_true("the exchange to be back", wait::USUAL, || {
        daemon.log().contains("declared the exchange")
    })
    .unwrap();
    consumer.reconnect().unwrap();
    until_all_final(&mut consumer, 2..=10);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn the_next_host_is_tried_and_somebody_elses_exchange_is_waited_for() {
    let mut node = Node::new("hosts");
    let broker = node.start_broker();
    node.configure("exchange_missing = \"wait\"");
    let config = fs::read_to_string(node.config()).unwrap();
    let nobody = "hosts = [\"amqp://guest:guest@127.0.0.1:9/%2f\", ";
    fs::write(node.config(), config.replacen("hosts = [", nobody, 1)).unwrap();
    let mut daemon = node.start();
    // said once, of whichever host came first; the other follows at once
    daemon.wait_for_log("cannot connect to", PATIENCE).unwrap();
    for job in 1..=10 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    wait::until_true("messages to be spooled", PATIENCE, || {
        outbox_files(&node) > 0
    })
    .unwrap();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let all = until_all_final(&mut consumer, 1..=10);
    assert_eq!(all.len(), 10, "each of them once");
    assert!(!daemon.log().contains("declared the exchange"));
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_broker_without_memory_is_waited_for() {
    let mut node = Node::new("alarm");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_final(&mut consumer, 1..=1);
    let alarm = broker
        .ctl("set_vm_memory_high_watermark absolute 1000")
        .unwrap();
    assert!(alarm.status.success(), "{alarm:?}");
    for job in 2..=200 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    wait::until_true("the daemon to notice", wait::USUAL, || {
        daemon.log().contains("takes no messages")
    })
    .unwrap();
    assert!(consumer.drain(Duration::from_millis(300)).len() < 199);
    let over = broker
        .ctl("set_vm_memory_high_watermark absolute 2GB")
        .unwrap();
    assert!(over.status.success(), "{over:?}");
    consumer
        .until(|message| message.job() == Some(200))
        .unwrap();
    assert!(
        daemon.log().contains("takes messages again"),
        "{}",
        daemon.log()
    );
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn what_happens_now_does_not_wait_for_all_that_was_missed() {
    let mut node = Node::new("live-first");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let missed = 5000;
    for job in 1..=missed {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    // so that nothing gets through while the rescan is under way
    let alarm = broker
        .ctl("set_vm_memory_high_watermark absolute 1000")
        .unwrap();
    assert!(alarm.status.success(), "{alarm:?}");
    let mut daemon = node.start();
    daemon
        .wait_for_log("takes no messages", wait::USUAL)
        .unwrap();
    std::thread::sleep(Duration::from_secs(4));
    node.write_job(missed + 1, &shutdown_job(missed + 1, "success"));
    std::thread::sleep(Duration::from_millis(500));
    let over = broker
        .ctl("set_vm_memory_high_watermark absolute 2GB")
        .unwrap();
    assert!(over.status.success(), "{over:?}");
    let all = until_all_final(&mut consumer, 1..=missed + 1);
    let place = all
        .iter()
        .position(|message| message.job() == Some(missed + 1))
        .unwrap();
    assert!(place < 3000, "{place} messages came before it");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

/// What RabbitMQ 4 has by default, and is configured here: messages of 16 MiB at most, and the
/// smallest frames that it allows.
#[test]
fn a_broker_with_the_limits_of_a_later_release_gets_everything() {
    let mut node = Node::new("limits");
    let configuration = "max_message_size = 16777216\nframe_max = 8192";
    let place = Place::Netns(&node.netns);
    let folder = node.path("mq");
    let broker =
        RabbitMq::start_with(place, &folder, "127.0.0.1", rig::PORT, configuration).unwrap();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    let lengths = [0, 100_000, 20 << 20, 10];
    for (job, length) in (1..).zip(lengths) {
        let result = format!("\"result\": \"{}\"", "x".repeat(length));
        let content = shutdown_job(job, "success").replacen("\"result\": null", &result, 1);
        node.write_job(job, &content);
    }
    let all = until_all_final(&mut consumer, 1..=4);
    let got: Vec<_> = all
        .iter()
        .map(|one| one.body["result"].as_str().map(str::len))
        .collect();
    // no broker of that kind would take the third one's result, and nothing waits behind it
    assert_eq!(got, [Some(0), Some(100_000), None, Some(10)]);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_full_disk_is_waited_for() {
    let mut node = Node::new("disk-full");
    let outbox = node.outbox();
    fs::create_dir(&outbox).unwrap();
    // A tmpfs that only the daemon sees, for as long as it lives.
    let script = format!(
        "mount -t tmpfs -o size=256k,mode=700 none {} && exec \"$@\"",
        outbox.display()
    );
    let log = node.path("eventd.log");
    let mut command = node.netns.command("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(rig::program())
        .arg("--config")
        .arg(node.config())
        .arg("run");
    let mut daemon = harness::process::Daemon::spawn("eventd", &mut command, &log).unwrap();
    daemon.wait_for_log("started", wait::USUAL).unwrap();
    let jobs = 1500;
    for job in 1..=jobs {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    daemon
        .wait_for_log("cannot write the outbox", wait::USUAL)
        .unwrap();
    daemon.still_runs().unwrap();
    assert_eq!(daemon.log().matches("cannot write the outbox").count(), 1);
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let all = until_all_final(&mut consumer, 1..=jobs);
    in_order(&all);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

/// All that an earlier run left when the clock was a day ahead: job files, a cursor, messages in
/// the outbox, by name and by content later than all that comes now.
#[test]
fn a_clock_that_goes_back_changes_no_order_and_loses_nothing() {
    let mut node = Node::new("clock");
    let day = Duration::from_secs(24 * 3600);
    let ahead = std::time::SystemTime::now() + day;
    let touch = |node: &Node, job: u64| {
        let path = node.queue().join(format!("job-{job}"));
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(ahead).unwrap();
    };
    // told when the clock was ahead, and what was not got out then
    let daemon = node.start();
    for job in 1..=3 {
        node.write_job(job, &shutdown_job(job, "running"));
        touch(&node, job);
    }
    wait::until_true("the cursor to have them", wait::USUAL, || {
        fs::read_to_string(node.path("state/cursor.json"))
            .is_ok_and(|cursor| cursor.matches("running").count() == 3)
    })
    .unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    let outbox = Outbox::existing(&node.outbox());
    let left = outbox.list().unwrap();
    assert!(!left.is_empty());
    for name in left {
        let mut later = name.clone();
        later.time += u64::try_from(day.as_micros()).unwrap();
        fs::rename(outbox.path(&name), outbox.path(&later)).unwrap();
    }
    // the clock is right again: job times, names and files are a day younger
    let daemon = node.start();
    for job in 1..=5 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    wait::until_true("the cursor to have all", wait::USUAL, || {
        fs::read_to_string(node.path("state/cursor.json"))
            .is_ok_and(|cursor| cursor.contains("[1,5]"))
    })
    .unwrap();
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let all = until_all_final(&mut consumer, 1..=5);
    in_order(&all);
    let running = all.iter().filter(|one| one.status() == "running").count();
    assert_eq!(running, 3, "what was left is sent too, and first");
    wait::until_true("the outbox to be empty", wait::USUAL, || {
        outbox_files(&node) == 0
    })
    .unwrap();
    // a takeover while the newest job file is a day ahead
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    node.write_job(6, &shutdown_job(6, "running"));
    touch(&node, 6);
    node.write_job(7, &shutdown_job(7, "running"));
    let daemon = node.start();
    node.write_job(6, &shutdown_job(6, "success"));
    node.write_job(7, &shutdown_job(7, "success"));
    until_all_final(&mut consumer, 6..=7);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_message_that_is_none_is_set_aside_and_the_others_go_on() {
    let node = Node::new("bad-message");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut producer = Producer::new(&node.outbox()).unwrap();
    let bad = producer.put(&hook_entry(1)).unwrap();
    fs::write(node.outbox().join(bad.to_string()), "{\"id\": \"x\"").unwrap();
    producer.put(&hook_entry(2)).unwrap();
    let daemon = node.start();
    let message = consumer.next().unwrap();
    assert_eq!(message.body["event_time"][0], 2);
    assert!(node.outbox().join("bad").join(bad.to_string()).exists());
    assert!(daemon.log().contains(&bad.to_string()), "{}", daemon.log());
    let mode = fs::metadata(node.outbox()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_queue_that_is_made_anew_is_told_from_its_beginning() {
    let mut node = Node::new("anew");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    for job in 1..=5 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    until_all_final(&mut consumer, 1..=5);
    // the cluster is destroyed and made again: the folder goes, and numbers begin at 1
    fs::rename(node.queue(), node.path("old")).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    fs::create_dir_all(node.queue()).unwrap();
    node.write_job(1, &shutdown_job(1, "running"));
    let message = consumer.next().unwrap();
    assert_eq!((message.job(), message.status()), (Some(1), "running"));
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_final(&mut consumer, 1..=1);
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_node_without_a_cluster_waits_for_one() {
    let mut node = Node::new("no-cluster");
    let broker = node.start_broker();
    let mut consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let ganeti = node.path("ganeti");
    let later = node.path("later");
    fs::rename(&ganeti, &later).unwrap();
    let daemon = node.start();
    assert!(daemon.log().contains("no cluster"), "{}", daemon.log());
    fs::rename(&later, &ganeti).unwrap();
    node.write_job(1, &shutdown_job(1, "success"));
    until_all_final(&mut consumer, 1..=1);
    let before = daemon.log().lines().count();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.log().lines().count(), before, "{}", daemon.log());
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}
