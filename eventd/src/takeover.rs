//! The AMQP settings of Synnefo's node agent (`/etc/synnefo/20-snf-cyclades-gtools-backend.conf`)
//! → the text of our configuration.
//!
//! The file is a Python module of assignments. Strings and lists of strings are understood;
//! what else is assigned is said in a comment if it would concern us.

use std::fmt::Write as _;
use std::path::Path;

use agents::service::config::{self, ConfigError};

use crate::config::Config;

/// A value of the file.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    List(Vec<String>),
    /// Something else, as it is written.
    Other(String),
}

/// Reads such a file; what is returned is checked by the way that it will be read.
///
/// # Errors
/// The file cannot be read, or see [`to_toml`], or a value cannot be one of ours.
pub fn migrate(path: &Path) -> Result<String, ConfigError> {
    config::migrate(path, to_toml, Config::parse)
}

/// Turns the text of such a file, read from `path`, into the text of an `eventd.toml`.
///
/// # Errors
/// A string or a list that does not end, or `AMQP_HOSTS` or `EXCHANGE_GANETI` with a value
/// that is neither.
pub fn to_toml(path: &Path, text: &str) -> Result<String, ConfigError> {
    let mut out = format!("# Made from {}.\n", path.display());
    let mut amqp = String::new();
    for (line, name, value) in assignments(path, text)? {
        let refuse = |value: &Value, reason: &str| ConfigError::Value {
            path: path.to_owned(),
            key: format!("line {line}: {name}"),
            value: format!("{value:?}"),
            reason: reason.to_owned(),
        };
        // Writing into a string cannot fail.
        let _ = match (name.as_str(), value) {
            ("AMQP_HOSTS" | "CYCLADES_AMQP_HOSTS", Value::List(hosts)) if !hosts.is_empty() => {
                writeln!(amqp, "hosts = {hosts:?}")
            }
            ("AMQP_HOSTS" | "CYCLADES_AMQP_HOSTS", Value::Text(host)) => {
                writeln!(amqp, "hosts = [{host:?}]")
            }
            ("AMQP_HOSTS" | "CYCLADES_AMQP_HOSTS", value) => {
                return Err(refuse(&value, "not a list of strings"));
            }
            ("EXCHANGE_GANETI", Value::Text(exchange)) => {
                writeln!(amqp, "exchange = {exchange:?}")
            }
            ("EXCHANGE_GANETI", value) => return Err(refuse(&value, "not a string")),
            ("BACKEND_PREFIX_ID", Value::Text(prefix)) => writeln!(
                out,
                "# BACKEND_PREFIX_ID = {prefix}: the prefix of each message is taken from the instance's name."
            ),
            ("AMQP_BACKEND" | "CYCLADES_AMQP_BACKEND", _) => Ok(()),
            (name, Value::Text(_) | Value::List(_) | Value::Other(_)) => {
                writeln!(out, "# {name}: NOT TAKEN OVER, unknown.")
            }
        };
    }
    if !amqp.is_empty() {
        amqp.insert_str(0, "\n[amqp]\n");
    }
    Ok(out + &amqp)
}

/// The assignments that begin a line, with the numbers of their lines.
fn assignments(path: &Path, text: &str) -> Result<Vec<(usize, String, Value)>, ConfigError> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (first, behind) = rest.split_once('\n').unwrap_or((rest, ""));
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let assigned = first
            .split_once('=')
            .filter(|(name, _)| is_name(name.trim_end()));
        let Some((name, _)) = assigned else {
            rest = behind;
            continue;
        };
        let line = text.get(..text.len() - rest.len()).unwrap_or_default();
        let line = line.matches('\n').count() + 1;
        let from = rest.get(name.len() + 1..).unwrap_or_default();
        let (value, behind) = value(from).ok_or_else(|| ConfigError::Parse {
            path: path.to_owned(),
            message: format!(
                "line {line}: {}: a string or list that does not end",
                name.trim()
            ),
        })?;
        found.push((line, name.trim().to_owned(), value));
        rest = behind.split_once('\n').map_or("", |(_, rest)| rest);
    }
    Ok(found)
}

/// The value at the start of a text, and what is behind it. `None` if it does not end.
fn value(text: &str) -> Option<(Value, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    match text.chars().next() {
        Some('"' | '\'') => {
            let (string, behind) = string(text)?;
            Some((Value::Text(string), behind))
        }
        Some('[' | '(') => {
            let mut items = Vec::new();
            let mut rest = text.get(1..)?;
            loop {
                rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',']);
                match rest.chars().next()? {
                    ']' | ')' => return Some((Value::List(items), rest.get(1..)?)),
                    '#' => rest = rest.split_once('\n')?.1,
                    '"' | '\'' => {
                        let (item, behind) = string(rest)?;
                        items.push(item);
                        rest = behind;
                    }
                    _ => return Some(other(text)),
                }
            }
        }
        _ => Some(other(text)),
    }
}

fn other(text: &str) -> (Value, &str) {
    let line = text.lines().next().unwrap_or_default();
    let behind = text.get(line.len()..).unwrap_or_default();
    (Value::Other(line.to_owned()), behind)
}

/// The string in quotes at the start of a text, and what is behind it.
fn string(text: &str) -> Option<(String, &str)> {
    let mut characters = text.char_indices();
    let (_, quote) = characters.next()?;
    let mut string = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\n' => return None,
            '\\' => string.push(characters.next()?.1),
            _ if character == quote => {
                return Some((string, text.get(at + quote.len_utf8()..)?));
            }
            _ => string.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(text: &str) -> Result<String, String> {
        to_toml(Path::new("backend.conf"), text).map_err(|error| error.to_string())
    }

    fn config(text: &str) -> Config {
        let toml = convert(text).unwrap();
        Config::parse(Path::new("eventd.toml"), &toml).unwrap()
    }

    #[test]
    fn hosts_and_exchange_are_taken_over() {
        let config = config(
            "# -*- coding: utf-8 -*-\n## comment = \"x\"\n\
             AMQP_HOSTS = [\"amqp://snf:secret@mq1:5672\",  # the first\n    'amqp://snf:secret@mq2:5672',\n]\n\
             AMQP_BACKEND = 'puka'\n\
             EXCHANGE_GANETI = \"cloud\"  # Messages from Ganeti\n",
        );
        assert_eq!(
            config.amqp.hosts,
            ["amqp://snf:secret@mq1:5672", "amqp://snf:secret@mq2:5672"]
        );
        assert_eq!(config.amqp.exchange, "cloud");
    }

    #[test]
    fn a_file_of_comments_is_the_defaults() {
        let ours = config("#AMQP_HOSTS = [\"amqp://x\"]\n\n#BACKEND_PREFIX_ID = \"snf-\"\n");
        assert_eq!(ours.amqp.hosts, Config::default().amqp.hosts);
        assert_eq!(ours.amqp.exchange, Config::default().amqp.exchange);
    }

    #[test]
    fn the_rest_is_said() {
        let toml = convert("BACKEND_PREFIX_ID = 'snf-'\nDEBUG = True\nSHELL = [True]\n").unwrap();
        assert!(
            toml.contains("# BACKEND_PREFIX_ID = snf-: the prefix"),
            "{toml}"
        );
        assert!(toml.contains("# DEBUG: NOT TAKEN OVER"), "{toml}");
        assert!(toml.contains("# SHELL: NOT TAKEN OVER"), "{toml}");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for (text, what) in [
            (
                "\nAMQP_HOSTS = [\"a\"",
                "backend.conf: line 2: AMQP_HOSTS: a string or list",
            ),
            ("AMQP_HOSTS = 'a\n'", "line 1: AMQP_HOSTS"),
            (
                "AMQP_HOSTS = hosts()",
                "line 1: AMQP_HOSTS = Other(\"hosts()\"): not a list",
            ),
            ("AMQP_HOSTS = []", "not a list"),
            ("EXCHANGE_GANETI = 5", "not a string"),
        ] {
            let error = convert(text).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
