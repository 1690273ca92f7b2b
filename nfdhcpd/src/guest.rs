//! A guest that is served: its client, and what happened with it.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::client::Client;
use crate::limit::{Meter, Rate};
use crate::omission::Omission;
use crate::reason::Reason;
use crate::respond::{Answer, Kind};
use crate::schedule::Timer;

/// Lines that one guest can write into the log: these at once, and then so many a minute.
const LOG_BURST: u32 = 30;
const LOG_RATE: u32 = 10;

/// So many different omissions are said of a guest. The guest can choose how much room its answers
/// have, and so how many there are.
const OMITTED_LINES: usize = 8;

/// A guest that is served.
#[derive(Debug)]
pub struct Guest {
    /// All that its answers depend on.
    pub client: Client,
    /// Its place among the advertisements that nobody asked for.
    pub timer: Timer,
    /// Its packets.
    pub packets: Meter,
    /// Packets that were answered.
    pub answered: u64,
    /// Packets that ended here.
    pub dropped: u64,
    /// What happened last.
    pub last: Option<Exchange>,
    lines: Meter,
    unsaid: u64,
    /// The items that its answers had no room for, as they were logged.
    omitted: Vec<Omission>,
}

/// One packet, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When.
    pub time: SystemTime,
    /// What it was.
    pub kind: Kind,
    /// The answer, or why there was none.
    pub result: Result<Answer, Reason>,
}

impl Guest {
    /// A guest with whom nothing has happened yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            timer: Timer::default(),
            packets: Meter::default(),
            answered: 0,
            dropped: 0,
            last: None,
            lines: Meter::default(),
            unsaid: 0,
            omitted: Vec::new(),
        }
    }

    /// Takes other settings; what they make of the answers is said anew.
    pub fn change(&mut self, client: Client) {
        self.client = client;
        self.omitted.clear();
    }

    /// Says in the log what an answer had no room for, once for each option and number.
    pub fn omitted(&mut self, omissions: &[Omission]) {
        for omission in omissions {
            if self.omitted.contains(omission) {
                continue;
            }
            if self.omitted.len() >= OMITTED_LINES {
                return;
            }
            self.omitted.push(*omission);
            tracing::warn!(
                interface = self.client.interface,
                instance = self.client.binding.hostname,
                "the answer to {} ({}) has no room: {omission}",
                self.client.interface,
                self.client.binding.hostname,
            );
        }
    }

    /// Notes that a packet was answered, and says so in the log.
    pub fn answered(&mut self, kind: Kind, answer: Answer, now: Now) {
        self.answered += 1;
        self.note(kind, Ok(answer), now);
        if let Some(unsaid) = self.may_log(now) {
            let binding = &self.client.binding;
            let address: Option<&dyn Display> = match (answer, &binding.ip, &binding.ip6) {
                (Answer::Dhcp4(_), Some(ip), _) => Some(ip),
                (Answer::Dhcp6(_), _, Some(ip6)) => Some(ip6),
                _ => binding
                    .subnet6
                    .as_ref()
                    .map(|subnet| subnet as &dyn Display),
            };
            tracing::info!(
                interface = self.client.interface,
                instance = binding.hostname,
                mac = %binding.mac,
                address = address.map(tracing::field::display),
                unsaid,
                "{} -> {}",
                kind.name(),
                answer.name(),
            );
        }
    }

    /// Notes that a packet ended here, and says so in the log.
    pub fn dropped(&mut self, kind: Kind, reason: Reason, now: Now) {
        self.dropped += 1;
        self.note(kind, Err(reason), now);
        if let Some(unsaid) = self.may_log(now) {
            tracing::info!(
                interface = self.client.interface,
                instance = self.client.binding.hostname,
                mac = %self.client.binding.mac,
                %reason,
                unsaid,
                "{} dropped",
                kind.name(),
            );
        }
    }

    fn note(&mut self, kind: Kind, result: Result<Answer, Reason>, now: Now) {
        self.last = Some(Exchange {
            time: now.clock,
            kind,
            result,
        });
    }

    /// Whether a line may be written now: the outer `None` if not. The inner is how many were not
    /// written since the last, if any.
    fn may_log(&mut self, now: Now) -> Option<Option<u64>> {
        let rate = Rate::new(LOG_RATE, Duration::from_secs(60), LOG_BURST);
        if self.lines.allows(rate, now.instant) {
            let unsaid = std::mem::take(&mut self.unsaid);
            Some((unsaid > 0).then_some(unsaid))
        } else {
            self.unsaid += 1;
            None
        }
    }
}

/// The time, read once for a batch of packets.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals: it never goes back.
    pub instant: Instant,
    /// For people: it may jump.
    pub clock: SystemTime,
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            clock: SystemTime::now(),
        }
    }
}

/// The addresses of a guest, for people.
pub fn addresses(client: &Client) -> Vec<IpAddr> {
    let binding = &client.binding;
    let ipv4 = binding.ip.map(IpAddr::V4);
    let ipv6 = binding.ip6.or(binding.eui64).map(IpAddr::V6);
    ipv4.into_iter().chain(ipv6).collect()
}
