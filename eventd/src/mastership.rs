//! Whether this node is the cluster's master: only the master turns jobs into messages.

use agents::ganeti::ssconf::{Ssconf, SsconfError, is_same_node};

/// What ssconf says of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// We are the master of this cluster.
    Master {
        /// The cluster's name.
        cluster: String,
    },
    /// Another node is.
    Other {
        /// Its name.
        master: String,
    },
    /// The node is in no cluster, or what ssconf says makes no sense.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl Role {
    /// Reads ssconf. It is cheap enough to be asked before every batch of messages.
    pub fn read(ssconf: &Ssconf, own_name: &str) -> Self {
        let unknown = |error: SsconfError| Self::Unknown {
            reason: if error.is_absent() {
                format!("no cluster in {}", ssconf.folder().display())
            } else {
                error.to_string()
            },
        };
        match ssconf.master_node() {
            Ok(master) if is_same_node(own_name, &master) => match ssconf.cluster_name() {
                Ok(cluster) => Self::Master { cluster },
                Err(error) => unknown(error),
            },
            Ok(master) => Self::Other { master },
            Err(error) => unknown(error),
        }
    }

    /// Whether we are the master.
    pub fn is_master(&self) -> bool {
        matches!(self, Self::Master { .. })
    }
}
