//! Writing a file with its folders.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file, and makes its folders.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, content))
        .with_context(|| path.display().to_string())
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
