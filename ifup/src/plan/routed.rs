//! A routed NIC: the host is the guest's router, without an address in its network.
//!
//! The guest's packets are looked up in the table that LINK names (a rule for its TAP), and so
//! are those that come in by the table's uplink (a shared rule), so that answers find the
//! route to the TAP there. On the uplink the host answers ARP requests and neighbour
//! solicitations for the guest; on the TAP for the gateway. Where the table has no default
//! route, the host itself is the gateway: its address is put on the TAP, and packets from it
//! are looked up in the table as well (a shared rule).

use std::net::IpAddr;

use super::{Plan, setting};
use crate::config::Config;
use crate::facts::{Facts, Uplink};
use crate::request::{MAIN_TABLE, Request};
use crate::step::Step;

pub(super) fn plan(plan: &mut Plan, request: &Request, table: u32, facts: &Facts, config: &Config) {
    let tap = request.interface();
    let mut push = |step| plan.steps.push(step);
    let ipv4 = request.ipv4.is_some();
    let ipv6 = facts.ipv6 && !request.ipv6.is_empty();
    if ipv4 {
        for (name, value) in [
            ("forwarding", "1"),
            ("proxy_arp", "1"),
            ("send_redirects", "0"),
            ("accept_redirects", "0"),
            // The kernel would look the guest's address up in main, where it is not.
            ("rp_filter", "0"),
        ] {
            push(setting(format!("net/ipv4/conf/{tap}/{name}"), value));
        }
        push(setting(format!("net/ipv4/neigh/{tap}/proxy_delay"), "0"));
    }
    if ipv6 {
        for (name, value) in [
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            // Our link-local address is the guest's router: needed at once.
            ("accept_dad", "0"),
            ("accept_redirects", "0"),
            ("forwarding", "1"),
            ("proxy_ndp", "1"),
        ] {
            push(setting(format!("net/ipv6/conf/{tap}/{name}"), value));
        }
        if facts.force_forwarding {
            push(setting(
                format!("net/ipv6/conf/{tap}/force_forwarding"),
                "1",
            ));
        }
        push(setting(format!("net/ipv6/neigh/{tap}/proxy_delay"), "0"));
    } else if facts.ipv6 {
        push(setting(format!("net/ipv6/conf/{tap}/disable_ipv6"), "1"));
    }
    let uplinks = [facts.uplink.as_ref(), facts.uplink6.as_ref()];
    push(Step::Link {
        mtu: uplinks.iter().flatten().map(|uplink| uplink.mtu).min(),
        mac: config.routed_mac(),
        bridge: None,
        before: facts.tap.clone(),
    });
    push(Step::Up);

    if let Some(address) = request.ipv4 {
        let gateway = request.gateway.map(IpAddr::V4);
        let way = Way {
            table,
            uplink: facts.uplink.as_ref(),
            gateway,
            gateway_is_here: facts.gateway_is_here,
        };
        let mut addresses = vec![IpAddr::V4(address)];
        addresses.extend(request.more4.iter().map(|address| IpAddr::V4(*address)));
        family(plan, request, &addresses, &way, config);
    }
    if ipv6 {
        let addresses: Vec<IpAddr> = request
            .ipv6
            .iter()
            .map(|address| (*address).into())
            .collect();
        let way = Way {
            table,
            uplink: facts.uplink6.as_ref(),
            gateway: request.gateway6.map(IpAddr::V6),
            gateway_is_here: facts.gateway6_is_here,
        };
        family(plan, request, &addresses, &way, config);
        if facts.force_forwarding
            && config.routed.uplink_sysctls
            && let Some(uplink) = &facts.uplink6
        {
            let name = format!("net/ipv6/conf/{}/force_forwarding", uplink.name);
            plan.shared.push(setting(name, "1"));
        }
    }
}

/// How one family of addresses leaves the host.
struct Way<'a> {
    table: u32,
    uplink: Option<&'a Uplink>,
    gateway: Option<IpAddr>,
    gateway_is_here: bool,
}

fn family(plan: &mut Plan, request: &Request, guest: &[IpAddr], way: &Way<'_>, config: &Config) {
    let tap = request.interface();
    let ipv4 = guest.iter().all(IpAddr::is_ipv4);
    let priority = config.routed.rule_priority;
    for address in guest {
        plan.steps.push(Step::Neighbour {
            address: *address,
            mac: request.nic.mac,
        });
        plan.steps.push(Step::Route {
            address: *address,
            table: way.table,
        });
    }
    if way.table != MAIN_TABLE {
        if !config.routed.fall_through {
            plan.shared.push(Step::Refuse {
                ipv4,
                table: way.table,
            });
        }
        plan.steps.push(Step::Rule {
            ipv4,
            priority,
            input: Some(tap.to_owned()),
            source: None,
            table: way.table,
        });
        if let Some(uplink) = way.uplink {
            plan.shared.push(Step::Rule {
                ipv4,
                priority,
                input: Some(uplink.name.clone()),
                source: None,
                table: way.table,
            });
        }
    }
    if let Some(gateway) = way.gateway {
        let ours = way.uplink.is_none();
        if ours || link_local(gateway) {
            plan.steps.push(Step::Address { address: gateway });
        } else if !ipv4 {
            // proxy_arp does it for IPv4, and for any address of the host's, whatever interface.
            plan.steps.push(Step::Proxy {
                interface: tap.to_owned(),
                address: gateway,
            });
        }
        if (ours || way.gateway_is_here) && way.table != MAIN_TABLE && !link_local(gateway) {
            plan.shared.push(Step::Rule {
                ipv4,
                priority,
                input: None,
                source: Some(gateway),
                table: way.table,
            });
        }
    }
    if let Some(uplink) = way.uplink {
        if config.routed.uplink_sysctls {
            plan.shared.extend(uplink_settings(ipv4, &uplink.name));
        }
        for address in guest {
            plan.steps.push(Step::Proxy {
                interface: uplink.name.clone(),
                address: *address,
            });
        }
    }
}

/// What forwarding needs of the uplink. It stays: other NICs, and the next ones, need it too.
fn uplink_settings(ipv4: bool, name: &str) -> Vec<Step> {
    if ipv4 {
        vec![
            setting(format!("net/ipv4/conf/{name}/forwarding"), "1"),
            setting(format!("net/ipv4/conf/{name}/rp_filter"), "0"),
            setting(format!("net/ipv4/neigh/{name}/proxy_delay"), "0"),
        ]
    } else {
        vec![
            setting(format!("net/ipv6/conf/{name}/forwarding"), "1"),
            setting(format!("net/ipv6/conf/{name}/proxy_ndp"), "1"),
            setting(format!("net/ipv6/neigh/{name}/proxy_delay"), "0"),
        ]
    }
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if agents::addr::is_link_local(address))
}
