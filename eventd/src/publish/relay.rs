//! What waits, what is under way, and what is safe.
//!
//! A message is safe when the broker has confirmed it or it is in the outbox. While the
//! connection is up, messages go to it straight from memory; when it fails, those under way
//! and those waiting go into the outbox, in their order, and later ones behind them, until
//! the outbox has been published.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use agents::message::{EventId, EventTime, RoutingKey};
use agents::outbox::{Class, Entry, FileName, Limits, Outbox, Producer, ReadError, Trimmed, Usage};
use futures_util::future::BoxFuture;

use super::broker::{InTurn, Stop};
use super::confirms::{Answer, Confirms};
use super::kept::{Bounds, DEAD_LETTERS, Kept, PARKED, REFUSED, Subject};
use super::{Fault, Link, Refusal};
use crate::metrics::Metrics;
use crate::shorten::shortened;

/// Messages in one file of the outbox, and the bytes of their bodies: far below what is read.
const SPOOL_BATCH: usize = 256;
const SPOOL_BYTES: usize = 8 << 20;

/// Bytes that are under way without a confirm: the window is for messages of the usual size.
const UNDER_WAY_BYTES: usize = 8 << 20;

/// Messages in memory that wait for the connection; above it they go into the outbox.
const WAITING_LIMIT: usize = 20_000;
const WAITING_BYTES: usize = 32 << 20;

/// After so many connections in a row that broke before anything was confirmed, what was sent is
/// under suspicion, whatever the broker says.
const STRIKES: u32 = 3;

/// So many keys of parked messages are tried at a time.
const PROBES: usize = 100;

/// Parked messages are tried again after this, then twice as late each time.
const PARKED_PAUSE: Duration = Duration::from_secs(5);

/// The first pause before a refused message is tried again; each next one is twice as long.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);

/// The settings of a relay.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sender: `node1.gnt.lab/snf-ganeti-eventd`.
    pub origin: String,
    /// The most messages under way without a confirm.
    pub window: usize,
    /// The bounds of what is kept undelivered.
    pub bounds: Bounds,
    /// The longest pause before what no queue wanted is tried again.
    pub parked_pause: Duration,
    /// The longest pause before what was refused is tried again.
    pub refused_pause: Duration,
}

/// What happens next.
#[derive(Debug)]
pub enum Next {
    /// A message is confirmed.
    Confirmed,
    /// A message is not, and never will be over this connection: see
    /// [`Relay::disconnected`].
    Refused(Refusal),
    /// The connection is blocked, unblocked or broken; it ended if this is `None`.
    Connection(Option<lapin::Event>),
}

/// The way from messages to the broker.
pub struct Relay {
    outbox: Outbox,
    producer: Producer,
    settings: Settings,
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
    parked: Kept,
    refused: Kept,
    dead_letters: Kept,
    /// Keys that the broker refuses: what has one of them waits behind `refused`.
    held: BTreeSet<RoutingKey>,
    /// Refused messages that are tried again.
    turn: Option<Turn>,
    /// So many messages are sent one at a time: one of them was refused, and it is not known
    /// which.
    suspects: usize,
    /// Connections in a row that broke before anything was confirmed.
    strikes: u32,
    /// The message that was alone under way when they did, and how often.
    alone: Option<(EventId, u32)>,
    /// The longest body that the broker takes, as far as it has said so.
    size_limit: Option<usize>,
    /// True if the broker has taken something over this connection.
    proven: bool,
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

/// A file of refused messages that is tried again.
struct Turn {
    key: RoutingKey,
    name: FileName,
    entries: Vec<Entry>,
    work: BoxFuture<'static, InTurn>,
}

/// The fate of a message that the broker refused.
enum Sentence {
    /// It is sent again.
    Again,
    /// It is sent in this shorter form.
    Shorter(Entry),
    /// It waits, with all that has its key.
    Held,
    /// It is set aside for an operator.
    DeadLetter,
}

impl Relay {
    /// A relay with the outbox' content before it.
    ///
    /// # Errors
    /// The outbox cannot be made or listed.
    pub fn new(outbox: Outbox, settings: Settings, metrics: Metrics) -> io::Result<Self> {
        let producer = Producer::new(outbox.folder())?;
        let open = |folder, first: Duration, longest: Duration| {
            Kept::open(&outbox, folder, first.min(longest), longest)
        };
        let parked = open(PARKED, PARKED_PAUSE, settings.parked_pause)?;
        let refused = open(REFUSED, REFUSED_PAUSE, settings.refused_pause)?;
        let dead_letters = open(DEAD_LETTERS, Duration::MAX, Duration::MAX)?;
        // Later processes go on above earlier ones, whatever they sent.
        let now = EventTime::now().since_epoch().as_micros();
        let mut relay = Self {
            outbox,
            producer,
            settings,
            link: None,
            away: false,
            blocked: false,
            confirms: Confirms::default(),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            answered: VecDeque::new(),
            parked,
            refused,
            dead_letters,
            held: BTreeSet::new(),
            turn: None,
            suspects: 0,
            strikes: 0,
            alone: None,
            size_limit: None,
            proven: false,
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
        self.waiting.len() < self.settings.window && self.waiting_bytes < WAITING_BYTES
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
        self.proven = false;
        // what no queue wanted, one may want now
        self.parked.hurry(Instant::now());
    }

    /// Returns whether the broker has taken something over this connection.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Returns whether the connection, if there is one, takes messages still: an exception on a channel
    /// on which something was only tried does not concern it.
    pub fn is_open(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_open)
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

    /// Drops the connection, if there is one, for this reason (none at the end of the process):
    /// what was under way goes into the outbox, from where it will be sent again; but for a
    /// message that was refused alone.
    ///
    /// # Errors
    /// It could not be written; then it waits in memory.
    pub fn disconnected(&mut self, refusal: Option<&Refusal>) -> io::Result<Option<Link>> {
        let link = self.link.take();
        self.away = true;
        self.blocked = false;
        if let Some(turn) = self.turn.take() {
            self.refused.put_off(&turn.key, Instant::now());
        }
        let culprit = refusal.and_then(|refusal| self.suspect(refusal));
        self.confirms = Confirms::default();
        let mut files: BTreeMap<FileName, Vec<Entry>> = BTreeMap::new();
        let mut again = VecDeque::new();
        let answered = self.answered.drain(..);
        let answered = answered.map(|(under_way, answer)| (under_way, Some(answer)));
        let under_way = self.under_way.drain(..).map(|under_way| (under_way, None));
        for (under_way, answer) in answered.chain(under_way) {
            let UnderWay {
                entry,
                written,
                what,
                ..
            } = under_way;
            match what {
                What::Direct(seq) => {
                    let length = entry.body_bytes().len();
                    self.waiting_bytes = self.waiting_bytes.saturating_add(length);
                    again.push_back(Waiting {
                        seq,
                        entry,
                        written,
                    });
                }
                What::File(name) => {
                    let rest = files.entry(name).or_default();
                    if !matches!(answer, Some(Answer::Taken | Answer::Kept)) {
                        rest.push(entry);
                    }
                }
                What::Probe(_) => {}
            }
        }
        if let Some((name, rest)) = self.open.take() {
            files.entry(name).or_default().extend(rest);
        }
        self.files
            .extend(self.unconfirmed.drain().map(|(name, _)| name));
        self.files.extend(files.keys().cloned());
        self.probes.clear();
        self.under_way_bytes = 0;
        again.append(&mut self.waiting);
        self.waiting = again;
        if let Some((entry, sentence)) = culprit {
            self.execute(&entry, sentence, &mut files);
        }
        if matches!(refusal, Some(Refusal::Exception { .. })) {
            // what the broker has taken of a file is not sent again with the rest
            for (name, rest) in &files {
                if let Err(error) = self.outbox.keep(name, rest) {
                    tracing::debug!("cannot shorten {name}: {error}");
                } else if rest.is_empty() {
                    self.files.remove(name);
                }
            }
        }
        self.spool_waiting()?;
        Ok(link)
    }

    /// Takes a refusal into account. Returns the message that it concerns, if it is known, and
    /// what becomes of it.
    fn suspect(&mut self, refusal: &Refusal) -> Option<(Entry, Sentence)> {
        let mut unanswered = self.confirms.unanswered();
        let first = unanswered.next();
        let count = usize::from(first.is_some()).saturating_add(unanswered.count());
        if self.proven {
            self.strikes = 0;
        } else if count > 0 {
            self.strikes = self.strikes.saturating_add(1);
        }
        match refusal {
            Refusal::Lost(_) => self.size_limit = None,
            Refusal::Exception { .. } => {
                let refused = u64::try_from(count.min(1)).unwrap_or_default();
                self.metrics.refused.inc_by(refused);
            }
        }
        if let Some(limit) = refusal.size_limit()
            && self.size_limit.is_none_or(|before| limit < before)
        {
            // from now on nothing longer is sent
            self.size_limit = Some(limit);
            return None;
        }
        let is_odd = refusal.fault() != Fault::Elsewhere || self.strikes >= STRIKES;
        if count != 1 {
            if is_odd {
                self.suspects = self.suspects.max(count);
            }
            return None;
        }
        let under_way = self.under_way.get(first?)?;
        if matches!(under_way.what, What::Probe(_)) {
            if refusal.fault() != Fault::Elsewhere {
                // A copy is tried again on a channel of its own; until it is taken, nothing with
                // its key is tried on this one.
                let entry = under_way.entry.clone();
                self.suspects = self.suspects.saturating_sub(1);
                match self.refused.keep(std::iter::once(&entry)) {
                    Ok(_) => {
                        self.held.insert(entry.key);
                    }
                    Err(error) => tracing::error!("cannot write {REFUSED}: {error}"),
                }
            }
            return None;
        }
        let entry = under_way.entry.clone();
        let times = match self.alone {
            Some((id, times)) if id == entry.id => times.saturating_add(1),
            _ => 1,
        };
        self.alone = Some((entry.id, times));
        let sentence = match refusal.fault() {
            Fault::Message => {
                shortened(&entry, usize::MAX).map_or(Sentence::DeadLetter, Sentence::Shorter)
            }
            Fault::Key => Sentence::Held,
            Fault::Elsewhere if times < STRIKES => Sentence::Again,
            Fault::Elsewhere => {
                shortened(&entry, usize::MAX).map_or(Sentence::Held, Sentence::Shorter)
            }
        };
        let Subject { job, status, .. } = Subject::of(&entry);
        let (subject, key) = (Subject::of(&entry), &entry.key);
        let (object, status) = (subject.object(), status.unwrap_or_default());
        match &sentence {
            Sentence::Again => return None,
            Sentence::Shorter(_) => tracing::warn!(
                job, object, status, %key,
                "the broker refuses a message: {refusal}; it goes without its result and log"
            ),
            Sentence::Held => tracing::warn!(
                job, object, status, %key,
                "the broker refuses a message: {refusal}; all with its key are kept in {REFUSED} \
                 and tried again"
            ),
            Sentence::DeadLetter => tracing::error!(
                job, object, status, %key,
                "the broker refuses a message: {refusal}; it is set aside in {DEAD_LETTERS}"
            ),
        }
        let mut entry = entry;
        entry.refused = Some(refusal.to_string());
        self.suspects = self.suspects.saturating_sub(1);
        Some((entry, sentence))
    }

    /// Does with a refused message, which is in memory or the next one of a file, what has been
    /// decided. If the disk is full, it stays where it is.
    fn execute(
        &mut self,
        refused: &Entry,
        sentence: Sentence,
        files: &mut BTreeMap<FileName, Vec<Entry>>,
    ) {
        let replacement = match sentence {
            Sentence::Again => return,
            Sentence::Shorter(shorter) => Some(shorter),
            Sentence::Held => {
                let mut entry = refused.clone();
                entry.refused = None;
                if let Err(error) = self.refused.keep(std::iter::once(&entry)) {
                    tracing::error!("cannot write {REFUSED}: {error}");
                    return;
                }
                self.held.insert(entry.key);
                None
            }
            Sentence::DeadLetter => {
                if let Err(error) = self.dead_letters.keep(std::iter::once(refused)) {
                    tracing::error!("cannot write {DEAD_LETTERS}: {error}");
                    return;
                }
                self.metrics.dead_letters.inc();
                None
            }
        };
        let is_it = |entry: &Entry| entry.id == refused.id;
        for rest in files.values_mut() {
            if let Some(place) = rest.iter().position(is_it) {
                match replacement {
                    Some(shorter) => rest.splice(place..=place, [shorter]).for_each(drop),
                    None => drop(rest.remove(place)),
                }
                return;
            }
        }
        let place = self.waiting.iter().position(|one| is_it(&one.entry));
        let Some(place) = place else { return };
        match replacement {
            Some(shorter) => {
                if let Some(waiting) = self.waiting.get_mut(place) {
                    let length = waiting.entry.body_bytes().len();
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(length);
                    let length = shorter.body_bytes().len();
                    self.waiting_bytes = self.waiting_bytes.saturating_add(length);
                    waiting.entry = shorter;
                }
            }
            None => {
                if let Some(gone) = self.waiting.remove(place) {
                    let length = gone.entry.body_bytes().len();
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(length);
                    // as safe as what was before it
                    match place
                        .checked_sub(1)
                        .and_then(|last| self.waiting.get_mut(last))
                    {
                        Some(before) => before.seq = before.seq.max(gone.seq),
                        None => self.safe = self.safe.max(gone.seq),
                    }
                }
            }
        }
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

    /// Tries the oldest parked message of every key whose time has come, and what was refused.
    pub fn try_kept(&mut self, now: Instant) {
        if self.link.is_none() || self.blocked {
            return;
        }
        let limit = match self.suspects {
            0 => PROBES,
            _ => usize::from(self.is_idle()),
        };
        for (key, name) in self.parked.due(now, limit) {
            if !self.probes.contains(&name)
                && !self.held.contains(&key)
                && let Some(entries) = self.parked.read(&key, &name)
                && let Some(entry) = entries.into_iter().next()
            {
                self.probes.insert(name.clone());
                self.publish(entry, None, What::Probe(name));
            }
        }
        self.begin_turn(now);
    }

    /// Tries refused messages again: one file at a time, one message after the other.
    fn begin_turn(&mut self, now: Instant) {
        if self.turn.is_some() || self.blocked {
            return;
        }
        let Some(link) = &self.link else { return };
        let Some((key, name)) = self.refused.most_due(now) else {
            return;
        };
        let Some(entries) = self.refused.read(&key, &name) else {
            self.refused.put_off(&key, now);
            return;
        };
        let origin = self.settings.origin.clone();
        let first = self.published.saturating_add(1);
        let count = u64::try_from(entries.len()).unwrap_or_default();
        self.published = self.published.saturating_add(count);
        let work = link.publish_in_turn(entries.clone(), origin, first);
        self.turn = Some(Turn {
            key,
            name,
            entries,
            work,
        });
    }

    /// Ends a trial of kept messages.
    fn end_turn(&mut self, done: InTurn) {
        let Some(turn) = self.turn.take() else { return };
        let now = Instant::now();
        if let Err(error) = self.settle_turn(&turn, done, now) {
            tracing::error!(key = %turn.key, "cannot write {REFUSED}: {error}");
            self.refused.put_off(&turn.key, now);
        }
        self.begin_turn(now);
    }

    fn settle_turn(&mut self, turn: &Turn, done: InTurn, now: Instant) -> io::Result<()> {
        let Turn {
            key, name, entries, ..
        } = turn;
        for entry in entries.iter().take(done.taken) {
            self.metrics.confirm(&entry.key, None);
        }
        self.proven |= done.taken > 0;
        let rest = entries.get(done.taken..).unwrap_or_default();
        let stopped = rest.first();
        let mut rest = rest.to_vec();
        let mut put_off = false;
        match (&done.stop, stopped) {
            (None, _) | (_, None) => {}
            (Some(Stop::Returned), Some(entry)) => {
                self.proven = true;
                self.parked.keep(std::iter::once(entry))?;
                rest.remove(0);
            }
            (Some(Stop::Nacked), Some(_)) => {
                self.metrics.refused.inc();
                put_off = true;
            }
            (Some(Stop::Refused(refusal)), Some(entry)) => {
                if matches!(refusal, Refusal::Exception { .. }) {
                    self.metrics.refused.inc();
                }
                match refusal.fault() {
                    Fault::Message => {
                        let limit = refusal.size_limit().unwrap_or(usize::MAX);
                        let shorter = self.shorter_or_dead(entry, limit, refusal)?;
                        rest.splice(..1, shorter).for_each(drop);
                    }
                    Fault::Key => {
                        self.held.insert(key.clone());
                        put_off = true;
                    }
                    Fault::Elsewhere => put_off = true,
                }
            }
        }
        self.refused.keep_rest(key, name, &rest)?;
        if done.taken > 0 || !put_off {
            self.refused.go_on(key, now);
        }
        if put_off {
            self.refused.put_off(key, now);
        } else if self.held.remove(key) {
            let released = self.refused.release_all(key);
            tracing::info!(%key, files = released.len(), "the broker takes this key again");
            self.files.extend(released);
        }
        if done.taken > 0 && !self.refused.has(key) {
            tracing::info!(%key, "all that was refused is taken");
        }
        Ok(())
    }

    /// The message in a shorter form; or none, and it is a dead letter.
    fn shorter_or_dead(
        &mut self,
        entry: &Entry,
        limit: usize,
        refusal: &Refusal,
    ) -> io::Result<Option<Entry>> {
        if let Some(shorter) = shortened(entry, limit) {
            return Ok(Some(shorter));
        }
        let mut dead = entry.clone();
        dead.refused = Some(refusal.to_string());
        self.dead_letters.keep(std::iter::once(&dead))?;
        self.metrics.dead_letters.inc();
        say_dead(&dead);
        Ok(None)
    }

    fn window_is_open(&self) -> bool {
        if self.suspects > 0 {
            return self.awaited() == 0;
        }
        self.awaited() < self.settings.window
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
        let (confirms, turn) = (&mut self.confirms, &mut self.turn);
        let in_turn = poll_fn(|context| match turn {
            Some(turn) => turn.work.as_mut().poll(context),
            None => Poll::Pending,
        });
        let done = tokio::select! {
            biased;
            answer = poll_fn(|context| confirms.poll(context)) => return match answer {
                Ok(()) => Next::Confirmed,
                Err(refusal) => Next::Refused(refusal),
            },
            done = in_turn => done,
            event = link.event() => return Next::Connection(event),
        };
        self.end_turn(done);
        Next::Confirmed
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
        for kept in [&mut self.parked, &mut self.refused] {
            let dropped = kept.trim(limits)?;
            trimmed.status = trimmed.status.saturating_add(dropped);
        }
        let dropped = u64::try_from(trimmed.messages()).unwrap_or_default();
        self.metrics.dropped.inc_by(dropped);
        self.bound()?;
        Ok(trimmed)
    }

    /// Keeps what nobody wants, and dead letters, within their bounds.
    fn bound(&mut self) -> io::Result<()> {
        let bounds = self.settings.bounds;
        for (folder, kept) in [
            (PARKED, &mut self.parked),
            (DEAD_LETTERS, &mut self.dead_letters),
        ] {
            let dropped = kept.bound(bounds)?;
            let messages = dropped
                .values()
                .fold(0usize, |sum, count| sum.saturating_add(*count));
            if messages == 0 {
                continue;
            }
            let count = u64::try_from(messages).unwrap_or_default();
            self.metrics.parked_dropped.inc_by(count);
            let mut shown: Vec<String> = dropped
                .iter()
                .take(5)
                .map(|(key, count)| format!("{key} ({count})"))
                .collect();
            if dropped.len() > shown.len() {
                shown.push("…".to_owned());
            }
            tracing::warn!(
                folder,
                messages,
                keys = shown.join(", "),
                "beyond the bounds of what is kept undelivered: dropped the oldest"
            );
        }
        Ok(())
    }

    /// Looks at the folders of what cannot be delivered: an operator may have dropped or retried
    /// some.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn look_at_kept(&mut self) -> io::Result<()> {
        self.parked.look()?;
        self.refused.look()?;
        self.dead_letters.look()
    }

    /// Sets the gauges of what is kept.
    pub fn measure(&self) {
        let metrics = &self.metrics;
        Metrics::set(&metrics.parked_messages, self.parked.messages());
        Metrics::set(&metrics.refused_messages, self.refused.messages());
        Metrics::set(&metrics.dead_letter_messages, self.dead_letters.messages());
    }

    fn publish(&mut self, entry: Entry, written: Option<SystemTime>, what: What) {
        let Some(link) = &self.link else { return };
        let mut entry = entry;
        let mut waits = None;
        if !matches!(what, What::Probe(_)) {
            if self.held.contains(&entry.key) {
                waits = Some(Answer::Held);
            } else if self.parked.has(&entry.key) {
                waits = Some(Answer::Behind);
            }
        }
        if waits.is_none()
            && let Some(limit) = self.size_limit
            && entry.body_bytes().len() > limit
        {
            match shortened(&entry, limit) {
                Some(shorter) => {
                    let subject = Subject::of(&entry);
                    tracing::warn!(
                        job = subject.job, object = subject.object(), key = %entry.key,
                        length = entry.body_bytes().len(), limit,
                        "a message is too long for the broker: it goes without its result and log"
                    );
                    entry = shorter;
                }
                None => waits = Some(Answer::TooLong),
            }
        }
        if let Some(answer) = waits {
            self.confirms.push_not_sent(answer);
        } else {
            self.published = self.published.saturating_add(1);
            let confirm = link.publish(&entry, &self.settings.origin, self.published);
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
            match answer {
                Answer::Taken | Answer::Returned => self.proven = true,
                Answer::Nacked => {
                    self.metrics.refused.inc();
                }
                Answer::Behind | Answer::Held | Answer::TooLong | Answer::Kept => {}
            }
            if matches!(answer, Answer::Taken | Answer::Returned | Answer::Nacked) {
                self.suspects = self.suspects.saturating_sub(1);
                self.strikes = 0;
                self.alone = None;
            }
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

    /// Acts on the broker's answers: writes down what was not taken, then counts as safe what was.
    fn settle(&mut self) -> io::Result<()> {
        self.settle_parked()?;
        self.settle_refused()?;
        self.settle_dead_letters()?;
        while let Some((under_way, answer)) = self.answered.pop_front() {
            match under_way.what {
                What::Direct(seq) => self.safe = self.safe.max(seq),
                What::File(name) => self.confirmed_of_file(name),
                What::Probe(name) => {
                    self.probes.remove(&name);
                    if matches!(answer, Answer::Taken | Answer::Kept) {
                        let key = under_way.entry.key;
                        match self.parked.release(&key, &name) {
                            Ok(released) => {
                                let files = released.len();
                                tracing::info!(%key, files, "a queue is bound: sending what was kept");
                                self.files.extend(released);
                            }
                            Err(error) => tracing::error!("outbox: {error}"),
                        }
                        // who has bound one queue may have bound others
                        self.parked.hurry(Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    /// Parks what no queue wanted, and what comes behind such messages.
    fn settle_parked(&mut self) -> io::Result<()> {
        let is_parked = |under_way: &UnderWay, answer: Answer| {
            matches!(answer, Answer::Returned | Answer::Behind)
                && !matches!(under_way.what, What::Probe(_))
        };
        let Some(keeping) = keep_answered(&mut self.parked, &mut self.answered, is_parked)? else {
            return Ok(());
        };
        for key in keeping.new {
            tracing::warn!(%key, "no queue is bound to this key: its messages are kept");
        }
        self.metrics.parked.inc_by(keeping.kept);
        self.metrics.dropped.inc_by(keeping.dropped);
        let limit = self.settings.bounds.messages;
        if self.parked.messages() > limit.saturating_add(limit / 8) {
            self.bound()?;
        }
        Ok(())
    }

    /// Keeps what a queue refused, or the broker for its key; and the last word on a job of which
    /// something was refused, so that it comes last.
    fn settle_refused(&mut self) -> io::Result<()> {
        let follows = |refused: &Kept, entry: &Entry| {
            entry.class == Class::Final
                && refused.has(&entry.key)
                && Subject::of(entry)
                    .job
                    .is_some_and(|job| refused.has_job(&entry.key, job))
        };
        let last_words: Vec<Entry> = self
            .answered
            .iter()
            .filter(|(under_way, answer)| {
                *answer == Answer::Taken && follows(&self.refused, &under_way.entry)
            })
            .map(|(under_way, _)| under_way.entry.clone())
            .collect();
        let is_refused = |_: &UnderWay, answer| matches!(answer, Answer::Nacked | Answer::Held);
        if let Some(keeping) = keep_answered(&mut self.refused, &mut self.answered, is_refused)? {
            for key in keeping.new {
                tracing::warn!(
                    %key,
                    "a queue refuses messages, as a full one does: they are kept in {REFUSED} and \
                     tried again; other queues have them"
                );
            }
            self.metrics.dropped.inc_by(keeping.dropped);
        }
        if !last_words.is_empty() {
            self.refused.keep(last_words.iter())?;
        }
        Ok(())
    }

    /// Sets aside what is too long for the broker whatever it goes without.
    fn settle_dead_letters(&mut self) -> io::Result<()> {
        let limit = self.size_limit.unwrap_or_default();
        for (under_way, answer) in &mut self.answered {
            if *answer == Answer::TooLong {
                let mut dead = under_way.entry.clone();
                let length = dead.body_bytes().len();
                dead.refused = Some(format!("{length} bytes, and the broker takes {limit}"));
                self.dead_letters.keep(std::iter::once(&dead))?;
                self.metrics.dead_letters.inc();
                say_dead(&dead);
                *answer = Answer::Kept;
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

/// The result of [`keep_answered`].
struct KeptAnswers {
    kept: u64,
    dropped: u64,
    new: Vec<RoutingKey>,
}

/// Keeps the messages with some answers, which are [`Answer::Kept`] then; `None` if there are
/// none.
fn keep_answered(
    folder: &mut Kept,
    answered: &mut VecDeque<(UnderWay, Answer)>,
    fits: impl Fn(&UnderWay, Answer) -> bool,
) -> io::Result<Option<KeptAnswers>> {
    if !answered
        .iter()
        .any(|(under_way, answer)| fits(under_way, *answer))
    {
        return Ok(None);
    }
    let entries = answered
        .iter()
        .filter(|(under_way, answer)| fits(under_way, *answer))
        .map(|(under_way, _)| &under_way.entry);
    let (keeping, new) = folder.keep(entries)?;
    for (under_way, answer) in answered.iter_mut() {
        if fits(under_way, *answer) {
            *answer = Answer::Kept;
        }
    }
    Ok(Some(KeptAnswers {
        kept: u64::try_from(keeping.kept).unwrap_or_default(),
        dropped: u64::try_from(keeping.dropped).unwrap_or_default(),
        new,
    }))
}

fn say_dead(entry: &Entry) {
    let subject = Subject::of(entry);
    let reason = entry.refused.as_deref().unwrap_or_default();
    tracing::error!(
        job = subject.job, object = subject.object(), key = %entry.key,
        "the broker refuses a message: {reason}; it is set aside in {DEAD_LETTERS}"
    );
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
