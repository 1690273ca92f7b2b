//! Blocking netlink: links, routes, rules, neighbours, and nftables.
//!
//! One request, one answer, no threads and no asynchronous runtime: a program that configures
//! one interface and ends needs no more, and a daemon polls a [`monitor`]'s descriptor.
//! The `netlink-*` crates change their types often, so nothing of theirs is visible outside.
//!
//! - [`Rtnetlink`]: a connection for links, routes, rules and neighbours
//! - [`monitor::LinkMonitor`]: interfaces that appear, change and vanish
//! - [`AddressMonitor`]: IPv6 addresses that they get and lose
//! - [`ForwardingMonitor`]: addresses that bridges learn
//! - [`nftables`]: atomic batches of tables, chains, rules, sets, maps and their elements
//!
//! What is worth knowing of the kernel's side:
//! - A send may wait for the kernel's one lock over all links (rtnl); no time limit can be set.
//! - Several messages in one send are not atomic in rtnetlink; an nftables batch is.
//! - A routing rule added twice is two rules if asked to "replace": [`Rtnetlink::add_rule`]
//!   takes "exists" as success instead. Rules stay when their interface goes, routes do not.
//! - The first use of an nftables expression that the kernel has not can cost 10 to 30 ms (it
//!   looks for a module): probe once at start ([`nftables::Nftables::supports`]).
//! - Deleting or replacing a *base chain* or a table waits for RCU (8 to 32 ms): what changes
//!   often belongs into sets and maps.

use std::fmt;
use std::io;

mod address;
mod address_monitor;
mod forwarding_monitor;
mod link;
pub mod monitor;
mod neighbour;
pub mod nftables;
mod qdisc;
mod route;
mod rule;
mod socket;
mod vlan;

pub use address_monitor::{AddressEvent, AddressMonitor};
pub use forwarding_monitor::ForwardingMonitor;
pub use link::{Link, LinkChange, PortFlags};
pub use neighbour::Neighbour;
pub use route::{Route, RouteKind, RouteScope};
pub use rule::Rule;

/// What the kernel, or the way to it, refused.
///
/// The text is one line: what was asked, the kernel's own words if it had any, the error.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: io::Error,
    explanation: Option<String>,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            what: what.into(),
            source,
            explanation: None,
        }
    }

    pub(crate) fn explained(mut self, explanation: Option<String>) -> Self {
        self.explanation = explanation;
        self
    }

    /// The error number (`libc::E*`), 0 if there is none.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }

    /// The thing to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == libc::EEXIST
    }

    /// The thing named is not there: ENOENT, ENODEV, ESRCH, ENXIO or EADDRNOTAVAIL, which the
    /// kernel uses for sets, links, routes and neighbours in turn.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::ENXIO | libc::EADDRNOTAVAIL
        )
    }

    /// The kernel has no such feature: EOPNOTSUPP or EPROTONOSUPPORT.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        if let Some(explanation) = &self.explanation {
            write!(f, "{explanation}: ")?;
        }
        write!(f, "{}", self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What every call here returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection to rtnetlink, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: socket::Socket,
}

impl Rtnetlink {
    /// Opens the connection.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: socket::Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?,
        })
    }
}

/// Deleting what is not there is done.
fn absent_is_done<T>(deleted: Result<T>) -> Result<()> {
    match deleted {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
