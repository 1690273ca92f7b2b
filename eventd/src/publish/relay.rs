//! What waits, what is under way, and what is safe.
//!
//! A message is safe when the broker has confirmed it or it is in the outbox. While the
//! connection is up, messages go to it straight from memory; when it fails, those under way
//! and those waiting go into the outbox, in their order, and later ones behind them, until
//! the outbox has been published.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use agents::message::EventTime;
use agents::outbox::{Entry, FileName, Limits, Outbox, Producer, ReadError, Trimmed, Usage};

use super::Link;
use super::confirms::{Answer, Confirms};
use super::parked::Parked;
use crate::metrics::Metrics;

/// Messages in one file of the outbox, and the bytes of their bodies: far below what is read.
const SPOOL_BATCH: usize = 256;
const SPOOL_BYTES: usize = 8 << 20;

/// Bytes that are under way without a confirm: the window is for messages of the usual size.
const UNDER_WAY_BYTES: usize = 8 << 20;

/// Messages in memory that wait for the connection; above it they go into the outbox.
const WAITING_LIMIT: usize = 20_000;
const WAITING_BYTES: usize = 32 << 20;

/// What happens next.
#[derive(Debug)]
pub enum Next {
    /// A message is confirmed.
    Confirmed,
    /// A message is not, and never will be over this connection: see
    /// [`Relay::disconnected`].
    Refused(String),
    /// The connection is blocked, unblocked or broken; it ended if this is `None`.
    Connection(Option<lapin::Event>),
}

/// The way from messages to the broker.
pub struct Relay {
    outbox: Outbox,
    producer: Producer,
    origin: String,
    window: usize,
    link: Option<Link>,
    /// Whether an attempt to connect has failed since the last connection (or since the
    /// start): before that, messages wait in memory.
    away: bool,
    blocked: bool,
    confirms: Confirms,
    under_way: VecDeque<UnderWay>,
    under_way_bytes: usize,
    /// The broker has had its say, but it is not yet acted on: something before it has to be
    /// parked first.
    answered: VecDeque<(UnderWay, Answer)>,
    parked: Parked,
    /// Parked files whose first message is under way, to see whether there is a queue now.
    probes: BTreeSet<FileName>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Files of the outbox that are not published yet.
    files: BTreeSet<FileName>,
    /// The file that is being published.
    open: Option<(FileName, VecDeque<Entry>)>,
    /// Confirms that are still awaited, by file.
    unconfirmed: HashMap<FileName, usize>,
    safe: u64,
    published: u64,
    metrics: Metrics,
}

struct Waiting {
    seq: u64,
    entry: Entry,
    /// When the job file was written that it comes from.
    written: Option<SystemTime>,
}

struct UnderWay {
    since: Instant,
    entry: Entry,
    written: Option<SystemTime>,
    what: What,
}

enum What {
    /// Straight from memory: when it is safe, everything up to this number is.
    Direct(u64),
    /// Out of this file.
    File(FileName),
    /// The first one of this parked file.
    Probe(FileName),
}

impl Relay {
    /// A relay with the outbox' content before it; at most `window` messages are under way
    /// without a confirm.
    ///
    /// # Errors
    /// The outbox cannot be made or listed.
    pub fn new(
        outbox: Outbox,
        origin: String,
        window: usize,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let producer = Producer::new(outbox.folder())?;
        let parked = Parked::open(&outbox)?;
        // Later processes go on above earlier ones, whatever they sent.
        let now = EventTime::now().since_epoch().as_micros();
        let mut relay = Self {
            outbox,
            producer,
            origin,
            window,
            link: None,
            away: false,
            blocked: false,
            confirms: Confirms::default(),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            answered: VecDeque::new(),
            parked,
            probes: BTreeSet::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            files: BTreeSet::new(),
            open: None,
            unconfirmed: HashMap::new(),
            safe: 0,
            published: u64::try_from(now).unwrap_or_default(),
            metrics,
        };
        relay.rescan()?;
        Ok(relay)
    }

    /// Looks at the whole outbox.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn rescan(&mut self) -> io::Result<()> {
        for name in self.outbox.list()? {
            self.found(name);
        }
        Ok(())
    }

    /// A file is in the outbox.
    pub fn found(&mut self, name: FileName) {
        let opened = self.open.as_ref().is_some_and(|(open, _)| *open == name);
        if !opened && !self.unconfirmed.contains_key(&name) {
            self.producer.after(name.time);
            self.files.insert(name);
        }
    }

    /// Takes over messages, the last of which has the number `seq`; numbers only grow. They
    /// come from a job file that was written then.
    ///
    /// # Errors
    /// They had to go into the outbox and could not; then none of them was taken, and they
    /// come back.
    pub fn offer(
        &mut self,
        seq: u64,
        entries: Vec<Entry>,
        written: Option<SystemTime>,
    ) -> Result<(), (io::Error, Vec<Entry>)> {
        if entries.is_empty() {
            if self.waiting.is_empty() && !self.has_direct_under_way() {
                self.safe = self.safe.max(seq);
            } else {
                // nothing to send: as safe as what was offered before it
                self.raise_last(seq);
            }
            return Ok(());
        }
        if self.is_spooling() {
            // What waits already goes first.
            let spooled = self.spool_waiting().and_then(|()| self.spool(&entries));
            if let Err(error) = spooled {
                return Err((error, entries));
            }
            self.safe = self.safe.max(seq);
            return Ok(());
        }
        let last = entries.len().saturating_sub(1);
        for (index, entry) in entries.into_iter().enumerate() {
            // Only with its last message is the whole batch safe.
            let seq = if index == last { seq } else { 0 };
            self.waiting_bytes = self.waiting_bytes.saturating_add(entry.body_bytes().len());
            self.waiting.push_back(Waiting {
                seq,
                entry,
                written,
            });
        }
        Ok(())
    }

    /// Whether there is room for more messages; if not, they wait where they come from or go
    /// into the outbox.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_LIMIT && self.waiting_bytes < WAITING_BYTES
    }

    /// Whether so few messages wait that the connection could run dry. What a rescan has found
    /// is read no further ahead (what happens now would have to wait behind it), and nothing is
    /// while messages flow.
    pub fn wants_more(&self) -> bool {
        self.waiting.len() < self.window && self.waiting_bytes < WAITING_BYTES
    }

    /// The highest number such that all messages up to it are safe.
    pub fn safe(&self) -> u64 {
        self.safe
    }

    /// Messages in memory without a confirm.
    pub fn unconfirmed(&self) -> usize {
        self.awaited().saturating_add(self.waiting.len())
    }

    /// How full the outbox is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn usage(&self) -> io::Result<Usage> {
        self.outbox.usage()
    }

    /// Files and messages that wait.
    pub fn backlog(&self) -> usize {
        let open = usize::from(self.open.is_some());
        self.files
            .len()
            .saturating_add(self.waiting.len())
            .saturating_add(open)
    }

    /// Whether what is offered goes into the outbox.
    pub fn is_spooling(&self) -> bool {
        self.link.is_none() && self.away
    }

    /// Whether everything has been confirmed.
    pub fn is_idle(&self) -> bool {
        self.awaited() == 0 && self.backlog() == 0
    }

    /// A connection is there.
    pub fn connected(&mut self, link: Link) {
        self.link = Some(link);
        self.away = false;
        self.blocked = false;
    }

    /// The connection, if there is one.
    pub fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// The broker has stopped taking messages, or takes them again.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        let now = Instant::now();
        for under_way in &mut self.under_way {
            under_way.since = now;
        }
    }

    /// Whether the broker takes messages, and those that wait in memory are next.
    pub fn is_flowing(&self) -> bool {
        let spool_is_empty = self.files.is_empty() && self.open.is_none();
        self.link.is_some() && !self.blocked && spool_is_empty
    }

    /// Whether the broker has stopped taking messages.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Drops the connection, if there is one: what was under way goes into the outbox, from
    /// where it will be sent again.
    ///
    /// # Errors
    /// It could not be written; then it waits in memory.
    pub fn disconnected(&mut self) -> io::Result<Option<Link>> {
        let link = self.link.take();
        self.away = true;
        self.blocked = false;
        self.confirms = Confirms::default();
        if let Some((name, _)) = self.open.take() {
            self.files.insert(name);
        }
        for (name, _) in self.unconfirmed.drain() {
            self.files.insert(name);
        }
        self.probes.clear();
        self.under_way_bytes = 0;
        let answered = self.answered.drain(..).map(|(under_way, _)| under_way);
        let mut again = VecDeque::new();
        for under_way in answered.chain(self.under_way.drain(..)) {
            let UnderWay {
                entry,
                written,
                what,
                ..
            } = under_way;
            if let What::Direct(seq) = what {
                let length = entry.body_bytes().len();
                self.waiting_bytes = self.waiting_bytes.saturating_add(length);
                again.push_back(Waiting {
                    seq,
                    entry,
                    written,
                });
            }
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        self.spool_waiting()?;
        Ok(link)
    }

    /// An attempt to connect failed.
    ///
    /// # Errors
    /// What waits in memory could not be written into the outbox.
    pub fn failed_to_connect(&mut self) -> io::Result<()> {
        self.away = true;
        self.spool_waiting()
    }

    /// Puts what waits in memory into the outbox: before the process ends.
    ///
    /// # Errors
    /// It could not be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.spool_waiting()
    }

    /// Publishes what there is room for.
    ///
    /// # Errors
    /// A message has to be parked and could not be written; it is tried again next time.
    pub fn pump(&mut self) -> io::Result<()> {
        self.take_answers();
        self.settle()?;
        while self.link.is_some() && !self.blocked && self.window_is_open() {
            if let Some((entry, name)) = self.next_from_file() {
                self.publish(entry, None, What::File(name));
            } else if let Some(waiting) = self.waiting.pop_front() {
                let length = waiting.entry.body_bytes().len();
                self.waiting_bytes = self.waiting_bytes.saturating_sub(length);
                self.publish(waiting.entry, waiting.written, What::Direct(waiting.seq));
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Tries the oldest parked message of every key again.
    pub fn probe(&mut self) {
        if self.link.is_none() || self.blocked {
            return;
        }
        for name in self.parked.oldest() {
            if !self.probes.contains(&name)
                && let Some(entry) = self.parked.first_of(&name)
            {
                self.probes.insert(name.clone());
                self.publish(entry, None, What::Probe(name));
            }
        }
    }

    /// What is parked.
    pub fn parked(&self) -> &Parked {
        &self.parked
    }

    fn window_is_open(&self) -> bool {
        self.awaited() < self.window
            && self.under_way_bytes < UNDER_WAY_BYTES
            && !self.confirms.is_unsure()
    }

    fn awaited(&self) -> usize {
        self.under_way.len().saturating_add(self.answered.len())
    }

    /// Waits for the next confirm, or for something to happen to the connection; for ever
    /// without a connection.
    pub async fn next(&mut self) -> Next {
        let Some(link) = &mut self.link else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            answer = poll_fn(|context| self.confirms.poll(context)) => match answer {
                Ok(()) => Next::Confirmed,
                Err(reason) => Next::Refused(reason),
            },
            event = link.event() => Next::Connection(event),
        }
    }

    /// How long the oldest message has been without its confirm; a blocked broker is not
    /// late.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        if self.blocked {
            return None;
        }
        let first = self.under_way.front()?;
        Some(now.saturating_duration_since(first.since))
    }

    /// Keeps the outbox within its bounds.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn trim(&mut self, limits: Limits) -> io::Result<Trimmed> {
        let (open, unconfirmed) = (&self.open, &self.unconfirmed);
        let mut trimmed = self.outbox.trim(limits, |name| {
            unconfirmed.contains_key(name) || open.as_ref().is_some_and(|(open, _)| open == name)
        })?;
        let parked = self.parked.trim(limits)?;
        trimmed.progress = trimmed.progress.saturating_add(parked.progress);
        trimmed.status = trimmed.status.saturating_add(parked.status);
        trimmed.above = trimmed.above.saturating_add(parked.above);
        let dropped = u64::try_from(trimmed.messages()).unwrap_or_default();
        self.metrics.dropped.inc_by(dropped);
        Ok(trimmed)
    }

    fn publish(&mut self, entry: Entry, written: Option<SystemTime>, what: What) {
        let Some(link) = &self.link else { return };
        let behind = self.parked.has(&entry.key) && !matches!(what, What::Probe(_));
        if behind {
            self.confirms.push_not_sent();
        } else {
            self.published = self.published.saturating_add(1);
            let confirm = link.publish(&entry, &self.origin, self.published);
            self.confirms.push(self.published, confirm);
        }
        if let What::File(name) = &what {
            let awaited = self.unconfirmed.entry(name.clone()).or_default();
            *awaited = awaited.saturating_add(1);
        }
        let length = entry.body_bytes().len();
        self.under_way_bytes = self.under_way_bytes.saturating_add(length);
        self.under_way.push_back(UnderWay {
            since: Instant::now(),
            entry,
            written,
            what,
        });
    }

    /// The broker has answered for the oldest message under way.
    fn answer(&mut self, answer: Answer) {
        if let Some(under_way) = self.under_way.pop_front() {
            let length = under_way.entry.body_bytes().len();
            self.under_way_bytes = self.under_way_bytes.saturating_sub(length);
            if answer == Answer::Taken {
                self.metrics
                    .confirm(&under_way.entry.key, under_way.written);
            }
            self.answered.push_back((under_way, answer));
        }
    }

    /// Takes up the answers that are certain.
    fn take_answers(&mut self) {
        let now = Instant::now();
        while let Some(answer) = self.confirms.next(now) {
            self.answer(answer);
        }
    }

    /// Acts on the broker's answers: parks what it returned, then counts as safe what it took.
    fn settle(&mut self) -> io::Result<()> {
        let homeless = self.answered.iter().filter(|(under_way, answer)| {
            *answer != Answer::Taken && !matches!(under_way.what, What::Probe(_))
        });
        let count = homeless.clone().count();
        if count > 0 {
            let entries = homeless.map(|(under_way, _)| &under_way.entry);
            let dropped = self.parked.park(entries)?;
            let parked = u64::try_from(count.saturating_sub(dropped)).unwrap_or_default();
            self.metrics.parked.inc_by(parked);
            let dropped = u64::try_from(dropped).unwrap_or_default();
            self.metrics.dropped.inc_by(dropped);
        }
        while let Some((under_way, answer)) = self.answered.pop_front() {
            match under_way.what {
                What::Direct(seq) => self.safe = self.safe.max(seq),
                What::File(name) => self.confirmed_of_file(name),
                What::Probe(name) => {
                    self.probes.remove(&name);
                    if answer == Answer::Taken {
                        match self.parked.release(&under_way.entry.key, &name) {
                            Ok(released) => self.files.extend(released),
                            Err(error) => tracing::error!("outbox: {error}"),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn confirmed_of_file(&mut self, name: FileName) {
        let Some(awaited) = self.unconfirmed.get_mut(&name) else {
            return;
        };
        *awaited = awaited.saturating_sub(1);
        let more = self.open.as_ref().is_some_and(|(open, _)| *open == name);
        if *awaited > 0 || more {
            return;
        }
        self.unconfirmed.remove(&name);
        if let Err(error) = self.outbox.remove(&name) {
            // It will be sent again after a restart, with the same ids.
            let path = self.outbox.path(&name);
            tracing::error!("cannot remove {}: {error}", path.display());
        }
    }

    fn next_from_file(&mut self) -> Option<(Entry, FileName)> {
        loop {
            if let Some((name, entries)) = &mut self.open
                && let Some(entry) = entries.pop_front()
            {
                let name = name.clone();
                if entries.is_empty() {
                    self.open = None;
                }
                return Some((entry, name));
            }
            let name = self.files.pop_first()?;
            match self.outbox.read(&name) {
                Ok(entries) => self.open = Some((name, entries.into())),
                Err(ReadError::Gone) => {}
                Err(ReadError::Bad(error)) => {
                    let path = self.outbox.path(&name);
                    tracing::warn!("set aside {}: {error}", path.display());
                    if let Err(error) = self.outbox.set_aside(&name) {
                        tracing::error!("cannot move {}: {error}", path.display());
                    }
                }
                Err(ReadError::Io(error)) => {
                    // The next rescan of the outbox finds it again.
                    let path = self.outbox.path(&name);
                    tracing::error!("cannot read {}: {error}", path.display());
                }
            }
        }
    }

    fn spool_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(SPOOL_BATCH);
            let batch: Vec<Entry> = self
                .waiting
                .iter()
                .take(count)
                .map(|waiting| waiting.entry.clone())
                .collect();
            self.spool(&batch)?;
            for waiting in self.waiting.drain(..count) {
                self.safe = self.safe.max(waiting.seq);
                let length = waiting.entry.body_bytes().len();
                self.waiting_bytes = self.waiting_bytes.saturating_sub(length);
            }
        }
        Ok(())
    }

    fn spool(&mut self, entries: &[Entry]) -> io::Result<()> {
        for batch in batches(entries) {
            let name = match batch {
                [one] => self.producer.put(one)?,
                several => self.producer.put_batch(several)?,
            };
            let count = u64::try_from(batch.len()).unwrap_or_default();
            self.metrics.spooled.inc_by(count);
            self.files.insert(name);
        }
        Ok(())
    }

    fn has_direct_under_way(&self) -> bool {
        let answered = self.answered.iter().map(|(under_way, _)| under_way);
        answered
            .chain(&self.under_way)
            .any(|under_way| matches!(under_way.what, What::Direct(_)))
    }

    /// Gives the newest message in memory this number.
    fn raise_last(&mut self, seq: u64) {
        if let Some(last) = self.waiting.back_mut() {
            last.seq = seq;
            return;
        }
        let answered = self.answered.iter_mut().map(|(under_way, _)| under_way);
        for under_way in answered.chain(&mut self.under_way).rev() {
            if let What::Direct(last) = &mut under_way.what {
                *last = seq;
                return;
            }
        }
    }
}

/// The messages as they go into files: not too many, and not too much, in each.
fn batches(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut bytes = 0usize;
    let mut count = 0usize;
    // those that begin a new batch
    let starts = entries.iter().enumerate().filter_map(|(index, entry)| {
        let length = entry.body_bytes().len();
        let full = count >= SPOOL_BATCH || bytes.saturating_add(length) > SPOOL_BYTES;
        if index == 0 || full {
            (bytes, count) = (0, 0);
        }
        bytes = bytes.saturating_add(length);
        count = count.saturating_add(1);
        (index > 0 && count == 1).then_some(index)
    });
    let mut rest = entries;
    let mut taken = 0usize;
    let mut batches = Vec::new();
    for start in starts {
        let (batch, more) = rest
            .split_at_checked(start.saturating_sub(taken))
            .unwrap_or((rest, &[]));
        batches.push(batch);
        (rest, taken) = (more, start);
    }
    if !rest.is_empty() {
        batches.push(rest);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::message::{EventId, Message};
    use agents::outbox::Class;

    fn entries(lengths: &[usize]) -> Vec<Entry> {
        let entry = |(number, length): (usize, &usize)| {
            let body = serde_json::json!({"type": "ganeti-net-status", "event_time": [1, 0],
                "instance": "snf-1", "nics": [], "padding": "x".repeat(*length)});
            let message = Message::parse(body.to_string().as_bytes()).unwrap();
            let id = EventId::of_parts(&[&number.to_string()]);
            let mut entry = Entry::new(id, Class::Final, &message).unwrap();
            entry.body = serde_json::value::to_raw_value(&body).unwrap();
            entry
        };
        lengths.iter().enumerate().map(entry).collect()
    }

    fn sizes(lengths: &[usize]) -> Vec<usize> {
        let entries = entries(lengths);
        let batches = batches(&entries);
        let joined: Vec<_> = batches.concat();
        assert_eq!(joined, entries, "all of them, in their order");
        batches.iter().map(|batch| batch.len()).collect()
    }

    #[test]
    fn a_file_of_the_outbox_has_neither_too_many_messages_nor_too_much() {
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[10]), [1]);
        assert_eq!(sizes(&[10; 256]), [256]);
        assert_eq!(sizes(&[10; 600]), [256, 256, 88]);
        let (third, whole) = (SPOOL_BYTES / 3, SPOOL_BYTES + 1);
        assert_eq!(sizes(&[third, third, third, third, 1]), [2, 3]);
        assert_eq!(sizes(&[1, whole, whole, 1, 1]), [1, 1, 1, 2]);
    }
}
