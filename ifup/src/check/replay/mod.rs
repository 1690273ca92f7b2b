//! The corpus sent for real: the node's live tables are made again in a network namespace of
//! their own, with TAPs of the same names as the node's, and what they let pass is looked at.
//! Nothing of the node changes, and nothing is left: the namespace goes with the thread that
//! made it. Rules about the state of connections are for what comes to guests, and are left
//! out: on what guests send they would have an effect of their own. So are what the live tables
//! have learned and the limits of how fast guests send: each guest is tried as if it were the first,
//! since all are tried with the same addresses and faster than they may send.

mod bridged;
mod routed;

use std::fmt;

use agents::addr::MacAddr;
use agents::netlink::Rtnetlink;
use agents::netlink::nftables::{Batch, Copy, Nftables};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, Result};
use crate::guard::corpus::Case;
use crate::guard::{BRIDGE, INET, sets};

/// A guest's interface, and what is sent from it.
#[derive(Debug)]
pub struct Guest {
    /// The interface.
    pub interface: String,
    /// Frames, and what is to become of each.
    pub cases: Vec<Case>,
    /// The guest's place.
    pub link: GuestLink,
}

/// The place of a guest.
#[derive(Debug)]
pub enum GuestLink {
    /// Behind a router: the MAC address of the host's end.
    Routed(MacAddr),
    /// On a bridge, which is made as the live one is.
    Bridged(LivePort),
}

/// The treatment that a live bridge gives to the frames of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePort {
    /// The guest's MAC addresses.
    pub own: Vec<MacAddr>,
    /// The port learns.
    pub learning: bool,
    /// The guest's place is fixed.
    pub fixed: bool,
    /// The bridge has `no_linklocal_learn`.
    pub no_linklocal_learn: bool,
}

/// A frame of which became otherwise than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misjudged {
    /// It passed and should not have, or did not and should have.
    Passing(&'static str),
    /// The bridge has learned an address from it that is not the guest's.
    Learning(&'static str),
}

impl fmt::Display for Misjudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(name) => write!(f, "judged wrongly: {name}"),
            Self::Learning(name) => write!(f, "the bridge learns from: {name}"),
        }
    }
}

/// Which frames of which guest became of otherwise than they should, by name.
///
/// # Errors
/// The namespace cannot be made as the node is.
pub fn misjudged(tables: &[Copy], guests: &[Guest]) -> Result<Vec<(String, Misjudged)>> {
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

fn in_namespace(tables: &[Copy], guests: &[Guest]) -> Result<Vec<(String, Misjudged)>> {
    let mut rtnetlink = Rtnetlink::open()?;
    let mut nftables = Nftables::open()?;
    for table in tables {
        nftables.make(table)?;
    }
    let mut wrong = Vec::new();
    let mut bridge = None;
    for guest in guests {
        forget(&mut nftables)?;
        match &guest.link {
            GuestLink::Bridged(port) => {
                let bridge = match &mut bridge {
                    Some(made) => made,
                    none => none.insert(bridged::Bridge::make(&mut rtnetlink)?),
                };
                bridge.misjudged(guest, port, &mut rtnetlink, &mut wrong)?;
            }
            GuestLink::Routed(router) => {
                routed::misjudged(guest, *router, &mut rtnetlink, &mut nftables, &mut wrong)?;
            }
        }
    }
    Ok(wrong)
}

/// Makes the tables forget what they have learned, and how fast guests may send.
fn forget(nftables: &mut Nftables) -> Result<()> {
    for table in [BRIDGE, INET] {
        for set in [sets::LEARNED, sets::CLAIMED, sets::PACE, sets::TOO_FAST] {
            let mut batch = Batch::new();
            batch.flush_set(table, set);
            match nftables.commit(&batch) {
                // Of a live table that is not whole, which is said elsewhere.
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
        }
    }
    Ok(())
}
