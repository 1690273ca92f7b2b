//! Every frame of the corpus from a real TAP, seen or not seen at a victim's port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use harness::netns::Netns;
use harness::tap::Tap;
use harness::wait::Look;
use ifup::guard::corpus::{self, Cast};
use ifup::guard::frame::{arp, ethernet};
use node::{Node, bridged, bridged_cast, with};

const LIMIT: Duration = Duration::from_secs(20);

struct Bridge {
    node: Node,
    guest: Tap,
    /// A port that everything is flooded to.
    witness: Tap,
    /// A Linux host with the other's addresses.
    victim: Netns,
}

fn bridge() -> Bridge {
    let node = Node::new();
    let victim = Netns::new().unwrap();
    node.namespace
        .ip("link add br0 type bridge mcast_snooping 0")
        .unwrap();
    node.namespace.ip("link set br0 addrgenmode none").unwrap();
    node.namespace.ip("link set br0 up").unwrap();
    node.namespace.veth("victim", &victim, "eth0").unwrap();
    node.namespace
        // Not learned, so that the witness sees too what is for the victim.
        .sh(
            "ip link set victim addrgenmode none; ip link set victim master br0
             bridge link set dev victim learning off",
        )
        .unwrap();
    victim
        .sh(
            "ip link set eth0 down; ip link set eth0 address aa:00:00:00:00:09
             echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
             echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra
             ip link set eth0 up
             ip addr add 10.66.1.9/24 dev eth0
             ip addr add fd66:1::a800:ff:fe00:9/64 dev eth0 nodad
             ip neigh add 10.66.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud stale
             ip neigh add fd66:1::1 lladdr 02:00:00:00:00:01 dev eth0 nud stale",
        )
        .unwrap();
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    let witness = node.witness();
    Bridge {
        node,
        guest,
        witness,
        victim,
    }
}

impl Bridge {
    /// Sends the frames and a mark after them; what of them came out before the mark.
    fn seen(&self, frames: &[Vec<u8>], mark: u16) -> Vec<Vec<u8>> {
        let cast = bridged_cast();
        let number = mark.to_be_bytes();
        // A mark that is always good: the guest asks for an address that nobody has.
        let target = std::net::Ipv4Addr::new(10, 99, number[0], number[1]);
        let message = arp(1, (cast.mac, cast.ipv4), (MacAddr::ZERO, target));
        let mark = ethernet(MacAddr::BROADCAST, cast.mac, 0x0806, &message);
        for frame in frames {
            self.guest.send(frame).unwrap();
        }
        self.guest.send(&mark).unwrap();
        let mut seen = Vec::new();
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let frame = self.witness.receive(LIMIT).unwrap().expect("the mark");
            if frame == mark {
                return seen;
            }
            // The victim talks too; what a forger sends in its name, it did not send.
            let kind = u16::from_be_bytes([frame[12], frame[13]]);
            let by_victim = frame[6..12] == cast.other_mac.octets() && kind != 0x0800;
            if !by_victim {
                seen.push(frame);
            }
        }
        panic!("the mark did not come");
    }
}

/// A bridge that hands packets to the host's filters takes off what fills up a short frame.
fn same(seen: &[u8], sent: &[u8]) -> bool {
    sent.strip_prefix(seen)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

fn all_same(seen: &[Vec<u8>], sent: &[Vec<u8>]) -> bool {
    seen.len() == sent.len() && seen.iter().zip(sent).all(|(seen, sent)| same(seen, sent))
}

/// Whether a bridge hands packets to the host's filters, as nfdhcpd needs it on some kernels.
/// That checks headers too, which must neither be relied upon nor be in the way.
fn hand_to_host(bridge: &Bridge, on: bool) {
    for name in ["iptables", "ip6tables", "arptables"] {
        let name = format!("net.bridge.bridge-nf-call-{name}");
        let value = if on { "1" } else { "0" };
        if bridge.node.namespace.sysctl(&name, value).is_err() {
            harness::skip("bridge-nf-call", "the kernel has no br_netfilter");
        }
    }
}

#[test]
fn each_frame_of_the_corpus_passes_or_not_as_it_should() {
    corpus_is_judged_rightly(false);
}

#[test]
fn each_frame_is_judged_the_same_where_the_host_filters_bridged_packets_too() {
    corpus_is_judged_rightly(true);
}

fn corpus_is_judged_rightly(host_filters: bool) {
    let bridge = bridge();
    hand_to_host(&bridge, host_filters);
    bridge.node.up(&bridged());
    let cases = corpus::bridged(&bridged_cast());
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let seen = bridge.seen(
            std::slice::from_ref(&case.frame),
            u16::try_from(number).unwrap(),
        );
        if seen.iter().any(|seen| same(seen, &case.frame)) != case.passes {
            let verb = if case.passes {
                "did not pass"
            } else {
                "passed"
            };
            let hex: String = case
                .frame
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            wrong.push(format!("{}: {verb}: {hex}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(cases.iter().filter(|case| case.passes).count() > 50);
    assert!(cases.iter().filter(|case| !case.passes).count() > 100);

    // The Linux victim believes none of it, and the bridge still knows where it is.
    let neighbours = bridge
        .victim
        .sh("ip neigh; ip -6 neigh; ip -6 route")
        .unwrap();
    for line in neighbours.lines() {
        let of_router = line.starts_with("10.66.1.1 ") || line.starts_with("fd66:1::1 ");
        assert!(!of_router || line.contains("02:00:00:00:00:01"), "{line}");
        assert!(!line.contains("proto ra"), "{line}");
    }
    let places = bridge.node.namespace.sh("bridge fdb show br br0").unwrap();
    for line in places.lines() {
        assert!(
            !(line.starts_with("aa:00:00:00:00:09") && line.contains("dev tap0")),
            "{line}"
        );
    }
    assert!(
        places.contains("aa:00:00:e1:87:fc dev tap0 sticky master br0 static"),
        "{places}"
    );
}

#[test]
fn a_frame_for_the_bridge_itself_teaches_it_nothing() {
    let bridge = bridge();
    // The victim is known where it is.
    bridge
        .node
        .namespace
        .sh("bridge link set dev victim learning on")
        .unwrap();
    bridge
        .victim
        .sh("ping -c 1 -W 1 10.66.1.7 || true")
        .unwrap();
    let places = || bridge.node.namespace.sh("bridge fdb show br br0").unwrap();
    let forged = |last: u8| {
        let group = MacAddr::new([1, 0x80, 0xc2, 0, 0, last]);
        let frame = ethernet(group, bridged_cast().other_mac, 0x88cc, &[2, 7, 4, 0, 0]);
        bridge.guest.send(&frame).unwrap();
    };
    // Without a guard it does: it takes the victim's place.
    bridge
        .node
        .up(&with(bridged(), &[("TAGS", "snf:nic:0:any-mac")]));
    // Again and again: what the victim itself sends meanwhile takes its place back.
    harness::wait::until("the victim's place is taken", LIMIT, || {
        forged(0x0e);
        let found = places();
        if found.contains("aa:00:00:00:00:09 dev tap0") {
            Look::Done(())
        } else {
            Look::NotYet(found)
        }
    })
    .unwrap();
    bridge
        .victim
        .sh("ping -c 1 -W 1 10.66.1.7 || true")
        .unwrap();
    bridge.node.up(&bridged());
    for last in [0, 1, 2, 3, 0x0e, 0x0f] {
        forged(last);
    }
    assert_eq!(bridge.seen(&[], 1), Vec::<Vec<u8>>::new());
    let found = places();
    assert!(found.contains("aa:00:00:00:00:09 dev victim"), "{found}");
    assert!(!found.contains("aa:00:00:00:00:09 dev tap0"), "{found}");
}

#[test]
fn without_the_guard_the_evasions_do_pass() {
    // So that the tests above cannot pass for another reason.
    let bridge = bridge();
    hand_to_host(&bridge, false);
    std::fs::write(
        bridge.node.config(),
        format!(
            "state = {:?}\nbindings = {:?}\n[guard]\nenabled = false\n",
            bridge.node.state(),
            bridge.node.bindings()
        ),
    )
    .unwrap();
    bridge.node.up(&bridged());
    // Else the first forged source would take the victim's place, and all that is for the
    // victim would go back to the forger.
    bridge
        .node
        .namespace
        .sh("bridge link set dev tap0 learning off")
        .unwrap();
    let cases = corpus::bridged(&bridged_cast());
    let missing: Vec<&str> = cases
        .iter()
        .enumerate()
        .filter(|(number, case)| {
            let seen = bridge.seen(
                std::slice::from_ref(&case.frame),
                u16::try_from(*number).unwrap(),
            );
            !seen.iter().any(|seen| same(seen, &case.frame))
        })
        .map(|(_, case)| case.name)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn an_address_once_taken_is_not_anothers() {
    let bridge = bridge();
    bridge.node.up(&bridged());
    let second = Tap::new(&bridge.node.namespace, "tap2").unwrap();
    bridge.node.up(&with(
        bridged(),
        &[
            ("INTERFACE", "tap2"),
            ("INSTANCE", "snf-5"),
            ("IP", "10.66.1.5"),
            ("MAC", "aa:00:00:00:00:05"),
        ],
    ));
    let names = [
        "DAD for a random link-local address",
        "ping from the random address",
        "NA for the random address",
    ];
    let of = |cast: &Cast| -> Vec<Vec<u8>> {
        let cases = corpus::bridged(cast);
        names
            .iter()
            .map(|name| {
                cases
                    .iter()
                    .find(|case| case.name == *name)
                    .unwrap()
                    .frame
                    .clone()
            })
            .collect()
    };
    assert!(all_same(
        &bridge.seen(&of(&bridged_cast()), 1),
        &of(&bridged_cast())
    ));
    // The other asks for the same address, with its own MAC address everywhere.
    let thief = Cast {
        mac: "aa:00:00:00:00:05".parse().unwrap(),
        ipv4: "10.66.1.5".parse().unwrap(),
        ..bridged_cast()
    };
    for frame in of(&thief) {
        second.send(&frame).unwrap();
    }
    // Nothing of it came before the mark of the first.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bridge.seen(&[], 2), Vec::<Vec<u8>>::new());
    // The second took it, and the first still has it.
    assert!(all_same(
        &bridge.seen(&of(&bridged_cast()), 3),
        &of(&bridged_cast())
    ));
}

#[test]
fn down_leaves_no_element() {
    let bridge = bridge();
    bridge.node.up(&bridged());
    let empty = {
        bridge.node.down("tap0");
        bridge.node.dump()
    };
    bridge.node.up(&bridged());
    let up = bridge
        .node
        .namespace
        .sh("nft list table bridge snf")
        .unwrap();
    assert!(up.contains("\"tap0\" . aa:00:00:e1:87:fc"), "{up}");
    bridge.node.down("tap0");
    assert_eq!(node::difference(&empty, &bridge.node.dump()), "");
    let down = bridge
        .node
        .namespace
        .sh("nft list table bridge snf")
        .unwrap();
    assert!(!down.contains("tap0"), "{down}");
}

#[test]
fn tags_open_what_they_name_and_no_more() {
    let bridge = bridge();
    let cases = corpus::bridged(&bridged_cast());
    let frames = |names: &[&str]| -> Vec<Vec<u8>> {
        names
            .iter()
            .map(|name| {
                cases
                    .iter()
                    .find(|case| case.name == *name)
                    .unwrap()
                    .frame
                    .clone()
            })
            .collect()
    };
    let another_ip = ["ARP request from the router", "gratuitous ARP for another"];
    let strange: MacAddr = "aa:00:00:00:00:77".parse().unwrap();
    let message = arp(
        1,
        (strange, bridged_cast().ipv4),
        (MacAddr::ZERO, bridged_cast().other_ipv4),
    );
    let another_mac = vec![ethernet(MacAddr::BROADCAST, strange, 0x0806, &message)];
    let server = [
        "DHCP offer from the router",
        "RA",
        "RA in disguise",
        "redirect",
    ];
    for (tag, number, ip, mac) in [
        ("labtag", 1, false, false),
        ("snf:nic:*:any-ip", 2, true, false),
        ("snf:nic:0:any-mac", 3, true, true),
        ("snf:nic:1:any-mac", 4, false, false),
    ] {
        bridge.node.up(&with(bridged(), &[("TAGS", tag)]));
        for (sent, passes) in [
            (frames(&another_ip), ip),
            (another_mac.clone(), mac),
            (frames(&server), false),
        ] {
            let seen = bridge.seen(&sent, number * 10);
            let expected = if passes { sent.len() } else { 0 };
            assert_eq!(seen.len(), expected, "{tag}: {sent:02x?}");
        }
    }
    // One more address, and a prefix.
    let more = "snf:nic:*:address:10.66.1.50 snf:nic:*:address:10.66.1.64/26";
    bridge.node.up(&with(bridged(), &[("TAGS", more)]));
    for (address, passes) in [
        ("10.66.1.50", true),
        ("10.66.1.51", false),
        ("10.66.1.127", true),
        ("10.66.1.128", false),
    ] {
        let other = Cast {
            ipv4: address.parse().unwrap(),
            ..bridged_cast()
        };
        let cases = corpus::bridged(&other);
        let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
        let frames = [find("ARP reply").frame.clone(), find("TCP").frame.clone()];
        let seen = bridge.seen(&frames, 50);
        assert_eq!(seen.len(), if passes { 2 } else { 0 }, "{address}");
    }
}
