//! The corpus sent for real: the node's live tables are made again in a network namespace of
//! their own, with a bridge and TAPs of the same names as the node's, and what comes out is
//! looked at. Nothing of the node changes, and nothing is left: the namespace goes with the
//! thread that made it. Rules about the state of connections are for what comes to guests, and
//! are left out: on what guests send they would have an effect of their own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use agents::netlink::nftables::{Copy, Nftables};
use agents::netlink::{LinkChange, PortFlags, Rtnetlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::tap;
use crate::error::{Error, Result};
use crate::guard::corpus::Case;
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

/// A guest's interface, and what is sent from it.
#[derive(Debug)]
pub struct Guest {
    /// The interface.
    pub interface: String,
    /// Frames, and what is to become of each.
    pub cases: Vec<Case>,
}

/// Which frames of which guest became of otherwise than they should, by name.
///
/// # Errors
/// The namespace cannot be made as the node is.
pub fn misjudged(tables: &[Copy], guests: &[Guest]) -> Result<Vec<(String, &'static str)>> {
    std::thread::scope(|scope| {
        let replay = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|error| Error::file("/proc/self/ns/net", error.into()))?;
            in_namespace(tables, guests)
        });
        replay.join().unwrap_or_else(|_| {
            Err(Error::Usage(
                "the replay of the corpus ended early".to_owned(),
            ))
        })
    })
}

fn in_namespace(tables: &[Copy], guests: &[Guest]) -> Result<Vec<(String, &'static str)>> {
    let mut rtnetlink = Rtnetlink::open()?;
    let bridge = rtnetlink.add_bridge(BRIDGE)?;
    let mut plug = |name: &str| -> Result<File> {
        let tap = tap::open(name).map_err(|error| Error::file("/dev/net/tun", error))?;
        let index = rtnetlink.link_by_name(name)?.map(|link| link.index);
        let index = index.ok_or_else(|| Error::host("INTERFACE", name, "gone"))?;
        let change = LinkChange {
            master: Some(bridge),
            up: Some(true),
            ..LinkChange::default()
        };
        rtnetlink.change_link(index, name, &change)?;
        // A forged source must not send the frame back to where it came from.
        let flags = PortFlags {
            learning: Some(false),
            ..PortFlags::default()
        };
        rtnetlink.change_port(index, name, &flags)?;
        Ok(tap)
    };
    for name in ["iptables", "ip6tables", "arptables"] {
        // The host's filters are not tried, and would check headers of their own accord.
        let name = format!("net/bridge/bridge-nf-call-{name}");
        if sysctl::read(&name)?.is_some() {
            sysctl::write(&name, "0")?;
        }
    }
    let witness = plug(WITNESS)?;
    let marker = plug(MARKER)?;
    let mut nftables = Nftables::open()?;
    for table in tables {
        nftables.make(table)?;
    }
    let mut wrong = Vec::new();
    let mut number = 0_u32;
    for guest in guests {
        let tap = plug(&guest.interface)?;
        for case in &guest.cases {
            number = number.wrapping_add(1);
            // A frame that the kernel does not even take from a guest does not pass.
            let sent = (&tap).write(&case.frame).is_ok();
            let passes = sent && arrives(&witness, &marker, &case.frame, number)?;
            if passes != case.passes {
                wrong.push((guest.interface.clone(), case.name));
            }
        }
    }
    Ok(wrong)
}

/// The kernel may cut off what fills a frame up.
fn same(found: &[u8], sent: &[u8]) -> bool {
    sent.strip_prefix(found)
        .is_some_and(|rest| !found.is_empty() && rest.iter().all(|byte| *byte == 0))
}

/// Whether a frame comes out before one that is sent after it.
fn arrives(witness: &File, mut marker: &File, frame: &[u8], number: u32) -> Result<bool> {
    let wrong = |error: std::io::Error| Error::file("/dev/net/tun", error);
    let mut payload = [0; 46];
    for (byte, value) in payload.iter_mut().zip(number.to_be_bytes()) {
        *byte = value;
    }
    let source = MacAddr::new([0x02, 0, 0, 0, 0, 1]);
    let mark = ethernet(MacAddr::BROADCAST, source, EXPERIMENTAL, &payload);
    marker.write(&mark).map_err(wrong)?;
    let start = Instant::now();
    let mut buffer = vec![0; 70_000];
    let mut arrived = false;
    while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(witness.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, wait).map_err(|error| wrong(error.into()))? == 0 {
            break;
        }
        let mut reader = witness;
        let length = reader.read(&mut buffer).map_err(wrong)?;
        let found = buffer.get(..length).unwrap_or_default();
        if found == mark {
            return Ok(arrived);
        }
        arrived |= same(found, frame);
    }
    Err(wrong(std::io::ErrorKind::TimedOut.into()))
}
