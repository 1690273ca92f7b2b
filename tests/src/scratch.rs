//! A folder for one test's files, away with the test.
//!
//! It is in `/tmp` and not in the tree: servers that refuse to be root (PostgreSQL) must be
//! able to reach it, and Unix socket paths must stay under 108 bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The folders that exist now, for an end that runs no destructors.
static ALL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes all folders of this process, before it ends without dropping them.
pub fn remove_all() {
    for folder in std::mem::take(&mut *ALL.lock().unwrap_or_else(PoisonError::into_inner)) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new folder, mode 0755, named after what it is for and this process.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(purpose: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("snf-{purpose}-{}-", std::process::id()))
            .tempdir()
            .context("scratch folder in /tmp")?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        ALL.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(dir.path().to_owned());
        Ok(Self(dir))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in the folder and returns its path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A new folder in the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Leaves the folder where it is and returns its path.
    pub fn keep(self) -> PathBuf {
        let kept = self.0.path().to_owned();
        ALL.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|folder| *folder != kept);
        self.0.keep()
    }
}
