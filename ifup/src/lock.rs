//! One call at a time on a host: what several NICs share must not change in between.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// How often a call that waits looks for a signal and at the clock.
const PAUSE: Duration = Duration::from_millis(50);

/// The file that is locked.
pub fn path(state: &Path) -> PathBuf {
    state.join(".lock")
}

/// Holds the lock of the records' folder until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Flock<File>);

impl Lock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The time is over, or the folder has no room for the lock.
    pub fn take(state: &Path, deadline: &Deadline) -> Result<Self> {
        let path = path(state);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::file(&path, error))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Self(lock)),
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
            Err((_, error)) => return Err(Error::file(&path, error.into())),
        };
        // Many calls may wait; the kernel lets them in one by one, and none need look again.
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut file = file;
            let taken = loop {
                match Flock::lock(file, FlockArg::LockExclusive) {
                    Err((again, Errno::EINTR)) => file = again,
                    other => break other.map_err(|(_, error)| error),
                }
            };
            // If nobody waits any more, the lock is freed again.
            let _ = sender.send(taken);
        });
        loop {
            match receiver.recv_timeout(PAUSE) {
                Ok(Ok(lock)) => return Ok(Self(lock)),
                Ok(Err(error)) => return Err(Error::file(&path, error.into())),
                Err(_) => deadline.check(|| format!("waiting for {}", path.display()))?,
            }
        }
    }
}
