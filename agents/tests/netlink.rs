//! netlink against the real kernel, each test in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use agents::addr::MacAddr;
use agents::netlink::monitor::{LinkEvent, LinkMonitor};
use agents::netlink::nftables::monitor::NftablesMonitor;
use agents::netlink::nftables::{
    Batch, Chain, Data, Element, Family, Field, Hook, KeyType, LimitUnit, MetaKey, Nftables,
    Operator, Policy, Set, SetData, Statement, Table, Verdict, concat, interface_name,
};
use agents::netlink::{LinkChange, PortFlags, Route, RouteKind, RouteScope, Rtnetlink, Rule};
use harness::netns::Netns;

/// A namespace that the test's thread is in, so that connections opened here are there.
fn here() -> Netns {
    let namespace = Netns::new().unwrap();
    namespace.enter().unwrap();
    namespace
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const MAC: MacAddr = MacAddr::new([0xfe, 0, 0, 0, 0, 1]);

#[test]
fn a_link_is_found_changed_and_made_a_port() {
    let namespace = here();
    namespace.ip("link add br0 type bridge").unwrap();
    namespace
        .ip("link add veth0 type veth peer name veth1")
        .unwrap();
    let mut rtnetlink = Rtnetlink::open().unwrap();

    let bridge = rtnetlink.link_by_name("br0").unwrap().unwrap();
    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
    assert!(!bridge.vlan_filtering && !bridge.up);
    assert_eq!(rtnetlink.link_by_name("none").unwrap(), None);
    assert_eq!(rtnetlink.link_by_index(9999).unwrap(), None);

    let veth = rtnetlink.link_by_name("veth0").unwrap().unwrap();
    let change = LinkChange {
        up: Some(true),
        mtu: Some(1400),
        mac: Some(MAC),
        master: Some(bridge.index),
        alias: Some("a guest".to_owned()),
        transmit_queue: Some(500),
    };
    rtnetlink.change_link(veth.index, "veth0", &change).unwrap();
    let flags = PortFlags {
        learning: Some(false),
        unicast_flood: Some(false),
        isolated: Some(true),
        ..PortFlags::default()
    };
    rtnetlink.change_port(veth.index, "veth0", &flags).unwrap();
    let veth = rtnetlink.link_by_index(veth.index).unwrap().unwrap();
    assert!(veth.up);
    assert_eq!(veth.mtu, 1400);
    assert_eq!(veth.mac, Some(MAC));
    assert_eq!(veth.master, Some(bridge.index));
    assert_eq!(veth.alias.as_deref(), Some("a guest"));
    let port = veth.port.unwrap();
    assert_eq!(port.learning, Some(false));
    assert_eq!(port.unicast_flood, Some(false));
    assert_eq!(port.isolated, Some(true));
    assert_eq!(port.broadcast_flood, Some(true));
    assert_eq!(rtnetlink.links().unwrap().len(), 4, "lo, br0, veth0, veth1");

    let change = LinkChange {
        master: Some(0),
        ..LinkChange::default()
    };
    rtnetlink.change_link(veth.index, "veth0", &change).unwrap();
    let alone = rtnetlink.link_by_name("veth0").unwrap().unwrap();
    assert_eq!(alone.master, None);
    rtnetlink.delete_link(alone.index).unwrap();
    rtnetlink.delete_link(alone.index).unwrap();
    assert_eq!(rtnetlink.link_by_name("veth0").unwrap(), None);
}

#[test]
fn a_refusal_says_what_was_asked_and_what_the_kernel_said() {
    let namespace = here();
    namespace.ip("link add v0 type veth peer name v1").unwrap();
    let mut rtnetlink = Rtnetlink::open().unwrap();
    let link = rtnetlink.link_by_name("v0").unwrap().unwrap();
    let change = LinkChange {
        mtu: Some(1_000_000),
        ..LinkChange::default()
    };
    let error = rtnetlink
        .change_link(link.index, "v0", &change)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "link v0: mtu 1000000: mtu greater than device maximum: Invalid argument (os error 22)"
    );
}

#[test]
fn links_that_come_and_go_are_heard() {
    let namespace = here();
    let mut monitor = LinkMonitor::open().unwrap();
    namespace.ip("link add br0 type bridge").unwrap();
    namespace.ip("link add d0 type veth peer name d1").unwrap();
    namespace.ip("link set d0 master br0").unwrap();
    namespace.ip("link set d0 nomaster").unwrap();
    let events = monitor.events().unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, LinkEvent::Present(link) if link.name == "d0")),
        "{events:?}"
    );
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, LinkEvent::Gone(_))),
        "leaving a bridge is not going: {events:?}"
    );
    namespace.ip("link del d0").unwrap();
    let events = monitor.events().unwrap();
    let gone = events
        .iter()
        .filter(|event| matches!(event, LinkEvent::Gone(link) if link.name == "d0"));
    assert_eq!(gone.count(), 1, "{events:?}");
    assert_eq!(monitor.events().unwrap(), []);
}

#[test]
fn routes_rules_and_neighbours_come_and_go() {
    let namespace = here();
    namespace.ip("link add v0 type veth peer name v1").unwrap();
    namespace.ip("link set v0 up").unwrap();
    namespace.ip("link set v1 up").unwrap();
    let mut rtnetlink = Rtnetlink::open().unwrap();
    let link = rtnetlink.link_by_name("v0").unwrap().unwrap().index;
    for (host, table) in [("192.0.2.7", 100), ("2001:db8::7", 100_000)] {
        let ipv4 = address(host).is_ipv4();
        assert_eq!(
            rtnetlink.routes(ipv4, table).unwrap(),
            [],
            "no such table yet"
        );
        let route = Route::host(address(host), link, table, 83);
        rtnetlink.replace_route(&route).unwrap();
        rtnetlink.replace_route(&route).unwrap();
        assert!(!rtnetlink.add_route(&route).unwrap());
        let mut read = rtnetlink.routes(ipv4, table).unwrap();
        assert_eq!(read.len(), 1, "{read:?}");
        let mut read = read.pop().unwrap();
        if !ipv4 {
            assert_eq!(read.metric.take(), Some(1024));
        }
        assert_eq!(read, route);
        rtnetlink.delete_route(&route).unwrap();
        rtnetlink.delete_route(&route).unwrap();
        assert_eq!(rtnetlink.routes(ipv4, table).unwrap(), []);

        let rule = Rule {
            ipv4,
            priority: 1234,
            input: Some("v0".to_owned()),
            output: None,
            source: None,
            destination: Some((address(host), if ipv4 { 32 } else { 128 })),
            table,
            protocol: 83,
        };
        assert!(rtnetlink.add_rule(&rule).unwrap());
        assert!(!rtnetlink.add_rule(&rule).unwrap());
        let rules = rtnetlink.rules(ipv4).unwrap();
        assert_eq!(rules.iter().filter(|found| **found == rule).count(), 1);
        rtnetlink.delete_rule(&rule).unwrap();
        rtnetlink.delete_rule(&rule).unwrap();
        assert!(!rtnetlink.rules(ipv4).unwrap().contains(&rule));

        rtnetlink.add_proxy(link, address(host)).unwrap();
        rtnetlink.add_proxy(link, address(host)).unwrap();
        let proxies = rtnetlink.neighbours(ipv4, true).unwrap();
        assert_eq!(proxies.len(), 1, "{proxies:?}");
        assert_eq!(proxies.first().unwrap().address, Some(address(host)));
        rtnetlink.delete_proxy(link, address(host)).unwrap();
        rtnetlink.delete_proxy(link, address(host)).unwrap();
        assert_eq!(rtnetlink.neighbours(ipv4, true).unwrap(), []);

        rtnetlink.set_neighbour(link, address(host), MAC).unwrap();
        let known = rtnetlink.neighbours(ipv4, false).unwrap();
        assert!(
            known
                .iter()
                .any(|found| found.address == Some(address(host)) && found.mac == Some(MAC))
        );
        rtnetlink.delete_neighbour(link, address(host)).unwrap();
        rtnetlink.delete_neighbour(link, address(host)).unwrap();
    }
    let default = Route {
        prefix_length: 0,
        destination: address("0.0.0.0"),
        gateway: Some(address("192.0.2.1")),
        on_link: true,
        scope: RouteScope::Universe,
        ..Route::host(address("0.0.0.0"), link, 100, 4)
    };
    rtnetlink.add_route(&default).unwrap();
    let read = rtnetlink.routes(true, 100).unwrap();
    assert_eq!(read, [default]);
    assert!(read.first().unwrap().is_default());
}

#[test]
fn the_default_route_is_found_among_thousands() {
    let namespace = here();
    namespace.ip("link add v0 type veth peer name v1").unwrap();
    namespace.ip("link set v0 up").unwrap();
    namespace.ip("link set v1 up").unwrap();
    let mut rtnetlink = Rtnetlink::open().unwrap();
    assert_eq!(Rtnetlink::default_route(100).unwrap(), None);
    let v0 = rtnetlink.link_by_name("v0").unwrap().unwrap().index;
    let v1 = rtnetlink.link_by_name("v1").unwrap().unwrap().index;
    for n in 0..2000_u32 {
        let host = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        rtnetlink
            .replace_route(&Route::host(host, v1, 100, 83))
            .unwrap();
    }
    namespace
        .ip("route add default dev v0 table 100 metric 9")
        .unwrap();
    namespace
        .ip("route add default dev v1 table 100 metric 10")
        .unwrap();
    let default = Rtnetlink::default_route(100).unwrap().unwrap();
    assert_eq!(default.interface, Some(v0));
    namespace.ip("-6 addr add fd00::1/64 dev v0").unwrap();
    namespace
        .ip("-6 route add default via fd00::2 dev v0 table 100")
        .unwrap();
    for n in 0..2000_u16 {
        let host = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, n);
        rtnetlink
            .replace_route(&Route::host(host.into(), v1, 100, 83))
            .unwrap();
    }
    // Without a rule the kernel's answer is of another table.
    assert_eq!(rtnetlink.default_route6(100, v0).unwrap(), None);
    namespace.ip("-6 rule add iif v0 lookup 100").unwrap();
    let default = rtnetlink.default_route6(100, v0).unwrap().unwrap();
    assert_eq!(default.interface, Some(v0));
    assert_eq!(default.kind, RouteKind::Unicast);
    assert_eq!(rtnetlink.default_route6(101, v0).unwrap(), None);
    assert_eq!(rtnetlink.default_route6(100, v1).unwrap(), None);
    // The host sends what is for nowhere elsewhere.
    namespace
        .ip("-6 route add blackhole 100::/64 table 100")
        .unwrap();
    assert_eq!(rtnetlink.default_route6(100, v0).unwrap(), None);
}

#[test]
fn what_is_refused_or_dropped_has_no_way() {
    let namespace = here();
    let mut rtnetlink = Rtnetlink::open().unwrap();
    for (kind, n) in [("blackhole", 1), ("unreachable", 2), ("prohibit", 3)] {
        for network in [format!("198.51.{n}.0/24"), format!("2001:db8:{n}::/64")] {
            namespace
                .ip(&format!("route add {kind} {network}"))
                .unwrap();
        }
        for text in [format!("198.51.{n}.1"), format!("2001:db8:{n}::1")] {
            assert_eq!(rtnetlink.lookup(address(&text)).unwrap(), None, "{kind}");
        }
    }
}

#[test]
fn an_address_of_its_own_makes_the_host_answer_for_it() {
    let namespace = here();
    namespace.ip("link add v0 type veth peer name v1").unwrap();
    namespace.ip("link set v0 up").unwrap();
    let mut rtnetlink = Rtnetlink::open().unwrap();
    let link = rtnetlink.link_by_name("v0").unwrap().unwrap().index;
    for text in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(rtnetlink.lookup(address(text)).unwrap(), None, "{text}");
        rtnetlink.add_address(link, address(text)).unwrap();
        rtnetlink.add_address(link, address(text)).unwrap();
        // The kernel brings an IPv6 address into use a moment later.
        let route =
            harness::wait::until(
                "the address is local",
                harness::wait::USUAL,
                || match rtnetlink.lookup(address(text)).unwrap() {
                    Some(route) => harness::wait::Look::Done(route),
                    None => harness::wait::Look::NotYet("no route".to_owned()),
                },
            )
            .unwrap();
        assert_eq!(route.kind, RouteKind::Local, "{route:?}");
        assert!(
            rtnetlink
                .addresses()
                .unwrap()
                .contains(&(link, address(text)))
        );
        let main = rtnetlink.routes(text.contains('.'), 254).unwrap();
        assert!(
            main.iter()
                .all(|route| route.destination != address(text) || route.prefix_length == 128),
            "{main:?}"
        );
        rtnetlink.delete_address(link, address(text)).unwrap();
        rtnetlink.delete_address(link, address(text)).unwrap();
        assert_eq!(rtnetlink.lookup(address(text)).unwrap(), None);
    }
}

#[test]
fn a_static_forwarding_entry_stays() {
    let namespace = here();
    namespace.ip("link add br0 type bridge").unwrap();
    namespace.ip("link add v0 type veth peer name v1").unwrap();
    namespace.ip("link set v0 master br0 up").unwrap();
    let mut rtnetlink = Rtnetlink::open().unwrap();
    let port = rtnetlink.link_by_name("v0").unwrap().unwrap().index;
    let mac = MacAddr::new([0xaa, 0, 0, 0, 0, 9]);
    for (sticky, line) in [
        (false, "aa:00:00:00:00:09 master br0 static"),
        (true, "aa:00:00:00:00:09 sticky master br0 static"),
    ] {
        rtnetlink.set_forwarding(port, mac, None, sticky).unwrap();
        let shown = namespace.sh("bridge fdb show dev v0").unwrap();
        assert!(shown.contains(line), "{shown}");
    }
    assert!(
        rtnetlink
            .forwarding()
            .unwrap()
            .iter()
            .any(|entry| entry.mac == Some(mac) && entry.interface == port)
    );
    rtnetlink.delete_forwarding(port, mac, None).unwrap();
    rtnetlink.delete_forwarding(port, mac, None).unwrap();
}

const BRIDGE: Table = Table::new(Family::Bridge, "snf-test");
const INET: Table = Table::new(Family::Inet, "snf-test");

#[test]
fn a_batch_is_what_nft_shows() {
    let namespace = here();
    let mut batch = Batch::new();
    batch
        .add_table(BRIDGE)
        .add_set(&Set::new(BRIDGE, "guests", &[KeyType::InterfaceName]))
        .add_set(&Set::new(
            BRIDGE,
            "own",
            &[KeyType::InterfaceName, KeyType::EtherAddress],
        ))
        .add_set(&Set::new(BRIDGE, "profile", &[KeyType::InterfaceName]).map(SetData::Verdict))
        .add_set(
            &Set::new(BRIDGE, "learned", &[KeyType::InterfaceName, KeyType::Ipv6])
                .dynamic()
                .size(1000)
                .timeout(Duration::from_secs(3600)),
        )
        .add_chain(&Chain::base(BRIDGE, "in", Hook::Prerouting, -310).policy(Policy::Accept))
        .add_chain(&Chain::regular(BRIDGE, "limited"))
        .add_rule_named(
            BRIDGE,
            "in",
            &[
                Statement::in_set(&[Field::INPUT_NAME], "guests"),
                Statement::not_in_set(&[Field::INPUT_NAME, Field::ETHER_SOURCE], "own"),
                Statement::Counter,
                Statement::Drop,
            ],
            "forged source",
        )
        .add_rule(
            BRIDGE,
            "in",
            &[
                Statement::masked(
                    Field::network(6, 2),
                    &[0x1f, 0xff],
                    Operator::NotEqual,
                    &[0, 0],
                ),
                Statement::Limit {
                    rate: 10,
                    seconds: 1,
                    unit: LimitUnit::Packets,
                    burst: 5,
                    over: true,
                },
                Statement::Drop,
            ],
        )
        .add_rule(
            BRIDGE,
            "in",
            &[Statement::Learn {
                key: vec![Field::INPUT_NAME, Field::IPV6_SOURCE],
                set: "learned".to_owned(),
                timeout: None,
                update: true,
            }],
        )
        .add_rule(
            BRIDGE,
            "in",
            &[Statement::verdict_map(&[Field::INPUT_NAME], "profile")],
        )
        .add_rule(
            BRIDGE,
            "limited",
            &[
                Statement::equal(Field::ExtensionHeader(60), &[1]),
                Statement::SetMark(7),
                Statement::Accept,
            ],
        )
        .add_elements(BRIDGE, "guests", [Element::key(interface_name("tap0"))])
        .add_elements(
            BRIDGE,
            "own",
            [Element::key(concat(&[
                &interface_name("tap0"),
                &[0xaa, 0, 0, 0, 0, 1],
            ]))],
        )
        .add_elements(
            BRIDGE,
            "profile",
            [Element::pair(
                interface_name("tap0"),
                Data::Verdict(Verdict::Jump("limited".to_owned())),
            )],
        );
    let mut nftables = Nftables::open().unwrap();
    nftables.commit(&batch).unwrap();
    let shown = namespace.sh("nft list ruleset").unwrap();
    for part in [
        "table bridge snf-test {",
        "type filter hook prerouting priority dstnat - 10; policy accept;",
        "iifname @guests iifname . ether saddr != @own counter packets 0 bytes 0 drop",
        "comment \"forged source\"",
        "@nh,48,16 & 0x1fff != 0x0 limit rate over 10/second drop",
        "update @learned { iifname . @nh,64,128 }",
        "iifname vmap @profile",
        "exthdr dst exists meta mark set 0x00000007 accept",
        "elements = { \"tap0\" }",
        "elements = { \"tap0\" . aa:00:00:00:00:01 }",
        "elements = { \"tap0\" : jump limited }",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    // Read back.
    assert!(nftables.has_table(BRIDGE).unwrap());
    assert!(!nftables.has_table(INET).unwrap());
    assert_eq!(nftables.chains(BRIDGE).unwrap().len(), 2);
    let rules = nftables.rules(BRIDGE).unwrap();
    assert_eq!(rules.len(), 5);
    let first = rules.first().unwrap();
    assert_eq!(first.comment, "forged source");
    assert_eq!(first.counter, Some((0, 0)));
    assert_eq!(
        nftables.elements(BRIDGE, "profile").unwrap(),
        [Element::pair(
            interface_name("tap0"),
            Data::Verdict(Verdict::Jump("limited".to_owned()))
        )]
    );
    assert_eq!(
        nftables.elements(BRIDGE, "own").unwrap(),
        [Element::key(concat(&[
            &interface_name("tap0"),
            &[0xaa, 0, 0, 0, 0, 1]
        ]))]
    );
    assert_eq!(nftables.elements(BRIDGE, "none").unwrap(), []);

    // The same again: nothing new but the rules.
    nftables.commit(&batch).unwrap();
    let mut undo = Batch::new();
    undo.delete_table(BRIDGE);
    nftables.commit(&undo).unwrap();
    assert_eq!(namespace.sh("nft list ruleset").unwrap(), "");
}

#[test]
fn a_batch_that_fails_changes_nothing_and_names_the_item() {
    let namespace = here();
    let mut nftables = Nftables::open().unwrap();
    let mut batch = Batch::new();
    batch
        .add_table(INET)
        .add_set(&Set::new(INET, "guests", &[KeyType::InterfaceName]))
        .add_elements(INET, "guests", [Element::key(interface_name("tap0"))])
        .delete_elements(INET, "guests", [Element::key(interface_name("tap1"))])
        .add_elements(INET, "guests", [Element::key(interface_name("tap2"))]);
    let error = nftables.commit(&batch).unwrap_err();
    assert!(error.is_not_found());
    let text = error.to_string();
    assert!(
        text.starts_with("nftables: delete elements of set inet snf-test guests: "),
        "{text}"
    );
    assert_eq!(namespace.sh("nft list ruleset").unwrap(), "");
    // The connection is as good as before.
    batch = Batch::new();
    batch.add_table(INET);
    nftables.commit(&batch).unwrap();
    assert!(nftables.has_table(INET).unwrap());
}

#[test]
fn thousands_of_elements_come_and_go_in_one_batch() {
    let _namespace = here();
    let mut nftables = Nftables::open().unwrap();
    let names = || (0..5000).map(|n| Element::key(interface_name(&format!("tap{n}"))));
    let mut batch = Batch::new();
    batch
        .add_table(INET)
        .add_set(&Set::new(INET, "guests", &[KeyType::InterfaceName]))
        .add_elements(INET, "guests", names());
    nftables.commit(&batch).unwrap();
    assert_eq!(nftables.elements(INET, "guests").unwrap().len(), 5000);
    let mut batch = Batch::new();
    batch.delete_elements(INET, "guests", names().skip(1));
    nftables.commit(&batch).unwrap();
    let left = nftables.elements(INET, "guests").unwrap();
    assert_eq!(left, [Element::key(interface_name("tap0"))]);
    batch = Batch::new();
    batch.flush_set(INET, "guests");
    nftables.commit(&batch).unwrap();
    assert_eq!(nftables.elements(INET, "guests").unwrap(), []);
}

#[test]
fn what_the_kernel_has_is_found_without_changing_anything() {
    let namespace = here();
    let mut nftables = Nftables::open().unwrap();
    let match_any = Statement::equal(Field::Meta(MetaKey::Family), &[2]);
    assert!(
        nftables
            .supports(
                Family::Inet,
                Hook::Prerouting,
                std::slice::from_ref(&match_any)
            )
            .unwrap()
    );
    let queue = Statement::TargetQueue {
        number: 42,
        total: 1,
        bypass: true,
    };
    // The xtables target is not for bridges, in any kernel.
    assert!(
        !nftables
            .supports(
                Family::Bridge,
                Hook::Prerouting,
                std::slice::from_ref(&queue)
            )
            .unwrap()
    );
    let native = Statement::Queue {
        number: 42,
        total: 1,
        bypass: true,
    };
    let inet_target = nftables
        .supports(Family::Inet, Hook::Prerouting, &[queue])
        .unwrap();
    let inet_native = nftables
        .supports(Family::Inet, Hook::Prerouting, &[native])
        .unwrap();
    assert!(inet_target || inet_native, "no way to queue at all");
    assert_eq!(namespace.sh("nft list ruleset").unwrap(), "");
}

#[test]
fn a_deleted_table_is_heard_and_a_new_element_is_not() {
    let namespace = here();
    let mut nftables = Nftables::open().unwrap();
    let mut batch = Batch::new();
    batch
        .add_table(INET)
        .add_set(&Set::new(INET, "guests", &[KeyType::InterfaceName]));
    nftables.commit(&batch).unwrap();
    let mut monitor = NftablesMonitor::open().unwrap();
    let mut batch = Batch::new();
    batch.add_elements(INET, "guests", [Element::key(interface_name("tap0"))]);
    nftables.commit(&batch).unwrap();
    assert!(!monitor.deleted().unwrap());
    namespace.sh("nft flush ruleset").unwrap();
    assert!(monitor.deleted().unwrap());
    assert!(!monitor.deleted().unwrap());
}
