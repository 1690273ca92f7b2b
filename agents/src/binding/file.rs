//! Binding files in their folder: load, save, remove.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Binding, BindingError, is_interface_name, parse};
use crate::regular_file::{self, Links, NotRegular};

/// A larger file is refused unread.
const SIZE_LIMIT: usize = 64 * 1024;

/// Why a binding file could not be used. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not a regular file, is too large, or is not UTF-8.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its text is not a binding.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        source: BindingError,
    },
}

impl LoadError {
    /// Whether the file is not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads one binding file.
///
/// # Errors
/// See [`LoadError`]. Files of more than 64 KiB and what is not a regular file are refused.
pub fn load(path: &Path) -> Result<Binding, LoadError> {
    let unfit = |reason| LoadError::Unfit {
        path: path.to_owned(),
        reason,
    };
    let read = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = match regular_file::read(path, Links::Follow, SIZE_LIMIT) {
        Ok(bytes) => bytes,
        Err(error) if NotRegular::of(&error).is_some() => return Err(unfit("not a regular file")),
        Err(error) => return Err(read(error)),
    };
    if bytes.len() > SIZE_LIMIT {
        return Err(unfit("larger than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| unfit("not UTF-8"))?;
    parse(text).map_err(|source| LoadError::Parse {
        path: path.to_owned(),
        source,
    })
}

/// Writes the binding of `interface` into `folder`, so that a reader sees either the old file or
/// the new one: to a dot-file first, then renamed. Mode 0644.
///
/// The data is not forced to disk: after a crash of the node its interfaces are gone too. A file
/// that says the same already is left alone, so that no reader is woken. What a writer that was
/// killed has left is taken away; two must not write for one interface at the same time.
///
/// # Errors
/// The interface's name is none, or a value would not be read back as it is (`InvalidInput`): a
/// line break in an instance's tag must not become a line of its own. Else what the kernel said.
pub fn save(folder: &Path, interface: &str, binding: &Binding) -> io::Result<()> {
    let path = binding_path(folder, interface)?;
    let text = binding.to_string();
    match parse(&text) {
        Ok(same) if same == *binding => {}
        Ok(_) => {
            return Err(invalid(
                "a value of the binding would be read back as another",
            ));
        }
        Err(error) => return Err(invalid(format!("binding: {error}"))),
    }
    let temporary = temporary_path(folder, interface);
    let found = regular_file::read(&path, Links::Refuse, SIZE_LIMIT);
    if found.is_ok_and(|found| found == text.as_bytes()) {
        return removed(&temporary);
    }
    let written = regular_file::create(&temporary, 0o644)
        .and_then(|mut file| {
            // The mode above is cut by Ganeti's umask of 077, and nfdhcpd is not root.
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.write_all(text.as_bytes())
        })
        .and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes the binding of `interface` from `folder`; one that is not there is not an error.
///
/// # Errors
/// The interface's name is none (`InvalidInput`), or what the kernel said.
pub fn remove(folder: &Path, interface: &str) -> io::Result<()> {
    let path = binding_path(folder, interface)?;
    removed(&temporary_path(folder, interface)).and(removed(&path))
}

fn removed(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn temporary_path(folder: &Path, interface: &str) -> PathBuf {
    folder.join(format!(".{interface}.new"))
}

fn binding_path(folder: &Path, interface: &str) -> io::Result<PathBuf> {
    // A name that starts with a dot would be taken for a temporary file.
    if !is_interface_name(interface) || interface.starts_with('.') {
        return Err(invalid(format!("{interface:?} is not an interface name")));
    }
    Ok(folder.join(interface))
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn sample() -> Binding {
        Binding::new("aa:00:00:12:34:56".parse().unwrap(), "snf-1")
    }

    #[test]
    fn a_saved_binding_is_loaded_and_removed_again() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "tap0", &sample()).unwrap();
        let path = folder.path().join("tap0");
        assert_eq!(load(&path).unwrap(), sample());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        // Nothing but the file itself is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(folder.path(), "tap0").unwrap();
        remove(folder.path(), "tap0").unwrap();
        assert!(load(&path).unwrap_err().is_not_found());
    }

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        let partial = temporary_path(folder.path(), "tap0");
        save(folder.path(), "tap0", &sample()).unwrap();
        for call in [
            |folder: &Path| save(folder, "tap0", &sample()),
            |folder: &Path| remove(folder, "tap0"),
        ] {
            fs::write(&partial, "MAC=aa:0").unwrap();
            call(folder.path()).unwrap();
            assert!(!partial.exists());
        }
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../tap0", "", ".", "..", ".tap0", "a/b"] {
            let error = save(folder.path(), name, &sample()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
            assert!(remove(folder.path(), name).is_err(), "{name:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_value_cannot_add_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut tagged = sample();
        tagged.tags = vec!["x\"\nIP=10.0.0.1".to_owned()];
        let mut named = sample();
        named.hostname = "x\nIP=10.0.0.1".to_owned();
        for binding in [tagged, named] {
            let error = save(folder.path(), "tap0", &binding).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_save_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in the place of the file: the rename fails.
        fs::create_dir(folder.path().join("tap0")).unwrap();
        assert!(save(folder.path(), "tap0", &sample()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_a_file_of_text_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        fs::write(&large, vec![b'#'; 70_000]).unwrap();
        let binary = folder.path().join("binary");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let bad = folder.path().join("bad");
        fs::write(&bad, "MAC=zz\n").unwrap();
        for (path, what) in [
            (&large, "64 KiB"),
            (&binary, "UTF-8"),
            (&fifo, "regular"),
            (&bad, "line 1"),
        ] {
            let error = load(path).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
