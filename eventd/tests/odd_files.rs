//! Files that are not what their names promise: special files, and a damaged cursor.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use harness::wait;
use rig::{Consumer, NODE, Node, shutdown_job};

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[test]
fn a_special_file_in_the_place_of_a_job_or_message_holds_nothing_up() {
    let mut node = Node::new("special");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let queue = node.queue();
    node.write_job(30, &shutdown_job(30, "success"));
    fifo(&queue.join("job-5"));
    let _socket = UnixListener::bind(queue.join("job-6")).unwrap();
    fs::create_dir(queue.join("job-7")).unwrap();
    symlink("job-9", queue.join("job-8")).unwrap();
    symlink("job-8", queue.join("job-9")).unwrap();
    symlink("/dev/zero", queue.join("job-10")).unwrap();
    // A link may lead to what only this daemon may read.
    let outside = node.path("outside");
    fs::write(&outside, shutdown_job(11, "success")).unwrap();
    symlink(&outside, queue.join("job-11")).unwrap();
    let device = std::process::Command::new("mknod")
        .arg(queue.join("job-12"))
        .args(["c", "1", "5"])
        .status();
    assert!(device.unwrap().success());
    fs::create_dir_all(queue.join("archive/0")).unwrap();
    fifo(&queue.join("archive/0/job-13"));
    // Of the right form, so that the outbox takes it for a message's file.
    fs::create_dir_all(node.outbox()).unwrap();
    let name = "0000000000000001-0000000001-000001.final.json";
    assert!(agents::outbox::FileName::parse(name).is_some());
    fifo(&node.outbox().join(name));

    let daemon = node.start();
    let received = consumer
        .next()
        .unwrap_or_else(|error| panic!("{error}\n{}", daemon.log_tail()));
    assert_eq!(received.job(), Some(30));
    node.write_job(31, &shutdown_job(31, "success"));
    let received = consumer.next().unwrap();
    assert_eq!(received.job(), Some(31));
    wait::until_true("the outbox's FIFO to be set aside", wait::USUAL, || {
        !node.outbox().join(name).exists()
    })
    .unwrap();
    let log = daemon.log();
    for job in 5..=13 {
        let path = format!("/job-{job}: ");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&path)).collect();
        assert_eq!(lines.len(), 1, "job-{job}: {lines:?}\n{log}");
        assert!(lines[0].contains("not a regular file"), "{}", lines[0]);
    }
    let status = daemon.stop(wait::USUAL).unwrap();
    assert!(status.success(), "{status}");
    let check = node.run("check");
    assert!(
        check.stdout.contains("not a regular file"),
        "{}",
        check.stdout
    );
}

#[test]
fn a_special_file_in_the_place_of_ssconf_is_an_unknown_master() {
    let mut node = Node::new("ssconf-fifo");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    let ssconf = node.path("ganeti/ssconf_master_node");
    assert!(ssconf.exists(), "{}", ssconf.display());
    fs::remove_file(&ssconf).unwrap();
    fifo(&ssconf);
    fs::remove_file(node.path("ganeti/config.data")).unwrap();
    fifo(&node.path("ganeti/config.data"));
    node.write_job(1, &shutdown_job(1, "success"));
    let daemon = node.start();
    node.set_master(NODE);
    let received = consumer
        .next()
        .unwrap_or_else(|error| panic!("{error}\n{}", daemon.log_tail()));
    assert_eq!(received.job(), Some(1));
    // One that asks for config.data.
    let start = shutdown_job(2, "success").replace("SHUTDOWN", "STARTUP");
    node.write_job(2, &start);
    assert_eq!(consumer.next().unwrap().job(), Some(2));
    let status = daemon.stop(wait::USUAL).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_damaged_cursor_is_put_aside_and_the_queue_told_anew() {
    let mut node = Node::new("damaged");
    let broker = node.start_broker();
    let consumer = Consumer::new(&node.netns, &broker.uri()).unwrap();
    for job in 1..=3 {
        node.write_job(job, &shutdown_job(job, "success"));
    }
    // Ended long before the newest: nothing says that another master has told it.
    let long_ago = std::process::Command::new("touch")
        .args(["-d", "2 days ago"])
        .arg(node.queue().join("job-1"))
        .status();
    assert!(long_ago.unwrap().success());
    let daemon = node.start();
    consumer.until(|one| one.job() == Some(3)).unwrap();
    consumer.drain(Duration::from_millis(300));
    daemon.stop(wait::USUAL).unwrap();

    let cursor = node.path("state/cursor.json");
    let whole = fs::read_to_string(&cursor).unwrap();
    let cut = &whole[..whole.len() / 2];
    for damage in [
        "",
        "\n",
        cut,
        "[]",
        "{\"done\":[[2,1]]}",
        "\0\0\0\0",
        "null",
    ] {
        fs::write(&cursor, damage).unwrap();
        let daemon = node.start();
        let mut jobs: Vec<_> = (0..3)
            .map(|_| {
                let next = consumer.next();
                next.unwrap_or_else(|error| panic!("{damage:?}: {error}\n{}", daemon.log_tail()))
                    .job()
            })
            .collect();
        jobs.sort_unstable();
        assert_eq!(jobs, [Some(1), Some(2), Some(3)], "{damage:?}");
        let log = daemon.log();
        let line = log
            .lines()
            .find(|line| line.contains("cursor.json.damaged"));
        assert!(line.is_some(), "{damage:?}: {log}");
        let aside = fs::read_to_string(node.path("state/cursor.json.damaged")).unwrap();
        assert_eq!(aside, damage);
        assert!(daemon.stop(wait::USUAL).unwrap().success());
        assert!(consumer.drain(Duration::from_millis(300)).is_empty());
    }

    // A later version's field is no damage: what has been told stays told.
    let later = whole.replacen('{', "{\"generation\":7,", 1);
    fs::write(&cursor, later).unwrap();
    let daemon = node.start();
    let again = consumer.drain(Duration::from_secs(1));
    assert!(again.is_empty(), "{again:?}");
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}
