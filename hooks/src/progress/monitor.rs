//! The loop: read, split, limit, leave in the outbox.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use agents::message::{EventId, EventTime, Message, ProgressMessage};
use agents::outbox::{Class, Entry, FileName, Producer};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value};

use super::signals::EndSignals;
use super::stream::{Piece, Splitter};
use super::text::repaired;
use super::throttle::{self, Throttle};

/// Every message that an image deployment tells has a type that begins so.
const TYPE_PREFIX: &str = "image-";

/// So much is read after a signal to end: what was written before it may still be in the pipe.
const LAST_BYTES: usize = 1 << 20;

/// So many errors are kept in the outbox whatever happens (see [`Class::Final`]). A program that
/// tells of more is not to fill the disk while the broker is away.
const KEPT_ERRORS: u64 = 1000;

/// So many errors wait to be written again where the outbox could not take them.
const UNWRITTEN_LIMIT: usize = 100;

/// Why the monitor ended before its input did, or not well.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The input cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// An error or the last message could not be left; earlier failures were only told.
    #[error("cannot write the outbox {folder}: {source}")]
    Outbox {
        /// The outbox.
        folder: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Reads objects from `input` until it ends, and leaves them as messages about `instance` in
/// the outbox. What is no message goes to `rejects` as it came.
///
/// At one of the signals `end` what can be read at once is still read, and all that waits is left.
///
/// # Errors
/// See [`MonitorError`].
pub fn run(
    instance: &str,
    node: &str,
    outbox: &Path,
    mut input: impl Read + AsFd,
    end: &EndSignals,
    mut rejects: impl Write,
) -> Result<(), MonitorError> {
    let mut splitter = Splitter::default();
    let mut throttle = Throttle::default();
    let mut writer = Writer::new(instance, node, outbox);
    let mut chunk = vec![0; 64 << 10];
    // How much is still read after a signal.
    let mut left = None;
    let mut take = |pieces: Vec<Piece>, throttle: &mut Throttle, writer: &mut Writer<'_>| {
        for piece in pieces {
            match message(instance, &piece) {
                Some(message) => {
                    for leaving in throttle.offer(message) {
                        writer.leave(leaving);
                    }
                }
                None => reject(&mut rejects, &piece),
            }
        }
    };
    loop {
        let now = Instant::now();
        while let Some(message) = throttle.due(now) {
            writer.leave(message);
        }
        let timeout = match throttle.wait(now) {
            _ if left.is_some() => PollTimeout::ZERO,
            None => PollTimeout::NONE,
            Some(wait) => PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO),
        };
        let mut fds = [
            PollFd::new(input.as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(MonitorError::Input(error.into())),
        }
        let [readable, ended] = fds.map(|fd| fd.any().unwrap_or_default());
        if ended && left.is_none() {
            left = Some(LAST_BYTES);
        }
        if !readable || left == Some(0) {
            if left.is_some() {
                break;
            }
            continue;
        }
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(MonitorError::Input(error)),
        };
        if length == 0 {
            break;
        }
        left = left.map(|left: usize| left.saturating_sub(length));
        let pieces = splitter.feed(chunk.get(..length).unwrap_or_default());
        take(pieces, &mut throttle, &mut writer);
    }
    take(splitter.finish(), &mut throttle, &mut writer);
    for message in throttle.finish() {
        writer.leave(message);
    }
    if throttle.dropped() > 0 {
        let dropped = throttle.dropped();
        let _ = writeln!(
            rejects,
            "snf-progress-monitor: {instance}: {dropped} messages came too fast and were dropped; \
             errors were not"
        );
    }
    writer.finish()
}

/// The message in a piece; `None` if it is none.
fn message(instance: &str, piece: &Piece) -> Option<ProgressMessage> {
    let Piece::Object(object) = piece else {
        return None;
    };
    let mut fields: Map<String, Value> = serde_json::from_slice(object)
        .or_else(|_| serde_json::from_str(&repaired(object)))
        .ok()?;
    let kind = fields.shift_remove("type")?;
    let kind = kind.as_str().filter(|kind| kind.starts_with(TYPE_PREFIX))?;
    // Ours to say.
    fields.shift_remove("instance");
    fields.shift_remove("event_time");
    Some(ProgressMessage {
        kind: kind.to_owned(),
        event_time: EventTime::now(),
        instance: instance.to_owned(),
        fields,
    })
}

fn reject(rejects: &mut impl Write, piece: &Piece) {
    let (Piece::Object(bytes) | Piece::Other(bytes)) = piece;
    // Nobody may be listening; that is no reason to stop telling the progress.
    let _ = rejects.write_all(bytes);
    if !bytes.ends_with(b"\n") {
        let _ = rejects.write_all(b"\n");
    }
}

/// Leaves messages in the outbox, of which only the newest progress.
struct Writer<'a> {
    instance: &'a str,
    origin: String,
    folder: &'a Path,
    producer: Option<Producer>,
    last_progress: Option<FileName>,
    /// Errors that the outbox did not take: they are tried again.
    unwritten: VecDeque<ProgressMessage>,
    failure: Option<io::Error>,
    number: u64,
    errors: u64,
}

impl<'a> Writer<'a> {
    fn new(instance: &'a str, node: &str, folder: &'a Path) -> Self {
        Self {
            instance,
            origin: format!("{node}/snf-progress-monitor"),
            folder,
            producer: None,
            last_progress: None,
            unwritten: VecDeque::new(),
            failure: None,
            number: 0,
            errors: 0,
        }
    }

    fn leave(&mut self, message: ProgressMessage) {
        self.leave_unwritten();
        let again = throttle::is_urgent(&message).then(|| message.clone());
        let result = self.write(message);
        if result.is_err()
            && let Some(message) = again
            && self.unwritten.len() < UNWRITTEN_LIMIT
        {
            self.unwritten.push_back(message);
        }
        self.note(result);
    }

    /// Tries again to leave the errors that could not be left.
    fn leave_unwritten(&mut self) {
        while let Some(message) = self.unwritten.front().cloned() {
            if let Err(error) = self.write(message) {
                self.note(Err(error));
                return;
            }
            self.unwritten.pop_front();
        }
    }

    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failure = None,
            Err(error) => {
                if self.failure.is_none() {
                    let folder = self.folder.display();
                    eprintln!("snf-progress-monitor: cannot write the outbox {folder}: {error}");
                }
                self.failure = Some(error);
            }
        }
    }

    fn write(&mut self, message: ProgressMessage) -> io::Result<()> {
        self.number = self.number.saturating_add(1);
        let time = message.event_time;
        let id = EventId::of_parts(&[
            "progress",
            &self.origin,
            self.instance,
            &time.seconds().to_string(),
            &time.microseconds().to_string(),
            &self.number.to_string(),
        ]);
        let is_progress = message.percent().is_some();
        let is_error = throttle::is_urgent(&message);
        let class = if is_progress {
            Class::Progress
        } else if is_error && self.errors < KEPT_ERRORS {
            Class::Final
        } else {
            Class::Status
        };
        let mut entry = Entry::new(id, class, &Message::Progress(message))?;
        entry.origin = Some(self.origin.clone());
        let producer = match &mut self.producer {
            Some(producer) => producer,
            None => self.producer.insert(Producer::new(self.folder)?),
        };
        let name = producer.put(&entry)?;
        self.errors = self.errors.saturating_add(u64::from(is_error));
        if is_progress {
            // While the broker is away only the newest waits.
            if let Some(older) = self.last_progress.replace(name) {
                producer.withdraw(&older);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), MonitorError> {
        self.leave_unwritten();
        match self.failure {
            None => Ok(()),
            Some(source) => Err(MonitorError::Outbox {
                folder: self.folder.display().to_string(),
                source,
            }),
        }
    }
}
