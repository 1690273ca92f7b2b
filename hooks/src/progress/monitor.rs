//! The loop: read, split, limit, leave in the outbox.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use agents::message::{EventId, EventTime, Message, ProgressMessage};
use agents::outbox::{Class, Entry, FileName, Producer};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value};

use super::stream::{Piece, Splitter};
use super::throttle::Throttle;

/// Every message that an image deployment tells has a type that begins so.
const TYPE_PREFIX: &str = "image-";

/// Why the monitor ended before its input did, or not well.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The input cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// The last message could not be left; earlier failures were only told.
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
/// # Errors
/// See [`MonitorError`].
pub fn run(
    instance: &str,
    node: &str,
    outbox: &Path,
    mut input: impl Read + AsFd,
    mut rejects: impl Write,
) -> Result<(), MonitorError> {
    let mut splitter = Splitter::default();
    let mut throttle = Throttle::default();
    let mut writer = Writer::new(instance, node, outbox);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let now = Instant::now();
        while let Some(message) = throttle.due(now) {
            writer.leave(message);
        }
        let timeout = match throttle.wait(now) {
            None => PollTimeout::NONE,
            Some(wait) => PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO),
        };
        let mut poll_fd = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut poll_fd, timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(MonitorError::Input(error.into())),
        }
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(MonitorError::Input(error)),
        };
        let mut pieces = splitter.feed(chunk.get(..length).unwrap_or_default());
        if length == 0 {
            pieces.extend(splitter.finish());
        }
        for piece in pieces {
            match message(instance, &piece) {
                Some(message) => throttle.offer(message),
                None => reject(&mut rejects, &piece),
            }
        }
        if length == 0 {
            break;
        }
    }
    for message in throttle.finish() {
        writer.leave(message);
    }
    if throttle.dropped() > 0 {
        let dropped = throttle.dropped();
        let _ = writeln!(
            rejects,
            "snf-progress-monitor: {dropped} messages came too fast"
        );
    }
    writer.finish()
}

/// The message in a piece; `None` if it is none.
fn message(instance: &str, piece: &Piece) -> Option<ProgressMessage> {
    let Piece::Object(object) = piece else {
        return None;
    };
    let mut fields: Map<String, Value> = serde_json::from_slice(object).ok()?;
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
    failure: Option<io::Error>,
    number: u64,
}

impl<'a> Writer<'a> {
    fn new(instance: &'a str, node: &str, folder: &'a Path) -> Self {
        Self {
            instance,
            origin: format!("{node}/snf-progress-monitor"),
            folder,
            producer: None,
            last_progress: None,
            failure: None,
            number: 0,
        }
    }

    fn leave(&mut self, message: ProgressMessage) {
        match self.write(message) {
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
        let class = if is_progress {
            Class::Progress
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
        if is_progress {
            // While the broker is away only the newest waits.
            if let Some(older) = self.last_progress.replace(name) {
                producer.withdraw(&older);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), MonitorError> {
        match self.failure {
            None => Ok(()),
            Some(source) => Err(MonitorError::Outbox {
                folder: self.folder.display().to_string(),
                source,
            }),
        }
    }
}
