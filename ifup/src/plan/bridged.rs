//! A bridged NIC: the TAP becomes a port of the bridge.

use agents::addr::MacAddr;

use super::{Plan, no_host};
use crate::config::Config;
use crate::facts::Facts;
use crate::guard::entry::{Guard, Scope};
use crate::request::Request;
use crate::step::Step;
use crate::vlan::Vlans;

/// Where the TAP goes.
pub(super) struct Port<'a> {
    pub(super) bridge: &'a str,
    pub(super) vlans: Option<&'a Vlans>,
}

pub(super) fn plan(
    plan: &mut Plan,
    request: &Request,
    port: &Port<'_>,
    facts: &Facts,
    config: &Config,
) {
    plan.steps.extend(no_host(request, facts));
    plan.steps.push(Step::Link {
        mtu: facts.bridge_mtu,
        mac: port_mac(request.nic.mac),
        bridge: Some(port.bridge.to_owned()),
        before: facts.tap.clone(),
    });
    if let Some(vlans) = port.vlans {
        plan.steps.push(Step::Vlans(vlans.clone()));
    }
    let guard = plan.steps.iter().find_map(|step| match step {
        Step::Guard(guard) => Some(guard.clone()),
        _ => None,
    });
    let place = Place::of(guard.as_ref(), facts);
    // Its own address first: then there is no moment in which the bridge does not know it.
    if place == Place::Fixed || place == Place::FixedAmongOthers {
        plan.steps.push(Step::Forwarding {
            mac: request.nic.mac,
            bridge: port.bridge.to_owned(),
            vlans: facts.vlans.clone(),
        });
    }
    let limits_mac = guard.is_some_and(|guard| guard.limits_mac());
    plan.steps.push(Step::Port {
        isolated: config.bridged.isolated,
        flood: place != Place::Fixed,
        learning: place != Place::Fixed,
        root_block: limits_mac,
    });
    if limits_mac {
        plan.shared.push(Step::NoLinkLocalLearn {
            bridge: port.bridge.to_owned(),
            before: facts.no_linklocal_learn,
        });
    }
    plan.steps.push(Step::Up);
}

/// The way by which the bridge knows the guest's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The guest has one MAC address, whose place is fixed; the bridge learns nothing from it.
    Fixed,
    /// The guest has one MAC address but is on another node still, as far as is known: until its
    /// first frame comes its place is there. The bridge learns from that frame, which can only
    /// be from its own address: the guard drops all others, and those that netfilter does not
    /// see are not learned from.
    Awaited,
    /// Besides its own address, the guest has some that come and go (VRRP).
    FixedAmongOthers,
    /// Nothing is known of its MAC addresses.
    Learned,
}

impl Place {
    /// The place of a guest with this guard.
    pub(crate) fn of(guard: Option<&Guard>, facts: &Facts) -> Self {
        match guard {
            Some(guard) if matches!(guard.scope, Scope::All | Scope::AnyIp) => {
                match (facts.guest_elsewhere, guard.vrrp.is_empty()) {
                    (true, _) => Self::Awaited,
                    (false, true) => Self::Fixed,
                    (false, false) => Self::FixedAmongOthers,
                }
            }
            _ => Self::Learned,
        }
    }
}

/// The host's end of the guest's link: the guest's address with `fe` in front. It is higher
/// than any other on the bridge, which takes the lowest of its ports' as its own.
fn port_mac(guest: MacAddr) -> MacAddr {
    let [_, rest @ ..] = guest.octets();
    let [b, c, d, e, f] = rest;
    MacAddr::new([0xfe, b, c, d, e, f])
}
