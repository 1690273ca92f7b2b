//! The configuration file, `/etc/snf-agents/hooks.toml`.

use std::path::{Path, PathBuf};

use agents::ganeti::ssconf;
use agents::outbox;
use agents::service::config::{self, ConfigError};
use serde::Deserialize;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/snf-agents/hooks.toml";

/// The whole configuration. Every key has a default; an unknown key is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The outbox that messages are left in.
    pub outbox_dir: PathBuf,
    /// This node's name in Ganeti; unset, the kernel's host name.
    pub node_name: Option<String>,
    /// Whether a node that an instance has left stops answering for its addresses.
    pub end_proxies: bool,
    /// Whether the names of instances in networks tagged `dns` are kept in the DNS.
    pub dns: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            outbox_dir: outbox::DEFAULT_FOLDER.into(),
            node_name: None,
            end_proxies: true,
            dns: false,
        }
    }
}

impl Config {
    /// Reads the configuration; a file that is not there gives the defaults, unless it was
    /// asked for by name.
    ///
    /// # Errors
    /// The file cannot be read, or a key is wrong; the text names file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        if path == Path::new(DEFAULT_PATH) {
            config::load_or_default(path)
        } else {
            config::load(path)
        }
    }

    /// This node's name.
    ///
    /// # Errors
    /// It is not configured, and the kernel's cannot be read.
    pub fn node_name(&self) -> std::io::Result<String> {
        self.node_name.clone().map_or_else(ssconf::own_name, Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGED: &str = include_str!("../../packaging/defaults/hooks.toml");

    #[test]
    fn the_packaged_file_names_every_key_with_its_default() {
        let path = Path::new("/etc/x.toml");
        assert_eq!(
            config::parse::<Config>(path, PACKAGED).unwrap(),
            Config::default()
        );
        let uncommented: String = PACKAGED
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.contains(" = ") && !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut full: Config = config::parse(path, &uncommented).unwrap();
        assert_eq!(full.node_name.take().as_deref(), Some("node1.example.com"));
        assert_eq!(full, Config::default());
        assert!(config::parse::<Config>(path, "outbox = \"/x\"").is_err());
    }
}
