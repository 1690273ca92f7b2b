//! `ssconf_*`: the few values that every node of a cluster has as plain files.

use std::io;
use std::path::{Path, PathBuf};

use crate::regular_file::{self, Links};

/// Where Ganeti keeps them.
pub const DEFAULT_FOLDER: &str = "/var/lib/ganeti";

/// The file that names the master; it is replaced (renamed over) when the master changes.
pub const MASTER_NODE_FILE: &str = "ssconf_master_node";

/// A name is at most this long (RFC 1035), with a little room for blanks around it.
const NAME_LIMIT: usize = 255;

/// Why a value cannot be had. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum SsconfError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file does not have one name in it.
    #[error("{}: {value:?} is not a name", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What it has, cut off after a few words.
        value: String,
    },
}

impl SsconfError {
    /// Whether there is no such file: this machine is in no cluster (yet).
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The folder with the `ssconf_*` files. Every call reads the file anew.
#[derive(Debug, Clone)]
pub struct Ssconf {
    folder: PathBuf,
}

impl Ssconf {
    /// The values in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The master's host name.
    ///
    /// # Errors
    /// The file is missing, cannot be read, or has no name in it.
    pub fn master_node(&self) -> Result<String, SsconfError> {
        self.name(MASTER_NODE_FILE)
    }

    /// The cluster's name.
    ///
    /// # Errors
    /// As for [`Ssconf::master_node`].
    pub fn cluster_name(&self) -> Result<String, SsconfError> {
        self.name("ssconf_cluster_name")
    }

    fn name(&self, file: &str) -> Result<String, SsconfError> {
        let path = self.folder.join(file);
        let bytes = match regular_file::read(&path, Links::Follow, NAME_LIMIT * 2) {
            Ok(bytes) => bytes,
            Err(source) => return Err(SsconfError::Read { path, source }),
        };
        let text = String::from_utf8_lossy(&bytes);
        let name = text.trim();
        let good = !name.is_empty()
            && name.len() <= NAME_LIMIT
            && name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'));
        if good {
            Ok(name.to_owned())
        } else {
            let value = name.chars().take(40).collect();
            Err(SsconfError::Value { path, value })
        }
    }
}

/// This machine's name as Ganeti's own programs take it: the kernel's host name.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn own_name() -> io::Result<String> {
    nix::unistd::gethostname()?
        .into_string()
        .map_err(|name| io::Error::other(format!("host name {name:?} is not UTF-8")))
}

/// Whether `own` (a host name, perhaps without a domain) and `node` (a node's name in Ganeti,
/// a whole domain name) are the same machine.
pub fn is_same_node(own: &str, node: &str) -> bool {
    own.eq_ignore_ascii_case(node)
        || (!own.contains('.')
            && node
                .split_once('.')
                .is_some_and(|(host, _)| host.eq_ignore_ascii_case(own)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_values_of_a_real_cluster_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let ssconf = Ssconf::new(folder.path());
        assert!(ssconf.master_node().unwrap_err().is_absent());
        fs::write(folder.path().join(MASTER_NODE_FILE), "node1.gnt.lab\n").unwrap();
        fs::write(folder.path().join("ssconf_cluster_name"), "cluster.gnt.lab").unwrap();
        assert_eq!(ssconf.master_node().unwrap(), "node1.gnt.lab");
        assert_eq!(ssconf.cluster_name().unwrap(), "cluster.gnt.lab");
    }

    #[test]
    fn a_file_without_a_name_is_refused_with_file_and_value() {
        let folder = tempfile::tempdir().unwrap();
        let ssconf = Ssconf::new(folder.path());
        for content in ["", "\n", "two names", "a\nb\n", "\0", &"x".repeat(1000)] {
            fs::write(folder.path().join(MASTER_NODE_FILE), content).unwrap();
            let error = ssconf.master_node().unwrap_err();
            assert!(!error.is_absent());
            assert!(error.to_string().contains(MASTER_NODE_FILE), "{error}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn a_short_host_name_is_the_node_with_that_first_label() {
        assert!(is_same_node("node1.gnt.lab", "node1.gnt.lab"));
        assert!(is_same_node("Node1", "node1.gnt.lab"));
        assert!(!is_same_node("node1.other", "node1.gnt.lab"));
        assert!(!is_same_node("node", "node1.gnt.lab"));
        assert!(!is_same_node("node1.gnt.lab", "node1"));
        assert!(!is_same_node("", "node1.gnt.lab"));
    }
}
