//! What an operator does with the program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::{Command, Stdio};
use std::time::Duration;

use agents::message::{EventId, Message};
use agents::outbox::{Class, Entry, Outbox, Producer};
use harness::process;
use harness::rabbitmq::{Place, RabbitMq};
use harness::wait;
use rig::{Consumer, NODE, Node, shutdown_job};
use serde_json::Value;

#[test]
fn check_says_what_is_there_and_what_is_not() {
    let mut node = Node::new("check");
    node.write_job(1, &shutdown_job(1, "success"));
    let without = node.run("check");
    assert_eq!(without.status.code(), Some(1));
    assert!(
        without
            .stdout
            .contains("FAILED  broker amqp://127.0.0.1:5672"),
        "{}",
        without.stdout
    );
    assert!(
        without.stdout.contains("1 jobs, all readable"),
        "{}",
        without.stdout
    );
    let broker = node.start_broker();
    let with = node.run("check");
    assert!(with.status.success(), "{}", with.stdout);
    assert!(!with.stdout.contains("FAILED"), "{}", with.stdout);
    for line in [
        "node name: node1.gnt.lab",
        "master of cluster.gnt.lab",
        "exchange \"ganeti\"",
    ] {
        assert!(with.stdout.contains(line), "{line}: {}", with.stdout);
    }
    drop(broker);
}

#[test]
fn wrong_usage_and_wrong_configuration_are_told_apart() {
    let node = Node::new("usage");
    for words in ["", "dance", "replay", "replay x", "run --loud"] {
        assert_eq!(node.run(words).status.code(), Some(2), "{words:?}");
    }
    node.configure("windw = 7\n");
    let output = node.run("check");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        output
            .stderr
            .lines()
            .next()
            .map(|line| line.contains("eventd.toml")),
        Some(true)
    );
    assert!(output.stderr.contains("windw"), "{}", output.stderr);
    let output = node.run("status --config /nonexistent.toml");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("/nonexistent.toml"),
        "{}",
        output.stderr
    );
}

#[test]
fn status_and_replay_work_beside_the_daemon_and_without_it() {
    let mut node = Node::new("status");
    let before = node.run("status");
    assert!(before.status.success());
    assert!(before.stdout.contains("not running"), "{}", before.stdout);
    assert!(before.stdout.contains("none told yet"), "{}", before.stdout);

    let daemon = node.start();
    for job in 1..=3 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    node.write_job(4, &shutdown_job(4, "running"));
    wait::until_true("the cursor to have them", wait::USUAL, || {
        node.run("status").stdout.contains("1 open, newest ended 3")
    })
    .unwrap();
    let during = node.run("status").stdout;
    for line in [
        &format!("process {}", daemon.pid()),
        "master of cluster.gnt.lab",
        " s old",
    ] {
        assert!(during.contains(line), "{line}: {during}");
    }
    let second = node.run("run");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        second.stderr.contains("another snf-ganeti-eventd"),
        "{}",
        second.stderr
    );

    let waiting = || Outbox::existing(&node.outbox()).list().unwrap().len();
    let count = waiting();
    let replay = node.run("replay 2 3");
    assert!(replay.status.success(), "{}", replay.stderr);
    assert_eq!(waiting(), count + 2);
    let unknown = node.run("replay 2 99");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("99"), "{}", unknown.stderr);
    assert_eq!(waiting(), count + 2, "nothing of it is sent");

    let printed = node.run("replay --print 2");
    let line: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(line["body"]["instance"], "snf-2");
    assert_eq!(line["key"], "ganeti.snf.event.op");

    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..6 {
        let message = consumer.next().unwrap();
        if message.job() == Some(2) {
            ids.push(message.id);
        }
    }
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1], "a replay repeats the id");
    assert_eq!(line["id"], ids[0].as_str());
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn status_shows_what_no_queue_wants() {
    const EMPTY: &str = "parked     empty";
    let mut node = Node::new("status-parked");
    let broker = node.start_broker();
    let daemon = node.start();
    for job in 1..=3 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    let parked = || {
        let status = node.run("status").stdout;
        let line = status.lines().find(|line| line.starts_with("parked "));
        line.unwrap_or_default().to_owned()
    };
    let line = wait::until_ok("something to be parked", wait::USUAL, || {
        let line = parked();
        anyhow::ensure!(line.contains("files"), "{line:?}");
        Ok(line)
    })
    .unwrap();
    assert!(
        line.contains(" files, ") && line.contains(" s old"),
        "{line}"
    );
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    assert!(parked().contains(" files, "), "it is kept");
    let daemon = node.start();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    for _ in 1..=3 {
        assert_eq!(consumer.next().unwrap().status(), "success");
    }
    wait::until_true("nothing to be parked", wait::USUAL, || parked() == EMPTY).unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

/// The user and the rights of the packaged unit, but for what systemd alone can take away.
#[test]
fn the_rights_of_its_unit_are_enough() {
    const USER: u32 = 64_123;
    let mut node = Node::new("unprivileged");
    let unit = harness::source_root().join("packaging/debian/snf-ganeti-eventd.service");
    let unit = fs::read_to_string(unit).unwrap();
    for line in [
        "AmbientCapabilities=CAP_DAC_READ_SEARCH",
        "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
        "NoNewPrivileges=yes",
    ] {
        assert!(unit.lines().any(|one| one == line), "{line}");
    }
    for folder in ["state", "outbox"] {
        let folder = node.scratch.folder(folder).unwrap();
        chown(&folder, Some(USER), Some(USER)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    // as Ganeti writes a queued job: readable by root and its own daemons alone
    fs::set_permissions(node.queue(), fs::Permissions::from_mode(0o700)).unwrap();
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let mut command = node.netns.command("setpriv");
    command
        .args([
            &format!("--reuid={USER}"),
            &format!("--regid={USER}"),
            "--clear-groups",
            "--inh-caps=-all,+dac_read_search",
            "--ambient-caps=-all,+dac_read_search",
            "--bounding-set=-all,+dac_read_search",
            "--no-new-privs",
        ])
        .arg(rig::program())
        .arg("--config")
        .arg(node.config())
        .arg("run")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("JOURNAL_STREAM");
    let log = node.path("eventd.log");
    let mut daemon = process::Daemon::spawn("eventd", &mut command, &log).unwrap();
    daemon.wait_for_log("started", wait::USUAL).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    for line in [
        &format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"),
        "CapEff:\t0000000000000004",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.lines().any(|one| one == line), "{line}: {status}");
    }
    for state in ["queued", "success"] {
        node.write_job(1, &shutdown_job(1, state));
        let file = node.queue().join("job-1");
        // it may be read already; what comes next is renamed over it all the same
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    consumer
        .until(|message| message.status() == "success")
        .unwrap();
    // one archived, which nobody but root may read, found by a rescan
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    node.write_job(2, &shutdown_job(2, "success"));
    let file = node.queue().join("job-2");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    node.archive(2);
    let archive = node.queue().join("archive/0");
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o700)).unwrap();
    let mut daemon = process::Daemon::spawn("eventd", &mut command, &log).unwrap();
    assert_eq!(consumer.next().unwrap().job(), Some(2));
    // a hook's message, left by root, is sent and removed
    let message = serde_json::json!({"type": "ganeti-net-status", "event_time": [7, 0],
        "instance": "snf-1", "nics": []});
    let message = Message::parse(message.to_string().as_bytes()).unwrap();
    let entry = Entry::new(EventId::of_parts(&["7"]), Class::Final, &message).unwrap();
    Producer::new(&node.outbox()).unwrap().put(&entry).unwrap();
    assert_eq!(consumer.next().unwrap().key, "ganeti.snf.event.net");
    wait::until_true("the outbox to be empty", wait::USUAL, || {
        Outbox::existing(&node.outbox()).list().unwrap().is_empty()
    })
    .unwrap();
    daemon.still_runs().unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    let cursor = fs::metadata(node.path("state/cursor.json")).unwrap();
    assert_eq!(cursor.uid(), USER);
    assert!(
        !fs::read_to_string(&log)
            .unwrap()
            .contains("ermission denied")
    );
}

#[test]
fn printing_shows_what_happens_from_now_on_and_changes_nothing() {
    let mut node = Node::new("print");
    node.write_job(1, &shutdown_job(1, "success"));
    let mut child = node
        .command()
        .args(["run", "--print"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::sleep(Duration::from_millis(500));
    node.write_job(2, &shutdown_job(2, "running"));
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!(
        (&first["body"]["jobId"], &first["body"]["status"]),
        (&2.into(), &"running".into())
    );
    node.write_job(2, &shutdown_job(2, "success"));
    assert_eq!(next()["body"]["status"], "success");
    assert!(!node.outbox().exists());
    assert!(!node.path("state").exists());
    // the reader goes: so does it, in order
    drop(lines);
    let mut number = 2;
    let status = wait::until_ok("it to end", wait::USUAL, || {
        number += 1;
        node.write_job(number, &shutdown_job(number, "success"));
        child.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs"))
    })
    .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn messages_have_the_headers_of_cloudevents_if_that_is_wanted() {
    let mut node = Node::new("cloudevents");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    for (job, wanted) in [(1, false), (2, true)] {
        node.configure(&format!("cloudevents = {wanted}"));
        let daemon = node.start();
        node.write_job(job, &shutdown_job(job, "success"));
        let seen = consumer
            .until(|message| message.job() == Some(job))
            .unwrap();
        let message = seen.last().unwrap();
        let found: Vec<_> = message
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("cloudEvents:"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        // The source and the id together are one event (CloudEvents 1.0.2, "source"): whichever
        // of two masters tells of it, they are the same.
        let all = [
            ("cloudEvents:id", message.id.as_str()),
            ("cloudEvents:source", "//cluster.gnt.lab"),
            ("cloudEvents:specversion", "1.0"),
            ("cloudEvents:type", "ganeti.op"),
        ];
        assert_eq!(found, if wanted { &all[..] } else { &[] }, "{wanted}");
        // The body stays as it is.
        assert_eq!(message.status(), "success");
        drop(daemon);
    }
}

#[test]
fn prometheus_sees_what_is_done_and_what_waits() {
    let mut node = Node::new("metrics");
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(
        node.config(),
        format!("metrics = \"127.0.0.1:9645\"\n{config}"),
    )
    .unwrap();
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let daemon = node.start();
    for job in 1..=5 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    consumer.until(|message| message.job() == Some(5)).unwrap();
    let read = || {
        node.netns.run(|| {
            let mut client = TcpStream::connect("127.0.0.1:9645")?;
            client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
            let mut text = String::new();
            client.read_to_string(&mut text)?;
            Ok(text)
        })
    };
    wait::until_true("the figures", wait::USUAL, || {
        let text = read().unwrap();
        [
            "snf_eventd_messages_confirmed_total{topic=\"op\"} 5",
            "snf_eventd_lag_seconds_count 5",
            "snf_eventd_connected 1",
            "snf_eventd_master 1",
            "snf_eventd_connects_total 1",
            "snf_eventd_messages_unconfirmed 0",
        ]
        .iter()
        .all(|line| text.contains(line))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", read().unwrap()));
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

/// Makes an authority, and certificates for the broker and for us.
fn certificates(node: &Node) {
    let folder = node.scratch.folder("tls").unwrap();
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=authority -keyout ca.key -out ca.pem
        for name in broker eventd; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $name.ext -out $name.pem
        done";
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(folder);
    process::check(&mut command, wait::USUAL).unwrap();
}

#[test]
fn over_tls_each_shows_the_other_its_certificate() {
    let mut node = Node::new("tls");
    certificates(&node);
    let root = node.path("tls").display().to_string();
    let broker = RabbitMq::start_with(
        Place::Netns(&node.netns),
        &node.path("mq"),
        "127.0.0.1",
        rig::PORT,
        &format!(
            "listeners.ssl.1 = 127.0.0.1:5671\nssl_options.cacertfile = {root}/ca.pem\n\
             ssl_options.certfile = {root}/broker.pem\nssl_options.keyfile = {root}/broker.key\n\
             ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true"
        ),
    )
    .unwrap();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let configure = |tls: &str| {
        node.configure(&format!("[amqp.tls]\n{tls}"));
        let config = fs::read_to_string(node.config()).unwrap();
        let config = config.replace(
            "amqp://guest:guest@127.0.0.1:5672",
            "amqps://guest:guest@127.0.0.1:5671",
        );
        fs::write(node.config(), config).unwrap();
    };
    // the system's authorities do not know the broker's
    configure("");
    let output = node.run("check");
    assert!(
        output.stdout.contains("FAILED  broker amqps://"),
        "{}",
        output.stdout
    );
    // we show none
    configure(&format!("ca_file = \"{root}/ca.pem\""));
    let output = node.run("check");
    assert!(
        output.stdout.contains("FAILED  broker amqps://"),
        "{}",
        output.stdout
    );
    configure(&format!(
        "ca_file = \"{root}/ca.pem\"\ncertificate_file = \"{root}/eventd.pem\"\n\
         key_file = \"{root}/eventd.key\""
    ));
    let output = node.run("check");
    assert!(output.status.success(), "{}", output.stdout);
    let daemon = node.start();
    node.write_job(1, &shutdown_job(1, "success"));
    assert_eq!(
        consumer.next().unwrap().origin,
        format!("{NODE}/snf-ganeti-eventd")
    );
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn nothing_is_said_plainly_to_an_amqps_host() {
    let node = Node::new("not-plain");
    let listener = node
        .netns
        .run(|| Ok(TcpListener::bind("127.0.0.1:5671")?))
        .unwrap();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut start = [0; 1];
        client.read_exact(&mut start).unwrap();
        start[0]
    });
    let config = fs::read_to_string(node.config()).unwrap();
    let config = config.replace(
        "amqp://guest:guest@127.0.0.1:5672",
        "amqps://guest:guest@127.0.0.1:5671",
    );
    fs::write(node.config(), config).unwrap();
    let output = node.run("check");
    assert_eq!(output.status.code(), Some(1), "{}", output.stdout);
    assert_eq!(heard.join().unwrap(), 22, "a TLS handshake record");
}
