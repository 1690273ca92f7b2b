//! Logging: to the journal where systemd connected us to it, else to standard error.

use std::io;
use std::path::Path;

use serde::Deserialize;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::journal::{self, Journal};

/// The records that are logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or
/// several separated by commas, each for the modules below a path (`nfdhcpd=trace,info`).
///
/// The word `warning` is the level `warn`, as in `syslog.conf(5)`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(String);

impl LogFilter {
    /// Records of the level `info` and above.
    pub fn info() -> Self {
        Self("info".to_owned())
    }

    /// Records of the level `warn` and above.
    pub fn warn() -> Self {
        Self("warn".to_owned())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let directives = text
            .split(',')
            .map(directive)
            .collect::<Result<Vec<_>, _>>()?
            .join(",");
        EnvFilter::builder()
            .parse(&directives)
            .map_err(|error| format!("log filter {text:?}: {error}"))?;
        Ok(Self(directives))
    }
}

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// A directive with its level in the word that `tracing` has for it. A single word that is no
/// level is refused: `tracing` would take it for a module, and log nothing else.
fn directive(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (module, word) = match text.rsplit_once('=') {
        Some((module, word)) => (Some(module), word),
        None => (None, text),
    };
    let word = match word.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    };
    if word.is_empty() || word.parse::<LevelFilter>().is_err() {
        return Err(format!(
            "log filter {text:?}: unknown level {word:?}: \
             must be error, warn, info, debug, trace, off or MODULE=LEVEL"
        ));
    }
    Ok(match module {
        Some(module) => format!("{module}={word}"),
        None => word,
    })
}

/// Starts logging for the whole process; a second call does nothing.
///
/// Under systemd (`JOURNAL_STREAM` is set) records go to the journal with their fields;
/// else to standard error, with the time.
pub fn init(filter: &LogFilter) {
    // Checked already where the filter was read.
    let Ok(filter) = EnvFilter::builder().parse(with_quiet_client(&filter.0)) else {
        return;
    };
    let registry = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some()
        && let Ok(journal) = Journal::connect(Path::new(journal::SOCKET), &program())
    {
        let _ = registry.with(journal).try_init();
        return;
    }
    let stderr = fmt::layer()
        .with_writer(io::stderr)
        // Colours are not built in: to ask for them, on a terminal, would be an error.
        .with_ansi(false)
        .with_target(false);
    let _ = registry.with(stderr).try_init();
}

/// The file name of the program.
fn program() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .map(Path::new)
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The AMQP client logs each lost connection as an error, often twice; who uses it says so
/// once, with what it means. A filter that names `lapin` gets its lines all the same.
fn with_quiet_client(filter: &str) -> String {
    if filter.contains("lapin") {
        filter.to_owned()
    } else {
        format!("{filter},lapin=off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_amqp_client_is_quiet_unless_it_is_asked_for() {
        assert_eq!(with_quiet_client("info"), "info,lapin=off");
        assert_eq!(with_quiet_client("info,lapin=debug"), "info,lapin=debug");
        for filter in ["info", "debug,nfdhcpd=trace"] {
            assert!(
                EnvFilter::builder()
                    .parse(with_quiet_client(filter))
                    .is_ok()
            );
        }
    }

    #[test]
    fn a_filter_is_levels_and_modules_with_levels() {
        for (given, expected) in [
            ("info", "info"),
            ("Warning", "warn"),
            ("nfdhcpd=trace, info", "nfdhcpd=trace,info"),
            ("central::api=warning,error", "central::api=warn,error"),
            ("off", "off"),
        ] {
            assert_eq!(LogFilter::parse(given).unwrap().0, expected, "{given}");
        }
        for bad in ["", "verbose", "nfdhcpd", "info,", "nfdhcpd=loud", "=", "[x"] {
            let error = LogFilter::parse(bad).unwrap_err();
            assert!(error.contains("log filter"), "{error}");
        }
    }
}
