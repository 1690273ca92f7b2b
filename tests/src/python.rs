//! Programs from `PyPI`, installed once into a folder of the build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;

/// How long an installation may take on a busy machine.
pub const INSTALL: Duration = Duration::from_secs(600);

/// The `bin/python` of an environment of this name in `target/clients`, in which what the file
/// `requirements` lists is installed.
///
/// # Errors
/// There is no Python that makes environments, or no `PyPI`.
pub fn venv(name: &str, requirements: &Path) -> Result<PathBuf> {
    let clients = crate::source_root().join("target/clients");
    fs::create_dir_all(&clients).with_context(|| format!("{}", clients.display()))?;
    // several tests may come at once: the first one installs
    let lock = File::create(clients.join("lock"))?;
    lock.lock()?;
    let folder = clients.join(name);
    let python = folder.join("bin/python");
    let done = folder.join("installed");
    let wanted =
        fs::read_to_string(requirements).with_context(|| format!("{}", requirements.display()))?;
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    process::check(make.args(["-m", "venv"]).arg(&folder), INSTALL)?;
    let mut install = Command::new(&python);
    install
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "-r"])
        .arg(requirements);
    process::check(&mut install, INSTALL)?;
    fs::write(&done, wanted)?;
    Ok(python)
}
