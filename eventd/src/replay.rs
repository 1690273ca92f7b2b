//! `replay`: tells again what jobs are at now.

use std::io::{self, Write};

use agents::ganeti::ssconf::Ssconf;
use agents::outbox::{Entry, Producer};
use anyhow::Context as _;

use crate::config::Config;
use crate::config_cache::ConfigCache;
use crate::cursor::Cursor;
use crate::source::Source;

/// Puts the messages about these jobs, as their files are now, into the outbox (from where the
/// daemon sends them), or with `print` onto standard output. Their ids are those that they were
/// first sent with.
///
/// # Errors
/// There is no cluster, a job has no usable file, or the messages cannot be written.
pub fn replay(config: &Config, jobs: &[u64], print: bool) -> anyhow::Result<()> {
    let cluster = Ssconf::new(&config.ssconf_dir).cluster_name()?;
    let node = config.node_name().context("cannot tell this node's name")?;
    let cursor = Cursor {
        cluster,
        ..Cursor::default()
    };
    let mut source = Source::new(
        config.queue_dir.clone(),
        ConfigCache::new(config.config_data.clone()),
        format!("{node}/snf-ganeti-eventd"),
        cursor,
    );
    let mut entries = Vec::new();
    for job in jobs {
        source.changed(*job);
        let batches = source.next(1);
        anyhow::ensure!(
            !batches.is_empty(),
            "job {job} has no usable file in {} or its archive",
            config.queue_dir.display()
        );
        entries.extend(batches.into_iter().flat_map(|batch| batch.entries));
    }
    if print {
        return print_all(&entries).context("standard output");
    }
    let folder = config.outbox_dir.display();
    let mut producer =
        Producer::new(&config.outbox_dir).with_context(|| format!("outbox {folder}"))?;
    for entry in &entries {
        producer
            .put(entry)
            .with_context(|| format!("outbox {folder}"))?;
    }
    println!("{} messages are in the outbox {folder}", entries.len());
    Ok(())
}

/// Writes messages as JSON lines.
///
/// # Errors
/// The reader is gone.
pub fn print_all(entries: &[Entry]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for entry in entries {
        serde_json::to_writer(&mut output, entry)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}
