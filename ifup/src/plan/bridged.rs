//! A bridged NIC: the TAP becomes a port of the bridge.

use agents::addr::MacAddr;

use super::{Plan, no_host};
use crate::config::Config;
use crate::facts::Facts;
use crate::guard::entry::Scope;
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
    // A guest that has one MAC address has one place, by configuration. The bridge learns all
    // the same: only frames with that address come so far, and they must be able to bring the
    // place back after the guest was on another node.
    let fixed = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Guard(guard) if matches!(guard.scope, Scope::All | Scope::AnyIp) && guard.vrrp.is_empty()));
    // A guest that the bridge knows elsewhere is about to come from another node: until it is
    // here its place is there, and its first frame moves it.
    let fixed = fixed && !facts.guest_elsewhere;
    plan.steps.push(Step::Port {
        isolated: config.bridged.isolated,
        flood: !fixed,
    });
    if fixed {
        plan.steps.push(Step::Forwarding {
            mac: request.nic.mac,
            bridge: port.bridge.to_owned(),
            vlans: facts.vlans.clone(),
        });
    }
    plan.steps.push(Step::Up);
}

/// The host's end of the guest's link: the guest's address with `fe` in front. It is higher
/// than any other on the bridge, which takes the lowest of its ports' as its own.
fn port_mac(guest: MacAddr) -> MacAddr {
    let [_, rest @ ..] = guest.octets();
    let [b, c, d, e, f] = rest;
    MacAddr::new([0xfe, b, c, d, e, f])
}
