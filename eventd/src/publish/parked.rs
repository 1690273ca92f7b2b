//! Messages that the broker gave back because no queue wanted them.
//!
//! They are kept in the folder `parked` of the outbox, and all later ones with the same
//! routing key behind them. From time to time the oldest of each key is tried again; when it
//! finds a queue, the others go back into the outbox and follow it, in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use agents::message::RoutingKey;
use agents::outbox::{Class, Entry, FileName, Limits, Outbox, Producer, ReadError, Trimmed};

/// The folder in the outbox.
pub const FOLDER: &str = "parked";

/// The parked messages, by routing key. A file has messages of one key only.
#[derive(Debug)]
pub struct Parked {
    outbox: Outbox,
    main: PathBuf,
    producer: Producer,
    keys: BTreeMap<RoutingKey, BTreeSet<FileName>>,
}

impl Parked {
    /// What is parked in this outbox.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(outbox: &Outbox) -> io::Result<Self> {
        let parked = Outbox::open(&outbox.folder().join(FOLDER))?;
        let mut producer = Producer::new(parked.folder())?;
        let mut keys: BTreeMap<RoutingKey, BTreeSet<FileName>> = BTreeMap::new();
        for name in parked.list()? {
            producer.after(name.time);
            match parked.read(&name) {
                Ok(entries) => {
                    if let Some(first) = entries.into_iter().next() {
                        keys.entry(first.key).or_default().insert(name);
                    }
                }
                Err(ReadError::Bad(error)) => {
                    let path = parked.path(&name);
                    tracing::warn!("set aside {}: {error}", path.display());
                    parked.set_aside(&name)?;
                }
                Err(ReadError::Gone) => {}
                Err(ReadError::Io(error)) => return Err(error),
            }
        }
        Ok(Self {
            outbox: parked,
            main: outbox.folder().to_owned(),
            producer,
            keys,
        })
    }

    /// Whether messages with this key are parked, so that others must go behind them.
    pub fn has(&self, key: &RoutingKey) -> bool {
        self.keys.contains_key(key)
    }

    /// The keys with parked messages.
    pub fn keys(&self) -> impl Iterator<Item = &RoutingKey> {
        self.keys.keys()
    }

    /// How many files are parked.
    pub fn files(&self) -> usize {
        self.keys.values().map(BTreeSet::len).sum()
    }

    /// Parks messages, in their order. What says how something is going is not worth keeping
    /// for somebody who may come later, and neither is a heartbeat: how many were dropped.
    ///
    /// # Errors
    /// They could not be written; some may have been.
    pub fn park<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> io::Result<usize> {
        let mut dropped = 0usize;
        let mut by_key: BTreeMap<RoutingKey, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            if entry.class == Class::Progress || entry.key == RoutingKey::heartbeat() {
                dropped = dropped.saturating_add(1);
            } else {
                by_key
                    .entry(entry.key.clone())
                    .or_default()
                    .push(entry.clone());
            }
        }
        for (key, entries) in by_key {
            let name = self.producer.put_batch(&entries)?;
            if !self.has(&key) {
                tracing::warn!(%key, "no queue is bound to this key: its messages are kept");
            }
            self.keys.entry(key).or_default().insert(name);
        }
        Ok(dropped)
    }

    /// The oldest file of each key: to be tried again.
    pub fn oldest(&self) -> Vec<FileName> {
        self.keys
            .values()
            .filter_map(|files| files.first().cloned())
            .collect()
    }

    /// The first message of a file.
    pub fn first_of(&self, name: &FileName) -> Option<Entry> {
        self.outbox.read(name).ok()?.into_iter().next()
    }

    /// The first message of this file, with this key, has found a queue: all else that is
    /// parked with the key goes back into the outbox. Returns the files.
    ///
    /// # Errors
    /// A file could not be written or moved; what is not returned stays parked.
    pub fn release(&mut self, key: &RoutingKey, sent: &FileName) -> io::Result<Vec<FileName>> {
        if let Ok(entries) = self.outbox.read(sent) {
            let rest = entries.get(1..).unwrap_or_default();
            self.outbox.keep(sent, rest)?;
        }
        let mut released = Vec::new();
        while let Some(name) = self.keys.get(key).and_then(BTreeSet::first).cloned() {
            match fs::rename(self.outbox.path(&name), self.main.join(name.to_string())) {
                Ok(()) => released.push(name.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%key, "cannot take back what was kept: {error}");
                    return Ok(released);
                }
            }
            if let Some(files) = self.keys.get_mut(key) {
                files.remove(&name);
            }
        }
        self.keys.remove(key);
        tracing::info!(%key, files = released.len(), "a queue is bound: sending what was kept");
        Ok(released)
    }

    /// Keeps what is parked within bounds.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn trim(&mut self, limits: Limits) -> io::Result<Trimmed> {
        let trimmed = self.outbox.trim(limits, |_| false)?;
        if trimmed.messages() > 0 {
            let left: BTreeSet<_> = self.outbox.list()?.into_iter().collect();
            for files in self.keys.values_mut() {
                files.retain(|name| left.contains(name));
            }
            self.keys.retain(|_, files| !files.is_empty());
        }
        Ok(trimmed)
    }
}
