//! `status`: what the daemon has done and what waits, from its files alone.

use std::fmt::Write as _;
use std::time::Duration;

use agents::ganeti::ssconf::Ssconf;
use agents::message::EventTime;
use agents::outbox::{Outbox, Usage};

use crate::config::Config;
use crate::cursor::Cursor;
use crate::lock::Lock;
use crate::mastership::Role;
use crate::messages::{self, Folder};

/// So many routing keys are named.
const KEYS_SHOWN: usize = 10;

/// The state, for a person to read; works whether the daemon runs or not.
pub fn status(config: &Config) -> String {
    let mut text = String::new();
    let mut say = |what: &str, found: String| {
        let _ = writeln!(text, "{what:<10} {found}");
    };
    say(
        "daemon",
        Lock::holder(&config.cursor_file)
            .map_or_else(|| "not running".to_owned(), |pid| format!("process {pid}")),
    );
    let node = config.node_name().unwrap_or_default();
    say(
        "node",
        match Role::read(&Ssconf::new(&config.ssconf_dir), &node) {
            Role::Master { cluster } => format!("{node}, the master of {cluster}"),
            Role::Other { master } => format!("{node}; the master is {master}"),
            Role::Unknown { reason } => format!("{node}; {reason}"),
        },
    );
    say(
        "jobs",
        match Cursor::load(&config.cursor_file) {
            Ok(Some(cursor)) => {
                let mut jobs = format!(
                    "{} open, newest ended {}",
                    cursor.open.len(),
                    cursor.done.highest().unwrap_or(0)
                );
                if !cursor.master && !cursor.arrears.is_empty() {
                    let count = cursor.arrears.count();
                    let _ = write!(jobs, ", {count} of the time as the master not told yet");
                }
                jobs
            }
            Ok(None) => "none told yet".to_owned(),
            Err(error) => error.to_string(),
        },
    );
    let folder = |path: &std::path::Path| {
        Outbox::existing(path)
            .usage()
            .map(usage)
            .unwrap_or_else(|error| format!("{}: {error}", path.display()))
    };
    say("outbox", folder(&config.outbox_dir));
    for kept in [Folder::Parked, Folder::Refused, Folder::DeadLetters] {
        let path = config.outbox_dir.join(kept.name());
        if !path.exists() {
            continue;
        }
        say(kept.name(), folder(&path));
        match messages::keys(config, kept) {
            Ok(keys) => {
                let mut keys: Vec<_> = keys.into_iter().collect();
                keys.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                let more = keys.len().saturating_sub(KEYS_SHOWN);
                for (key, count) in keys.into_iter().take(KEYS_SHOWN) {
                    say("", format!("{key}: {count} messages"));
                }
                if more > 0 {
                    say("", format!("… and {more} more keys"));
                }
            }
            Err(error) => say("", format!("{error:#}")),
        }
    }
    text
}

fn usage(usage: Usage) -> String {
    let Some(oldest) = usage.oldest else {
        return "empty".to_owned();
    };
    let now = EventTime::now().since_epoch();
    let age = now.saturating_sub(Duration::from_micros(oldest)).as_secs();
    let Usage { files, bytes, .. } = usage;
    format!("{files} files, {bytes} bytes, the oldest {age} s old")
}
