//! What tags of networks and instances change, with frames.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use harness::netns::Netns;
use harness::process;
use harness::tap::Tap;
use harness::wait::until_true;
use ifup::guard::frame::{Ipv4, ethernet, icmp, icmp6, ipv4, ipv6};
use node::{LIMIT, Nic, Node, bridged, with};

fn node_with_bridge() -> Node {
    let node = Node::new();
    node.namespace
        .sh("ip link add br0 type bridge mcast_snooping 0
             ip link set br0 addrgenmode none; ip link set br0 up")
        .unwrap();
    node
}

fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

/// A broadcast that only a test sends.
fn frame(from: &str, number: u8) -> Vec<u8> {
    ethernet(MacAddr::BROADCAST, mac(from), 0x88b5, &[number; 46])
}

/// The frames of the local experimental EtherType that came before the one of this number.
fn seen_before(tap: &Tap, mark: u8) -> Vec<u8> {
    let mut seen = Vec::new();
    loop {
        let frame = tap
            .receive_matching(LIMIT, |frame| frame[12..14] == [0x88, 0xb5])
            .unwrap()
            .expect("the mark");
        if frame[14] == mark {
            return seen;
        }
        seen.push(frame[14]);
    }
}

#[test]
fn private_networks_on_one_bridge_do_not_see_each_other() {
    let node = node_with_bridge();
    // No addresses are known of such a network: it is the user's own.
    let nic = |tap: &str, mac: &str, prefix: &str| -> Nic {
        with(
            bridged(),
            &[
                ("INTERFACE", tap),
                ("MAC", mac),
                ("IP", ""),
                ("TAGS", ""),
                ("NETWORK_TAGS", "private-filtered"),
                ("NETWORK_SUBNET", ""),
                ("NETWORK_GATEWAY", ""),
                ("NETWORK_SUBNET6", ""),
                ("NETWORK_GATEWAY6", ""),
                ("NETWORK_MAC_PREFIX", prefix),
            ],
        )
    };
    let macs = [
        "aa:00:01:00:00:01",
        "aa:00:01:00:00:02",
        "aa:00:02:00:00:03",
        "aa:00:02:00:00:04",
    ];
    let taps: Vec<Tap> = macs
        .iter()
        .enumerate()
        .map(|(number, mac)| {
            let name = format!("tap{number}");
            let tap = Tap::new(&node.namespace, &name).unwrap();
            node.up(&nic(&name, mac, &mac[..8]));
            tap
        })
        .collect();
    taps[0].send(&frame(macs[0], 1)).unwrap();
    // In the name of another, of its own network and of the other's.
    taps[0].send(&frame("aa:00:01:00:00:77", 2)).unwrap();
    taps[0].send(&frame(macs[2], 3)).unwrap();
    taps[0].send(&frame("02:00:00:00:00:01", 4)).unwrap();
    taps[0].send(&frame(macs[0], 5)).unwrap();
    taps[3].send(&frame(macs[3], 6)).unwrap();
    assert_eq!(seen_before(&taps[1], 5), [1, 2]);
    assert_eq!(seen_before(&taps[2], 6), [0_u8; 0]);
    let places = node.namespace.sh("bridge fdb show br br0").unwrap();
    assert!(
        !places.contains(&format!("{} dev tap0", macs[2])),
        "{places}"
    );
    // The host is none of it either.
    let wrong = node.refused(&nic("tap0", macs[0], "aa:00:02"), 65);
    assert!(
        wrong.contains("not of its private network, aa:00:02"),
        "{wrong}"
    );
    node.down("tap0");
    let rules = node.namespace.sh("nft list table bridge snf").unwrap();
    assert!(!rules.contains("tap0"), "{rules}");
}

fn pings(from: &Netns, address: &str) -> bool {
    let mut command: Command = from.command("ping");
    command.args(["-n", "-c", "1", "-W", "2", address]);
    process::run(&mut command, LIMIT).unwrap().status.success()
}

#[test]
fn an_isolated_instance_exchanges_packets_with_its_list_alone() {
    let node = node_with_bridge();
    let neighbour = Netns::new().unwrap();
    node.namespace.veth("other", &neighbour, "eth0").unwrap();
    node.namespace.ip("link set other master br0").unwrap();
    neighbour
        .sh("for n in 8 9; do
                 ip addr add 10.66.1.$n/24 dev eth0; ip addr add fd66:1::$n/64 dev eth0 nodad
             done")
        .unwrap();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    let tagged = |tags: &str| with(bridged(), &[("TAGS", tags)]);
    node.up(&tagged(""));
    let guest = tap.into_client("aa:00:00:e1:87:fc").unwrap();
    guest
        .namespace
        .sh(
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up
             ip addr add 10.66.1.7/24 dev eth0
             ip addr add fd66:1::a800:ff:fee1:87fc/64 dev eth0 nodad",
        )
        .unwrap();
    let one = "gnt:isolate gnt:whitelist_ip:10.66.1.9 gnt:whitelist_ip:fd66:1::9/128";
    for (tags, nine, eight) in [
        ("", true, true),
        (one, true, false),
        ("gnt:isolate", false, false),
        (
            "gnt:isolate gnt:whitelist_ip:10.66.1.0/24 gnt:whitelist_ip:fd66:1::/64",
            true,
            true,
        ),
        ("gnt:whitelist_ip:10.66.1.9", true, true),
    ] {
        node.up(&tagged(tags));
        for (net, passes) in [(9, nine), (8, eight)] {
            for address in [format!("10.66.1.{net}"), format!("fd66:1::{net}")] {
                assert_eq!(
                    pings(&guest.namespace, &address),
                    passes,
                    "{tags}: to {address}"
                );
            }
        }
        // From outside, by the address that the neighbour's answers come from.
        for (from, to, passes) in [
            ("10.66.1.9", "10.66.1.7", nine),
            ("10.66.1.8", "10.66.1.7", eight),
            ("fd66:1::8", "fd66:1::a800:ff:fee1:87fc", eight),
        ] {
            let mut command = neighbour.command("ping");
            command.args(["-n", "-c", "1", "-W", "2", "-I", from, to]);
            let output = process::run(&mut command, LIMIT).unwrap();
            assert_eq!(output.status.success(), passes, "{tags}: from {from}");
        }
    }
    let wrong = node.refused(&tagged("gnt:isolate gnt:whitelist_ip:nine"), 65);
    assert!(wrong.contains("gnt:whitelist_ip:nine"), "{wrong}");
}

/// An isolated guest hears of its groups and of the path's MTU, and of nothing else.
#[test]
fn an_isolated_guest_keeps_its_groups_and_its_path_mtu() {
    let node = node_with_bridge();
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    let witness = node.witness();
    let tags = "gnt:isolate gnt:whitelist_ip:10.66.1.9 gnt:whitelist_ip:fd66:1::9/128";
    node.up(&with(bridged(), &[("TAGS", tags)]));
    let cast = node::bridged_cast();
    let own6 = agents::addr::link_local(cast.mac);
    let router6: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
    let far4 = "198.51.100.1".parse().unwrap();
    let far6: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let reports: std::net::Ipv6Addr = "ff02::16".parse().unwrap();
    let nobody6 = std::net::Ipv6Addr::UNSPECIFIED;
    let mld = |from, kind| {
        let mut payload = vec![58, 0, 5, 2, 0, 0, 1, 0];
        payload.extend(icmp6(from, reports, kind, &[0; 20]));
        (0x86dd, ipv6(from, reports, 0, 1, &payload))
    };
    let icmp6_of = |from, to, kind, body: &[u8]| {
        let message = icmp6(from, to, kind, body);
        (0x86dd, ipv6(from, to, 58, 64, &message))
    };
    let four = |from, to, protocol, body: &[u8]| {
        (0x0800, ipv4(from, to, protocol, body, &Ipv4::default()))
    };
    let group4 = "224.0.0.22".parse().unwrap();
    let mut number = 0;
    let mut check = |from_guest: bool, what: &str, (kind, packet): (u16, Vec<u8>), passes: bool| {
        let (from, to, source) = if from_guest {
            (&guest, &witness, cast.mac)
        } else {
            (&witness, &guest, mac("02:00:00:00:00:01"))
        };
        let to_mac = if from_guest {
            MacAddr::BROADCAST
        } else {
            cast.mac
        };
        let frame = ethernet(to_mac, source, kind, &packet);
        // ARP from its own address passes either way.
        number += 1;
        let target = std::net::Ipv4Addr::new(10, 99, 0, number);
        let ask = ifup::guard::frame::arp(1, (source, cast.ipv4), (MacAddr::ZERO, target));
        let mark = ethernet(MacAddr::BROADCAST, source, 0x0806, &ask);
        from.send(&frame).unwrap();
        from.send(&mark).unwrap();
        let mut seen = false;
        loop {
            let got = to.receive(LIMIT).unwrap().expect("the mark");
            if got == mark {
                break;
            }
            // A bridge that hands packets to the host takes off what fills up a short frame.
            seen |= frame.starts_with(&got);
        }
        assert_eq!(seen, passes, "{what}, from the guest {from_guest}");
    };
    for kind in [131, 132, 143] {
        check(true, "MLD report", mld(own6, kind), true);
    }
    check(true, "MLD report of nobody", mld(nobody6, 143), true);
    check(true, "MLD query", mld(own6, 130), false);
    check(false, "MLD query", mld(router6, 130), true);
    for (kind, passes) in [(0x22, true), (0x16, true), (0x17, true), (0x11, false)] {
        let packet = four(cast.ipv4, group4, 2, &icmp(kind, &[0; 4]));
        check(true, "IGMP", packet, passes);
    }
    let query = four(cast.router_ipv4, group4, 2, &icmp(0x11, &[0; 4]));
    check(false, "IGMP query", query, true);
    let mut needed = icmp(3, &[0; 28]);
    needed[1] = 4;
    check(
        false,
        "fragmentation needed",
        four(far4, cast.ipv4, 1, &needed),
        true,
    );
    check(
        true,
        "fragmentation needed",
        four(cast.ipv4, far4, 1, &needed),
        false,
    );
    let unreachable = icmp(3, &[0; 28]);
    check(
        false,
        "unreachable",
        four(far4, cast.ipv4, 1, &unreachable),
        false,
    );
    let big = |from, to| icmp6_of(from, to, 2, &[0; 60]);
    check(false, "packet too big", big(far6, cast.ipv6), true);
    check(true, "packet too big", big(cast.ipv6, far6), false);
    for kind in [1, 128, 134] {
        let packet = icmp6_of(far6, cast.ipv6, kind, &[0; 60]);
        check(false, "another ICMPv6 message", packet, false);
    }
    let packet = four(far4, cast.ipv4, 1, &icmp(8, &[0; 12]));
    check(false, "ping", packet, false);
}

/// A bridge that listens to memberships knows those of an isolated guest: its neighbours find
/// it by such a group.
#[test]
fn an_isolated_guest_is_in_its_groups_on_a_snooping_bridge() {
    let node = Node::new();
    node.namespace
        .sh(
            "ip link add br0 type bridge mcast_snooping 1 mcast_querier 1
             ip link set br0 up",
        )
        .unwrap();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    let tags = "gnt:isolate gnt:whitelist_ip:fd66:1::9/128";
    node.up(&with(bridged(), &[("TAGS", tags)]));
    let guest = tap.into_client("aa:00:00:e1:87:fc").unwrap();
    guest
        .namespace
        .sh("ip link set eth0 up; ip addr add fd66:1::a800:ff:fee1:87fc/64 dev eth0 nodad")
        .unwrap();
    until_true("the guest's group", LIMIT, || {
        let groups = node.namespace.sh("bridge mdb show dev br0").unwrap();
        groups
            .lines()
            .any(|line| line.contains("port tap0") && line.contains("ff02::1:ffe1:87fc"))
    })
    .unwrap();
}

#[test]
fn a_router_of_a_vrrp_group_announces_itself_and_others_do_not() {
    let node = node_with_bridge();
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    let witness = node.witness();
    let own = "10.66.1.7".parse().unwrap();
    let hear = "224.0.0.18".parse().unwrap();
    let advertisement = |source: &str| {
        let packet = ipv4(
            own,
            hear,
            112,
            &[0x31, 7, 100, 1, 0, 100, 0, 0],
            &Ipv4::default(),
        );
        ethernet(mac("01:00:5e:00:00:12"), mac(source), 0x0800, &packet)
    };
    let elsewhere = {
        let to = "10.66.1.9".parse().unwrap();
        let packet = ipv4(
            own,
            to,
            112,
            &[0x31, 7, 100, 1, 0, 100, 0, 0],
            &Ipv4::default(),
        );
        ethernet(
            MacAddr::BROADCAST,
            mac("aa:00:00:e1:87:fc"),
            0x0800,
            &packet,
        )
    };
    let ping = |source: &str| {
        let packet = ipv4(
            own,
            hear,
            1,
            &[8, 0, 0xf7, 0xff, 0, 0, 0, 0],
            &Ipv4::default(),
        );
        ethernet(MacAddr::BROADCAST, mac(source), 0x0800, &packet)
    };
    let frames = [
        advertisement("aa:00:00:e1:87:fc"),
        advertisement("00:00:5e:00:01:07"),
        ping("00:00:5e:00:01:07"),
        advertisement("00:00:5e:00:01:08"),
        elsewhere,
    ];
    for (tags, passing) in [("", 0), ("snf:nic:0:vrrp:7", 3), ("snf:nic:1:vrrp:7", 0)] {
        node.up(&with(bridged(), &[("TAGS", tags)]));
        for frame in &frames {
            guest.send(frame).unwrap();
        }
        let mark = ping("aa:00:00:e1:87:fc");
        guest.send(&mark).unwrap();
        let mut seen = Vec::new();
        loop {
            let frame = witness.receive(LIMIT).unwrap().expect("the mark");
            // A bridge that hands packets to the host's filters takes off what fills a frame up.
            let same = |sent: &Vec<u8>| {
                let rest = sent.strip_prefix(frame.as_slice());
                rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
            };
            if same(&mark) {
                break;
            }
            seen.push(frames.iter().position(same));
        }
        let wanted: Vec<_> = (0..passing).map(Some).collect();
        assert_eq!(seen, wanted, "{tags}");
    }
}

#[test]
fn a_guest_with_a_rate_gets_no_more() {
    let node = node_with_bridge();
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    node.namespace.ip("addr add 10.66.1.1/24 dev br0").unwrap();
    let received = |tags: &str| -> (usize, Duration) {
        node.up(&with(bridged(), &[("TAGS", tags)]));
        until_true("the bridge's carrier", LIMIT, || {
            let link = node.namespace.ip("link show br0").unwrap();
            link.contains("LOWER_UP") && link.contains("state UP")
        })
        .unwrap();
        // Here, since the bridge takes another MAC address with its first port.
        node.namespace
            .ip("neigh replace 10.66.1.7 lladdr aa:00:00:e1:87:fc dev br0")
            .unwrap();
        let start = Instant::now();
        node.namespace
            .run(|| {
                let socket = UdpSocket::bind("10.66.1.1:0")?;
                for _ in 0..400 {
                    // What the queue has no room for is an error here.
                    let _ = socket.send_to(&[7; 1000], "10.66.1.7:9");
                }
                Ok(())
            })
            .unwrap();
        let mut count = 0;
        while guest
            .receive_matching(Duration::from_millis(300), |frame| frame.len() > 1000)
            .unwrap()
            .is_some()
        {
            count += 1;
        }
        (count, start.elapsed())
    };
    assert_eq!(received("").0, 400);
    let (count, took) = received("snf:nic:0:rate-in:80k");
    // 10 kB/s, what may go out at once, and what waits.
    let most = 66 + 67 + took.as_secs() * 10 + 20;
    assert!(
        count > 20 && (count as u64) < most.min(399),
        "{count} in {took:?}"
    );
    let shown = node.namespace.sh("tc qdisc show dev tap0").unwrap();
    assert!(
        shown.contains("tbf") && shown.contains("rate 80Kbit"),
        "{shown}"
    );
    assert_eq!(received("").0, 400, "the rate is gone with its tag");
    node.up(&with(bridged(), &[("TAGS", "snf:nic:0:rate-in:80k")]));
    node.down("tap0");
    let shown = node.namespace.sh("tc qdisc show dev tap0").unwrap();
    assert!(!shown.contains("tbf"), "{shown}");
    for bad in ["snf:nic:0:rate-in:fast", "snf:nic:0:vrrp:256"] {
        let error = node.refused(&with(bridged(), &[("TAGS", bad)]), 65);
        assert!(error.contains(bad), "{error}");
    }
}

#[test]
fn what_a_guest_sends_beyond_its_rate_is_dropped() {
    let node = node_with_bridge();
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    let witness = node.witness();
    let frame = {
        let own = "10.66.1.7".parse().unwrap();
        let to = "10.66.1.9".parse().unwrap();
        let packet = ipv4(own, to, 17, &[0; 1000], &Ipv4::default());
        ethernet(
            MacAddr::BROADCAST,
            mac("aa:00:00:e1:87:fc"),
            0x0800,
            &packet,
        )
    };
    let passed = |tags: &str| {
        node.up(&with(bridged(), &[("TAGS", tags)]));
        let start = Instant::now();
        let mut count = 0;
        for _ in 0..600 {
            guest.send(&frame).unwrap();
            // one by one: nothing is lost in a queue
            let limit = Duration::from_millis(if tags.is_empty() { 5000 } else { 5 });
            let passed = witness.receive_matching(limit, |found| found == frame);
            count += u64::from(passed.unwrap().is_some());
        }
        while witness
            .receive_matching(Duration::from_millis(300), |found| found == frame)
            .unwrap()
            .is_some()
        {
            count += 1;
        }
        (count, start.elapsed().as_secs_f64())
    };
    assert_eq!(passed("").0, 600);
    for (tag, bytes) in [("80k", 10_000.0), ("1M", 125_000.0)] {
        let (count, seconds) = passed(&format!("snf:nic:0:rate-out:{tag}"));
        let size = frame.len() as f64;
        // what a second brings, and the largest packet, may go at once
        let least = (bytes + 131_072.0) / size - 2.0;
        let most = (bytes * (seconds + 1.0) + 131_072.0) / size + 2.0;
        let count = count as f64;
        assert!(
            count >= least.min(600.0) && count <= most && (tag != "80k" || count < 600.0),
            "{tag}: {count}, {least} to {most}"
        );
    }
    node.up(&with(bridged(), &[("TAGS", "snf:nic:0:rate-out:80k")]));
    let shown = node
        .namespace
        .sh("nft list set bridge snf too-fast")
        .unwrap();
    assert!(
        shown.contains("\"tap0\" limit rate over 10000 bytes/second"),
        "{shown}"
    );
    assert_eq!(passed("").0, 600, "the rate is gone with its tag");
    // where no packet passes our filters, nothing can be promised
    let tags = ("TAGS", "snf:nic:0:rate-out:80k");
    let nic = with(bridged(), &[("MODE", "openvswitch"), tags]);
    let error = node.refused(&nic, 65);
    assert!(error.contains("no rate-out"), "{error}");
}

#[test]
fn a_routed_guest_sends_no_more_than_its_rate() {
    let node = Node::new();
    let router = Netns::new().unwrap();
    node.namespace.veth("up0", &router, "eth0").unwrap();
    router.ip("addr add 10.66.2.1/24 dev eth0").unwrap();
    node.namespace
        .sh(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
             ip route add 10.66.2.0/24 dev up0 table 100
             ip route add default via 10.66.2.1 dev up0 table 100",
        )
        .unwrap();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&with(node::routed(), &[("TAGS", "snf:nic:*:rate-out:80k")]));
    let guest = tap.into_client("aa:00:00:5b:5f:d8").unwrap();
    guest
        .namespace
        .sh("ip link set eth0 up; ip addr add 10.66.2.7/32 dev eth0
             ip route add 10.66.2.1 dev eth0; ping -n -c 1 -W 20 10.66.2.1")
        .unwrap();
    let mut ping = guest.namespace.command("ping");
    ping.args([
        "-n",
        "-q",
        "-c",
        "400",
        "-i",
        "0.002",
        "-s",
        "1000",
        "-W",
        "1",
        "10.66.2.1",
    ]);
    let start = Instant::now();
    let output = process::run(&mut ping, LIMIT).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let received = output.stdout.split(" received").next().unwrap();
    let received: f64 = received.rsplit(' ').next().unwrap().parse().unwrap();
    let most = (10_000.0 * (seconds + 1.0) + 131_072.0) / 1028.0 + 2.0;
    assert!(
        received > 100.0 && received < most && received < 400.0,
        "{received} of at most {most} in {seconds} s: {}",
        output.stdout
    );
}
