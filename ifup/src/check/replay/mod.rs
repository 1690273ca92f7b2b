//! The corpus sent for real: the node's live tables are made again in a network namespace of
//! their own, with TAPs of the same names as the node's, and what they let pass is looked at.
//! Nothing of the node changes, and nothing is left: the namespace goes with the thread that
//! made it. Rules about the state of connections are for what comes to guests, and are left
//! out: on what guests send they would have an effect of their own.

mod bridged;
mod routed;

use agents::addr::MacAddr;
use agents::netlink::Rtnetlink;
use agents::netlink::nftables::{Copy, Nftables};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, Result};
use crate::guard::corpus::Case;

/// A guest's interface, and what is sent from it.
#[derive(Debug)]
pub struct Guest {
    /// The interface.
    pub interface: String,
    /// Frames, and what is to become of each.
    pub cases: Vec<Case>,
    /// Of a routed guest: the MAC address of the host's end.
    pub router: Option<MacAddr>,
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
    let mut nftables = Nftables::open()?;
    for table in tables {
        nftables.make(table)?;
    }
    let mut wrong = Vec::new();
    let (on_bridges, behind_router): (Vec<&Guest>, Vec<&Guest>) =
        guests.iter().partition(|guest| guest.router.is_none());
    if !on_bridges.is_empty() {
        let mut bridge = bridged::Bridge::make(&mut rtnetlink)?;
        for guest in on_bridges {
            bridge.misjudged(guest, &mut rtnetlink, &mut wrong)?;
        }
    }
    for guest in behind_router {
        routed::misjudged(guest, &mut rtnetlink, &mut nftables, &mut wrong)?;
    }
    Ok(wrong)
}
