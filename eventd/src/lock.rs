//! One daemon for one cursor: a lock on a file beside it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock; it is given up when this is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another snf-ganeti-eventd is running: process {pid} has {}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the other one wrote into it.
        pid: String,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn path_for(cursor: &Path) -> PathBuf {
    let mut path = cursor.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

impl Lock {
    /// Takes the lock of the daemon with this cursor.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(cursor: &Path) -> Result<Self, LockError> {
        let path = path_for(cursor);
        let fault = |source: io::Error| LockError::Io {
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fault)?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fault)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(fault)?;
                file.rewind().map_err(fault)?;
                writeln!(file, "{}", std::process::id()).map_err(fault)?;
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim().to_owned();
                Err(LockError::Held { path, pid })
            }
            Err((_, error)) => Err(fault(error.into())),
        }
    }

    /// The process that has the lock, if one has.
    pub fn holder(cursor: &Path) -> Option<String> {
        if !path_for(cursor).exists() {
            return None;
        }
        match Self::take(cursor) {
            Err(LockError::Held { pid, .. }) => Some(pid),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_lock_for_one_cursor() {
        let scratch = tempfile::tempdir().unwrap();
        let cursor = scratch.path().join("state/cursor.json");
        assert_eq!(Lock::holder(&cursor), None);
        let lock = Lock::take(&cursor).unwrap();
        let own = std::process::id().to_string();
        assert_eq!(Lock::holder(&cursor).as_deref(), Some(own.as_str()));
        let error = Lock::take(&cursor).unwrap_err().to_string();
        assert!(error.contains(&own), "{error}");
        drop(lock);
        assert_eq!(Lock::holder(&cursor), None);
        Lock::take(&cursor).unwrap();
    }
}
