//! From the queue to messages: which job files to read, when, and what of them is new.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use agents::ganeti::job::{self, Job, JobError};
use agents::outbox::Entry;
use agents::regular_file::{self, Links, NotRegular};

use crate::config_cache::ConfigCache;
use crate::cursor::{Cursor, Mark, OtherMaster};
use crate::id_set::IdSet;
use crate::job::{Context, Told, events};

/// Ganeti puts so many archived jobs into one folder.
const ARCHIVE_FOLDER: u64 = 10_000;

/// A file that is cut off is read again so often, and then with the next version or rescan.
const TORN_TRIES: u32 = 5;
const TORN_PAUSE: Duration = Duration::from_millis(100);

/// A job file that cannot be read for another reason is tried again after this.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

/// So much room is kept for the next job file, in bytes: the usual ones have some kilobytes.
const KEPT_ROOM: usize = 256 << 10;

/// The file with the highest job number is no longer than this, in bytes.
const SERIAL_LIMIT: usize = 64;

/// Job numbers are given out before the job's file appears: a missing file is a number that
/// was never used only if so many later ones have been.
const NUMBERS_IN_FLIGHT: u64 = 1000;

/// New messages of one job, and what is to be remembered once they are safe.
#[derive(Debug)]
pub struct Batch {
    /// The messages, in order.
    pub entries: Vec<Entry>,
    /// The job.
    pub job: u64,
    /// When its file was written.
    pub written: Option<SystemTime>,
    /// What has been told of it with these.
    pub mark: Mark,
}

/// Which part of what is in the queue is told by a rescan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that the cursor does not have.
    All,
    /// All that the cursor does not have of what is in the queue, and of the newest archived jobs:
    /// what was told before is not known any more.
    Queue,
    /// Of jobs that have ended only those that were active in the last so much time of the
    /// queue's activity: what another master may not have got out, or at the first start.
    Newest(Duration),
}

/// The queue as a source of messages.
#[derive(Debug)]
pub struct Source {
    queue: PathBuf,
    origin: String,
    config: ConfigCache,
    cursor: Cursor,
    live: VecDeque<u64>,
    live_set: HashSet<u64>,
    rescan: VecDeque<u64>,
    /// Jobs in `rescan` that are too old to be told if they have ended.
    quiet: BTreeSet<u64>,
    again: BTreeMap<u64, Again>,
    /// The file that was read last: its room is used again for the next.
    content: Vec<u8>,
}

#[derive(Debug)]
struct Again {
    at: Instant,
    tries: u32,
}

/// Why a job file gave nothing.
enum ReadFault {
    /// It is neither in the queue nor in the archive.
    Gone,
    Io(io::Error),
    /// Something else has its name.
    Special(NotRegular),
    Job(JobError),
}

impl Source {
    /// A source that goes on from `cursor`; nothing is read yet.
    pub fn new(queue: PathBuf, config: ConfigCache, origin: String, cursor: Cursor) -> Self {
        Self {
            queue,
            origin,
            config,
            cursor,
            live: VecDeque::new(),
            live_set: HashSet::new(),
            rescan: VecDeque::new(),
            quiet: BTreeSet::new(),
            again: BTreeMap::new(),
            content: Vec::new(),
        }
    }

    /// What has been told, safe or not.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Starts over with another cursor, for another cluster.
    pub fn reset(&mut self, cursor: Cursor) {
        self.forget();
        self.cursor = cursor;
    }

    /// Gives the cluster whose queue this is a name.
    pub fn name_cluster(&mut self, name: &str) {
        name.clone_into(&mut self.cursor.cluster);
    }

    /// Notes whether this node is the master.
    pub fn set_master(&mut self, master: bool) {
        self.cursor.master = master;
    }

    /// Notes that another node is the master now, and that it has given out job numbers as
    /// far as the queue on this node says.
    pub fn note_other_master(&mut self, seconds: u64) -> OtherMaster {
        let other = OtherMaster {
            seconds,
            serial: read_serial(&self.queue),
        };
        self.cursor.other_master = Some(other);
        other
    }

    /// Ends being the master: the jobs that the cursor does not have are this node's to tell,
    /// even now; nobody else may know of them. They are read next.
    ///
    /// # Errors
    /// The queue cannot be listed.
    pub fn hand_over(&mut self) -> io::Result<()> {
        let (present, highest) = self.list()?;
        self.numbers_began_anew();
        let mut arrears = IdSet::default();
        for id in self.cursor.done.missing(1, highest) {
            if present.contains(&id) || archive_path(&self.queue, id).exists() {
                arrears.insert(id);
            }
        }
        self.cursor.arrears = arrears;
        self.cursor.master = false;
        self.take_up_arrears();
        Ok(())
    }

    /// Reads (again) all that is in arrears.
    pub fn take_up_arrears(&mut self) {
        self.forget();
        self.rescan = self.cursor.arrears.numbers().collect();
    }

    /// Drops what is still to be read: this node is not the master any more.
    pub fn forget(&mut self) {
        self.live.clear();
        self.live_set.clear();
        self.rescan.clear();
        self.quiet.clear();
        self.again.clear();
    }

    /// A job file has a new version.
    pub fn changed(&mut self, job: u64) {
        if self.live_set.insert(job) {
            self.live.push_back(job);
        }
    }

    /// How many job files that have just been written are to be read.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Whether there is something to read now.
    pub fn has_work(&self) -> bool {
        !self.live.is_empty() || !self.rescan.is_empty()
    }

    /// How many jobs are to be read.
    pub fn backlog(&self) -> usize {
        self.live.len().saturating_add(self.rescan.len())
    }

    /// When a file is to be read again that could not be, if there is one.
    pub fn wake_at(&self) -> Option<Instant> {
        self.again.values().map(|again| again.at).min()
    }

    /// Takes up the files whose time to be read again has come.
    pub fn wake(&mut self, now: Instant) {
        let due: Vec<_> = self
            .again
            .iter()
            .filter(|(_, again)| again.at <= now)
            .map(|(job, _)| *job)
            .collect();
        for job in due {
            self.changed(job);
        }
    }

    /// Looks at the whole queue and archive for what the cursor does not have. What it finds
    /// is read after what comes live. Returns the number of job files to look at.
    ///
    /// # Errors
    /// The queue cannot be listed.
    pub fn rescan(&mut self, extent: Extent) -> io::Result<usize> {
        let (present, highest) = self.list()?;
        self.numbers_began_anew();
        if extent != Extent::All {
            self.assume_old_archive(highest, &present);
        }
        let last_listed = present.last().copied();
        let missing = self.cursor.done.missing(1, highest);
        let mut candidates: VecDeque<u64> = VecDeque::new();
        let mut unused = Vec::new();
        for id in missing {
            if present.contains(&id) || archive_path(&self.queue, id).exists() {
                candidates.push_back(id);
            } else if id.saturating_add(NUMBERS_IN_FLIGHT) < highest
                && last_listed.is_some_and(|last| id < last)
            {
                unused.push(id);
            }
        }
        for id in unused {
            self.cursor.mark(id, Mark::Done);
        }
        self.quiet.clear();
        if let Extent::Newest(window) = extent {
            self.quiet = self.older_than(&candidates, window);
        }
        self.rescan = candidates;
        Ok(self.rescan.len())
    }

    /// The jobs whose files are in the queue, and the highest number that was given out.
    fn list(&self) -> io::Result<(BTreeSet<u64>, u64)> {
        // The serial first: a job submitted in between is announced by inotify.
        let serial = read_serial(&self.queue);
        let mut present = BTreeSet::new();
        for file in fs::read_dir(&self.queue)? {
            present.extend(job::id_of_name(file?.file_name().as_encoded_bytes()));
        }
        let highest = present.last().copied().unwrap_or(0).max(serial);
        Ok((present, highest))
    }

    /// Without a cursor, or with an old one: what is archived, but for the newest, another
    /// master has told; but not what is in arrears, and not what came after another node was
    /// last seen to be the master.
    fn assume_old_archive(&mut self, highest: u64, present: &BTreeSet<u64>) {
        let seen = self
            .cursor
            .other_master
            .map_or(highest, |other| other.serial);
        let oldest_kept = present
            .first()
            .copied()
            .unwrap_or(highest)
            .min(highest.min(seen).saturating_sub(NUMBERS_IN_FLIGHT));
        let mut first = 0;
        let kept = self.cursor.arrears.numbers();
        for end in kept.take_while(|id| *id < oldest_kept).chain([oldest_kept]) {
            if let Some(last) = end.checked_sub(1) {
                self.cursor.done.insert_range(first, last);
            }
            first = end.saturating_add(1);
        }
    }

    /// Those of `jobs` that another master has told: whose file was last written more than
    /// `window` before the newest, and before another node was last seen to be the master.
    fn older_than(&self, jobs: &VecDeque<u64>, window: Duration) -> BTreeSet<u64> {
        let written: Vec<(u64, SystemTime)> = jobs
            .iter()
            .filter_map(|id| {
                let file = fs::metadata(queue_path(&self.queue, *id))
                    .or_else(|_| fs::metadata(archive_path(&self.queue, *id)));
                Some((*id, file.ok()?.modified().ok()?))
            })
            .collect();
        let seen = self.cursor.other_master.and_then(|other| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(other.seconds))
        });
        let newest = written.iter().map(|(_, time)| *time).max();
        let newest = newest.map(|newest| seen.map_or(newest, |seen| newest.min(seen)));
        let Some(limit) = newest.and_then(|newest| newest.checked_sub(window)) else {
            return BTreeSet::new();
        };
        written
            .into_iter()
            .filter(|(id, time)| *time < limit && !self.cursor.arrears.contains(*id))
            .map(|(id, _)| id)
            .collect()
    }

    /// Reads the next job files, at most `limit` of them, and returns what is new in them:
    /// live ones first.
    pub fn next(&mut self, limit: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut began_anew = None;
        for _ in 0..limit {
            let (job, quiet) = if let Some(job) = self.live.pop_front() {
                self.live_set.remove(&job);
                (job, false)
            } else if let Some(job) = self.rescan.pop_front() {
                (job, self.quiet.remove(&job))
            } else {
                break;
            };
            // The file of a job that has ended is not written again, unless its number is
            // given out again.
            let told = self.cursor.done.contains(job)
                && !*began_anew.get_or_insert_with(|| self.numbers_began_anew());
            if !told {
                batches.extend(self.read(job, quiet));
            }
        }
        batches
    }

    /// Notices that the queue was made anew (its cluster was): then nothing of it is told.
    fn numbers_began_anew(&mut self) -> bool {
        let Some(told) = self.cursor.done.highest() else {
            return false;
        };
        let serial = read_serial(&self.queue);
        if serial == 0 || serial >= told {
            return false;
        }
        tracing::warn!(
            "job numbers began anew: the newest is {serial}, and {told} was told already"
        );
        self.cursor.done = IdSet::default();
        self.cursor.open.clear();
        self.cursor.arrears = IdSet::default();
        self.cursor.other_master = None;
        true
    }

    fn read(&mut self, id: u64, quiet: bool) -> Option<Batch> {
        let mut content = std::mem::take(&mut self.content);
        let batch = self.read_by(&mut content, id, quiet);
        if content.capacity() <= KEPT_ROOM {
            self.content = content;
        }
        batch
    }

    fn read_by(&mut self, content: &mut Vec<u8>, id: u64, quiet: bool) -> Option<Batch> {
        match read_job(&self.queue, id, content) {
            Ok((job, written)) => {
                self.again.remove(&id);
                self.batch(&job, written, quiet)
            }
            Err(ReadFault::Gone) => {
                self.again.remove(&id);
                if self.is_in_arrears(id) {
                    tracing::warn!(job = id, "its file is gone: its end is not told");
                    self.cursor.mark(id, Mark::Done);
                    return Some(Batch {
                        entries: Vec::new(),
                        job: id,
                        written: None,
                        mark: Mark::Done,
                    });
                }
                tracing::debug!(job = id, "its file is gone");
                None
            }
            Err(ReadFault::Job(error)) if error.may_be_torn() => {
                self.try_again(id, TORN_PAUSE, TORN_TRIES, &error.to_string());
                None
            }
            // A file that is no job stays none until it is replaced.
            Err(ReadFault::Job(error)) => {
                self.ignore(id, &error.to_string());
                None
            }
            Err(ReadFault::Special(found)) => {
                self.ignore(id, &found.to_string());
                None
            }
            Err(ReadFault::Io(error)) => {
                self.try_again(id, UNREADABLE_PAUSE, u32::MAX, &error.to_string());
                None
            }
        }
    }

    fn batch(&mut self, job: &Job<'_>, written: Option<SystemTime>, quiet: bool) -> Option<Batch> {
        let told = self.cursor.open.get(&job.id);
        let now = Told::all_of(job);
        let done = job.is_final();
        if !done && (told == Some(&now) || self.is_in_arrears(job.id)) {
            // What is still under way, the master tells.
            return None;
        }
        let entries = if quiet && done {
            Vec::new()
        } else {
            let config = &mut self.config;
            let mut context = Context {
                cluster: &self.cursor.cluster,
                origin: &self.origin,
                parts: &mut |instance| config.parts(instance),
            };
            events(job, told, &mut context)
        };
        let mark = if done { Mark::Done } else { Mark::Open(now) };
        self.cursor.mark(job.id, mark.clone());
        Some(Batch {
            entries,
            job: job.id,
            written,
            mark,
        })
    }

    /// Returns whether another node is the master, and the end of this job is this one's to tell all
    /// the same.
    pub fn is_in_arrears(&self, job: u64) -> bool {
        !self.cursor.master && self.cursor.arrears.contains(job)
    }

    fn ignore(&mut self, id: u64, reason: &str) {
        self.again.remove(&id);
        let path = queue_path(&self.queue, id);
        tracing::warn!(job = id, "ignored: {}: {reason}", path.display());
    }

    fn try_again(&mut self, id: u64, pause: Duration, limit: u32, reason: &str) {
        let tries = self.again.get(&id).map_or(0, |again| again.tries);
        if tries == 0 || tries == limit {
            let path = queue_path(&self.queue, id);
            tracing::warn!(job = id, "cannot read {}: {reason}", path.display());
        }
        if tries >= limit {
            self.again.remove(&id);
            return;
        }
        let again = Again {
            at: Instant::now() + pause,
            tries: tries.saturating_add(1),
        };
        self.again.insert(id, again);
    }
}

fn queue_path(queue: &Path, id: u64) -> PathBuf {
    queue.join(format!("job-{id}"))
}

fn archive_path(queue: &Path, id: u64) -> PathBuf {
    let folder = id / ARCHIVE_FOLDER;
    queue.join(format!("archive/{folder}/job-{id}"))
}

/// The highest job number given out; 0 if the queue does not say.
fn read_serial(queue: &Path) -> u64 {
    regular_file::read(&queue.join("serial"), Links::Refuse, SERIAL_LIMIT)
        .ok()
        .and_then(|serial| str::from_utf8(&serial).ok()?.trim().parse().ok())
        .unwrap_or(0)
}

/// Reads a job file into `content`, whose room is used again.
fn read_job<'a>(
    queue: &Path,
    id: u64,
    content: &'a mut Vec<u8>,
) -> Result<(Job<'a>, Option<SystemTime>), ReadFault> {
    // No link is followed: this daemon may read what the queue's owner may not.
    let file = match regular_file::open(&queue_path(queue, id), Links::Refuse) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // archived in the meantime
            regular_file::open(&archive_path(queue, id), Links::Refuse)
        }
        other => other,
    };
    let fault = |error: io::Error| match (NotRegular::of(&error), error.kind()) {
        (Some(found), _) => ReadFault::Special(found),
        (None, io::ErrorKind::NotFound) => ReadFault::Gone,
        _ => ReadFault::Io(error),
    };
    let mut file = file.map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    let written = metadata.modified().ok();
    let length = usize::try_from(metadata.len())
        .unwrap_or(usize::MAX)
        .min(job::FILE_LIMIT);
    content.clear();
    content.resize(length, 0);
    let first = file.read(content).map_err(fault)?;
    content.truncate(first);
    // a file is never written again in place: what has its length is whole
    if first < length || length == job::FILE_LIMIT {
        let rest = job::FILE_LIMIT.saturating_add(1).saturating_sub(first);
        file.take(u64::try_from(rest).unwrap_or(u64::MAX))
            .read_to_end(content)
            .map_err(fault)?;
    }
    let job = Job::parse(id, content).map_err(ReadFault::Job)?;
    Ok((job, written))
}
