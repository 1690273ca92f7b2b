//! Telling the service manager how we are: `sd_notify(3)`.
//!
//! Without a service manager (`NOTIFY_SOCKET` unset) every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service is up: everything it needs to do its work is in place.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The service is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// One line on what the service is doing, shown by `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// The service is alive. To be called from the loop that must not hang, at least twice in
/// each [`watchdog_interval`].
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often the service manager wants to hear [`alive`], if it does.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn send(states: &[NotifyState]) {
    // A manager that cannot be told is not a reason to stop serving guests.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}
