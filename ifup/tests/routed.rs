//! Routed NICs, with traffic: guest - TAP - node - uplink - router, and without a router.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use harness::netns::Netns;
use harness::tap::{Client, Tap};
use node::{Node, difference, routed, with};

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
