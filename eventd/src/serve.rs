//! The daemon: one loop over the queue, the broker, the clock and signals.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use agents::ganeti::ssconf::Ssconf;
use agents::message::EventTime;
use agents::outbox::{Entry, Outbox};
use agents::service::notify;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::config_cache::ConfigCache;
use crate::cursor::{Cursor, Mark, TakenUp};
use crate::cursor_writer::CursorWriter;
use crate::lock::Lock;
use crate::mastership::Role;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::publish::{
    Backoff, Broker, Host, Link, Next, Outage, Refusal, Relay, Settings, connect,
};
use crate::readiness::Readiness;
use crate::source::{Batch, Extent, Source};
use crate::watch::{Event, Folders, Watch};

/// Job files read before the loop looks at anything else again.
const JOBS_AT_A_TIME: usize = 32;

/// How often what is not urgent is looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often everything in the outbox is looked at, beside what inotify announces.
const OUTBOX_INTERVAL: Duration = Duration::from_secs(30);

/// The interval at which the kept messages are looked at: an operator may have dropped some.
const KEPT_INTERVAL: Duration = Duration::from_secs(5);

/// After this, what keeps the outbox waiting because it cannot be written down is sent again.
const PARKING_PATIENCE: Duration = Duration::from_secs(5);

/// The interval at which it is recorded that another node is the master.
const OTHER_MASTER_INTERVAL: Duration = Duration::from_secs(60);

/// How long the last confirms are waited for at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What must be there at the start is not: the outbox, inotify, a readable cursor.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let _lock = Lock::take(&config.cursor_file)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut engine = Engine::new(config)?;
        if let Some(address) = config.metrics {
            let metrics = engine.metrics.clone();
            agents::service::metrics::serve(address, move || metrics.render())
                .with_context(|| format!("metrics on {address}"))?;
        }
        crate::dns::start(config).context("dns")?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        engine.run(stop).await
    })
}

/// What a step of the loop woke up for.
enum Wake {
    Stop,
    Watch,
    Connected(Box<Link>),
    FailedToConnect(String),
    Relay(Next),
    More,
    Tick,
}

struct Engine {
    config: Config,
    ssconf: Ssconf,
    node: String,
    role: Role,
    watch: Watch,
    source: Source,
    relay: Relay,
    /// The cursor as far as everything is safe.
    safe_cursor: Cursor,
    /// True while the states published before the start are unknown, and the queue was not rescanned since.
    cursor_damaged: bool,
    /// What the cursor will have when the messages up to a number are safe.
    marks: VecDeque<(u64, u64, Mark)>,
    seq: u64,
    /// Messages that the outbox did not take: the disk is full.
    stuck: VecDeque<(u64, Vec<Entry>, Option<SystemTime>)>,
    metrics: Metrics,
    cursor_writer: CursorWriter,
    pace: Pace,
    outbox_looked: Instant,
    kept_looked: Instant,
    /// Since when what no queue wanted cannot be written down.
    parking_failed: Instant,
    /// True if the broker has refused something and taken nothing since.
    refused: bool,
    other_noted: Instant,
    queue_missed: bool,
    broker_outage: Outage,
    disk_outage: Outage,
    parking_outage: Outage,
    full_outage: Outage,
    watch_outage: Outage,
}

impl Engine {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let node = config
            .node_name()
            .context("cannot tell this node's name: set node_name in the configuration")?;
        let origin = format!("{node}/snf-ganeti-eventd");
        let outbox_dir = &config.outbox_dir;
        let outbox =
            Outbox::open(outbox_dir).with_context(|| format!("outbox {}", outbox_dir.display()))?;
        let metrics = Metrics::default();
        let settings = Settings {
            origin: origin.clone(),
            window: usize::from(config.amqp.window),
            bounds: config.bounds(),
            parked_pause: Duration::from_secs(u64::from(config.outbox.parked_retry_max)),
            refused_pause: Duration::from_secs(u64::from(config.amqp.retry_max.max(1))),
        };
        let relay = Relay::new(outbox, settings, metrics.clone())
            .with_context(|| format!("outbox {}", outbox_dir.display()))?;
        let watch = Watch::new(&Folders {
            queue: config.queue_dir.clone(),
            ssconf: config.ssconf_dir.clone(),
            outbox: outbox_dir.clone(),
        })
        .context("inotify")?;
        let taken_up = Cursor::take_up(&config.cursor_file)?;
        let cursor_damaged = taken_up == TakenUp::Damaged;
        let cursor = match taken_up {
            TakenUp::Whole(cursor) => cursor,
            TakenUp::Absent | TakenUp::Damaged => Cursor::default(),
        };
        let source = Source::new(
            config.queue_dir.clone(),
            ConfigCache::new(config.config_data.clone()),
            origin,
            cursor.clone(),
        );
        let now = Instant::now();
        Ok(Self {
            ssconf: Ssconf::new(&config.ssconf_dir),
            role: Role::Unknown {
                reason: "not asked yet".to_owned(),
            },
            node,
            watch,
            source,
            relay,
            safe_cursor: cursor,
            cursor_damaged,
            marks: VecDeque::new(),
            seq: 0,
            stuck: VecDeque::new(),
            metrics,
            cursor_writer: CursorWriter::new(config.cursor_file.clone()),
            pace: Pace::new(now),
            outbox_looked: now,
            kept_looked: now,
            parking_failed: now,
            refused: false,
            other_noted: now,
            queue_missed: true,
            broker_outage: Outage::default(),
            disk_outage: Outage::default(),
            parking_outage: Outage::default(),
            full_outage: Outage::default(),
            watch_outage: Outage::default(),
            config: config.clone(),
        })
    }

    async fn run(&mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let inotify = Readiness::new(self.watch.as_fd()).context("inotify")?;
        let (mut links, wanted) = keep_connecting(&self.config, &self.node);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        tracing::info!(node = self.node, "started");
        notify::ready();
        self.look_at_role();
        let _ = wanted.try_send(Want::Now);
        loop {
            let ready = self.can_read();
            let wake = tokio::select! {
                    biased;
                    () = &mut stop => Wake::Stop,
                _ = tick.tick() => Wake::Tick,
                    ready = inotify.readable() => {
                    ready.context("inotify")?;
                    Wake::Watch
                }
                    link = links.recv() => match link {
                        Some(Ok(link)) => Wake::Connected(link),
                        Some(Err(reason)) => Wake::FailedToConnect(reason),
                        None => Wake::FailedToConnect("no host is left to try".to_owned()),
                    },
                    next = self.relay.next() => Wake::Relay(next),
                    () = std::future::ready(()), if ready => Wake::More,
            };
            match wake {
                Wake::Stop => break,
                Wake::Watch => self.read_watch(),
                Wake::Connected(link) => {
                    self.metrics.connects.inc();
                    self.relay.connected(*link);
                    if !self.refused && self.relay.is_idle() {
                        // there is nothing that the broker could show it with
                        self.broker_is_back();
                    }
                    self.relay.try_kept(Instant::now());
                }
                Wake::FailedToConnect(reason) => {
                    if self.broker_outage.fails(Instant::now()).is_some() {
                        tracing::warn!("{reason}; retrying, messages wait in the outbox");
                    }
                    let result = self.relay.failed_to_connect();
                    self.note_disk(result);
                }
                Wake::Relay(Next::Refused(refusal)) => self.disconnect(&refusal, &wanted),
                Wake::Relay(Next::Connection(event)) => self.connection_event(event, &wanted),
                Wake::Relay(Next::Confirmed) | Wake::More => {}
                Wake::Tick => self.tick(&wanted),
            }
            if self.can_read() {
                self.read_jobs();
            }
            self.pump();
            self.advance();
            if self.broker_outage.lasts() && self.relay.is_proven() && !self.relay.is_blocked() {
                self.broker_is_back();
            }
        }
        self.farewell().await;
        Ok(())
    }

    fn broker_is_back(&mut self) {
        self.refused = false;
        if let Some(away) = self.broker_outage.works(Instant::now()) {
            tracing::info!("the broker is back after {:.1} s", away.as_secs_f64());
        }
    }

    fn can_read(&self) -> bool {
        // without mastership there is only to read what is in arrears
        self.stuck.is_empty()
            && self.relay.has_room()
            && if self.relay.wants_more() {
                self.source.has_work()
            } else {
                // while messages flow, to read further ahead takes the processor from those who
                // take them in
                self.source.live() > 0 && !self.relay.is_flowing()
            }
    }

    fn read_watch(&mut self) {
        // The thread itself rests: it is the one that hands on the broker's answers, and each
        // of them would wake it up.
        std::thread::sleep(self.pace.rest(Instant::now()));
        let mut came = 0usize;
        loop {
            let events = match self.watch.read() {
                Ok(events) if events.is_empty() => break,
                Ok(events) => events,
                Err(error) => {
                    tracing::error!("inotify: {error}");
                    self.queue_missed = true;
                    break;
                }
            };
            for event in events {
                match event {
                    Event::Job(job) if self.is_told_here(job) => {
                        came = came.saturating_add(1);
                        self.source.changed(job);
                    }
                    Event::Job(_) => {}
                    Event::Outbox(name) => self.relay.found(name),
                    Event::Ssconf => self.look_at_role(),
                    Event::Lost => self.queue_missed = true,
                }
            }
        }
        self.pace.came(Instant::now(), came);
        if self.queue_missed {
            self.look_at_everything();
        }
    }

    /// Returns whether this node has to tell what happens to a job: all of them as the master, else
    /// those in arrears.
    fn is_told_here(&self, job: u64) -> bool {
        match self.role {
            Role::Master { .. } => true,
            Role::Other { .. } => self.source.is_in_arrears(job),
            Role::Unknown { .. } => false,
        }
    }

    /// Watches what is not watched, and looks at queue and outbox: events were missed.
    fn look_at_everything(&mut self) {
        let now = Instant::now();
        match self.watch.repair() {
            Ok(_) => {
                self.watch_outage.works(now);
            }
            Err(error) => {
                if self.watch_outage.fails(now).is_some() {
                    tracing::error!("{error}");
                }
            }
        }
        if let Err(error) = self.relay.rescan() {
            tracing::error!("outbox: {error}");
        }
        match self.role {
            Role::Master { .. } => self.rescan(),
            Role::Other { .. } => {
                self.queue_missed = self.watch.missing().next().is_some();
                self.follow_other_master();
            }
            Role::Unknown { .. } => {
                self.queue_missed = self.watch.missing().next().is_some();
            }
        }
    }

    fn rescan(&mut self) {
        let extent = if self.source.cursor().master {
            Extent::All
        } else if self.cursor_damaged {
            Extent::Queue
        } else {
            Extent::Newest(self.config.takeover())
        };
        match self.source.rescan(extent) {
            Ok(count) => {
                if !self.source.cursor().master {
                    self.keep_beginning();
                }
                self.cursor_damaged = false;
                self.metrics.rescans.inc();
                self.queue_missed = self.watch.missing().next().is_some();
                tracing::info!(jobs = count, "looked through the queue");
            }
            Err(error) => {
                self.queue_missed = true;
                if self.watch_outage.fails(Instant::now()).is_some() {
                    let queue = self.config.queue_dir.display();
                    tracing::warn!("cannot look through {queue}: {error}");
                }
            }
        }
    }

    /// Reads ssconf; begins or ends being the master.
    fn look_at_role(&mut self) {
        let role = Role::read(&self.ssconf, &self.node);
        if role == self.role {
            return;
        }
        match &role {
            Role::Master { cluster } => {
                self.begin_mastership(cluster);
                tracing::info!(cluster, "this node is the master");
            }
            Role::Other { master } => {
                tracing::info!(
                    master,
                    "another node is the master: only the outbox is sent"
                );
            }
            Role::Unknown { reason } => {
                tracing::info!("no master: {reason}: only the outbox is sent");
            }
        }
        if !role.is_master() {
            self.source.forget();
        }
        let other = matches!(role, Role::Other { .. });
        self.role = role;
        if other {
            self.follow_other_master();
        }
    }

    /// Another node is the master: what this one had to tell until then, and has not, it still
    /// tells; the new master takes what is older than its window as told.
    fn follow_other_master(&mut self) {
        let cluster = match self.ssconf.cluster_name() {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::debug!("{error}");
                self.queue_missed = true;
                return;
            }
        };
        self.belong_to(&cluster);
        if !self.source.cursor().master {
            self.source.take_up_arrears();
            return;
        }
        if let Err(error) = self.source.hand_over() {
            self.queue_missed = true;
            if self.watch_outage.fails(Instant::now()).is_some() {
                let queue = self.config.queue_dir.display();
                tracing::warn!("cannot look through {queue}: {error}");
            }
            return;
        }
        // What is under way or could not be written is not safe yet: after a restart it is in
        // arrears as well.
        let mut arrears = self.source.cursor().arrears.clone();
        for (_, job, mark) in &self.marks {
            if *mark == Mark::Done {
                arrears.insert(*job);
            }
        }
        let count = arrears.count();
        self.safe_cursor();
        self.safe_cursor.master = false;
        self.safe_cursor.arrears = arrears;
        self.note_other_master();
        let cursor = self.safe_cursor.clone();
        self.cursor_writer.write(Instant::now(), &cursor);
        if count > 0 {
            tracing::info!(
                jobs = count,
                "jobs of the time as the master are not told yet: telling how they end"
            );
        }
    }

    /// Notes that another node is the master now.
    fn note_other_master(&mut self) {
        self.other_noted = Instant::now();
        let seconds = EventTime::now().since_epoch().as_secs();
        self.safe_cursor.other_master = Some(self.source.note_other_master(seconds));
        self.cursor_writer.moved();
    }

    fn begin_mastership(&mut self, cluster: &str) {
        self.belong_to(cluster);
        if matches!(self.role, Role::Other { .. }) {
            // this daemon was there until now
            self.note_other_master();
        }
        self.rescan();
    }

    /// Begins with an empty cursor if the present one is another cluster's, or nobody's: job
    /// numbers of another cluster mean nothing here.
    fn belong_to(&mut self, cluster: &str) {
        if self.source.cursor().cluster != cluster {
            let cursor = Cursor {
                cluster: cluster.to_owned(),
                ..Cursor::default()
            };
            self.source.reset(cursor.clone());
            self.safe_cursor = cursor;
            self.marks.clear();
        }
    }

    /// Writes down, before anything is told, from where on this master tells everything: one
    /// that is killed before its first job is through must not take what came since for old.
    fn keep_beginning(&mut self) {
        self.source.set_master(true);
        self.safe_cursor.master = true;
        let cursor = self.safe_cursor().clone();
        self.cursor_writer.write(Instant::now(), &cursor);
    }

    fn read_jobs(&mut self) {
        self.look_at_role();
        let limit = if self.relay.wants_more() {
            JOBS_AT_A_TIME
        } else {
            // these come first, and nothing of a rescan with them
            self.source.live().min(JOBS_AT_A_TIME)
        };
        let mut spooled: Option<Vec<Entry>> = None;
        for batch in self.source.next(limit) {
            let Batch {
                mut entries,
                job,
                written,
                mark,
            } = batch;
            for entry in &entries {
                tracing::debug!(job, key = %entry.key, id = %entry.id, "message");
            }
            self.seq = self.seq.saturating_add(1);
            self.marks.push_back((self.seq, job, mark));
            if !self.stuck.is_empty() {
                self.stuck.push_back((self.seq, entries, written));
            } else if self.relay.is_spooling() {
                // all of them into one file, with one wait for the disk
                spooled.get_or_insert_default().append(&mut entries);
            } else {
                self.offer(self.seq, entries, written);
            }
        }
        if let Some(entries) = spooled {
            self.offer(self.seq, entries, None);
        }
    }

    fn pump(&mut self) {
        let result = self.relay.pump();
        if result.is_err() || self.parking_outage.lasts() {
            note_outage(&mut self.parking_outage, &self.config, result);
        }
    }

    fn offer(&mut self, seq: u64, entries: Vec<Entry>, written: Option<SystemTime>) {
        let result = match self.relay.offer(seq, entries, written) {
            Ok(()) => Ok(()),
            Err((error, entries)) => {
                self.stuck.push_back((seq, entries, written));
                Err(error)
            }
        };
        self.note_disk(result);
    }

    fn note_disk(&mut self, result: io::Result<()>) {
        note_outage(&mut self.disk_outage, &self.config, result);
    }

    fn disconnect(&mut self, refusal: &Refusal, wanted: &mpsc::Sender<Want>) {
        let said_no = matches!(refusal, Refusal::Exception { .. });
        if self.broker_outage.fails(Instant::now()).is_some() {
            tracing::warn!("lost the broker: {refusal}; messages wait in the outbox");
        }
        self.refused |= said_no;
        self.metrics.disconnects.inc();
        let proven = self.relay.is_proven();
        match self.relay.disconnected(Some(refusal)) {
            Ok(link) => {
                drop(link);
                self.note_disk(Ok(()));
            }
            Err(error) => self.note_disk(Err(error)),
        }
        let want = match (proven, said_no) {
            (true, false) => Want::Now,
            (true, true) => Want::AfterPause,
            (false, _) => Want::AfterLongerPause,
        };
        let _ = wanted.try_send(want);
    }

    fn connection_event(&mut self, event: Option<lapin::Event>, wanted: &mpsc::Sender<Want>) {
        match event {
            Some(lapin::Event::ConnectionBlocked(reason)) => {
                if self.broker_outage.fails(Instant::now()).is_some() {
                    tracing::warn!("the broker takes no messages: {reason}");
                }
                self.relay.set_blocked(true);
            }
            Some(lapin::Event::ConnectionUnblocked) => {
                self.relay.set_blocked(false);
                if let Some(away) = self.broker_outage.works(Instant::now()) {
                    let seconds = away.as_secs_f64();
                    tracing::info!("the broker takes messages again after {seconds:.1} s");
                }
            }
            Some(lapin::Event::Error(error)) => {
                // an exception on a channel on which something was only tried is none of the
                // connection's
                if !error.is_amqp_soft_error() || !self.relay.is_open() {
                    self.disconnect(&Refusal::from(&error), wanted);
                }
            }
            None => {
                let reason = "the connection ended".to_owned();
                self.disconnect(&Refusal::Lost(reason), wanted);
            }
            Some(_) => {}
        }
    }

    fn tick(&mut self, wanted: &mpsc::Sender<Want>) {
        let now = Instant::now();
        notify::alive();
        self.look_at_role();
        self.source.wake(now);
        if self.queue_missed {
            self.look_at_everything();
        }
        let limit = Duration::from_secs(u64::from(self.config.amqp.confirm_timeout));
        if self.relay.oldest(now).is_some_and(|age| age > limit) {
            let reason = format!("no confirm within {} s", limit.as_secs());
            self.disconnect(&Refusal::Lost(reason), wanted);
        }
        while let Some((seq, entries, written)) = self.stuck.pop_front() {
            self.offer(seq, entries, written);
            if !self.stuck.is_empty() && self.disk_outage.lasts() {
                // what just failed is at the end again: back to its place
                self.stuck.rotate_right(1);
                break;
            }
        }
        self.measure();
        if !self.parking_outage.lasts() {
            self.parking_failed = now;
            self.relay.try_kept(now);
        } else if now.saturating_duration_since(self.parking_failed) > PARKING_PATIENCE {
            // On a full disk what no queue wanted cannot be kept, and nothing leaves the
            // outbox either: it is sent again from there, perhaps a queue wants it now.
            self.parking_failed = now;
            self.parking_outage.works(now);
            let reason = "what no queue wants cannot be kept".to_owned();
            self.disconnect(&Refusal::Lost(reason), wanted);
        }
        if now.saturating_duration_since(self.kept_looked) > KEPT_INTERVAL {
            self.kept_looked = now;
            if let Err(error) = self.relay.look_at_kept() {
                tracing::error!("outbox: {error}");
            }
        }
        if now.saturating_duration_since(self.outbox_looked) > OUTBOX_INTERVAL {
            self.outbox_looked = now;
            self.look_after_outbox();
        }
        if self.is_other_master_due(now) {
            self.note_other_master();
        }
        if self.cursor_writer.is_due(now) {
            let cursor = self.safe_cursor().clone();
            self.cursor_writer.begin(now, cursor);
        }
    }

    fn is_other_master_due(&self, now: Instant) -> bool {
        matches!(self.role, Role::Other { .. })
            && now.saturating_duration_since(self.other_noted) > OTHER_MASTER_INTERVAL
    }

    fn measure(&mut self) {
        if self.config.metrics.is_none() {
            return;
        }
        let metrics = &self.metrics;
        let connected = self.relay.link_mut().is_some() && !self.relay.is_blocked();
        Metrics::set(&metrics.connected, connected);
        Metrics::set(&metrics.master, self.role.is_master());
        Metrics::set(&metrics.open_jobs, self.source.cursor().open.len());
        Metrics::set(&metrics.queue_backlog, self.source.backlog());
        let arrears = if self.role.is_master() {
            0
        } else {
            self.source.cursor().arrears.count()
        };
        Metrics::set(&metrics.jobs_in_arrears, arrears);
        self.relay.measure();
        Metrics::set(&metrics.unconfirmed, self.relay.unconfirmed());
    }

    fn look_after_outbox(&mut self) {
        if self.config.metrics.is_some()
            && let Ok(usage) = self.relay.usage()
        {
            Metrics::set(&self.metrics.outbox_files, usage.files);
            Metrics::set(&self.metrics.outbox_bytes, usage.bytes);
            let now = EventTime::now().since_epoch();
            let age = usage
                .oldest
                .map(|oldest| now.saturating_sub(Duration::from_micros(oldest)).as_secs());
            Metrics::set(&self.metrics.outbox_age, age.unwrap_or(0));
        }
        let limits = self.config.limits();
        let result = self.relay.rescan().and_then(|()| self.relay.trim(limits));
        match result {
            Ok(trimmed)
                if trimmed.messages() > 0
                    || (trimmed.above > 0 && self.full_outage.fails(Instant::now()).is_some()) =>
            {
                tracing::warn!(
                    progress = trimmed.progress,
                    states = trimmed.status,
                    bytes_above = trimmed.above,
                    "the outbox is full: dropped messages that are not final"
                );
            }
            Ok(trimmed) => {
                if trimmed.above == 0 {
                    self.full_outage.works(Instant::now());
                }
            }
            Err(error) => tracing::error!("outbox: {error}"),
        }
    }

    /// Moves the cursor up to what is safe.
    fn advance(&mut self) {
        let safe = self.relay.safe();
        while let Some((seq, _, _)) = self.marks.front() {
            if *seq > safe {
                break;
            }
            if let Some((_, job, mark)) = self.marks.pop_front() {
                self.safe_cursor.mark(job, mark);
                self.cursor_writer.moved();
            }
        }
    }

    /// The cursor as far as everything is safe.
    fn safe_cursor(&mut self) -> &Cursor {
        if self.marks.is_empty() {
            // What a rescan took as told, or a queue that was made anew, is in the source's alone.
            self.safe_cursor.clone_from(self.source.cursor());
        }
        &self.safe_cursor
    }

    async fn farewell(&mut self) {
        notify::stopping();
        let deadline = tokio::time::Instant::now() + FAREWELL;
        while self.relay.link_mut().is_some() && !self.relay.is_idle() {
            let step = tokio::time::timeout_at(deadline, self.relay.next()).await;
            if !matches!(step, Ok(Next::Confirmed)) {
                break;
            }
            self.pump();
        }
        match self.relay.disconnected(None) {
            Ok(Some(link)) => link.close().await,
            Ok(None) => {}
            Err(error) => self.note_disk(Err(error)),
        }
        self.advance();
        if self.is_other_master_due(Instant::now() + OTHER_MASTER_INTERVAL) {
            self.note_other_master();
        }
        let cursor = self.safe_cursor().clone();
        self.cursor_writer.write(Instant::now(), &cursor);
        tracing::info!("ended");
    }
}

fn note_outage(outage: &mut Outage, config: &Config, result: io::Result<()>) {
    let now = Instant::now();
    match result {
        Ok(()) => {
            if let Some(away) = outage.works(now) {
                let seconds = away.as_secs_f64();
                tracing::info!("the outbox can be written again after {seconds:.1} s");
            }
        }
        Err(error) => {
            if outage.fails(now).is_some() {
                let folder = config.outbox_dir.display();
                tracing::error!("cannot write the outbox {folder}: {error}; waiting");
            }
        }
    }
}

/// When a connection is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// At once: the last one was of use, and broke.
    Now,
    /// After a short pause: the last one was of use, and the broker refused something.
    AfterPause,
    /// After a pause that is twice as long each time: nothing was confirmed over the last one.
    AfterLongerPause,
}

/// Keeps trying the hosts in turn whenever a connection is wanted.
fn keep_connecting(
    config: &Config,
    node: &str,
) -> (
    mpsc::Receiver<Result<Box<Link>, String>>,
    mpsc::Sender<Want>,
) {
    let (link_to, links) = mpsc::channel(1);
    let (wanted, mut wanted_from) = mpsc::channel(1);
    let broker = Broker::new(&config.amqp, node);
    let hosts: Vec<Host> = config
        .amqp
        .hosts
        .iter()
        .filter_map(|uri| Host::parse(uri).ok())
        .collect();
    let mut backoff = Backoff::new(Duration::from_secs(u64::from(config.amqp.retry_max)));
    let count = hosts.len();
    let mut hosts = hosts.into_iter().cycle();
    tokio::spawn(async move {
        while let Some(want) = wanted_from.recv().await {
            // A connection alone is no success: the broker may refuse all that comes over it.
            if want != Want::AfterLongerPause {
                backoff.reset();
            }
            if want != Want::Now {
                tokio::time::sleep(backoff.pause()).await;
            }
            let mut failures = 0usize;
            loop {
                let Some(host) = hosts.next() else { return };
                match connect(&broker, &host).await {
                    Ok(link) => {
                        if want == Want::AfterLongerPause && failures == 0 {
                            tracing::debug!(%host, "connected");
                        } else {
                            tracing::info!(%host, "connected");
                        }
                        if link_to.send(Ok(Box::new(link))).await.is_err() {
                            return;
                        }
                        break;
                    }
                    Err(error) => {
                        let reason = format!("cannot connect to {host}: {error}");
                        if link_to.send(Err(reason)).await.is_err() {
                            return;
                        }
                        failures = failures.saturating_add(1);
                        if failures.checked_rem(count) == Some(0) {
                            tokio::time::sleep(backoff.pause()).await;
                        }
                    }
                }
            }
        }
    });
    (links, wanted)
}
