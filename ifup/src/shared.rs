//! Who needs a shared step: an entry for each interface, in a folder for each step.
//!
//! So the last to leave is known without reading every record: the folder can be removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lock;
use crate::step::Step;

const FOLDER: &str = ".shared";

fn folder(state: &Path, step: &Step) -> PathBuf {
    state.join(FOLDER).join(step.key())
}

/// The interface needs the step from now on.
///
/// # Errors
/// The folder has no room.
pub fn hold(state: &Path, step: &Step, interface: &str) -> Result<()> {
    let folder = folder(state, step);
    let path = folder.join(interface);
    // The name is all that counts. Another name of a file that is there takes a fraction of the
    // time that a file of its own does; it can have only so many.
    let another_name = || match fs::hard_link(lock::path(state), &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    another_name()
        .or_else(|_| fs::create_dir_all(&folder).and_then(|()| another_name()))
        .or_else(|_| fs::write(&path, ""))
        .map_err(|error| Error::file(path, error))
}

/// One of the other interfaces that need the step, if there is any.
pub fn another_holder(state: &Path, step: &Step, interface: &str) -> Option<String> {
    fs::read_dir(folder(state, step))
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name != interface)
}

/// The interface needs it no more; whether nobody does.
///
/// # Errors
/// What the kernel says.
pub fn release(state: &Path, step: &Step, interface: &str) -> Result<bool> {
    let folder = folder(state, step);
    let path = folder.join(interface);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file(path, error));
        }
        _ => {}
    }
    match fs::remove_dir(&folder) {
        Ok(()) => Ok(true),
        // Nobody held it: it was interrupted before, or taken back already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(Error::file(folder, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_is_told() {
        let state = tempfile::tempdir().unwrap();
        let step = Step::Refuse {
            ipv4: true,
            table: 100,
        };
        hold(state.path(), &step, "tap0").unwrap();
        hold(state.path(), &step, "tap0").unwrap();
        hold(state.path(), &step, "tap1").unwrap();
        assert!(!release(state.path(), &step, "tap0").unwrap());
        assert!(!release(state.path(), &step, "tap0").unwrap());
        assert!(release(state.path(), &step, "tap1").unwrap());
        assert!(release(state.path(), &step, "tap1").unwrap());
    }
}
