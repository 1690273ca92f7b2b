//! The signals that end the monitor, as something that can be waited for together with its input.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGTERM, SIGHUP, SIGINT and SIGQUIT: they are held back from the process and read here, so that
/// what the input has told already is left in the outbox first.
#[derive(Debug)]
pub struct EndSignals(SignalFd);

impl EndSignals {
    /// Holds the signals back from this thread, and from those that it starts.
    ///
    /// # Errors
    /// The kernel has no descriptor for them.
    pub fn hold_back() -> io::Result<Self> {
        let set = SigSet::from_iter([
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
        ]);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
