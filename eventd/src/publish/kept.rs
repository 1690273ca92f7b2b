//! Messages that cannot be delivered now, on the disk, by routing key.
//!
//! Three folders of the outbox are of this kind: `parked` has what no queue wanted, `refused`
//! what a queue or the broker refused, and `dead-letters` what the broker refuses for good. The
//! first two are tried again, ever less often; the third one is for an operator.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agents::message::{EventTime, RoutingKey};
use agents::outbox::{Class, Entry, FileName, Kind, Limits, Outbox, Producer, ReadError};
use serde::Deserialize;

/// The folder of messages that no queue wanted.
pub const PARKED: &str = "parked";

/// The folder of messages that a queue refused, or the broker for their key.
pub const REFUSED: &str = "refused";

/// The folder of messages that the broker refuses for good.
pub const DEAD_LETTERS: &str = "dead-letters";

/// So many files of one key, and their messages go into fewer.
const FILES_LIMIT: usize = 32;

/// Messages in one file, and the bytes of their bodies.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// So many jobs are remembered of a key; then the oldest are forgotten.
const JOBS_LIMIT: usize = 20_000;

/// The least space that a file takes of the disk.
const BLOCK: u64 = 4096;

/// The bounds of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the disk.
    pub bytes: u64,
    /// Messages.
    pub messages: usize,
    /// The age at which a message is dropped.
    pub age: Duration,
}

/// The subject of a message, for log lines.
#[derive(Debug, Default, Deserialize)]
pub struct Subject {
    /// The Ganeti job.
    #[serde(default, rename = "jobId")]
    pub job: Option<u64>,
    /// The instance.
    #[serde(default)]
    pub instance: Option<String>,
    /// The network.
    #[serde(default)]
    pub network: Option<String>,
    /// The operation's status.
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl Subject {
    /// Returns the subject of this message, as far as its body says.
    pub fn of(entry: &Entry) -> Self {
        serde_json::from_str(entry.body.get()).unwrap_or_default()
    }

    /// The instance or network.
    pub fn object(&self) -> &str {
        let object = self.instance.as_deref().or(self.network.as_deref());
        object.unwrap_or_default()
    }

    /// The instance whose NICs the message tells: the next such message replaces it.
    fn nics_of(self) -> Option<String> {
        self.instance
            .filter(|_| self.kind.as_deref() == Some("ganeti-net-status"))
    }
}

/// The messages of a folder, by routing key. A file has messages of one key only.
#[derive(Debug)]
pub struct Kept {
    outbox: Outbox,
    main: PathBuf,
    producer: Producer,
    lines: BTreeMap<RoutingKey, Line>,
    first_pause: Duration,
    longest_pause: Duration,
    /// The number in the name of the last file that others were joined in.
    joined: u32,
}

/// The messages of one key.
#[derive(Debug)]
struct Line {
    /// The files, and how many messages are in each.
    files: BTreeMap<FileName, usize>,
    /// When the oldest is tried again.
    due: Instant,
    pause: Duration,
    /// Jobs that messages of this line are about.
    jobs: BTreeSet<u64>,
    /// The files that tell nothing but the NICs of one instance.
    nics: HashMap<String, FileName>,
}

/// The result of keeping messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Written.
    pub kept: usize,
    /// Not worth keeping for somebody who may come later.
    pub dropped: usize,
    /// Replaced by later ones about the same.
    pub superseded: usize,
}

impl Kept {
    /// Opens this folder of an outbox; the oldest message of a key is tried again after
    /// `first_pause`, then twice as late each time, up to `longest_pause`.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(
        outbox: &Outbox,
        folder: &str,
        first_pause: Duration,
        longest_pause: Duration,
    ) -> io::Result<Self> {
        let kept = Outbox::open(&outbox.folder().join(folder))?;
        let producer = Producer::new(kept.folder())?;
        let mut kept = Self {
            outbox: kept,
            main: outbox.folder().to_owned(),
            producer,
            lines: BTreeMap::new(),
            first_pause,
            longest_pause,
            joined: 0,
        };
        kept.look()?;
        Ok(kept)
    }

    /// Looks at the folder: an operator may have dropped or retried some.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(&mut self) -> io::Result<()> {
        let listed: BTreeSet<FileName> = self.outbox.list()?.into_iter().collect();
        for line in self.lines.values_mut() {
            line.files.retain(|name, _| listed.contains(name));
        }
        self.lines.retain(|_, line| !line.files.is_empty());
        let known: BTreeSet<FileName> = self
            .lines
            .values()
            .flat_map(|line| line.files.keys().cloned())
            .collect();
        for name in listed.difference(&known) {
            self.producer.after(name.time);
            match self.outbox.read(name) {
                Ok(entries) => self.note(name, &entries),
                Err(ReadError::Bad(error)) => {
                    let path = self.outbox.path(name);
                    tracing::warn!("set aside {}: {error}", path.display());
                    self.outbox.set_aside(name)?;
                }
                Err(ReadError::Gone) => {}
                Err(ReadError::Io(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns whether messages with this key are here.
    pub fn has(&self, key: &RoutingKey) -> bool {
        self.lines.contains_key(key)
    }

    /// Returns whether a message about this job is among those with this key.
    pub fn has_job(&self, key: &RoutingKey, job: u64) -> bool {
        self.lines
            .get(key)
            .is_some_and(|line| line.jobs.contains(&job))
    }

    /// Returns the number of messages.
    pub fn messages(&self) -> usize {
        let counts = self.lines.values().flat_map(|line| line.files.values());
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Keeps messages, in their order. What says how something is going is not worth it, and
    /// neither is a heartbeat; of an instance's NICs only the last word is. Returns the keys
    /// that had none before as well.
    ///
    /// # Errors
    /// They could not be written; some may have been.
    pub fn keep<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> io::Result<(Keeping, Vec<RoutingKey>)> {
        let mut keeping = Keeping::default();
        let mut by_key: BTreeMap<RoutingKey, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            if entry.class == Class::Progress || entry.key == RoutingKey::heartbeat() {
                keeping.dropped = keeping.dropped.saturating_add(1);
            } else {
                by_key
                    .entry(entry.key.clone())
                    .or_default()
                    .push(entry.clone());
            }
        }
        let mut new = Vec::new();
        for (key, entries) in by_key {
            let (entries, superseded) = without_superseded(entries);
            keeping.superseded = keeping.superseded.saturating_add(superseded);
            if !self.has(&key) {
                new.push(key.clone());
            }
            for batch in entries.chunks(BATCH) {
                let name = self.producer.put_batch(batch)?;
                keeping.kept = keeping.kept.saturating_add(batch.len());
                let replaced = self.note_and_replace(&name, batch)?;
                keeping.superseded = keeping.superseded.saturating_add(replaced);
            }
            self.join_files(&key)?;
        }
        Ok((keeping, new))
    }

    /// The oldest file of each key whose time to be tried has come; at most `limit`.
    pub fn due(&mut self, now: Instant, limit: usize) -> Vec<(RoutingKey, FileName)> {
        let longest = self.longest_pause;
        let mut due = Vec::new();
        for (key, line) in &mut self.lines {
            if due.len() >= limit {
                break;
            }
            if line.due > now {
                continue;
            }
            line.due = now.checked_add(line.pause).unwrap_or(now);
            line.pause = line.pause.saturating_mul(2).min(longest);
            due.extend(
                line.files
                    .keys()
                    .next()
                    .map(|name| (key.clone(), name.clone())),
            );
        }
        due
    }

    /// One key of those whose time has come, the longest due first, with its oldest file.
    pub fn most_due(&mut self, now: Instant) -> Option<(RoutingKey, FileName)> {
        let (key, line) = self
            .lines
            .iter()
            .filter(|(_, line)| line.due <= now)
            .min_by_key(|(_, line)| line.due)?;
        Some((key.clone(), line.files.keys().next()?.clone()))
    }

    /// The key was refused again: it is tried later, ever later.
    pub fn put_off(&mut self, key: &RoutingKey, now: Instant) {
        let longest = self.longest_pause;
        if let Some(line) = self.lines.get_mut(key) {
            line.due = now.checked_add(line.pause).unwrap_or(now);
            line.pause = line.pause.saturating_mul(2).min(longest);
        }
    }

    /// All keys are tried now: something has changed at the broker.
    pub fn hurry(&mut self, now: Instant) {
        for line in self.lines.values_mut() {
            line.due = now;
            line.pause = self.first_pause;
        }
    }

    /// The messages of a file with this key, if it is there still; if not, it is forgotten.
    pub fn read(&mut self, key: &RoutingKey, name: &FileName) -> Option<Vec<Entry>> {
        match self.outbox.read(name) {
            Ok(entries) => Some(entries),
            Err(ReadError::Io(error)) => {
                let path = self.outbox.path(name);
                tracing::error!("cannot read {}: {error}", path.display());
                None
            }
            Err(ReadError::Gone | ReadError::Bad(_)) => {
                self.forget(key, name);
                None
            }
        }
    }

    /// Some messages of this key were taken: the others are tried at once.
    pub fn go_on(&mut self, key: &RoutingKey, now: Instant) {
        if let Some(line) = self.lines.get_mut(key) {
            line.due = now;
            line.pause = self.first_pause;
        }
    }

    /// Keeps only these messages of a file.
    ///
    /// # Errors
    /// It cannot be written; then it is as it was.
    pub fn keep_rest(
        &mut self,
        key: &RoutingKey,
        name: &FileName,
        rest: &[Entry],
    ) -> io::Result<()> {
        self.outbox.keep(name, rest)?;
        if rest.is_empty() {
            self.forget(key, name);
        } else if let Some(line) = self.lines.get_mut(key) {
            line.files.insert(name.clone(), rest.len());
        }
        Ok(())
    }

    /// The first message of this file, with this key, was taken: all else of the key goes back
    /// into the outbox, in its order. Returns the files.
    ///
    /// # Errors
    /// A file could not be written or moved; what is not returned stays here.
    pub fn release(&mut self, key: &RoutingKey, sent: &FileName) -> io::Result<Vec<FileName>> {
        if let Ok(entries) = self.outbox.read(sent) {
            let rest = entries.get(1..).unwrap_or_default();
            self.keep_rest(key, sent, rest)?;
        }
        Ok(self.release_all(key))
    }

    /// All messages of a key go back into the outbox, in their order. Returns the files; what is
    /// not returned stays here.
    pub fn release_all(&mut self, key: &RoutingKey) -> Vec<FileName> {
        let mut released = Vec::new();
        while let Some(name) = self
            .lines
            .get(key)
            .and_then(|line| line.files.keys().next())
            .cloned()
        {
            match fs::rename(self.outbox.path(&name), self.main.join(name.to_string())) {
                Ok(()) => released.push(name.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%key, "cannot take back what was kept: {error}");
                    return released;
                }
            }
            self.forget(key, &name);
        }
        released
    }

    /// Drops what is not final beyond the limits of the outbox, oldest first. Returns how many.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn trim(&mut self, limits: Limits) -> io::Result<usize> {
        let trimmed = self.outbox.trim(limits, |_| false)?;
        if trimmed.messages() > 0 {
            self.look()?;
        }
        Ok(trimmed.messages())
    }

    /// Drops what is beyond the bounds, final or not, oldest first. Returns how many of each key.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn bound(&mut self, bounds: Bounds) -> io::Result<BTreeMap<RoutingKey, usize>> {
        let mut dropped: BTreeMap<RoutingKey, usize> = BTreeMap::new();
        let mut all: Vec<(FileName, RoutingKey)> = Vec::new();
        for (key, line) in &self.lines {
            all.extend(line.files.keys().map(|name| (name.clone(), key.clone())));
        }
        all.sort_unstable();
        let now = EventTime::now().since_epoch();
        let oldest = now.saturating_sub(bounds.age);
        let mut bytes: u64 = all.iter().map(|(name, _)| self.room(name)).sum();
        let mut messages = self.messages();
        for (name, key) in all {
            let beyond = bytes > bounds.bytes || messages > bounds.messages;
            let old = Duration::from_micros(name.time) < oldest;
            if !beyond && !old {
                break;
            }
            let room = self.room(&name);
            let Some(entries) = self.read(&key, &name) else {
                continue;
            };
            let rest: Vec<Entry> = entries
                .iter()
                .filter(|entry| !beyond && entry.time.since_epoch() >= oldest)
                .cloned()
                .collect();
            let count = entries.len().saturating_sub(rest.len());
            if count == 0 {
                continue;
            }
            self.keep_rest(&key, &name, &rest)?;
            messages = messages.saturating_sub(count);
            bytes = bytes.saturating_sub(room).saturating_add(self.room(&name));
            let of_key = dropped.entry(key).or_default();
            *of_key = of_key.saturating_add(count);
        }
        Ok(dropped)
    }

    /// The bytes of the disk that a file takes.
    fn room(&self, name: &FileName) -> u64 {
        fs::metadata(self.outbox.path(name)).map_or(0, |file| file.len().next_multiple_of(BLOCK))
    }

    /// A file is here, with these messages of one key.
    fn note(&mut self, name: &FileName, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let now = Instant::now();
        let line = self.lines.entry(first.key.clone()).or_insert_with(|| Line {
            files: BTreeMap::new(),
            due: now.checked_add(self.first_pause).unwrap_or(now),
            pause: self.first_pause.saturating_mul(2).min(self.longest_pause),
            jobs: BTreeSet::new(),
            nics: HashMap::new(),
        });
        line.files.insert(name.clone(), entries.len());
        line.jobs
            .extend(entries.iter().filter_map(|entry| Subject::of(entry).job));
        while line.jobs.len() > JOBS_LIMIT {
            line.jobs.pop_first();
        }
    }

    /// [`Kept::note`], and removes the file that a single message about an instance's NICs
    /// replaces. Returns how many it replaced.
    fn note_and_replace(&mut self, name: &FileName, entries: &[Entry]) -> io::Result<usize> {
        self.note(name, entries);
        let [entry] = entries else { return Ok(0) };
        let Some(instance) = Subject::of(entry).nics_of() else {
            return Ok(0);
        };
        let Some(line) = self.lines.get_mut(&entry.key) else {
            return Ok(0);
        };
        let Some(before) = line.nics.insert(instance, name.clone()) else {
            return Ok(0);
        };
        // it may have been joined with others, or be dropped by now
        if line.files.get(&before) != Some(&1) {
            return Ok(0);
        }
        self.outbox.remove(&before)?;
        self.forget(&entry.key, &before);
        Ok(1)
    }

    /// Puts the messages of many small files of a key into few.
    fn join_files(&mut self, key: &RoutingKey) -> io::Result<()> {
        let Some(line) = self.lines.get(key) else {
            return Ok(());
        };
        // the whole key where messages replace each other, else the newest, which are not full
        let whole = !line.nics.is_empty();
        let small: Vec<FileName> = line
            .files
            .iter()
            .rev()
            .take_while(|(_, count)| whole || **count < BATCH)
            .map(|(name, _)| name.clone())
            .collect();
        let full = line.files.values().filter(|count| **count >= BATCH).count();
        if small.len() < FILES_LIMIT.saturating_add(if whole { full } else { 0 }) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for name in small.iter().rev() {
            entries.extend(self.read(key, name).unwrap_or_default());
        }
        let (entries, _) = without_superseded(entries);
        // The new files have the times of old ones, so that the order stays, but names of their
        // own: who has read an old one, to send or to drop what was in it, must not take its
        // place for it. A crash in between leaves some messages twice.
        let mut names = small.iter().rev();
        let mut written = BTreeMap::new();
        for batch in batches(&entries) {
            let Some(name) = names.next() else {
                return Ok(()); // there are fewer of them than of the small ones
            };
            let mut name = FileName {
                producer: std::process::id(),
                kind: Kind::Batch,
                ..name.clone()
            };
            while small.contains(&name) || self.outbox.path(&name).exists() {
                self.joined = self.joined.wrapping_add(1) % 1_000_000;
                name.number = self.joined;
            }
            self.outbox.keep(&name, batch)?;
            written.insert(name, batch.len());
        }
        for name in &small {
            self.outbox.remove(name)?;
        }
        if let Some(line) = self.lines.get_mut(key) {
            line.files.retain(|name, _| !small.contains(name));
            line.files.extend(written);
            let files = &line.files;
            line.nics
                .retain(|_, name| files.contains_key(name) && !small.contains(name));
        }
        Ok(())
    }

    fn forget(&mut self, key: &RoutingKey, name: &FileName) {
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        line.files.remove(name);
        if line.files.is_empty() {
            self.lines.remove(key);
        }
    }
}

/// The messages without those about an instance's NICs that a later one replaces, and how many
/// these are.
fn without_superseded(entries: Vec<Entry>) -> (Vec<Entry>, usize) {
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut superseded: BTreeSet<usize> = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(instance) = Subject::of(entry).nics_of() {
            superseded.extend(last.insert(instance, index));
        }
    }
    let kept = entries
        .into_iter()
        .enumerate()
        .filter(|(index, _)| !superseded.contains(index))
        .map(|(_, entry)| entry)
        .collect();
    (kept, superseded.len())
}

/// Messages as they go into files that are joined.
fn batches(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut batches = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut bytes = 0usize;
        let fits = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.body_bytes().len());
            bytes <= BATCH_BYTES
        };
        let count = rest.iter().take(BATCH).take_while(fits).count().max(1);
        let (batch, more) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        batches.push(batch);
        rest = more;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::message::{EventId, Message};

    fn entry(body: &serde_json::Value, number: u64) -> Entry {
        let message = Message::parse(body.to_string().as_bytes()).unwrap();
        let id = EventId::of_parts(&[&number.to_string()]);
        Entry::new(id, Class::Final, &message).unwrap()
    }

    fn nics(instance: &str, number: u64) -> Entry {
        let body = serde_json::json!({"type": "ganeti-net-status", "event_time": [number, 0],
            "instance": instance, "nics": []});
        entry(&body, number)
    }

    fn end(job: u64) -> Entry {
        let body = serde_json::json!({"type": "ganeti-op-status", "event_time": [job, 0],
            "instance": "snf-1", "operation": "OP_INSTANCE_SHUTDOWN", "status": "success",
            "jobId": job, "cluster": "c", "logmsg": null, "result": null, "job_fields": {},
            "tags": []});
        entry(&body, job)
    }

    fn kept(scratch: &std::path::Path) -> Kept {
        let outbox = Outbox::open(&scratch.join("outbox")).unwrap();
        let (first, longest) = (Duration::from_secs(5), Duration::from_secs(60));
        Kept::open(&outbox, PARKED, first, longest).unwrap()
    }

    /// All that is in the folder, in its order.
    fn all(kept: &Kept) -> Vec<Entry> {
        let names = kept.outbox.list().unwrap();
        let read = |name| kept.outbox.read(name).unwrap();
        names.iter().flat_map(read).collect()
    }

    #[test]
    fn files_are_joined_in_their_order_and_nothing_final_goes() {
        let scratch = tempfile::tempdir().unwrap();
        let mut parked = kept(scratch.path());
        for job in 0..1000 {
            parked.keep(std::iter::once(&end(job))).unwrap();
        }
        let jobs: Vec<_> = all(&parked)
            .iter()
            .map(|one| Subject::of(one).job)
            .collect();
        assert_eq!(jobs, (0..1000).map(Some).collect::<Vec<_>>());
        let files = parked.outbox.list().unwrap().len();
        assert!(files <= FILES_LIMIT + 1000 / BATCH + 1, "{files} files");
        assert_eq!(parked.messages(), 1000);
        // and it is the same to the next process
        assert_eq!(kept(scratch.path()).messages(), 1000);
    }

    /// A file that was read, to be sent, may be joined with others before what was sent of it
    /// is taken out.
    #[test]
    fn what_was_sent_takes_nothing_else_with_it() {
        let scratch = tempfile::tempdir().unwrap();
        let mut refused = kept(scratch.path());
        let key = end(0).key;
        refused.keep(std::iter::once(&end(0))).unwrap();
        let (_, name) = refused
            .most_due(Instant::now() + Duration::from_secs(60))
            .unwrap();
        assert_eq!(refused.read(&key, &name).unwrap().len(), 1);
        for job in 1..100 {
            refused.keep(std::iter::once(&end(job))).unwrap();
        }
        refused.keep_rest(&key, &name, &[]).unwrap();
        let left: BTreeSet<_> = all(&refused)
            .iter()
            .filter_map(|one| Subject::of(one).job)
            .collect();
        assert!((1..100).all(|job| left.contains(&job)), "{left:?}");
    }

    #[test]
    fn of_the_nics_of_an_instance_the_last_word_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let mut parked = kept(scratch.path());
        for number in 0..500 {
            let instance = format!("snf-{}", number % 7);
            parked
                .keep(std::iter::once(&nics(&instance, number)))
                .unwrap();
        }
        assert!(
            parked.messages() <= 7 + FILES_LIMIT,
            "{}",
            parked.messages()
        );
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for one in all(&parked) {
            let body: serde_json::Value = serde_json::from_str(one.body.get()).unwrap();
            last.insert(
                body["instance"].to_string(),
                body["event_time"][0].to_string(),
            );
        }
        let expected: Vec<_> = (493..500).map(|number: u64| number.to_string()).collect();
        let mut got: Vec<_> = last.into_values().collect();
        got.sort_unstable();
        assert_eq!(got, expected);
        // many at once count once as well
        let many: Vec<_> = (1000..1100).map(|number| nics("snf-1", number)).collect();
        let (keeping, _) = parked.keep(many.iter()).unwrap();
        assert_eq!(keeping.kept, 1);
    }

    #[test]
    fn the_oldest_goes_beyond_the_bounds() {
        let scratch = tempfile::tempdir().unwrap();
        let mut parked = kept(scratch.path());
        for job in 0..600 {
            parked.keep(std::iter::once(&end(job))).unwrap();
        }
        let bounds = Bounds {
            bytes: u64::MAX,
            messages: 300,
            age: Duration::from_secs(3600),
        };
        let dropped: usize = parked.bound(bounds).unwrap().into_values().sum();
        assert_eq!(parked.messages(), 600 - dropped);
        assert!(parked.messages() <= 300);
        let newest = all(&parked).last().map(|one| Subject::of(one).job);
        assert_eq!(newest, Some(Some(599)));
        let bytes = Bounds {
            bytes: 8192,
            ..bounds
        };
        parked.bound(bytes).unwrap();
        assert!(parked.outbox.list().unwrap().len() <= 2);
        std::thread::sleep(Duration::from_millis(5));
        let age = Bounds {
            age: Duration::from_millis(1),
            ..bounds
        };
        parked.bound(age).unwrap();
        assert_eq!((parked.messages(), all(&parked).len()), (0, 0));
    }

    #[test]
    fn a_key_is_tried_ever_less_often() {
        let scratch = tempfile::tempdir().unwrap();
        let mut parked = kept(scratch.path());
        parked.keep(std::iter::once(&end(1))).unwrap();
        let start = Instant::now();
        let tried: Vec<u64> = (0..300)
            .filter(|second| {
                let now = start + Duration::from_secs(*second);
                !parked.due(now, 10).is_empty()
            })
            .collect();
        let pauses: Vec<u64> = tried.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
    }
}
