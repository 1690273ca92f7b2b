//! nftables over netlink: atomic [`Batch`]es, and reading back what is there.
//!
//! ```no_run
//! use agents::netlink::nftables::*;
//! # fn main() -> agents::netlink::Result<()> {
//! const TABLE: Table = Table::new(Family::Bridge, "example");
//! let mut batch = Batch::new();
//! batch.add_table(TABLE);
//! batch.add_set(&Set::new(TABLE, "guests", &[KeyType::InterfaceName]));
//! batch.add_chain(&Chain::base(TABLE, "in", Hook::Prerouting, -310));
//! batch.flush_chain(TABLE, "in"); // else the rules below are added again each time
//! batch.add_rule(TABLE, "in", &[
//!     Statement::in_set(&[Field::INPUT_NAME], "guests"),
//!     Statement::equal(Field::ETHER_TYPE, &[0x81, 0x00]),
//!     Statement::Counter,
//!     Statement::Drop,
//! ]);
//! batch.add_elements(TABLE, "guests", [Element::key(interface_name("tap0"))]);
//! Nftables::open()?.commit(&batch)?;
//! # Ok(())
//! # }
//! ```
//!
//! What is in one batch happens at once or not at all. An addition of a table, chain, set or
//! element that is there already with the same properties is a success; a rule is added again.
//! A deletion of what is not there fails the batch.

mod batch;
mod copy;
mod dump;
mod element;
pub mod monitor;
mod set;
mod statement;

use netlink_packet_netfilter::NetfilterProtoFamily;

pub use batch::{Batch, Chain, Hook, Policy};
pub use copy::Copy;
pub use dump::{DumpedChain, DumpedRule};
pub use element::{Data, Element, concat, interface_name};
pub use set::{KeyType, Set, SetData};
pub use statement::{Base, Field, LimitUnit, MetaKey, Operator, Statement, Verdict};

use super::socket::Socket;
use super::{Error, Result};

/// The kind of packets that a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames that a bridge handles.
    Bridge,
    /// ARP packets of the host.
    Arp,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames on one device.
    Netdev,
}

impl Family {
    /// The name that `nft` uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Arp => "arp",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    fn protocol(self) -> NetfilterProtoFamily {
        match self {
            Self::Inet => NetfilterProtoFamily::Inet,
            Self::Bridge => NetfilterProtoFamily::Bridge,
            Self::Arp => NetfilterProtoFamily::ARP,
            Self::Ip => NetfilterProtoFamily::IPv4,
            Self::Ip6 => NetfilterProtoFamily::IPv6,
            Self::Netdev => NetfilterProtoFamily::NetDev,
        }
    }
}

/// A table's name: family and word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// Family.
    pub family: Family,
    /// Word.
    pub name: &'static str,
}

impl Table {
    /// A table's name.
    pub const fn new(family: Family, name: &'static str) -> Self {
        Self { family, name }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// A connection to nftables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// Opens the connection.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
        })
    }

    /// Does all that the batch says, or nothing. An empty batch is a success.
    ///
    /// # Errors
    /// The first refused item, by its text, and why. ENOENT may also mean that the kernel
    /// lacks an expression.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, first) = batch.serialize(&mut self.socket);
        let failures = self.socket.batch(&bytes, "nftables batch")?;
        match failures.into_iter().min_by_key(|failure| failure.sequence) {
            None => Ok(()),
            Some(failure) => {
                let index = failure.sequence.wrapping_sub(first);
                let source = std::io::Error::from_raw_os_error(failure.errno);
                Err(Error::new(batch.describe(index), source).explained(failure.explanation))
            }
        }
    }

    /// Whether the kernel accepts these statements in a chain of this family at this hook.
    ///
    /// It is tried for real, behind a rule that lets every packet pass, and undone: some
    /// refusals come only when the batch is about to take effect. That takes 10 to 60 ms, so
    /// it is for the start of a daemon.
    ///
    /// # Errors
    /// nftables itself is missing, or not allowed to us.
    pub fn supports(
        &mut self,
        family: Family,
        hook: Hook,
        statements: &[Statement],
    ) -> Result<bool> {
        let table = Table::new(family, "snf-probe");
        let mut batch = Batch::new();
        batch
            .add_table(table)
            .add_chain(&Chain::base(table, "probe", hook, 0))
            .add_rule(table, "probe", &[Statement::Accept])
            .add_rule(table, "probe", statements);
        let (bytes, first) = batch.serialize(&mut self.socket);
        let failures = self.socket.batch(&bytes, "nftables probe")?;
        match failures.into_iter().min_by_key(|failure| failure.sequence) {
            None => {
                let mut undo = Batch::new();
                undo.delete_table(table);
                self.commit(&undo)?;
                Ok(true)
            }
            Some(failure) => {
                let index = failure.sequence.wrapping_sub(first);
                if index == batch.index_of_last_rule() {
                    return Ok(false);
                }
                let source = std::io::Error::from_raw_os_error(failure.errno);
                Err(Error::new(batch.describe(index), source).explained(failure.explanation))
            }
        }
    }
}
