//! The service that looks after what calls have made: it takes back what an interface that
//! vanished has left (Ganeti up to 3.1 never calls "down"), puts our filters back when
//! somebody flushes them, and follows guests that come and go ([`crate::places`]).

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use agents::netlink::ForwardingMonitor;
use agents::netlink::monitor::{LinkEvent, LinkMonitor};
use agents::netlink::nftables::monitor::NftablesMonitor;
use agents::service::notify;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::places::Places;
use crate::record::{self, Record};
use crate::restore;
use crate::run;

/// A burst of changes by others is answered once: after this pause.
const PAUSE: Duration = Duration::from_millis(100);
/// Everything is looked at anew at least so often, whatever was heard.
const SWEEP: Duration = Duration::from_secs(60);

/// Runs until TERM or INT.
///
/// # Errors
/// The kernel gives no subscription, or the folder of records cannot be used.
pub fn run(config: &Config) -> Result<()> {
    record::make_folder(&config.state)?;
    let signals = ending_signals()?;
    // Subscribed first: what happens while we sweep is heard after.
    let mut links = LinkMonitor::open()?;
    let mut filters = NftablesMonitor::open()?;
    let mut learned = ForwardingMonitor::open()?;
    let mut places = Places::default();
    look_at_all(&mut places, config);
    notify::ready();
    let mut next_sweep = Instant::now() + SWEEP;
    let mut repair_at: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let next = repair_at.map_or(next_sweep, |at| at.min(next_sweep));
        let wait =
            PollTimeout::try_from(next.saturating_duration_since(now)).unwrap_or(PollTimeout::ZERO);
        let mut ready = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(links.as_fd(), PollFlags::POLLIN),
            PollFd::new(filters.as_fd(), PollFlags::POLLIN),
            PollFd::new(learned.as_fd(), PollFlags::POLLIN),
        ];
        let sockets = places.descriptors();
        ready.extend(sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        match poll(&mut ready, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Error::file("poll", error.into())),
        }
        if signals.read_signal().is_ok_and(|signal| signal.is_some()) {
            notify::stopping();
            return Ok(());
        }
        match links.events() {
            Ok(events) => {
                for event in &events {
                    heard(event, config);
                    places.link(event, config);
                }
            }
            Err(error) if error.is_lost() => next_sweep = Instant::now(),
            Err(error) => return Err(error.into()),
        }
        // Before the claims: a guest that has just spoken here is not elsewhere.
        match learned.events() {
            Ok(entries) => {
                for entry in &entries {
                    places.learned(entry, config);
                }
            }
            Err(error) if error.is_lost() => next_sweep = Instant::now(),
            Err(error) => return Err(error.into()),
        }
        places.claims(config);
        if filters.deleted()? && repair_at.is_none() {
            repair_at = Some(Instant::now() + PAUSE);
        }
        let now = Instant::now();
        if repair_at.is_some_and(|at| at <= now) {
            repair_at = None;
            repair(config);
            // Our own deletions are no reason to look again.
            let _ = filters.deleted()?;
        }
        if next_sweep <= now {
            look_at_all(&mut places, config);
            let _ = filters.deleted()?;
            next_sweep = now + SWEEP;
        }
        notify::alive();
    }
}

fn ending_signals() -> Result<SignalFd> {
    let mut ending = SigSet::empty();
    ending.add(Signal::SIGTERM);
    ending.add(Signal::SIGINT);
    ending
        .thread_block()
        .and_then(|()| {
            SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        })
        .map_err(|error| Error::file("signalfd", error.into()))
}

fn heard(event: &LinkEvent, config: &Config) {
    let LinkEvent::Gone(link) = event else {
        return;
    };
    let interface = link.name.as_str();
    match Record::load(&config.state, interface) {
        Ok(Some(record)) if record.index == link.index => {
            let instance = record.instance;
            match run::clean_up(interface, link.index, config) {
                Ok(()) => tracing::info!(interface, instance, "gone; what it left was taken back"),
                Err(error) => tracing::warn!(interface, instance, %error, "not all taken back"),
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(interface, %error, "the record"),
    }
}

fn look_at_all(places: &mut Places, config: &Config) {
    if let Err(error) = restore::sweep(config) {
        tracing::warn!(%error, "sweep");
    }
    match restore::finish(config) {
        Ok(repaired) => {
            for nic in repaired {
                tracing::warn!(interface = nic.interface, "{nic}");
            }
        }
        Err(error) => tracing::warn!(%error, "what was half done"),
    }
    repair(config);
    if let Err(error) = places.look(config) {
        tracing::warn!(%error, "the places of guests");
    }
}

fn repair(config: &Config) {
    match restore::guard(config) {
        Ok(true) => tracing::warn!("our filters were not as they should be; they are again"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "our filters could not be put back"),
    }
}
