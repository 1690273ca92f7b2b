//! inotify on the queue, on ssconf and on the outbox.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use agents::ganeti::{job, ssconf};
use agents::outbox::FileName;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// What has happened in a watched folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job file has a new version.
    Job(u64),
    /// The master or the cluster's name may have changed.
    Ssconf,
    /// A message is in the outbox.
    Outbox(FileName),
    /// Events may have been missed: only looking at everything helps.
    Lost,
}

/// The folders that are watched.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Ganeti's job queue.
    pub queue: PathBuf,
    /// Where the `ssconf_*` files are.
    pub ssconf: PathBuf,
    /// The outbox.
    pub outbox: PathBuf,
}

/// The watch. Folders that are not there (yet) are watched as soon as they are:
/// see [`Watch::repair`].
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    folder: PathBuf,
    what: What,
    descriptor: Option<WatchDescriptor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Queue,
    Ssconf,
    Outbox,
}

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    /// The kernel gives no inotify instance (`fs.inotify.max_user_instances`).
    pub fn new(folders: &Folders) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let watched = [
            (&folders.queue, What::Queue),
            (&folders.ssconf, What::Ssconf),
            (&folders.outbox, What::Outbox),
        ];
        let watched = watched
            .into_iter()
            .map(|(folder, what)| Watched {
                folder: folder.clone(),
                what,
                descriptor: None,
            })
            .collect();
        let mut watch = Self { inotify, watched };
        let _ = watch.repair();
        Ok(watch)
    }

    /// Watches what is not watched; returns whether a folder was added, whose content must be
    /// looked at then.
    ///
    /// # Errors
    /// A folder is there and cannot be watched (`fs.inotify.max_user_watches`, or we may not
    /// read it); the text names it.
    pub fn repair(&mut self) -> io::Result<bool> {
        let mut added = false;
        for watched in &mut self.watched {
            if watched.descriptor.is_some() {
                continue;
            }
            // Ganeti renames a finished file into place and never writes one there.
            let flags = AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_ONLYDIR;
            match self.inotify.add_watch(watched.folder.as_path(), flags) {
                Ok(descriptor) => {
                    watched.descriptor = Some(descriptor);
                    added = true;
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => {
                    let folder = watched.folder.display();
                    return Err(io::Error::new(
                        io::Error::from(error).kind(),
                        format!("cannot watch {folder}: {error}"),
                    ));
                }
            }
        }
        Ok(added)
    }

    /// The folders that cannot be watched now.
    pub fn missing(&self) -> impl Iterator<Item = &Path> {
        self.watched
            .iter()
            .filter(|watched| watched.descriptor.is_none())
            .map(|watched| watched.folder.as_path())
    }

    /// What has happened; does not wait. Empty when there is nothing (more).
    ///
    /// # Errors
    /// inotify itself fails.
    pub fn read(&mut self) -> io::Result<Vec<Event>> {
        let raw = match self.inotify.read_events() {
            Ok(raw) => raw,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut events = Vec::with_capacity(raw.len());
        for event in raw {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                events.push(Event::Lost);
                continue;
            }
            let Some(watched) = self
                .watched
                .iter_mut()
                .find(|watched| watched.descriptor == Some(event.wd))
            else {
                continue;
            };
            let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF;
            if event.mask.intersects(gone) {
                // The folder was removed, moved away or unmounted: a new one may come.
                if event.mask.contains(AddWatchFlags::IN_MOVE_SELF) {
                    let _ = self.inotify.rm_watch(event.wd);
                }
                watched.descriptor = None;
                events.push(Event::Lost);
                continue;
            }
            let name = event.name.unwrap_or_default();
            events.extend(meaning(watched.what, name.as_encoded_bytes()));
        }
        Ok(events)
    }
}

fn meaning(what: What, name: &[u8]) -> Option<Event> {
    match what {
        What::Queue => job::id_of_name(name).map(Event::Job),
        What::Ssconf => (name == ssconf::MASTER_NODE_FILE.as_bytes()
            || name == b"ssconf_cluster_name")
            .then_some(Event::Ssconf),
        What::Outbox => {
            let name = std::str::from_utf8(name).ok()?;
            FileName::parse(name).map(Event::Outbox)
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folders(root: &Path) -> Folders {
        Folders {
            queue: root.join("queue"),
            ssconf: root.join("ssconf"),
            outbox: root.join("outbox"),
        }
    }

    fn replace(folder: &Path, name: &str) {
        let temporary = folder.join(format!("{name}x.new"));
        fs::write(&temporary, "x").unwrap();
        fs::rename(temporary, folder.join(name)).unwrap();
    }

    #[test]
    fn only_finished_files_of_ours_are_events() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        for folder in [&folders.queue, &folders.ssconf, &folders.outbox] {
            fs::create_dir(folder).unwrap();
        }
        let mut watch = Watch::new(&folders).unwrap();
        assert_eq!(watch.missing().count(), 0);
        let message = "1795364206646829-0000000001-000001.final.json";
        for name in ["serial", "job-7", "job-7abcdefgh.new", "lock"] {
            replace(&folders.queue, name);
        }
        for name in ["ssconf_master_node", "ssconf_node_list", "config.data"] {
            replace(&folders.ssconf, name);
        }
        for name in [message, ".hidden", "README"] {
            replace(&folders.outbox, name);
        }
        let expected = [
            Event::Job(7),
            Event::Ssconf,
            Event::Outbox(FileName::parse(message).unwrap()),
        ];
        assert_eq!(watch.read().unwrap(), expected);
        assert_eq!(watch.read().unwrap(), []);
    }

    #[test]
    fn a_folder_that_vanishes_is_watched_again_when_it_is_back() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let mut watch = Watch::new(&folders).unwrap();
        assert_eq!(watch.missing().count(), 3);
        assert!(!watch.repair().unwrap());
        fs::create_dir(&folders.queue).unwrap();
        assert!(watch.repair().unwrap());
        fs::rename(&folders.queue, root.path().join("away")).unwrap();
        assert_eq!(watch.read().unwrap().first(), Some(&Event::Lost));
        fs::create_dir(&folders.queue).unwrap();
        while !watch.read().unwrap().is_empty() {}
        assert!(watch.repair().unwrap());
        replace(&folders.queue, "job-1");
        assert_eq!(watch.read().unwrap(), [Event::Job(1)]);
        fs::remove_dir_all(&folders.queue).unwrap();
        assert_eq!(watch.read().unwrap(), [Event::Lost]);
    }
}
