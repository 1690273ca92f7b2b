//! Regular files in folders that others can write to.
//!
//! A name says nothing of what is behind it: opening a FIFO waits for its other end, opening a
//! device may do something, and a symbolic link leads to where only the reader has access. Every
//! file that another program or user has put in its place is opened here: without waiting, and
//! only if it is a regular file.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The treatment of a symbolic link as the last part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It may: the operator decides where the file is.
    Follow,
    /// It may not: whoever can write to the folder would decide which file is read.
    Refuse,
}

/// The kind of file in the place of a regular one. It is the source of an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}, not a regular file")]
pub struct NotRegular(pub Special);

/// A kind of file that is not regular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A directory.
    Directory,
    /// A symbolic link, where none is followed.
    SymbolicLink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
}

impl fmt::Display for Special {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Directory => "a directory",
            Self::SymbolicLink => "a symbolic link",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

impl NotRegular {
    /// The reason in an error of this module, if that is one.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    fn check(found: FileType) -> io::Result<()> {
        let special = if found.is_file() {
            return Ok(());
        } else if found.is_dir() {
            Special::Directory
        } else if found.is_symlink() {
            Special::SymbolicLink
        } else if found.is_fifo() {
            Special::Fifo
        } else if found.is_socket() {
            Special::Socket
        } else {
            Special::Device
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, Self(special)))
    }
}

/// Opens a file for reading.
///
/// # Errors
/// It cannot be opened, or is not a regular file ([`NotRegular`]).
pub fn open(path: &Path, links: Links) -> io::Result<File> {
    open_as(path, links, OpenOptions::new().read(true))
}

/// Opens a file that is there already for writing, from its start.
///
/// # Errors
/// As of [`open`].
pub fn open_to_write(path: &Path, links: Links) -> io::Result<File> {
    open_as(path, links, OpenOptions::new().write(true))
}

fn open_as(path: &Path, links: Links, how: &mut OpenOptions) -> io::Result<File> {
    let (found, more) = match links {
        Links::Follow => (fs::metadata(path)?, 0),
        Links::Refuse => (fs::symlink_metadata(path)?, libc::O_NOFOLLOW),
    };
    // Not even opened: to open a device may do something.
    NotRegular::check(found.file_type())?;
    // Another file may have taken its place since.
    let file = how
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | more)
        .open(path)?;
    NotRegular::check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a file of at most `limit` bytes; of a longer one the first `limit` + 1.
///
/// # Errors
/// As of [`open`], or it cannot be read.
pub fn read(path: &Path, links: Links, limit: usize) -> io::Result<Vec<u8>> {
    let file = open(path, links)?;
    let mut content = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// Creates a file of this mode to be renamed later. What another has left under its name, whatever
/// it is, is removed and never written to.
///
/// # Errors
/// It cannot be created.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let create = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    };
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn special(path: &Path, links: Links) -> Special {
        let error = open(path, links).unwrap_err();
        let found = NotRegular::of(&error).unwrap_or_else(|| panic!("{error}"));
        assert_eq!(
            NotRegular::of(&open_to_write(path, links).unwrap_err()),
            Some(found)
        );
        assert!(error.to_string().contains("not a regular file"), "{error}");
        found.0
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(path("socket")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink("file", path("link")).unwrap();
        symlink("fifo", path("link to a fifo")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for links in [Links::Follow, Links::Refuse] {
            assert_eq!(read(&path("file"), links, 100).unwrap(), b"text");
            assert_eq!(read(&path("file"), links, 2).unwrap(), b"tex");
            assert_eq!(special(&path("fifo"), links), Special::Fifo);
            assert_eq!(special(&path("socket"), links), Special::Socket);
            assert_eq!(special(&path("folder"), links), Special::Directory);
            assert_eq!(special(Path::new("/dev/null"), links), Special::Device);
            let missing = open(&path("missing"), links).unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(read(&path("link"), Links::Follow, 100).unwrap(), b"text");
        assert_eq!(
            special(&path("link to a fifo"), Links::Follow),
            Special::Fifo
        );
        for name in ["link", "link to a fifo", "loop"] {
            assert_eq!(special(&path(name), Links::Refuse), Special::SymbolicLink);
        }
        let turns = open(&path("loop"), Links::Follow).unwrap_err();
        assert!(NotRegular::of(&turns).is_none(), "{turns}");
    }

    #[test]
    fn what_is_in_the_way_of_a_new_file_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let other = folder.path().join("other");
        fs::write(&other, "other").unwrap();
        symlink(&other, &path).unwrap();
        create(&path, 0o600).unwrap().write_all(b"own").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert_eq!(fs::read(&path).unwrap(), b"own");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        create(&path, 0o600).unwrap().write_all(b"own").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(create(&path, 0o600).is_err());
    }
}
