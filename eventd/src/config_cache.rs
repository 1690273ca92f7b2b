//! Ganeti's configuration, read again only when it has changed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use agents::ganeti::config_data::{self, ConfigData, InstanceParts};
use agents::regular_file::{self, Links};

/// What tells one version of the file from another: it is always replaced, never rewritten.
type Version = (u64, u64, i64, i64);

/// Ganeti's configuration file.
#[derive(Debug)]
pub struct ConfigCache {
    path: PathBuf,
    last: Option<(Version, ConfigData)>,
}

impl ConfigCache {
    /// The configuration at `path`, not yet read.
    pub fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// What the configuration has now for an instance; `None`, with a line in the log if that
    /// is a fault, if it has nothing.
    pub fn parts(&mut self, instance: &str) -> Option<InstanceParts> {
        match self.refresh() {
            Ok(config) => config.instance(instance),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(instance, "cannot tell its NICs and disks: {path}: {error}");
                None
            }
        }
    }

    fn refresh(&mut self) -> Result<&ConfigData, String> {
        let text = |error: std::io::Error| error.to_string();
        let found = version(&fs::metadata(&self.path).map_err(text)?);
        let fresh = match self.last.take() {
            Some((version, config)) if version == found => (version, config),
            _ => {
                let file = regular_file::open(&self.path, Links::Follow).map_err(text)?;
                let version = version(&file.metadata().map_err(text)?);
                let mut content = Vec::new();
                let limit = u64::try_from(config_data::FILE_LIMIT).unwrap_or(u64::MAX);
                file.take(limit.saturating_add(1))
                    .read_to_end(&mut content)
                    .map_err(text)?;
                let config = ConfigData::parse(&content).map_err(|error| error.to_string())?;
                (version, config)
            }
        };
        Ok(&self.last.insert(fresh).1)
    }
}

fn version(file: &fs::Metadata) -> Version {
    (file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}
