//! Telling tokio of a descriptor that is none of its own kinds.

#![allow(unsafe_code)] // AsyncFd must be promised that the descriptor stays the same and open

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A way to wait until there is something to read from the descriptor.
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The process has no descriptors left, or the kernel cannot poll this one.
    pub fn new(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let own = descriptor.try_clone_to_owned()?;
        // SAFETY: the OwnedFd is ours alone; it is moved into the AsyncFd, which nothing takes
        // it out of, so it returns the same open descriptor as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
        Ok(Self(registered))
    }

    /// Waits until there is something to read; all of it must be read afterwards.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
