//! `run --print`: the messages, as they come, on standard output.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use agents::ganeti::ssconf::Ssconf;
use anyhow::Context as _;

use crate::config::Config;
use crate::config_cache::ConfigCache;
use crate::cursor::Cursor;
use crate::mastership::Role;
use crate::readiness::Readiness;
use crate::replay::print_all;
use crate::source::{Extent, Source};
use crate::watch::{Event, Folders, Watch};

/// How often folders that are not there are looked for, and unreadable files tried again.
const TICK: Duration = Duration::from_millis(250);

/// Prints what happens from now on, until the reader of standard output is gone or we are
/// ended. Neither the cursor nor the outbox is read or written: it can run beside the daemon,
/// on any master candidate.
///
/// # Errors
/// There is no inotify, or standard output fails.
pub fn print(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(print_on(config)) {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        other => other,
    }
}

async fn print_on(config: &Config) -> anyhow::Result<()> {
    let node = config.node_name().context("cannot tell this node's name")?;
    let ssconf = Ssconf::new(&config.ssconf_dir);
    let mut watch = Watch::new(&Folders {
        queue: config.queue_dir.clone(),
        ssconf: config.ssconf_dir.clone(),
        outbox: config.outbox_dir.clone(),
    })?;
    let readiness = Readiness::new(watch.as_fd())?;
    let mut source = Source::new(
        config.queue_dir.clone(),
        ConfigCache::new(config.config_data.clone()),
        format!("{node}/snf-ganeti-eventd"),
        Cursor::default(),
    );
    // What is there already is taken as told.
    source.name_cluster(&cluster(&ssconf, &node));
    if source.rescan(Extent::Newest(Duration::ZERO)).is_ok() {
        while source.has_work() {
            source.next(usize::MAX);
        }
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ready = readiness.readable() => ready?,
            _ = tick.tick() => {
                watch.repair()?;
                source.wake(std::time::Instant::now());
            }
        }
        loop {
            let events = watch.read()?;
            if events.is_empty() {
                break;
            }
            for event in events {
                match event {
                    Event::Job(job) => source.changed(job),
                    Event::Ssconf => source.name_cluster(&cluster(&ssconf, &node)),
                    Event::Lost => {
                        let _ = source.rescan(Extent::All);
                    }
                    Event::Outbox(_) => {}
                }
            }
        }
        while source.has_work() {
            for batch in source.next(32) {
                print_all(&batch.entries)?;
            }
        }
    }
}

fn cluster(ssconf: &Ssconf, node: &str) -> String {
    match Role::read(ssconf, node) {
        Role::Master { cluster } => cluster,
        _ => ssconf.cluster_name().unwrap_or_default(),
    }
}
