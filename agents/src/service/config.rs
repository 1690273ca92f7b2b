//! Loading a TOML configuration file.
//!
//! A configuration type derives [`serde::Deserialize`] with `deny_unknown_fields`, so that a
//! misspelt key is refused with its line instead of being ignored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a configuration file was refused. The text names the file, and the line and key where
/// there is one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong type.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was wrong, with line, column and key.
        message: String,
    },
    /// The file is well formed, but a value in it is not one that can be used.
    #[error("{}: {key} = {value}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its table: `amqp.hosts`.
        key: String,
        /// The value as it was read.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads and parses `path`. A file that does not exist is an error: see [`load_or_default`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read(path)?)
}

/// Reads the configuration of another program at `path`, and returns ours that `to_toml` makes
/// of it. That is checked by `parse`, as it will be when it is used.
///
/// # Errors
/// The file cannot be read, or one of the two refuses it.
pub fn migrate<T>(
    path: &Path,
    to_toml: impl FnOnce(&Path, &str) -> Result<String, ConfigError>,
    parse: impl FnOnce(&Path, &str) -> Result<T, ConfigError>,
) -> Result<String, ConfigError> {
    let toml = to_toml(path, &read(path)?)?;
    parse(path, &toml)?;
    Ok(toml)
}

/// Like [`load`], but a file that does not exist gives the defaults.
pub fn load_or_default<T: DeserializeOwned + Default>(path: &Path) -> Result<T, ConfigError> {
    match load(path) {
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(T::default())
        }
        other => other,
    }
}

/// Parses `text`, read from `path` (which only the errors need).
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        port: u16,
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_key() {
        let error = parse::<Sample>(Path::new("/etc/x.toml"), "port = 1\nprot = 2\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("/etc/x.toml"), "{error}");
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("prot"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_refused() {
        let error = parse::<Sample>(Path::new("x"), "port = 70000")
            .unwrap_err()
            .to_string();
        assert!(error.contains("70000"), "{error}");
    }

    #[test]
    fn a_missing_file_is_the_default_only_where_that_is_asked_for() {
        let path = Path::new("/nonexistent/x.toml");
        assert!(load::<Sample>(path).is_err());
        assert_eq!(load_or_default::<Sample>(path).unwrap(), Sample::default());
    }
}
