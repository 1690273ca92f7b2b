//! Guests on a bridge: what comes out of another port, and what the bridge learns.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use agents::netlink::{LinkChange, PortFlags, Rtnetlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::tap;
use super::{Guest, LivePort, Misjudged};
use crate::error::{Error, Result};
use crate::guard::frame::ethernet;
use crate::sysctl;

/// Names that no interface of a guest has: Ganeti's are `tap` and a number.
const BRIDGE: &str = "snf-replay";
const WITNESS: &str = "snf-witness";
const MARKER: &str = "snf-marker";
/// For experiments (RFC 9542, appendix B.2).
const EXPERIMENTAL: u16 = 0x88b5;
/// What is sent is here at once; this is for a host that has no time.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bridge with two ports of its own: one that sees all, and one that marks where a frame ends.
pub(super) struct Bridge {
    index: u32,
    witness: File,
    marker: File,
    sent: u32,
}

impl Bridge {
    pub(super) fn make(rtnetlink: &mut Rtnetlink) -> Result<Self> {
        for name in ["iptables", "ip6tables", "arptables"] {
            // The host's filters are not tried, and would check headers of their own accord.
            let name = format!("net/bridge/bridge-nf-call-{name}");
            if sysctl::read(&name)?.is_some() {
                sysctl::write(&name, "0")?;
            }
        }
        let index = rtnetlink.add_bridge(BRIDGE)?;
        Ok(Self {
            index,
            witness: plug(index, WITNESS, false, rtnetlink)?.0,
            marker: plug(index, MARKER, false, rtnetlink)?.0,
            sent: 0,
        })
    }

    pub(super) fn misjudged(
        &mut self,
        guest: &Guest,
        port: &LivePort,
        rtnetlink: &mut Rtnetlink,
        wrong: &mut Vec<(String, Misjudged)>,
    ) -> Result<()> {
        rtnetlink.set_no_linklocal_learn(self.index, BRIDGE, port.no_linklocal_learn)?;
        let (tap, index) = plug(self.index, &guest.interface, port.learning, rtnetlink)?;
        if port.fixed
            && let Some(mac) = port.own.first()
        {
            rtnetlink.set_forwarding(index, *mac, None, true)?;
        }
        for case in &guest.cases {
            self.sent = self.sent.wrapping_add(1);
            // A frame that the kernel does not even take from a guest does not pass.
            let sent = (&tap).write(&case.frame).is_ok();
            let passes = sent && arrives(&self.witness, &self.marker, &case.frame, self.sent)?;
            if passes != case.passes {
                wrong.push((guest.interface.clone(), Misjudged::Passing(case.name)));
            }
            // When the frame's mark has arrived, the bridge has learned what it will.
            let mut learned = false;
            for entry in rtnetlink.forwarding()? {
                let Some(mac) = entry.mac.filter(|mac| !port.own.contains(mac)) else {
                    continue;
                };
                if entry.interface == index && entry.bridge.is_some() && !entry.is_local() {
                    learned = true;
                    // The next frame must be judged by itself, and must not come back here.
                    rtnetlink.delete_forwarding(index, mac, entry.vlan)?;
                }
            }
            if learned {
                wrong.push((guest.interface.clone(), Misjudged::Learning(case.name)));
            }
        }
        Ok(())
    }
}

/// A TAP of this name as a port of the bridge, and its index.
fn plug(bridge: u32, name: &str, learning: bool, rtnetlink: &mut Rtnetlink) -> Result<(File, u32)> {
    let (tap, index) = tap::plug(name, rtnetlink)?;
    let change = LinkChange {
        master: Some(bridge),
        up: Some(true),
        ..LinkChange::default()
    };
    rtnetlink.change_link(index, name, &change)?;
    let flags = PortFlags {
        learning: Some(learning),
        ..PortFlags::default()
    };
    rtnetlink.change_port(index, name, &flags)?;
    Ok((tap, index))
}

fn of_tap(error: std::io::Error) -> Error {
    Error::file("/dev/net/tun", error)
}

/// The kernel may cut off what fills a frame up.
fn same(found: &[u8], sent: &[u8]) -> bool {
    sent.strip_prefix(found)
        .is_some_and(|rest| !found.is_empty() && rest.iter().all(|byte| *byte == 0))
}

/// Whether a frame comes out before one that is sent after it.
fn arrives(witness: &File, mut marker: &File, frame: &[u8], number: u32) -> Result<bool> {
    let mut payload = [0; 46];
    for (byte, value) in payload.iter_mut().zip(number.to_be_bytes()) {
        *byte = value;
    }
    let source = MacAddr::new([0x02, 0, 0, 0, 0, 1]);
    let mark = ethernet(MacAddr::BROADCAST, source, EXPERIMENTAL, &payload);
    marker.write(&mark).map_err(of_tap)?;
    let start = Instant::now();
    let mut buffer = vec![0; 70_000];
    let mut arrived = false;
    while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(witness.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, wait).map_err(|error| of_tap(error.into()))? == 0 {
            break;
        }
        let mut reader = witness;
        let length = reader.read(&mut buffer).map_err(of_tap)?;
        let found = buffer.get(..length).unwrap_or_default();
        if found == mark {
            return Ok(arrived);
        }
        arrived |= same(found, frame);
    }
    Err(of_tap(std::io::ErrorKind::TimedOut.into()))
}
