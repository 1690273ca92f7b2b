//! The folder of binding files: what is in it, and what changes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use agents::binding::is_interface_name;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// The folder of binding files, watched.
pub struct Folder {
    path: PathBuf,
    inotify: Inotify,
    watch: WatchDescriptor,
}

/// What changed since the last look.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// The files of these interfaces were written, replaced or removed: look which.
    Files(BTreeSet<String>),
    /// Events were lost, or the folder itself was replaced: look at all of it.
    Everything,
}

impl Folder {
    /// Watches the folder. Watch first, then [`list`](Self::list): nothing is missed between.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watch(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let watch = add_watch(&inotify, path)?;
        Ok(Self {
            path: path.to_owned(),
            inotify,
            watch,
        })
    }

    /// The path of an interface's binding file.
    pub fn file(&self, interface: &str) -> PathBuf {
        self.path.join(interface)
    }

    /// The interfaces that have a binding file.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut interfaces = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| is_binding(name)) {
                interfaces.insert(name.to_owned());
            }
        }
        Ok(interfaces)
    }

    /// What changed since the last call; never waits.
    ///
    /// # Errors
    /// The folder is gone, or what the kernel says.
    pub fn changes(&mut self) -> io::Result<Change> {
        let mut files = BTreeSet::new();
        let mut everything = false;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                let lost = AddWatchFlags::IN_Q_OVERFLOW
                    | AddWatchFlags::IN_IGNORED
                    | AddWatchFlags::IN_MOVE_SELF
                    | AddWatchFlags::IN_DELETE_SELF;
                if event.mask.intersects(lost) {
                    everything = true;
                }
                if let Some(name) = event.name.as_ref().and_then(|name| name.to_str())
                    && is_binding(name)
                {
                    files.insert(name.to_owned());
                }
            }
        }
        if !everything {
            return Ok(Change::Files(files));
        }
        // The same folder gives the same watch; another one in its place needs a new one.
        let renewed = add_watch(&self.inotify, &self.path)?;
        if renewed != self.watch {
            let _ = self.inotify.rm_watch(self.watch);
            self.watch = renewed;
        }
        Ok(Change::Everything)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn add_watch(inotify: &Inotify, path: &Path) -> io::Result<WatchDescriptor> {
    // IN_CLOSE_WRITE besides the rename of DESIGN: the shell scripts of others write in place.
    let mask = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    Ok(inotify.add_watch(path, mask)?)
}

/// A name that starts with a dot is a file in the making.
fn is_binding(name: &str) -> bool {
    !name.starts_with('.') && is_interface_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn files_are_listed_and_their_changes_heard() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("bindings");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("tap0"), "").unwrap();
        fs::write(path.join(".tap1.7"), "").unwrap();
        fs::write(path.join("a name that is no interface's"), "").unwrap();
        let mut folder = Folder::watch(&path).unwrap();
        assert_eq!(folder.list().unwrap(), names(&["tap0"]));
        assert_eq!(folder.changes().unwrap(), Change::Files(BTreeSet::new()));

        fs::write(path.join("tap2"), "").unwrap();
        fs::rename(path.join(".tap1.7"), path.join("tap1")).unwrap();
        fs::remove_file(path.join("tap0")).unwrap();
        fs::write(path.join(".tap3.7"), "").unwrap();
        assert_eq!(
            folder.changes().unwrap(),
            Change::Files(names(&["tap0", "tap1", "tap2"]))
        );
    }

    #[test]
    fn a_folder_that_was_replaced_is_watched_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("bindings");
        fs::create_dir(&path).unwrap();
        let mut folder = Folder::watch(&path).unwrap();
        fs::rename(&path, place.path().join("old")).unwrap();
        assert!(folder.changes().is_err(), "the folder is gone");
        fs::create_dir(&path).unwrap();
        fs::remove_dir(place.path().join("old")).unwrap();
        assert_eq!(folder.changes().unwrap(), Change::Everything);
        fs::write(path.join("tap0"), "").unwrap();
        assert_eq!(folder.changes().unwrap(), Change::Files(names(&["tap0"])));
    }
}
