//! Packets from netfilter's queues (NFQUEUE), and the verdicts on them.

pub mod message;
mod socket;

pub use message::QueuedPacket;
pub use socket::NetfilterQueue;

use std::io;
use std::os::fd::AsFd;

/// A queue of packets that wait for a verdict.
///
/// A batch is taken by [`receive`](Self::receive), looked at, and settled by
/// [`settle`](Self::settle): every packet gets a verdict, always.
pub trait PacketQueue: AsFd {
    /// Takes the packets that wait, some dozens at most; returns how many. Never waits: 0 if
    /// there is none.
    ///
    /// # Errors
    /// What the kernel says. The queue can be used further.
    fn receive(&mut self) -> io::Result<usize>;

    /// Whether the batch was all that waited: there is nothing to take right now.
    fn is_drained(&self) -> bool;

    /// The packet with this number of the batch. `None` if the kernel's message was none that we
    /// understand.
    fn packet(&self, index: usize) -> Option<QueuedPacket<'_>>;

    /// Gives the verdicts on the batch: the packets with the ids in `pass` go on, all others end
    /// here.
    ///
    /// # Errors
    /// What the kernel says; the verdicts can be tried again. Otherwise the packets end with the
    /// next batch.
    fn settle(&mut self, pass: &[u32]) -> io::Result<()>;
}
