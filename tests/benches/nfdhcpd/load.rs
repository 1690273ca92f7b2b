//! The guests at work: exchanges as fast as they are answered, or at a rate.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::{read, write};

use crate::frames::{self, Reply};
use crate::site::Guest;
use crate::statistics::percentile;

/// What is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DISCOVER, OFFER, REQUEST, ACK.
    Dora,
    /// Router solicitation and advertisement.
    Router,
    /// Neighbour solicitation and advertisement.
    Neighbour,
}

/// When the next exchange is started.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As soon as fewer than this many are open.
    Outstanding(u64),
    /// So many a second, whether answered or not.
    PerSecond(f64),
}

/// When no further exchange is started.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many.
    Started(u64),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Exchanges begun.
    pub started: u64,
    /// Exchanges completed, every reply correct.
    pub answered: u64,
    /// From the first start to the last answer.
    pub elapsed: Duration,
    /// Of each completed exchange, from when it was to be started, nanoseconds, in the order of
    /// completion.
    pub latencies: Vec<u32>,
}
impl Outcome {
    /// Completed exchanges a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the exchanges did not exceed, microseconds: see
    /// [`percentile`].
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(&self.latencies, share) / 1000.0
    }
}

/// No progress for so long: what is open now is lost.
const LOST: Duration = Duration::from_millis(300);
/// Open exchanges are found by their number modulo this.
const SLOTS: usize = 1 << 18;
/// Starts before the answers are looked at again.
const BURST: u64 = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    First,
    Second,
}

#[derive(Clone, Copy)]
struct Slot {
    number: u32,
    guest: u32,
    state: State,
    start: u64,
}

/// The guests of a site, taking turns.
pub struct Load<'a> {
    guests: &'a mut [Guest],
    epoll: Epoll,
    slots: Vec<Slot>,
    /// By guest: solicitations have no number, they are answered in order.
    open: Vec<VecDeque<u32>>,
    next: u32,
    buffer: Box<[u8]>,
}

impl<'a> Load<'a> {
    /// The load that these guests can make.
    pub fn new(guests: &'a mut [Guest]) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (number, guest) in guests.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            epoll.add(guest.tap.as_fd(), event)?;
        }
        let free = Slot {
            number: 0,
            guest: 0,
            state: State::Closed,
            start: 0,
        };
        Ok(Self {
            open: vec![VecDeque::new(); guests.len()],
            guests,
            epoll,
            slots: vec![free; SLOTS],
            next: 1,
            buffer: vec![0; 2048].into_boxed_slice(),
        })
    }

    /// Makes exchanges, and waits for the answers.
    ///
    /// # Errors
    /// An answer is wrong; the text says whose, and what is wrong with it.
    pub fn run(&mut self, kind: Kind, pace: Pace, until: Until) -> Result<Outcome> {
        self.forget()?;
        let (end, most) = match until {
            Until::Elapsed(time) => (nanoseconds(time), u64::MAX),
            Until::Started(count) => (u64::MAX, count),
        };
        let mut outcome = Outcome::default();
        let (mut lost, mut progress) = (0, 0);
        let begin = Instant::now();
        loop {
            let now = nanoseconds(begin.elapsed());
            let mut more = now < end && outcome.started < most;
            for _ in 0..BURST {
                if outcome.started == most {
                    break;
                }
                let open = outcome.started - outcome.answered - lost;
                let start = match pace {
                    Pace::Outstanding(limit) if open < limit && now < end => now,
                    Pace::Outstanding(_) => break,
                    Pace::PerSecond(rate) => {
                        let due = (outcome.started as f64 * 1e9 / rate) as u64;
                        more = due < end;
                        if due > now || !more {
                            break;
                        }
                        due
                    }
                };
                self.start(kind, start)?;
                outcome.started += 1;
            }
            if self.receive(&begin, &mut outcome.latencies)? {
                progress = nanoseconds(begin.elapsed());
                outcome.answered = outcome.latencies.len() as u64;
                outcome.elapsed = Duration::from_nanos(progress);
            } else if now.saturating_sub(progress) > nanoseconds(LOST) {
                lost = outcome.started - outcome.answered;
            }
            if !more && outcome.started <= outcome.answered + lost {
                break;
            }
        }
        Ok(outcome)
    }

    /// Takes what late answers there are, and knows of no exchange afterwards.
    fn forget(&mut self) -> Result<()> {
        self.slots
            .iter_mut()
            .for_each(|slot| slot.state = State::Closed);
        self.open.iter_mut().for_each(VecDeque::clear);
        let begin = Instant::now();
        while self.receive(&begin, &mut Vec::new())? || begin.elapsed() < Duration::from_millis(20)
        {
        }
        Ok(())
    }

    fn start(&mut self, kind: Kind, start: u64) -> Result<()> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let at = number as usize % self.guests.len();
        let guest = &mut self.guests[at];
        let frame = match kind {
            Kind::Dora => guest.frames.discover(number),
            Kind::Router => &guest.frames.router_solicitation,
            Kind::Neighbour => &guest.frames.neighbour_solicitation,
        };
        write(guest.tap.as_fd(), frame).context("a guest's frame")?;
        if kind != Kind::Dora {
            self.open[at].push_back(number);
        }
        self.slots[number as usize % SLOTS] = Slot {
            number,
            guest: at as u32,
            state: State::First,
            start,
        };
        Ok(())
    }

    /// Takes answers; whether an exchange was completed by them.
    fn receive(&mut self, begin: &Instant, latencies: &mut Vec<u32>) -> Result<bool> {
        let mut events = [EpollEvent::empty(); 256];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => bail!("waiting for answers: {error}"),
        };
        // Of many guests each has one answer or two: to look for more costs as much as to be
        // told again.
        let depth = if self.guests.len() > 32 { 1 } else { 64 };
        let before = latencies.len();
        for event in &events[..ready] {
            let at = event.data() as usize;
            for _ in 0..depth {
                let length = match read(self.guests[at].tap.as_fd(), &mut self.buffer) {
                    Ok(length) => length,
                    Err(Errno::EAGAIN) => break,
                    Err(error) => bail!("{}: {error}", self.guests[at].tap.name()),
                };
                let done = self.answer(at, length).map_err(|wrong| {
                    let frame = &self.buffer[..length];
                    anyhow::anyhow!("{}: {wrong}: {frame:02x?}", self.guests[at].tap.name())
                })?;
                if let Some(start) = done {
                    let taken = nanoseconds(begin.elapsed()).saturating_sub(start);
                    latencies.push(u32::try_from(taken).unwrap_or(u32::MAX));
                }
            }
        }
        Ok(latencies.len() > before)
    }

    /// Takes the frame in the buffer, which came to the guest `at`. If it completes an exchange:
    /// when that was started.
    fn answer(&mut self, at: usize, length: usize) -> Result<Option<u64>, &'static str> {
        let guest = &mut self.guests[at];
        let Some(reply) = frames::read(&self.buffer[..length], guest.mac)? else {
            return Ok(None);
        };
        let number = match reply {
            Reply::Dhcp {
                xid,
                yiaddr,
                chaddr,
                ..
            } => {
                if chaddr != guest.mac {
                    return Err("chaddr");
                }
                if yiaddr != guest.ip {
                    return Err("yiaddr");
                }
                xid
            }
            Reply::NeighbourAdvertisement(to) if to != frames::link_local(guest.mac) => {
                return Err("neighbour advertisement to another address");
            }
            Reply::RouterAdvertisement | Reply::NeighbourAdvertisement(_) => {
                match self.open[at].pop_front() {
                    Some(number) => number,
                    // the periodic one
                    None => return Ok(None),
                }
            }
        };
        let slot = &mut self.slots[number as usize % SLOTS];
        if slot.number != number || slot.state == State::Closed {
            return Ok(None); // late: it counts as lost
        }
        if slot.guest as usize != at {
            return Err("the answer came to another guest's TAP");
        }
        match (reply, slot.state) {
            (
                Reply::Dhcp {
                    kind: frames::OFFER,
                    ..
                },
                State::First,
            ) => {
                slot.state = State::Second;
                let frame = guest.frames.request(number);
                write(guest.tap.as_fd(), frame).map_err(|_| "the TAP does not take REQUEST")?;
                Ok(None)
            }
            (
                Reply::Dhcp {
                    kind: frames::ACK, ..
                },
                State::Second,
            )
            | (Reply::RouterAdvertisement | Reply::NeighbourAdvertisement(_), State::First) => {
                slot.state = State::Closed;
                Ok(Some(slot.start))
            }
            _ => Err("not the message that was expected"),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
