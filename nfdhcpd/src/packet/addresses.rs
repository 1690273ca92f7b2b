//! The two addresses of a packet.

/// Who sent it to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses<A> {
    /// The source.
    pub source: A,
    /// The destination.
    pub destination: A,
}
