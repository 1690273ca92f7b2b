//! The connections that there are: how many in all and per address, and which one makes room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::metrics;

/// A header that has been on its way for so long, and a body of which nothing has come for so long,
/// may be cut to make room.
const SLOW_HEADER: Duration = Duration::from_secs(1);
const SLOW_BODY: Duration = Duration::from_secs(5);

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing was sent yet.
    New,
    /// Between two requests.
    Idle,
    /// A header has begun to come.
    Head,
    /// More of a request's body is waited for.
    Body,
    /// The request is there, its answer not yet sent.
    Answer,
    /// It is a websocket now.
    Upgraded,
    /// It was told to end.
    Closing,
}

impl Phase {
    fn of(value: u8) -> Self {
        match value {
            0 => Self::New,
            1 => Self::Idle,
            2 => Self::Head,
            3 => Self::Body,
            4 => Self::Answer,
            5 => Self::Upgraded,
            _ => Self::Closing,
        }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub struct State {
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `born`.
    since: AtomicU64,
    born: Instant,
    /// Told when it is to end.
    pub closing: Notify,
}

impl State {
    fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::New as u8),
            since: AtomicU64::new(0),
            born: Instant::now(),
            closing: Notify::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::SeqCst))
    }

    /// When its phase began.
    pub fn since(&self) -> Instant {
        let since = Duration::from_millis(self.since.load(Ordering::SeqCst));
        self.born.checked_add(since).unwrap_or(self.born)
    }

    /// Goes on to `phase`, unless it was told to end.
    pub fn enter(&self, phase: Phase) {
        let mut current = self.phase();
        while !matches!(current, Phase::Closing | Phase::Upgraded) {
            if self.change(current, phase) {
                return;
            }
            current = self.phase();
        }
    }

    /// Bytes came: between requests that is the next header.
    pub fn heard(&self) {
        for quiet in [Phase::New, Phase::Idle] {
            if self.change(quiet, Phase::Head) {
                return;
            }
        }
    }

    /// Goes from one phase to another; not if it is in another one by now.
    pub fn change(&self, from: Phase, to: Phase) -> bool {
        let changed = self
            .phase
            .compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if changed {
            let since = self.born.elapsed().as_millis();
            self.since
                .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
        changed
    }

    /// Returns whether it can be ended without taking an answer from anybody; the longer the sooner.
    fn spare(&self, now: Instant) -> Option<(Phase, Instant)> {
        let phase = self.phase();
        let since = self.since();
        let slow = match phase {
            Phase::New | Phase::Idle => Duration::ZERO,
            Phase::Head => SLOW_HEADER,
            Phase::Body => SLOW_BODY,
            Phase::Answer | Phase::Upgraded | Phase::Closing => return None,
        };
        let waited = now.saturating_duration_since(since);
        (waited >= slow).then_some((phase, since))
    }
}

/// The peer whose share of the connections one counts against: an IPv6 user has 64 bits of addresses.
pub fn share(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The reason that there is no room for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There are as many as there may be, and all are busy.
    All,
    /// The same of one address.
    Address,
}

impl Full {
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::Address => "connections_per_address",
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<u64, (IpAddr, Arc<State>)>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

/// All connections of a listener.
#[derive(Debug)]
pub struct Table {
    most: usize,
    per_address: usize,
    inner: Mutex<Inner>,
}

/// A place in the table; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    table: Arc<Table>,
    id: u64,
    pub state: Arc<State>,
}

impl Table {
    pub fn new(most: usize, per_address: usize) -> Self {
        Self {
            most,
            per_address,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection of `address`. If there are too many, the one that has done
    /// nothing for the longest is told to end: then the second value is true. `proxy`: it brings
    /// the requests of many.
    ///
    /// # Errors
    /// All that could make room are busy.
    pub fn enter(self: &Arc<Self>, address: IpAddr, proxy: bool) -> Result<(Place, bool), Full> {
        let address = share(address);
        let mut inner = self.inner();
        let of_address = inner.by_address.get(&address).copied().unwrap_or(0);
        let mut made_room = false;
        if !proxy && of_address >= self.per_address {
            made_room = inner.make_room(Some(address));
            if !made_room {
                return Err(Full::Address);
            }
        }
        if inner.connections.len() >= self.most && !made_room {
            made_room = inner.make_room(None);
            if !made_room {
                return Err(Full::All);
            }
        }
        let id = inner.next;
        inner.next = inner.next.wrapping_add(1);
        let state = Arc::new(State::new());
        inner.connections.insert(id, (address, Arc::clone(&state)));
        let count = inner.by_address.entry(address).or_default();
        *count = count.saturating_add(1);
        metrics::connections(inner.connections.len());
        let place = Place {
            table: Arc::clone(self),
            id,
            state,
        };
        Ok((place, made_room))
    }

    /// Returns the number of connections beyond the limit: told to end, and not gone yet.
    pub fn excess(&self) -> usize {
        self.inner().connections.len().saturating_sub(self.most)
    }
}

impl Inner {
    fn make_room(&self, address: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let mut spare: Vec<(Instant, Phase, &Arc<State>)> = self
            .connections
            .values()
            .filter(|(of, _)| address.is_none_or(|address| *of == address))
            .filter_map(|(_, state)| {
                let (phase, since) = state.spare(now)?;
                Some((since, phase, state))
            })
            .collect();
        spare.sort_by_key(|(since, ..)| *since);
        for (_, phase, state) in spare {
            if state.change(phase, Phase::Closing) {
                state.closing.notify_one();
                metrics::connection_refused("idle");
                return true;
            }
        }
        false
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.table.inner();
        if let Some((address, _)) = inner.connections.remove(&self.id)
            && let Some(count) = inner.by_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.by_address.remove(&address);
            }
        }
        metrics::connections(inner.connections.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_longest_idle_one_makes_room_and_the_busy_ones_stay() {
        let table = Arc::new(Table::new(3, 2));
        let busy = table.enter(address(1), false).unwrap().0;
        busy.state.enter(Phase::Answer);
        let idle = table.enter(address(1), false).unwrap().0;
        // The share of this address is used up: its own idle one goes.
        let third = table.enter(address(1), false).unwrap().0;
        assert_eq!(idle.state.phase(), Phase::Closing);
        third.state.enter(Phase::Body);
        assert_eq!(table.enter(address(1), false).unwrap_err(), Full::Address);
        drop(idle);
        let other = table.enter(address(2), false).unwrap().0;
        other.state.enter(Phase::Answer);
        assert_eq!(table.enter(address(3), false).unwrap_err(), Full::All);
        assert_eq!(table.enter(address(3), true).unwrap_err(), Full::All);
        other.state.enter(Phase::Idle);
        drop(table.enter(address(3), false).unwrap());
        assert_eq!(other.state.phase(), Phase::Closing);
        // A connection that was told to end does not come back.
        other.state.enter(Phase::Answer);
        assert_eq!(other.state.phase(), Phase::Closing);
    }

    #[test]
    fn a_proxy_has_no_share_and_an_ipv6_user_has_one() {
        let table = Arc::new(Table::new(10, 1));
        let places: Vec<Place> = (0..5)
            .map(|_| {
                let place = table.enter(address(1), true).unwrap().0;
                place.state.enter(Phase::Answer);
                place
            })
            .collect();
        assert_eq!(places.len(), 5);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = table.enter(v6("2001:db8::1"), false).unwrap().0;
        one.state.enter(Phase::Answer);
        let same = table.enter(v6("2001:db8::ffff:1"), false);
        assert_eq!(same.unwrap_err(), Full::Address);
        assert!(table.enter(v6("2001:db8:0:1::1"), false).is_ok());
    }
}
