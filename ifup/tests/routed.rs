//! Routed NICs, with traffic: guest - TAP - node - uplink - router, and without a router.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::net::UdpSocket;
use std::time::Duration;

use harness::netns::Netns;
use harness::tap::{Client, Tap};
use node::{LIMIT, Nic, Node, difference, routed, with};

/// A node whose table 100 leads out of `up0` to a router that has the gateway's addresses, and
/// whose own default route, in main, leads elsewhere.
fn node_with_router() -> (Node, Netns) {
    let node = Node::new();
    let router = Netns::new().unwrap();
    node.namespace.veth("up0", &router, "guests").unwrap();
    router
        .sh("ip addr add 10.66.2.1/24 dev guests
             ip addr add fd66:2::1/64 dev guests nodad
             ip addr add 192.0.2.1/32 dev lo
             ip addr add 2001:db8::1/128 dev lo nodad
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        .unwrap();
    node.namespace
        .sh("ip link add mgmt type veth peer name mgmt-wire
             ip link set mgmt addrgenmode none; ip link set mgmt-wire addrgenmode none
             ip link set mgmt up; ip link set mgmt-wire up
             ip addr add 172.16.0.5/24 dev mgmt
             ip route add default via 172.16.0.1
             ip route add 10.66.2.0/24 dev up0 table 100
             ip route add default via 10.66.2.1 dev up0 table 100
             ip -6 route add fd66:2::/64 dev up0 table 100
             ip -6 route add default via fd66:2::1 dev up0 table 100")
        .unwrap();
    (node, router)
}

/// As nfdhcpd's lease and advertisement configure it: alone in its prefix, all else by the gateway.
fn configure(guest: &Client) {
    guest
        .namespace
        .sh("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
             ip link set eth0 up
             ip addr add 10.66.2.7/32 dev eth0
             ip route add 10.66.2.1 dev eth0; ip route add default via 10.66.2.1
             ip addr add fd66:2::a800:ff:fe5b:5fd8/64 dev eth0 nodad
             ip -6 route add default via fe80::fc53:4eff:fe46:1 dev eth0")
        .unwrap();
}

fn pings(from: &Netns, addresses: &[&str]) {
    for address in addresses {
        from.sh(&format!("ping -n -c 1 -W 20 {address}")).unwrap();
    }
}

#[test]
fn a_guest_behind_an_uplink_reaches_its_router_and_is_reached() {
    let (node, router) = node_with_router();
    let bare = node.dump();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    let first = node.dump();
    node.up(&routed());
    assert_eq!(difference(&first, &node.dump()), "");
    let link = node.namespace.ip("link show tap1").unwrap();
    assert!(link.contains("fe:53:4e:46:00:01"), "{link}");

    let guest = tap.into_client("aa:00:00:5b:5f:d8").unwrap();
    configure(&guest);
    pings(
        &guest.namespace,
        &["10.66.2.1", "192.0.2.1", "fd66:2::1", "2001:db8::1"],
    );
    router.sh("ip neigh flush dev guests").unwrap();
    pings(&router, &["10.66.2.7", "fd66:2::a800:ff:fe5b:5fd8"]);
    // Nothing of it in the host's own table, and no address of the host in the network.
    let main = node.namespace.ip("route show table main").unwrap();
    assert!(!main.contains("10.66.2"), "{main}");
    let addresses = node.namespace.ip("-o addr show").unwrap();
    assert!(!addresses.contains("10.66.2"), "{addresses}");
    // The guest does not reach the node's other networks.
    assert!(guest.namespace.sh("ping -n -c 1 -W 1 172.16.0.1").is_err());

    node.down("tap1");
    node.down("tap1");
    drop(guest);
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn up_and_down_without_a_guest_leave_everything_as_it_was() {
    let (node, _router) = node_with_router();
    let _tap = Tap::new(&node.namespace, "tap1").unwrap();
    let bare = node.dump();
    node.up(&routed());
    node.down("tap1");
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn two_guests_reach_each_other_and_share_what_leads_out() {
    let (node, _router) = node_with_router();
    let bare = node.dump();
    let tap1 = Tap::new(&node.namespace, "tap1").unwrap();
    let tap2 = Tap::new(&node.namespace, "tap2").unwrap();
    node.up(&routed());
    let second = with(
        routed(),
        &[
            ("INTERFACE", "tap2"),
            ("INSTANCE", "snf-3"),
            ("IP", "10.66.2.8"),
            ("MAC", "aa:00:00:00:00:08"),
        ],
    );
    node.up(&second);
    let one = tap1.into_client("aa:00:00:5b:5f:d8").unwrap();
    let two = tap2.into_client("aa:00:00:00:00:08").unwrap();
    configure(&one);
    two.namespace
        .sh("ip link set eth0 up; ip addr add 10.66.2.8/24 dev eth0
             ip route add default via 10.66.2.1")
        .unwrap();
    // The second takes its whole network to be on its link: the host answers for all of it.
    pings(&two.namespace, &["10.66.2.7", "10.66.2.1", "192.0.2.1"]);
    pings(&one.namespace, &["10.66.2.8"]);
    node.down("tap1");
    pings(&two.namespace, &["10.66.2.1"]);
    node.down("tap2");
    drop((one, two));
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn without_a_default_route_the_host_is_the_gateway() {
    let node = Node::new();
    let bare = node.dump();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    let guest = tap.into_client("aa:00:00:5b:5f:d8").unwrap();
    configure(&guest);
    pings(
        &guest.namespace,
        &["10.66.2.1", "fd66:2::1", "fe80::fc53:4eff:fe46:1%eth0"],
    );
    node.down("tap1");
    drop(guest);
    let left = difference(&bare, &node.dump());
    let left: Vec<&str> = left.lines().filter(|line| !line.contains("tap1")).collect();
    assert_eq!(left, Vec::<&str>::new());
}

#[test]
fn a_gateway_that_lives_on_the_host_answers() {
    let node = Node::new();
    node.namespace
        .sh("ip link add gw0 type veth peer name gw1
             ip link set gw0 addrgenmode none; ip link set gw1 addrgenmode none
             ip link set gw0 up; ip link set gw1 up
             ip addr add 10.66.2.1/24 dev gw0
             ip addr add fd66:2::1/64 dev gw0 nodad
             ip route add default dev gw0 table 100
             ip -6 route add default dev gw0 table 100")
        .unwrap();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    let guest = tap.into_client("aa:00:00:5b:5f:d8").unwrap();
    configure(&guest);
    pings(&guest.namespace, &["10.66.2.1", "fd66:2::1"]);
}

#[test]
fn a_strange_table_is_refused() {
    let node = Node::new();
    let _tap = Tap::new(&node.namespace, "tap1").unwrap();
    let bare = node.dump();
    for link in ["255", "br0", "0"] {
        let error = node.refused(&with(routed(), &[("LINK", link)]), 65);
        assert!(error.contains(&format!("LINK={link:?}: ")), "{error}");
    }
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn a_record_of_a_tap_that_vanished_is_taken_back_by_the_next_of_that_name() {
    let (node, _router) = node_with_router();
    let bare = node.dump();
    let old = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    drop(old);
    let _new = Tap::new(&node.namespace, "tap1").unwrap();
    let next = with(
        routed(),
        &[
            ("IP", "10.66.2.9"),
            ("MAC", "aa:00:00:00:00:09"),
            ("INSTANCE", "snf-4"),
        ],
    );
    node.up(&next);
    let shown = node
        .namespace
        .sh("ip rule; ip neigh show proxy; ip -6 neigh show proxy; ip route show table 100")
        .unwrap();
    assert!(!shown.contains("10.66.2.7"), "{shown}");
    assert!(!shown.contains("5b:5fd8"), "{shown}");
    assert!(shown.contains("10.66.2.9 dev up0"), "{shown}");
    node.down("tap1");
    drop(_new);
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn down_after_the_tap_has_gone_takes_back_what_stayed() {
    let (node, _router) = node_with_router();
    let bare = node.dump();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    drop(tap);
    node.down("tap1");
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn a_tap_that_was_up_with_another_mac_address_ends_with_ours_everywhere() {
    let (node, _router) = node_with_router();
    let quiet = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    let wanted = node.dump();
    node.down("tap1");
    drop(quiet);
    let _tap = Tap::new(&node.namespace, "tap1").unwrap();
    // The kernel makes a link-local address of the MAC address that it has now.
    node.namespace
        .sh("echo 0 > /proc/sys/net/ipv6/conf/tap1/accept_dad
             ip link set tap1 address fe:00:00:00:00:77; ip link set tap1 up")
        .unwrap();
    node.up(&routed());
    let addresses = node.namespace.ip("-6 -o addr show dev tap1").unwrap();
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(
        addresses.contains("fe80::fc53:4eff:fe46:1/64"),
        "{addresses}"
    );
    let same = |text: &str| -> Vec<String> {
        let kept = text.lines().filter(|line| !line.contains("tap1:"));
        kept.map(str::to_owned).collect()
    };
    assert_eq!(same(&node.dump()), same(&wanted));
}

/// Guests of a network with the tag `masq` speak to the outside in the host's name, others do not.
#[test]
fn a_masqueraded_network_is_behind_the_hosts_address() {
    let node = Node::new();
    let outside = Netns::new().unwrap();
    node.namespace.veth("up0", &outside, "eth0").unwrap();
    node.namespace
        .sh(
            "ip addr add 192.0.2.1/24 dev up0; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
             ip link set up0 addrgenmode none
             ip route add 192.0.2.0/24 dev up0 table 100
             ip route add default via 192.0.2.2 dev up0 table 100",
        )
        .unwrap();
    outside
        .sh("ip addr add 192.0.2.2/24 dev eth0; ip route add 10.66.2.0/24 via 192.0.2.1")
        .unwrap();
    let prepared = node.dump();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    let nic = |tags: &str| with(routed(), &[("NETWORK_TAGS", tags)]);
    node.up(&nic("nfdhcpd"));
    let guest = tap.into_client("aa:00:00:5b:5f:d8").unwrap();
    guest
        .namespace
        .sh("ip link set eth0 up; ip addr add 10.66.2.7/32 dev eth0
             ip route add 10.66.2.1 dev eth0; ip route add default via 10.66.2.1")
        .unwrap();
    let listener = outside
        .run(|| Ok(UdpSocket::bind("192.0.2.2:9999")?))
        .unwrap();
    listener
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let speaks_as = |wanted: &str| {
        // A port of its own each time: a connection stays what it was when it began.
        let guest = guest
            .namespace
            .run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))
            .unwrap();
        let mut buffer = [0; 8];
        let from = harness::wait::until_ok("a datagram of the guest", LIMIT, || {
            guest.send_to(b"hello", "192.0.2.2:9999")?;
            Ok(listener.recv_from(&mut buffer)?.1)
        });
        assert_eq!(from.unwrap().ip().to_string(), wanted);
        listener.set_nonblocking(true).unwrap();
        while listener.recv_from(&mut buffer).is_ok() {}
        listener.set_nonblocking(false).unwrap();
    };
    speaks_as("10.66.2.7");
    node.up(&nic("nfdhcpd masq"));
    speaks_as("192.0.2.1");
    let whole = |node: &Node| node.run(&["check"], &Nic::new());
    node.namespace.sh("nft delete table ip snf").unwrap();
    let found = whole(&node).stdout;
    assert!(
        found.contains("not as it was made: masquerade 10.66.2.0/24"),
        "{found}"
    );
    assert!(node.run(&["restore"], &Nic::new()).status.success());
    assert!(!whole(&node).stdout.contains("masquerade"));
    speaks_as("192.0.2.1");
    // A second NIC of the network, and one of another: what is left is what is needed.
    let others = [
        ("tap8", "10.66.2.8", "10.66.2"),
        ("tap9", "10.66.3.9", "10.66.3"),
    ];
    let taps = others.map(|(name, ip, net)| {
        let tap = Tap::new(&node.namespace, name).unwrap();
        let (subnet, gateway) = (format!("{net}.0/24"), format!("{net}.1"));
        node.up(&with(
            nic("masq"),
            &[
                ("INTERFACE", name),
                ("MAC", "aa:00:00:00:00:08"),
                ("IP", ip),
                ("NETWORK_SUBNET", &subnet),
                ("NETWORK_GATEWAY", &gateway),
                ("NETWORK_SUBNET6", ""),
                ("NETWORK_GATEWAY6", ""),
            ],
        ));
        tap
    });
    let rules = || node.namespace.sh("nft list ruleset ip").unwrap();
    let count = |text: &str| text.matches("masquerade").count();
    assert_eq!(count(&rules()), 2, "{}", rules());
    node.down("tap1");
    node.down("tap9");
    assert_eq!(count(&rules()), 1, "{}", rules());
    assert!(rules().contains("10.66.2.0/24"), "{}", rules());
    node.down("tap8");
    drop((guest, taps));
    harness::wait::until_true("the TAPs to go", LIMIT, || {
        !node.namespace.ip("link").unwrap().contains("tap")
    })
    .unwrap();
    // the settings of the uplink stay
    assert_eq!(difference(&prepared, &node.dump()), "");
}
