//! One call at a time on a host: what several NICs share must not change in between.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// How long a call that must wait sleeps between looks: a whole call takes no longer.
const PAUSE: Duration = Duration::from_millis(1);

/// Holds the lock of the records' folder until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Flock<File>);

impl Lock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The time is over, or the folder has no room for the lock.
    pub fn take(state: &Path, deadline: &Deadline) -> Result<Self> {
        let path = state.join(".lock");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::file(&path, error))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) => file = again,
                Err((_, error)) => return Err(Error::file(&path, error.into())),
            }
            deadline.check(|| format!("waiting for {}", path.display()))?;
            std::thread::sleep(PAUSE);
        }
    }
}
