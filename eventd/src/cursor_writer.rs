//! Writing the cursor while it moves, on a thread of its own: the disk may be slow, and
//! messages must not wait for it.

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cursor::Cursor;
use crate::publish::Outage;

/// How often the cursor is written while it moves: what was told in between is told again, with
/// the same ids, after a crash. While the disk writes it, who creates or renames a file beside it
/// may wait for the journal of the file system: so not more often.
const INTERVAL: Duration = Duration::from_secs(2);

/// Writes the cursor from time to time; one writing at a time, so that no older one can come
/// after a newer one.
pub struct CursorWriter {
    path: PathBuf,
    moved: bool,
    began: Instant,
    writing: Option<JoinHandle<io::Result<()>>>,
    outage: Outage,
}

impl CursorWriter {
    /// A writer of the cursor in this file.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            moved: false,
            began: Instant::now(),
            writing: None,
            outage: Outage::default(),
        }
    }

    /// The cursor has moved.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Whether it is time to write: it has moved, and the last writing is over.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.writing.as_ref().is_some_and(|one| !one.is_finished()) {
            return false;
        }
        self.wait(now);
        self.moved && now.saturating_duration_since(self.began) > INTERVAL
    }

    /// Begins to write this cursor.
    pub fn begin(&mut self, now: Instant, cursor: Cursor) {
        self.wait(now);
        self.began = now;
        self.moved = false;
        let path = self.path.clone();
        let thread = thread::Builder::new().name("cursor".to_owned());
        match thread.spawn(move || cursor.store(&path)) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => self.ended(now, Err(error)),
        }
    }

    /// Writes this cursor before it returns.
    pub fn write(&mut self, now: Instant, cursor: &Cursor) {
        self.wait(now);
        self.began = now;
        self.moved = false;
        let result = cursor.store(&self.path);
        self.ended(now, result);
    }

    /// Waits for the writing that was begun.
    fn wait(&mut self, now: Instant) {
        if let Some(writing) = self.writing.take() {
            let result = writing
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("writing it failed")));
            self.ended(now, result);
        }
    }

    fn ended(&mut self, now: Instant, result: io::Result<()>) {
        let path = self.path.display();
        match result {
            Ok(()) => {
                if let Some(away) = self.outage.works(now) {
                    let seconds = away.as_secs_f64();
                    tracing::info!("{path} can be written again after {seconds:.1} s");
                }
            }
            Err(error) => {
                self.moved = true;
                if self.outage.fails(now).is_some() {
                    tracing::error!("cannot write {path}: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Mark;
    use std::fs;

    fn cursor(job: u64) -> Cursor {
        let mut cursor = Cursor::default();
        cursor.mark(job, Mark::Done);
        cursor
    }

    #[test]
    fn it_is_written_when_it_has_moved_and_not_too_often() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("cursor.json");
        let mut writer = CursorWriter::new(path.clone());
        let start = Instant::now();
        let later = start + INTERVAL * 3;
        assert!(!writer.is_due(later), "it has not moved");
        writer.moved();
        assert!(!writer.is_due(start), "it is too early");
        assert!(writer.is_due(later));
        writer.begin(later, cursor(1));
        writer.write(later, &cursor(2));
        assert_eq!(Cursor::load(&path).unwrap(), Some(cursor(2)));
        assert!(!writer.is_due(later + INTERVAL * 2));
    }

    #[test]
    fn what_could_not_be_written_is_due_again() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("folder/cursor.json");
        fs::write(scratch.path().join("folder"), "in the way").unwrap();
        let mut writer = CursorWriter::new(path.clone());
        let later = Instant::now() + INTERVAL * 3;
        writer.moved();
        writer.begin(later, cursor(1));
        writer.wait(later);
        fs::remove_file(scratch.path().join("folder")).unwrap();
        let later = later + INTERVAL * 2;
        assert!(writer.is_due(later));
        writer.write(later, &cursor(1));
        assert_eq!(Cursor::load(&path).unwrap(), Some(cursor(1)));
    }
}
