//! `messages`: what cannot be delivered, for an operator: list, retry, drop.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use agents::message::{EventTime, RoutingKey};
use agents::outbox::{Entry, Outbox, Producer, ReadError};
use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::config::Config;
use crate::publish::{DEAD_LETTERS, PARKED, REFUSED, Subject};

/// A folder of messages that cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Folder {
    /// No queue is bound to their key.
    Parked,
    /// A queue refuses them (a full one), or the broker their key.
    Refused,
    /// The broker refuses them for good.
    DeadLetters,
}

impl Folder {
    const ALL: [Self; 3] = [Self::Parked, Self::Refused, Self::DeadLetters];

    /// The folder's name in the outbox.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => PARKED,
            Self::Refused => REFUSED,
            Self::DeadLetters => DEAD_LETTERS,
        }
    }

    fn outbox(self, config: &Config) -> Outbox {
        Outbox::existing(&config.outbox_dir.join(self.name()))
    }
}

/// A selection of messages.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Only those with this routing key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only those that were made more than so many hours ago.
    #[arg(long, value_name = "HOURS")]
    older_than: Option<u32>,
}

impl Selection {
    fn has(&self, entry: &Entry) -> bool {
        let of_key = self
            .key
            .as_deref()
            .is_none_or(|key| entry.key.as_str() == key);
        let hours = self.older_than.map(u64::from);
        let old =
            hours.is_none_or(|hours| age(entry) > Duration::from_secs(hours.saturating_mul(3600)));
        of_key && old
    }
}

/// A selection of messages that has to be made explicitly: nothing is dropped by a slip.
#[derive(Debug, Clone, Default, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
pub struct Explicit {
    /// All of the folder.
    #[arg(long, group = "which", conflicts_with_all = ["key", "older_than"])]
    all: bool,
    /// Those with this routing key.
    #[arg(long, value_name = "KEY", group = "which")]
    key: Option<String>,
    /// Those that were made more than so many hours ago.
    #[arg(long, value_name = "HOURS", group = "which")]
    older_than: Option<u32>,
}

impl Explicit {
    fn selection(&self) -> Selection {
        Selection {
            key: self.key.clone(),
            older_than: self.older_than,
        }
    }
}

/// The commands about messages that cannot be delivered.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// Print a line about each: folder, routing key, age, job, instance or network, status, id,
    /// and why it was refused.
    List {
        /// The folder; without it, all of them.
        folder: Option<Folder>,
        /// Selection.
        #[command(flatten)]
        selection: Selection,
    },
    /// Put them back into the outbox: the daemon sends them again.
    Retry {
        /// The folder.
        folder: Folder,
        /// Selection.
        #[command(flatten)]
        which: Explicit,
    },
    /// Delete them.
    Drop {
        /// The folder.
        folder: Folder,
        /// Selection.
        #[command(flatten)]
        which: Explicit,
    },
}

/// Does it, whether the daemon runs or not.
///
/// # Errors
/// The outbox cannot be read or written.
pub fn act(config: &Config, action: &Action) -> anyhow::Result<()> {
    match action {
        Action::List { folder, selection } => {
            let folders = folder.map_or(Folder::ALL.to_vec(), |folder| vec![folder]);
            let mut text = String::new();
            for folder in folders {
                for_each_file(config, folder, |_, entries| {
                    for entry in entries.iter().filter(|entry| selection.has(entry)) {
                        line(&mut text, folder, entry);
                    }
                    Ok(())
                })?;
            }
            print_text(&text)
        }
        Action::Retry { folder, which } => {
            let mut producer = Producer::new(&config.outbox_dir)
                .with_context(|| format!("outbox {}", config.outbox_dir.display()))?;
            let count = take(config, *folder, &which.selection(), |entries| {
                for entry in entries.iter_mut() {
                    entry.refused = None;
                }
                producer.put_batch(entries).map(|_| ())
            })?;
            print_text(&format!("{count} messages are in the outbox again\n"))
        }
        Action::Drop { folder, which } => {
            let count = take(config, *folder, &which.selection(), |_| Ok(()))?;
            print_text(&format!("dropped {count} messages\n"))
        }
    }
}

/// The routing keys of a folder, with the number of their messages.
///
/// # Errors
/// The folder cannot be read.
pub fn keys(config: &Config, folder: Folder) -> anyhow::Result<BTreeMap<RoutingKey, usize>> {
    let mut keys: BTreeMap<RoutingKey, usize> = BTreeMap::new();
    for_each_file(config, folder, |_, entries| {
        for entry in entries {
            let count = keys.entry(entry.key).or_default();
            *count = count.saturating_add(1);
        }
        Ok(())
    })?;
    Ok(keys)
}

/// Takes messages out of a folder, after something was done with them. Returns how many.
fn take(
    config: &Config,
    folder: Folder,
    selection: &Selection,
    mut with: impl FnMut(&mut [Entry]) -> std::io::Result<()>,
) -> anyhow::Result<usize> {
    let mut count = 0usize;
    let outbox = folder.outbox(config);
    for_each_file(config, folder, |path, entries| {
        let (mut taken, rest): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| selection.has(entry));
        if taken.is_empty() {
            return Ok(());
        }
        with(&mut taken).with_context(|| format!("outbox {}", config.outbox_dir.display()))?;
        outbox
            .keep(path, &rest)
            .with_context(|| outbox.path(path).display().to_string())?;
        count = count.saturating_add(taken.len());
        Ok(())
    })?;
    Ok(count)
}

fn for_each_file(
    config: &Config,
    folder: Folder,
    mut with: impl FnMut(&agents::outbox::FileName, Vec<Entry>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let outbox = folder.outbox(config);
    let names = match outbox.list() {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| outbox.folder().display().to_string()),
    };
    for name in names {
        match outbox.read(&name) {
            Ok(entries) => with(&name, entries)?,
            // taken meanwhile, or for the daemon to set aside
            Err(ReadError::Gone | ReadError::Bad(_)) => {}
            Err(ReadError::Io(error)) => {
                let path: PathBuf = outbox.path(&name);
                return Err(error).with_context(|| path.display().to_string());
            }
        }
    }
    Ok(())
}

fn line(text: &mut String, folder: Folder, entry: &Entry) {
    let subject = Subject::of(entry);
    let job = subject
        .job
        .map_or_else(|| "-".to_owned(), |job| job.to_string());
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let _ = writeln!(
        text,
        "{:<12} {} {} s job {job} {} {} {} {}",
        folder.name(),
        entry.key,
        age(entry).as_secs(),
        or_dash(subject.object()),
        or_dash(subject.status.as_deref().unwrap_or_default()),
        entry.id,
        entry.refused.as_deref().unwrap_or_default(),
    );
}

fn age(entry: &Entry) -> Duration {
    let now = EventTime::now().since_epoch();
    now.saturating_sub(entry.time.since_epoch())
}

/// Prints; a reader that is gone has seen enough.
fn print_text(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
