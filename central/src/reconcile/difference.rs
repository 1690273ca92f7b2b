//! What is not as it should be, and what would put it right.

use std::collections::BTreeSet;
use std::fmt;

use agents::message::{InstanceDisk, InstanceNic};

/// What a difference is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    Server(i64),
    Network(i64),
    Port(i64),
    Address(i64),
    Intent(i64),
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = match self {
            Self::Server(id) => ("server", id),
            Self::Network(id) => ("network", id),
            Self::Port(id) => ("port", id),
            Self::Address(id) => ("address", id),
            Self::Intent(id) => ("intent", id),
        };
        write!(formatter, "{kind} {id}")
    }
}

/// In which way something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The database has the server, the cluster has no instance.
    Stale,
    /// The cluster has the instance or the network, the database does not. An instance is only
    /// shown, a network removed if the database has it as deleted.
    Orphan,
    /// Its state.
    State,
    /// Its processors and memory.
    Flavor,
    /// Its NICs.
    Nics,
    /// A NIC that nobody here knows.
    UnknownNic,
    /// Its disks.
    Disks,
    /// A disk that nobody here knows.
    UnknownDisk,
    /// Tags of firewall profiles of NICs that it does not have.
    Tags,
    /// Its user's labels.
    Labels,
    /// Whether it boots from the rescue image.
    Rescue,
    /// The user waits for a job that has ended.
    Task,
    /// Something is still to be asked of Ganeti.
    Pending,
    /// The database says that the network is in the cluster; it is not.
    Missing,
    /// The network is not connected to every node group.
    Unconnected,
    /// Held, but not used.
    Leaked,
    /// Used, but not held.
    Unheld,
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stale => "stale",
            Self::Orphan => "orphan",
            Self::State => "state",
            Self::Flavor => "flavor",
            Self::Nics => "nics",
            Self::UnknownNic => "unknown nic",
            Self::Disks => "disks",
            Self::UnknownDisk => "unknown disk",
            Self::Tags => "tags",
            Self::Labels => "labels",
            Self::Rescue => "rescue",
            Self::Task => "task",
            Self::Pending => "pending",
            Self::Missing => "missing",
            Self::Unconnected => "unconnected",
            Self::Leaked => "leaked",
            Self::Unheld => "unheld",
        })
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub object: Object,
    pub what: What,
    /// What the database has.
    pub before: String,
    /// What the cluster has.
    pub after: String,
    /// What puts it right; none: a person must look at it.
    pub repair: Option<Repair>,
}

/// What puts a difference right.
#[derive(Debug, Clone, PartialEq)]
pub enum Repair {
    /// The server is no more: after the cluster has been asked for it alone.
    Gone,
    /// The server never came to be.
    CreationFailed,
    State(&'static str),
    /// Processors, and MiB of memory.
    Flavor(i64, i64),
    Nics(Vec<InstanceNic>),
    Disks(Vec<InstanceDisk>),
    /// The cluster is to take these off.
    RemoveTags(Vec<String>),
    Labels(BTreeSet<String>),
    Rescue(bool),
    EndTask,
    DropIntent,
    /// The state of a network in the cluster.
    NetworkState(&'static str),
    /// The cluster is to connect the network where it is not.
    ConnectNetwork,
    /// The cluster is to disconnect the network from these groups, and to remove it.
    RemoveNetwork(Vec<String>),
    ReleaseAddress,
    /// The port gets the address that it has.
    HoldAddress,
    ReleasePools,
}

impl Repair {
    /// Whether something is taken away for good.
    pub fn destroys(&self) -> bool {
        matches!(self, Self::Gone | Self::RemoveNetwork(_))
    }
}
