//! Logging: to the journal where systemd connected us to it, else to standard error.

use std::io;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging for the whole process; a second call does nothing.
///
/// `filter` is in the syntax of `tracing`'s `EnvFilter` (`info`, `debug`, `nfdhcpd=trace,info`).
/// Under systemd (`JOURNAL_STREAM` is set) records go to the journal with their fields;
/// else to standard error, with the time.
///
/// # Errors
/// A filter that cannot be parsed, with the reason.
pub fn init(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(with_quiet_client(filter))
        .map_err(|error| format!("log filter {filter:?}: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some()
        && let Ok(journal) = tracing_journald::layer()
    {
        let _ = registry.with(journal.with_field_prefix(None)).try_init();
        return Ok(());
    }
    let stderr = fmt::layer()
        .with_writer(io::stderr)
        // Colours are not built in: to ask for them, on a terminal, would be an error.
        .with_ansi(false)
        .with_target(false);
    let _ = registry.with(stderr).try_init();
    Ok(())
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
}
