//! What was done for an interface, written down so that it can be undone without Ganeti.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use agents::addr::MacAddr;
use agents::binding::is_interface_name;
use agents::regular_file::{self, Links};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guard::entry::{Guard, Reserved};
use crate::guard::install::Known;
use crate::step::Step;

/// The form of a record; a record of another form is not understood.
const VERSION: u32 = 1;
/// The longest record, in bytes.
const RECORD_LIMIT: usize = 1 << 20;
/// What is before the flag in a record's text: in no value is it, since a quotation mark there
/// has a backslash before it.
const UNFINISHED: &str = "\n  \"unfinished\": ";

/// What was done for an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The form.
    version: u32,
    /// The interface.
    pub interface: String,
    /// Its index: another interface of the same name has another.
    pub index: u32,
    /// The instance.
    pub instance: String,
    /// Not everything in it was done: the call that wrote it was still at it.
    pub unfinished: bool,
    /// A call began to take it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// What Ganeti said.
    pub environment: BTreeMap<String, String>,
    /// What was done for it alone, in order.
    pub steps: Vec<Step>,
    /// What was done for it and others, in order.
    pub shared: Vec<Step>,
}

impl Record {
    /// A record.
    pub fn new(
        interface: &str,
        index: u32,
        instance: &str,
        environment: BTreeMap<String, String>,
    ) -> Self {
        Self {
            version: VERSION,
            interface: interface.to_owned(),
            index,
            instance: instance.to_owned(),
            unfinished: false,
            leaving: false,
            environment,
            steps: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// Returns the guard's rules for the guest, if it is guarded.
    pub fn guard(&self) -> Option<&Guard> {
        self.steps.iter().find_map(|step| match step {
            Step::Guard(guard) => Some(guard),
            _ => None,
        })
    }

    /// The MAC address that has a fixed place in a bridge's forwarding table behind the
    /// interface, if any has.
    pub fn place(&self) -> Option<MacAddr> {
        self.steps.iter().find_map(|step| match step {
            Step::Forwarding { mac, .. } => Some(*mac),
            _ => None,
        })
    }

    /// Returns whether the guest, whose MAC address is known, was not here yet: its place is fixed when
    /// it is heard.
    pub fn awaits_guest(&self) -> bool {
        let known = |guard: &Guard| guard.bridged && guard.macs().is_some();
        self.place().is_none() && self.guard().is_some_and(known)
    }

    /// Returns whether an older program made the NIC, which left it to the bridge to learn from whatever
    /// the guest sends to 01:80:c2:00:00:0X.
    pub fn is_outdated(&self) -> bool {
        let has = |step: &Step| matches!(step, Step::NoLinkLocalLearn { .. });
        self.guard()
            .is_some_and(|guard| guard.bridged && guard.limits_mac())
            && !self.shared.iter().any(has)
    }

    /// The record of an interface, if there is one.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn load(state: &Path, interface: &str) -> Result<Option<Self>> {
        let path = path(state, interface)?;
        let text = match regular_file::read(&path, Links::Refuse, RECORD_LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(path, error)),
        };
        let wrong = |reason: String| Error::Record {
            path: path.clone(),
            reason,
        };
        let record: Self = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("version {}, not {VERSION}", record.version)));
        }
        if record.interface != interface {
            return Err(wrong(format!("is of {}", record.interface)));
        }
        Ok(Some(record))
    }

    /// Writes it, in one step.
    ///
    /// It is not forced to disk: after a crash of the node its interfaces are gone too.
    ///
    /// # Errors
    /// The folder has no room for it.
    pub fn save(&self, state: &Path) -> Result<()> {
        let path = path(state, &self.interface)?;
        let temporary = temporary(state, &self.interface);
        let text = self.text(&path)?;
        regular_file::create(&temporary, 0o600)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| Error::file(path, error))
    }

    /// The same record as it was saved last is no longer unfinished. No other file is made for
    /// that: to make one takes longer than most steps.
    ///
    /// # Errors
    /// The record is not there.
    pub fn finish(&mut self, state: &Path) -> Result<()> {
        self.unfinished = false;
        let path = path(state, &self.interface)?;
        let text = self.text(&path)?;
        let flag = text.find(UNFINISHED).map(|at| at + UNFINISHED.len());
        let at = flag.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        regular_file::open_to_write(&path, Links::Refuse)
            .and_then(|file| file.write_all_at(b"false", at))
            .map_err(|error| Error::file(path, error))
    }

    /// As long with either value of [`Record::unfinished`].
    fn text(&self, path: &Path) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::Record {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        if self.unfinished
            && let Some(at) = text.find(UNFINISHED)
        {
            text.insert(at + UNFINISHED.len(), ' ');
        }
        text.push('\n');
        Ok(text)
    }

    /// Adds what the guard is to know of it.
    fn tell(&self, known: &mut Known) {
        let guard = self.guard().cloned();
        known
            .nics
            .extend(guard.map(|guard| (self.interface.clone(), guard)));
        for step in &self.shared {
            if let Step::Masquerade { network } = step
                && !known.masqueraded.contains(network)
            {
                known.masqueraded.push(*network);
            }
            if let Step::Reserve { bridged, address } = step {
                let reserved = Reserved {
                    bridged: *bridged,
                    address: *address,
                };
                if !known.reserved.contains(&reserved) {
                    known.reserved.push(reserved);
                }
            }
        }
    }

    /// Removes the record of an interface. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(state: &Path, interface: &str) -> Result<()> {
        // Of a call that was killed as it wrote.
        for path in [path(state, interface)?, temporary(state, interface)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file(path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Removes what calls left that were killed as they wrote a record; the caller has the lock.
///
/// # Errors
/// The folder cannot be read, or a file in it not be removed.
pub fn remove_temporaries(state: &Path) -> Result<()> {
    let entries = match fs::read_dir(state) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file(state, error)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let interface = name
            .to_str()
            .and_then(|name| name.strip_prefix('.')?.strip_suffix(".new"));
        if interface.is_some_and(is_interface_name) {
            fs::remove_file(entry.path()).map_err(|error| Error::file(entry.path(), error))?;
        }
    }
    Ok(())
}

fn temporary(state: &Path, interface: &str) -> PathBuf {
    state.join(format!(".{interface}.new"))
}

fn path(state: &Path, interface: &str) -> Result<PathBuf> {
    if !is_interface_name(interface) || interface.starts_with('.') {
        return Err(Error::Usage(format!(
            "{interface:?} is not an interface's name"
        )));
    }
    Ok(state.join(interface))
}

/// Makes the folder of the records, if it is not there: for root alone, since Ganeti's tags and
/// names are in them.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(state: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|error| Error::file(state, error))
}

/// The interfaces that have a record, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn interfaces(state: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(state) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file(state, error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_interface_name(name) && !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// What the guard is to know of the interfaces that have a record, less one.
///
/// # Errors
/// The folder cannot be read. A record that cannot is logged and left out.
pub fn known(state: &Path, except: &str) -> Result<Known> {
    let mut known = Known::default();
    for interface in interfaces(state)? {
        if interface == except {
            continue;
        }
        match Record::load(state, &interface) {
            Ok(record) => record.iter().for_each(|record| record.tell(&mut known)),
            Err(error) => tracing::warn!(interface, %error, "left out of the guard"),
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::new("tap0", 7, "snf-1", BTreeMap::new());
        record.steps = vec![
            Step::Up,
            Step::Route {
                address: "10.66.2.7".parse().unwrap(),
                table: 100,
            },
            Step::Neighbour {
                address: "fd66::1".parse().unwrap(),
                mac: "aa:00:00:00:00:01".parse().unwrap(),
            },
        ];
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path(), "tap0").unwrap(), Some(record));
        assert_eq!(interfaces(folder.path()).unwrap(), ["tap0"]);
        Record::remove(folder.path(), "tap0").unwrap();
        Record::remove(folder.path(), "tap0").unwrap();
        assert_eq!(Record::load(folder.path(), "tap0").unwrap(), None);
        assert_eq!(interfaces(folder.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_unfinished_record_is_finished_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let environment = BTreeMap::from([("TAGS".into(), "\n  \"unfinished\": true".into())]);
        let mut record = Record::new("tap0", 7, "\n  \"unfinished\": true", environment);
        record.steps = vec![Step::Up];
        let saved = || fs::read_to_string(folder.path().join("tap0")).unwrap();
        record.save(folder.path()).unwrap();
        let done = saved();
        record.unfinished = true;
        record.save(folder.path()).unwrap();
        let loaded = || Record::load(folder.path(), "tap0").unwrap().unwrap();
        assert_eq!(loaded(), record);
        record.finish(folder.path()).unwrap();
        assert_eq!(loaded(), record);
        assert!(!record.unfinished);
        assert_eq!(saved(), done);
        assert!(
            Record::new("tap1", 7, "", BTreeMap::new())
                .finish(folder.path())
                .is_err()
        );
    }

    #[test]
    fn what_is_no_record_is_refused_by_file_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tap0"), "{}").unwrap();
        let error = Record::load(folder.path(), "tap0").unwrap_err().to_string();
        assert!(error.contains("tap0: missing field"), "{error}");
        let other = Record::new("tap1", 7, "snf-1", BTreeMap::new());
        fs::write(
            folder.path().join("tap0"),
            serde_json::to_vec(&other).unwrap(),
        )
        .unwrap();
        let error = Record::load(folder.path(), "tap0").unwrap_err().to_string();
        assert!(error.contains("is of tap1"), "{error}");
        assert!(Record::load(folder.path(), "../x").is_err());
    }
}
