//! Why nothing was done, or why what was done was undone.

use std::io;
use std::path::PathBuf;

use agents::ganeti::nic_environment::NicError;
use agents::service::config::ConfigError;
use agents::service::environment::NotUtf8;

/// Why a run failed. The text is one line: Ganeti puts it into the job's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What Ganeti says cannot be.
    #[error(transparent)]
    Environment(#[from] NicError),
    /// A variable is no text.
    #[error(transparent)]
    NotUtf8(#[from] NotUtf8),
    /// What Ganeti says is well formed, but not so on this host.
    #[error("{name}={value}: {reason}")]
    Host {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] agents::netlink::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A record cannot be understood.
    #[error("{}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It took too long.
    #[error("not done within {seconds} s: {what}")]
    Deadline {
        /// The limit.
        seconds: u64,
        /// What was to be done next.
        what: String,
    },
    /// We were told to end.
    #[error("ended by {signal} before: {what}")]
    Signal {
        /// The signal's name.
        signal: String,
        /// What was to be done next.
        what: String,
    },
    /// Called in a way that means nothing.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            path: path.into(),
            source,
        }
    }

    /// A value that is not so on this host.
    pub fn host(name: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Host {
            name,
            value: value.into(),
            reason: reason.into(),
        }
    }

    /// The exit status: 1 failed and undone, 2 called wrongly, 65 (`EX_DATAERR`) the
    /// environment cannot be, 78 (`EX_CONFIG`) the configuration cannot be.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Environment(_) => 65,
            Self::Config(_) => 78,
            _ => 1,
        }
    }
}

/// What every step returns.
pub type Result<T> = std::result::Result<T, Error>;
