//! The corpus from the TAP of a routed NIC: what comes out of the uplink, and what the host
//! itself believes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::collections::BTreeSet;
use std::time::Duration;

use agents::addr::MacAddr;
use harness::tap::Tap;
use ifup::guard::corpus::{self, Case};
use ifup::guard::frame::{Ipv4, ethernet, ipv4};
use node::{Node, routed, routed_cast};

const LIMIT: Duration = Duration::from_secs(60);
/// That of every routed TAP: the guest's router.
const ROUTER: &str = "fe:53:4e:46:00:01";

struct Site {
    node: Node,
    guest: Tap,
    /// The other end of the uplink.
    wire: Tap,
}

fn site(config: &str) -> Site {
    let node = Node::with_config(config);
    let wire = Tap::new(&node.namespace, "up0").unwrap();
    node.namespace
        .sh("ip link set up0 addrgenmode none; ip link set up0 up
             ip route add 10.66.2.0/24 dev up0 table 100
             ip route add default via 10.66.2.1 dev up0 table 100
             ip -6 route add fd66:2::/64 dev up0 table 100
             ip -6 route add default via fd66:2::1 dev up0 table 100
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             for address in 10.66.2.1 10.66.2.9 fd66:2::1 fd66:2::a800:ff:fe00:9; do
                 ip neigh add $address lladdr aa:00:00:00:00:09 dev up0
             done")
        .unwrap();
    let guest = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    Site { node, guest, wire }
}

/// The frames, those for the other now for the router.
fn cases() -> Vec<Case> {
    let (cast, router) = (routed_cast(), ROUTER.parse::<MacAddr>().unwrap());
    let mut cases = corpus::bridged(&cast);
    for case in &mut cases {
        if case.frame[..6] == cast.other_mac.octets() {
            case.frame.splice(..6, router.octets());
        }
    }
    cases
}

/// The IP packet of a frame without what a router changes; none if it is no IP packet.
fn packet(frame: &[u8]) -> Option<Vec<u8>> {
    let kind = u16::from_be_bytes([frame[12], frame[13]]);
    let mut packet = frame[14..].to_vec();
    let (length, changed): (usize, &[usize]) = match kind {
        0x0800 => (
            usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            &[8, 10, 11],
        ),
        0x86dd => (
            usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40,
            &[7],
        ),
        _ => return None,
    };
    packet.truncate(length);
    for at in changed {
        packet[*at] = 0;
    }
    Some(packet)
}

impl Site {
    /// Sends a frame; whether its packet comes out of the uplink before a good one after it.
    fn forwarded(&self, frame: &[u8], number: u16) -> bool {
        let cast = routed_cast();
        let mark = ipv4(
            cast.ipv4,
            cast.other_ipv4,
            253,
            &number.to_be_bytes(),
            &Ipv4::default(),
        );
        let mark = ethernet(ROUTER.parse().unwrap(), cast.mac, 0x0800, &mark);
        let sent = packet(frame);
        self.guest.send(frame).unwrap();
        self.guest.send(&mark).unwrap();
        let mut seen = false;
        loop {
            let out = self.wire.receive(LIMIT).unwrap().expect("the mark");
            let out = packet(&out);
            if out == packet(&mark) {
                return seen;
            }
            seen |= out.is_some() && out == sent;
        }
    }

    /// What the host believes that a guest could have told it.
    fn beliefs(&self) -> BTreeSet<String> {
        let shown = self
            .node
            .namespace
            .sh(
                "ip neigh show nud all | grep -v -e NOARP -e FAILED -e INCOMPLETE || true
                 ip -4 route show table all; ip -6 route show table all; ip maddr show dev tap1",
            )
            .unwrap();
        shown
            .lines()
            // What is there for a while, the same in any run; how often a group is joined.
            .map(|line| line.split(" expires").next().unwrap_or_default())
            .map(|line| line.trim().to_owned())
            .collect()
    }
}

/// Whether a router sends a case's packet on at all: unicast to another, from no link-local
/// address.
fn is_for_another(case: &Case) -> bool {
    let router: MacAddr = ROUTER.parse().unwrap();
    let kind = u16::from_be_bytes([case.frame[12], case.frame[13]]);
    let global = kind == 0x0800 || case.frame[22..24] != [0xfe, 0x80];
    case.frame[..6] == router.octets() && global
}

#[test]
fn no_forged_frame_of_a_routed_guest_is_forwarded_or_believed() {
    let site = site("");
    let before = site.beliefs();
    let cases = cases();
    let mut wrong = Vec::new();
    let (mut passed, mut stopped) = (0, 0);
    for (number, case) in cases.iter().enumerate() {
        let seen = site.forwarded(&case.frame, u16::try_from(number).unwrap());
        if case.passes && is_for_another(case) {
            passed += 1;
            if !seen {
                wrong.push(format!("{}: was not forwarded", case.name));
            }
        }
        if !case.passes {
            stopped += 1;
            if seen {
                wrong.push(format!("{}: was forwarded", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed > 20 && stopped > 100, "{passed} {stopped}");
    let after = site.beliefs();
    // Its own addresses, and those that it took, may be known where it is.
    let own = [
        "fe80::a800:ff:fe5b:5fd8 ",
        "fe80::1a2b:3c4d:5e6f:7081 ",
        "fd66:2::9a2b:3c4d:5e6f:7082 ",
    ];
    let learned: Vec<&String> = after
        .difference(&before)
        .filter(|line| {
            let its = own.iter().any(|address| line.starts_with(address));
            !(its && line.contains("dev tap1 lladdr aa:00:00:5b:5f:d8"))
        })
        .collect();
    assert_eq!(learned, Vec::<&String>::new());
}

#[test]
fn the_host_never_asks_on_the_tap_where_its_guest_is() {
    // So no address of the host's, which has none in the network, is ever seen there.
    let site = site("");
    let cast = routed_cast();
    let node: MacAddr = {
        let link = site.node.namespace.ip("link show up0").unwrap();
        let mut words = link
            .split_whitespace()
            .skip_while(|word| *word != "link/ether");
        words.nth(1).unwrap().parse().unwrap()
    };
    for number in 0..3 {
        let packet = ipv4(
            cast.router_ipv4,
            cast.ipv4,
            253,
            &[number; 8],
            &Ipv4::default(),
        );
        site.wire
            .send(&ethernet(node, cast.other_mac, 0x0800, &packet))
            .unwrap();
        let first = site
            .guest
            .receive_matching(LIMIT, |frame| {
                let kind = u16::from_be_bytes([frame[12], frame[13]]);
                kind == 0x0806 || (kind == 0x0800 && frame[23] == 253)
            })
            .unwrap()
            .expect("the packet");
        assert_eq!(first[12..14], [8, 0], "asked: {first:02x?}");
        assert_eq!(first[..6], cast.mac.octets());
        assert_eq!(first[6..12], ROUTER.parse::<MacAddr>().unwrap().octets());
    }
}

#[test]
fn without_the_guard_forged_frames_are_forwarded_and_believed() {
    // So that the test above cannot pass for another reason.
    let site = site("[guard]\nenabled = false\n");
    let before = site.beliefs();
    let cases = cases();
    let forged: Vec<&str> = cases
        .iter()
        .enumerate()
        .filter(|(_, case)| !case.passes)
        .filter(|(number, case)| site.forwarded(&case.frame, u16::try_from(*number).unwrap()))
        .map(|(_, case)| case.name)
        .collect();
    println!("{} forged frames are forwarded: {forged:?}", forged.len());
    for name in [
        "TCP",
        "TCP over IPv6",
        "a 6in4 tunnel from another's address",
        "a large ping in fragments",
        "VRRP",
    ] {
        assert!(forged.contains(&name), "{name}: {forged:?}");
    }
    assert!(forged.len() > 20, "{forged:?}");
    let after = site.beliefs();
    assert!(
        after
            .iter()
            .any(|line| line.contains("aa:00:00:00:00:09") && line.contains("tap1"))
            || after.difference(&before).next().is_some(),
        "{after:?}"
    );
}
