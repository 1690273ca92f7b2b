//! What has been told, so that after a restart nothing is missed and nothing told twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use agents::json_object;
use agents::regular_file::{self, Links};
use serde::{Deserialize, Serialize};

use crate::id_set::IdSet;
use crate::job::Told;

/// The states of every job that are published. Fields that a later version has written are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The cluster: another one's job numbers mean nothing here.
    pub cluster: String,
    /// Whether this node was the master when it was written: if not, another node has told
    /// what came since.
    pub master: bool,
    /// Jobs whose end has been told.
    pub done: IdSet,
    /// What has been told of the others.
    pub open: BTreeMap<u64, Told>,
    /// Jobs of the time in which this node was the master, whose end it has not told: it tells
    /// them although another node is the master now.
    #[serde(default, skip_serializing_if = "IdSet::is_empty")]
    pub arrears: IdSet,
    /// When this node last knew that another one was the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_master: Option<OtherMaster>,
}

/// A moment at which another node was the master: what has ended since then, perhaps nobody has
/// told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherMaster {
    /// Seconds since 1970.
    pub seconds: u64,
    /// The highest job number that had been given out.
    pub serial: u64,
}

/// Why the cursor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is none of ours.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The cursor at a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenUp {
    /// No file: nothing has been told here.
    Absent,
    /// A cursor.
    Whole(Cursor),
    /// A file that is none: what has been told is not known.
    Damaged,
}

/// What is newly told of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// So much of it.
    Open(Told),
    /// All of it: it has ended.
    Done,
}

impl Cursor {
    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// See [`CursorError`].
    pub fn load(path: &Path) -> Result<Option<Self>, CursorError> {
        let content = match regular_file::read(path, Links::Follow, usize::MAX) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(CursorError::Read { path, source });
            }
        };
        match json_object::from_slice(&content, "a cursor") {
            Ok(cursor) => Ok(Some(cursor)),
            Err(source) => {
                let path = path.to_owned();
                Err(CursorError::Malformed { path, source })
            }
        }
    }

    /// Reads the file at a start; `None` if there is none. One that is damaged is copied to
    /// `<file>.damaged`, in the place of an earlier one, and said to be: nobody knows what has been
    /// told. The file itself stays until the cursor is written, so that the next start knows too.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn take_up(path: &Path) -> Result<TakenUp, CursorError> {
        match Self::load(path) {
            Ok(None) => Ok(TakenUp::Absent),
            Ok(Some(cursor)) => Ok(TakenUp::Whole(cursor)),
            Err(CursorError::Malformed { path, source }) => {
                let mut aside = path.as_os_str().to_owned();
                aside.push(".damaged");
                let aside = PathBuf::from(aside);
                let kept = put_aside(&path, &aside);
                let (path, aside_shown) = (path.display(), aside.display());
                match kept {
                    Ok(()) => tracing::error!(
                        "{path} is damaged ({source}); it is kept as {aside_shown}, and all that \
                         is in the queue is told again, with the same ids"
                    ),
                    Err(error) => tracing::error!(
                        "{path} is damaged ({source}) and cannot be kept as {aside_shown} \
                         ({error}); all that is in the queue is told again, with the same ids"
                    ),
                }
                Ok(TakenUp::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the file in place of the old one, safe against a power cut.
    ///
    /// # Errors
    /// It cannot be written; then the old one is still there.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let content = serde_json::to_vec(self)?;
        let result = regular_file::create(&temporary, 0o666)
            .and_then(|mut file| {
                file.write_all(&content)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(folder)?.sync_all());
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    /// Notes what has been told of a job.
    pub fn mark(&mut self, job: u64, mark: Mark) {
        match mark {
            Mark::Open(told) => {
                self.open.insert(job, told);
            }
            Mark::Done => {
                self.open.remove(&job);
                self.arrears.remove(job);
                self.done.insert(job);
            }
        }
    }
}

/// Writes what a file has to another, whole or not at all.
fn put_aside(path: &Path, aside: &Path) -> io::Result<()> {
    let content = regular_file::read(path, Links::Follow, usize::MAX)?;
    let mut temporary = aside.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    regular_file::create(&temporary, 0o600)?.write_all(&content)?;
    fs::rename(&temporary, aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::ganeti::job::Job;

    fn told(status: &str) -> Told {
        let file = format!(r#"{{"id":7,"ops":[{{"input":{{}},"status":"{status}"}}]}}"#);
        Told::all_of(&Job::parse(7, file.as_bytes()).unwrap())
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("new/folder/cursor.json");
        assert_eq!(Cursor::load(&path).unwrap(), None);
        let mut cursor = Cursor {
            cluster: "c".to_owned(),
            master: true,
            ..Cursor::default()
        };
        cursor.mark(7, Mark::Open(told("running")));
        cursor.mark(8, Mark::Open(told("queued")));
        cursor.arrears.insert_range(8, 10);
        cursor.mark(8, Mark::Done);
        assert_eq!(cursor.arrears.numbers().collect::<Vec<_>>(), [9, 10]);
        cursor.other_master = Some(OtherMaster {
            seconds: 1_795_364_300,
            serial: 10,
        });
        cursor.store(&path).unwrap();
        assert_eq!(Cursor::load(&path).unwrap(), Some(cursor));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("cursor.json");
        for content in ["", "{", "[]", "{\"cluster\": 7}", "{\"done\":[[2,1]]}"] {
            fs::write(&path, content).unwrap();
            let error = Cursor::load(&path).unwrap_err().to_string();
            assert!(error.contains("cursor.json"), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_is_kept_beside_and_a_later_versions_fields_are_ignored() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("cursor.json");
        assert_eq!(Cursor::take_up(&path).unwrap(), TakenUp::Absent);
        for content in ["", "{", "[]", "{\"cluster\": 7}", "\u{0}\u{0}"] {
            fs::write(&path, content).unwrap();
            assert_eq!(Cursor::take_up(&path).unwrap(), TakenUp::Damaged);
            let aside = scratch.path().join("cursor.json.damaged");
            assert_eq!(fs::read_to_string(aside).unwrap(), content);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let later = "{\"x\":{},\"cluster\":\"c\",\"master\":true,\"done\":[],\"open\":{},\"y\":1}";
        fs::write(&path, later).unwrap();
        let TakenUp::Whole(cursor) = Cursor::take_up(&path).unwrap() else {
            panic!()
        };
        assert_eq!((cursor.cluster.as_str(), cursor.master), ("c", true));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = Cursor::take_up(&path).unwrap_err().to_string();
        assert!(error.contains("a directory"), "{error}");
    }
}
