//! Leaving messages in the outbox.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Class, Entry, FileName, Kind};
use crate::message::EventTime;
use crate::regular_file;

/// Writes files into an outbox.
#[derive(Debug)]
pub struct Producer {
    folder: PathBuf,
    process: u32,
    number: u32,
    newest: u64,
}

impl Producer {
    /// A producer for `folder`, which is made (mode 0700) if it is not there; its parent
    /// must be.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            folder: folder.to_owned(),
            process: std::process::id(),
            number: 0,
            newest: 0,
        })
    }

    /// Makes the next names sort after `time` (microseconds since 1970), even if the clock
    /// went back: for what is in the outbox already and must go first.
    pub fn after(&mut self, time: u64) {
        self.newest = self.newest.max(time);
    }

    /// Leaves one message. When this returns it is on the disk, whatever happens next.
    ///
    /// # Errors
    /// It could not be written; then no trace of it is left.
    pub fn put(&mut self, entry: &Entry) -> io::Result<FileName> {
        self.write(Kind::One(entry.class), std::slice::from_ref(entry))
    }

    /// Leaves several messages in one file, to be published in this order.
    ///
    /// # Errors
    /// As for [`Producer::put`].
    pub fn put_batch(&mut self, entries: &[Entry]) -> io::Result<FileName> {
        self.write(Kind::Batch, entries)
    }

    /// Leaves something else than a message, which is final, as one line of JSON.
    ///
    /// # Errors
    /// As for [`Producer::put`].
    pub fn put_json(&mut self, value: &impl Serialize) -> io::Result<FileName> {
        self.write(Kind::One(Class::Final), std::slice::from_ref(value))
    }

    /// Takes back a file of this producer that is not published yet, if it still is there.
    pub fn withdraw(&mut self, name: &FileName) {
        let _ = fs::remove_file(self.folder.join(name.to_string()));
    }

    fn write(&mut self, kind: Kind, entries: &[impl Serialize]) -> io::Result<FileName> {
        let name = self.next_name(kind);
        if let Err(error) = Self::replace(&self.folder, &name, entries) {
            // Perhaps it was renamed and only the folder's sync failed: all or nothing.
            let _ = fs::remove_file(self.folder.join(name.to_string()));
            return Err(error);
        }
        Ok(name)
    }

    /// Writes a file whole, in place of the one of that name if there is one; returns its
    /// length.
    pub(super) fn replace(
        folder: &Path,
        name: &FileName,
        entries: &[impl Serialize],
    ) -> io::Result<u64> {
        let mut content = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut content, entry)?;
            content.push(b'\n');
        }
        let temporary = folder.join(format!(".{name}"));
        let result = write_synced(folder, &temporary, &content)
            .and_then(|()| fs::rename(&temporary, folder.join(name.to_string())))
            .and_then(|()| File::open(folder)?.sync_all());
        if let Err(error) = result {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(u64::try_from(content.len()).unwrap_or(u64::MAX))
    }

    fn next_name(&mut self, kind: Kind) -> FileName {
        let now = EventTime::now().since_epoch().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.newest = now.max(self.newest.saturating_add(1));
        self.number = self.number.wrapping_add(1) % 1_000_000;
        FileName {
            time: self.newest,
            producer: self.process,
            number: self.number,
            kind,
        }
    }
}

fn write_synced(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = regular_file::create(path, 0o600)?;
    // eventd may run as the folder's owner, who must be able to read what root left.
    let (owner, own) = (fs::metadata(folder)?, file.metadata()?);
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid())).or_else(
            |error| match error.kind() {
                // Not root: then we are not the one who locks the owner out.
                io::ErrorKind::PermissionDenied => Ok(()),
                _ => Err(error),
            },
        )?;
    }
    file.write_all(content)?;
    file.sync_all()
}
