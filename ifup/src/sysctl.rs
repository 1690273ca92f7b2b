//! Settings of the kernel below `/proc/sys`.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::error::{Error, Result};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// The value of a setting (`net/ipv4/conf/tap0/forwarding`); none if there is no such.
///
/// # Errors
/// What else the kernel says.
pub fn read(name: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(name)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path(name), error)),
    }
}

/// Sets a value.
///
/// # Errors
/// There is no such setting, or the kernel refuses the value.
pub fn write(name: &str, value: &str) -> Result<()> {
    fs::write(path(name), value).map_err(|error| Error::file(path(name), error))
}
