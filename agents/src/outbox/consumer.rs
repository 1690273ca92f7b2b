//! Taking messages out of the outbox.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::{Entry, FileName, Producer};
use crate::regular_file::{self, Links, NotRegular};

/// The longest file that is read, in bytes.
const FILE_LIMIT: usize = 64 << 20;

/// A temporary file of this age belongs to a producer that died.
const STALE: Duration = Duration::from_secs(3600);

/// Files that could not be read are kept here, for a person to look at.
const BAD: &str = "bad";

/// So many of them; then the oldest goes.
const BAD_LIMIT: usize = 100;

/// The consumer's side of an outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    folder: PathBuf,
}

/// Why a file cannot be taken out.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is gone: its producer took it back.
    #[error("it is gone")]
    Gone,
    /// The disk fails, or we may not read it: another try may help.
    #[error("{0}")]
    Io(io::Error),
    /// It is none of ours and never will be.
    #[error(transparent)]
    Bad(#[from] BadFile),
}

/// What is wrong with a file that is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It is longer than any of ours.
    #[error("more than {FILE_LIMIT} bytes")]
    TooLong,
    /// It has no message.
    #[error("it is empty")]
    Empty,
    /// It is a FIFO, a directory or the like.
    #[error("it is {0}")]
    Special(NotRegular),
    /// A line is no message.
    #[error("line {line}: {source}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// How full an outbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files that wait.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The time in the name of the oldest, in microseconds since 1970.
    pub oldest: Option<u64>,
}

impl Outbox {
    /// The outbox in `folder`, which is made (mode 0700) if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(Self::existing(folder))
    }

    /// The outbox in `folder`, only to look at.
    pub fn existing(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file.
    pub fn path(&self, name: &FileName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// The files that wait, in the order of publishing. What does not look like ours is
    /// left alone; temporary files of dead producers are removed.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<FileName>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            match name.strip_prefix('.') {
                None => names.extend(FileName::parse(name)),
                Some(hidden) if FileName::parse(hidden).is_some() => remove_if_stale(&file.path()),
                Some(_) => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// How full it is.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn usage(&self) -> io::Result<Usage> {
        let names = self.list()?;
        let bytes = names
            .iter()
            .filter_map(|name| fs::metadata(self.path(name)).ok())
            .map(|file| file.len())
            .sum();
        Ok(Usage {
            files: names.len(),
            bytes,
            oldest: names.first().map(|name| name.time),
        })
    }

    /// The messages of a file, in the order of publishing.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, name: &FileName) -> Result<Vec<Entry>, ReadError> {
        self.read_json(name)
    }

    /// The lines of a file of something else than messages.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &FileName) -> Result<Vec<T>, ReadError> {
        let content = regular_file::read(&self.path(name), Links::Refuse, FILE_LIMIT);
        let content = content.map_err(io_error)?;
        if content.len() > FILE_LIMIT {
            return Err(BadFile::TooLong.into());
        }
        Ok(parse(&content)?)
    }

    /// Removes a file: all of it is confirmed.
    ///
    /// # Errors
    /// It cannot be removed. That it is gone already is none.
    pub fn remove(&self, name: &FileName) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Keeps only these messages of a file; removes it if there are none. Returns its length.
    ///
    /// # Errors
    /// It cannot be written; then it is as it was.
    pub fn keep(&self, name: &FileName, entries: &[Entry]) -> io::Result<u64> {
        if entries.is_empty() {
            self.remove(name)?;
            return Ok(0);
        }
        Producer::replace(&self.folder, name, entries)
    }

    /// Sets a bad file aside, into the folder `bad`.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(&self, name: &FileName) -> io::Result<()> {
        let bad = self.folder.join(BAD);
        match DirBuilder::new().mode(0o700).create(&bad) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::rename(self.path(name), bad.join(name.to_string()))?;
        let mut kept: Vec<_> = fs::read_dir(&bad)?
            .filter_map(|file| Some(file.ok()?.file_name()))
            .collect();
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(BAD_LIMIT);
        for oldest in kept.iter().take(surplus) {
            let oldest = bad.join(oldest);
            match fs::symlink_metadata(&oldest) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&oldest)?,
                _ => fs::remove_file(&oldest)?,
            }
        }
        Ok(())
    }
}

/// The lines in the content of a file.
fn parse<T: DeserializeOwned>(content: &[u8]) -> Result<Vec<T>, BadFile> {
    let entries = content
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace))
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|source| BadFile::Line {
                line: index.saturating_add(1),
                source,
            })
        })
        .collect::<Result<Vec<T>, _>>()?;
    if entries.is_empty() {
        return Err(BadFile::Empty);
    }
    Ok(entries)
}

fn io_error(error: io::Error) -> ReadError {
    if let Some(found) = NotRegular::of(&error) {
        BadFile::Special(found).into()
    } else if error.kind() == io::ErrorKind::NotFound {
        ReadError::Gone
    } else {
        ReadError::Io(error)
    }
}

fn remove_if_stale(path: &Path) {
    let age = fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
        .and_then(|time| SystemTime::now().duration_since(time).ok());
    if age.is_some_and(|age| age > STALE) {
        let _ = fs::remove_file(path);
    }
}
