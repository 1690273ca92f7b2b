//! The outbox from both sides.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::message::{EventId, EventTime, Message};

const NO_LIMITS: Limits = Limits {
    bytes: u64::MAX,
    age: Duration::MAX,
};

fn entry(number: u32, class: Class) -> Entry {
    let body = json!({"type": "image-info", "event_time": [1, 0], "instance": "snf-1",
        "number": number});
    let message = Message::parse(body.to_string().as_bytes()).unwrap();
    let id = EventId::of_parts(&[&number.to_string()]);
    Entry::new(id, class, &message).unwrap()
}

fn outbox() -> (TempDir, Outbox, Producer) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("outbox");
    let outbox = Outbox::open(&folder).unwrap();
    let producer = Producer::new(&folder).unwrap();
    (scratch, outbox, producer)
}

fn all(outbox: &Outbox) -> Vec<Entry> {
    let names = outbox.list().unwrap();
    let read = names.iter().map(|name| outbox.read(name).unwrap());
    read.flatten().collect()
}

#[test]
fn messages_come_out_in_the_order_they_went_in() {
    let (_scratch, outbox, mut producer) = outbox();
    let entries: Vec<_> = (0..6).map(|number| entry(number, Class::Final)).collect();
    producer.put(&entries[0]).unwrap();
    producer.put_batch(&entries[1..4]).unwrap();
    producer.put(&entries[4]).unwrap();
    producer.put(&entries[5]).unwrap();
    assert_eq!(all(&outbox), entries);
    for name in outbox.list().unwrap() {
        outbox.remove(&name).unwrap();
        outbox.remove(&name).unwrap(); // that it is gone is no error
        assert!(matches!(outbox.read(&name), Err(ReadError::Gone)));
    }
    assert_eq!(outbox.usage().unwrap(), Usage::default());
}

#[test]
fn only_its_owner_can_read_it_and_any_tool_can() {
    let (_scratch, outbox, mut producer) = outbox();
    let name = producer.put(&entry(1, Class::Final)).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(outbox.folder().to_owned()), 0o700);
    assert_eq!(mode(outbox.path(&name)), 0o600);
    let text = fs::read_to_string(outbox.path(&name)).unwrap();
    let plain: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plain["key"], "ganeti.snf.event.progress");
    assert_eq!(plain["class"], "final");
    assert_eq!(plain["body"]["number"], 1);
}

#[test]
fn a_producer_can_be_told_to_go_behind_what_is_there() {
    let (_scratch, outbox, mut producer) = outbox();
    let ahead = EventTime::now().since_epoch() + Duration::from_secs(3600);
    let ahead = u64::try_from(ahead.as_micros()).unwrap();
    let first = FileName {
        time: ahead,
        producer: 1,
        number: 1,
        kind: Kind::One(Class::Final),
    };
    let line = serde_json::to_string(&entry(1, Class::Final)).unwrap();
    fs::write(outbox.path(&first), line).unwrap();
    producer.after(ahead);
    producer.put(&entry(2, Class::Final)).unwrap();
    assert_eq!(
        all(&outbox),
        [entry(1, Class::Final).id, entry(2, Class::Final).id]
            .map(|id| all(&outbox).into_iter().find(|one| one.id == id).unwrap())
    );
}

#[test]
fn what_is_none_of_ours_is_left_alone_and_what_is_bad_is_set_aside() {
    let (_scratch, outbox, mut producer) = outbox();
    fs::write(outbox.folder().join("README"), "by a person").unwrap();
    fs::write(outbox.folder().join(".x.tmp"), "half").unwrap();
    let good = producer.put(&entry(1, Class::Final)).unwrap();
    let bad = producer.put(&entry(2, Class::Final)).unwrap();
    let text = fs::read_to_string(outbox.path(&bad)).unwrap();
    for content in [
        "",
        "\n",
        "{",
        "null",
        &text[..text.len() / 2],
        &format!("{text}x\n"),
    ] {
        fs::write(outbox.path(&bad), content).unwrap();
        assert!(
            matches!(outbox.read(&bad), Err(ReadError::Bad(_))),
            "{content}"
        );
    }
    outbox.set_aside(&bad).unwrap();
    assert_eq!(outbox.list().unwrap(), [good]);
    assert!(outbox.folder().join("bad").join(bad.to_string()).exists());
    assert!(outbox.folder().join("README").exists());
    assert!(outbox.folder().join(".x.tmp").exists());
}

#[test]
fn a_dead_producers_temporary_file_is_removed_and_a_live_ones_is_not() {
    let (_scratch, outbox, mut producer) = outbox();
    let name = producer.put(&entry(1, Class::Final)).unwrap();
    let temporary = outbox.folder().join(format!(".{name}"));
    fs::rename(outbox.path(&name), &temporary).unwrap();
    assert_eq!(outbox.list().unwrap(), []);
    assert!(temporary.exists());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::options()
        .write(true)
        .open(&temporary)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    assert_eq!(outbox.list().unwrap(), []);
    assert!(!temporary.exists());
}

#[test]
fn a_full_outbox_drops_progress_first_and_final_states_never() {
    let (_scratch, outbox, mut producer) = outbox();
    producer.put(&entry(0, Class::Status)).unwrap();
    producer.put(&entry(1, Class::Progress)).unwrap();
    producer
        .put_batch(&[
            entry(2, Class::Progress),
            entry(3, Class::Status),
            entry(4, Class::Final),
        ])
        .unwrap();
    producer.put(&entry(5, Class::Final)).unwrap();
    producer.put(&entry(6, Class::Progress)).unwrap();
    let left = || -> Vec<_> {
        let entries = all(&outbox);
        (0..7)
            .filter(|number| {
                entries
                    .iter()
                    .any(|one| one.id == entry(*number, one.class).id)
            })
            .collect()
    };
    assert_eq!(outbox.trim(NO_LIMITS, |_| false).unwrap().messages(), 0);
    assert_eq!(left(), [0, 1, 2, 3, 4, 5, 6]);

    let bytes = outbox.usage().unwrap().bytes;
    let one_less = Limits {
        bytes: bytes - 1,
        ..NO_LIMITS
    };
    let trimmed = outbox.trim(one_less, |_| false).unwrap();
    assert_eq!((trimmed.progress, trimmed.status), (1, 0));
    assert_eq!(left(), [0, 2, 3, 4, 5, 6]);

    let nothing = Limits {
        bytes: 0,
        ..NO_LIMITS
    };
    let first = outbox.list().unwrap()[0].clone();
    outbox.trim(nothing, |name| *name == first).unwrap();
    assert_eq!(left(), [0, 4, 5], "what is being published stays");
    let trimmed = outbox.trim(nothing, |_| false).unwrap();
    assert_eq!(left(), [4, 5]);
    assert_eq!(trimmed.above, outbox.usage().unwrap().bytes);
}

#[test]
fn old_progress_is_dropped_even_if_there_is_room() {
    let (_scratch, outbox, mut producer) = outbox();
    producer.put(&entry(0, Class::Progress)).unwrap();
    producer.put(&entry(1, Class::Final)).unwrap();
    // A file's name says when it was made: these two, two hours ago.
    for name in outbox.list().unwrap() {
        let mut earlier = name.clone();
        earlier.time -= 7_200_000_000;
        fs::rename(outbox.path(&name), outbox.path(&earlier)).unwrap();
    }
    let young = Limits {
        age: Duration::from_secs(3600),
        ..NO_LIMITS
    };
    producer.put(&entry(2, Class::Progress)).unwrap();
    assert_eq!(outbox.trim(young, |_| false).unwrap().progress, 1);
    assert_eq!(all(&outbox).len(), 2);
}

#[test]
fn a_full_disk_leaves_no_trace_and_is_told() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED a_full_disk_leaves_no_trace_and_is_told: must be root to mount a tmpfs");
        return;
    }
    std::thread::spawn(|| {
        // A mount namespace of this thread's own: the tmpfs ends with it.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let mount = |source: &str, target: &std::path::Path, kind, flags, options| {
            nix::mount::mount(Some(source), target, kind, flags, options).unwrap();
        };
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        mount("none", "/".as_ref(), None::<&str>, private, None::<&str>);
        let scratch = tempfile::tempdir().unwrap();
        let none = nix::mount::MsFlags::empty();
        mount(
            "tmpfs",
            scratch.path(),
            Some("tmpfs"),
            none,
            Some("size=64k"),
        );
        let folder = scratch.path().join("outbox");
        let outbox = Outbox::open(&folder).unwrap();
        let mut producer = Producer::new(&folder).unwrap();
        let mut written = 0;
        let error = loop {
            match producer.put(&entry(written, Class::Final)) {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(written > 0);
        assert_eq!(all(&outbox).len(), usize::try_from(written).unwrap());
        let hidden = fs::read_dir(&folder)
            .unwrap()
            .filter(|file| {
                let name = file.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with('.')
            })
            .count();
        assert_eq!(hidden, 0);
        nix::mount::umount(scratch.path()).unwrap();
    })
    .join()
    .unwrap();
}
