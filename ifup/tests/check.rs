//! What check finds, and what explain says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use agents::addr::MacAddr;
use harness::netns::Netns;
use harness::tap::Tap;
use ifup::guard::corpus;
use node::{Nic, Node, bridged, bridged_cast, difference, routed, with};

/// A node with a bridged and a routed NIC.
fn node_with_both() -> (Node, Netns, Tap, Tap) {
    let node = Node::new();
    let router = Netns::new().unwrap();
    node.namespace.veth("up0", &router, "guests").unwrap();
    node.namespace
        .sh("ip link add br0 type bridge mcast_snooping 0
             ip link set br0 addrgenmode none; ip link set br0 up
             echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip route add 10.66.2.0/24 dev up0 table 100
             ip route add default via 10.66.2.1 dev up0 table 100
             ip -6 route add fd66:2::/64 dev up0 table 100
             ip -6 route add default via fd66:2::1 dev up0 table 100")
        .unwrap();
    let one = Tap::new(&node.namespace, "tap0").unwrap();
    let two = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&with(bridged(), &[("TAGS", "synnefo:network:0:limited")]));
    node.up(&routed());
    (node, router, one, two)
}

/// The lines that check prints, and its status.
fn check(node: &Node) -> (Vec<String>, i32) {
    let output = node.run(&["check"], &Nic::new());
    let lines = output.stdout.lines().map(str::to_owned).collect();
    (lines, output.status.code().unwrap())
}

#[test]
fn check_names_all_that_is_not_as_it_was_made() {
    let (node, _router, _one, _two) = node_with_both();
    let good = "the configuration, this host and its NICs are as they should be";
    assert_eq!(check(&node), (vec![good.to_owned()], 0));
    for (damage, line) in [
        (
            "ip link set tap0 nomaster",
            "tap0 (snf-1): not as it was made: link address fe:",
        ),
        (
            "bridge link set dev tap0 flood on",
            "tap0 (snf-1): not as it was made: port isolated",
        ),
        (
            "bridge link set dev tap0 learning on",
            "tap0 (snf-1): not as it was made: port isolated",
        ),
        (
            "bridge fdb del aa:00:00:e1:87:fc dev tap0 master",
            "tap0 (snf-1): not as it was made: forwarding",
        ),
        (
            "ip link set tap0 down",
            "tap0 (snf-1): not as it was made: link up",
        ),
        (
            "ip link set tap0 mtu 1400",
            "tap0 (snf-1): not as it was made: link address",
        ),
        (
            "ip route del 10.66.2.7 table 100",
            "tap1 (snf-2): not as it was made: route 10.66.2.7 table 100",
        ),
        (
            "ip -6 route del unreachable default metric 4294967295 table 100",
            "tap1 (snf-2): not as it was made: route IPv6 unreachable",
        ),
        (
            "ip rule del iif tap1 table 100",
            "tap1 (snf-2): not as it was made: rule IPv4",
        ),
        (
            "ip neigh del proxy 10.66.2.7 dev up0",
            "tap1 (snf-2): not as it was made: neighbour proxy",
        ),
        (
            "ip neigh del 10.66.2.7 dev tap1",
            "tap1 (snf-2): not as it was made: neighbour 10.66.2.7",
        ),
        (
            "echo 1 > /proc/sys/net/ipv4/conf/tap1/rp_filter",
            "tap1 (snf-2): not as it was made: sysctl net/ipv4/conf/tap1/rp_filter",
        ),
        (
            "nft flush set bridge snf ipv4",
            "tap0 (snf-1): not as it was made: guard all",
        ),
        (
            "nft flush set bridge snf ipv4",
            "tap0: judged wrongly: ARP request",
        ),
        (
            "nft flush set bridge snf guarded-4",
            "tap0: judged wrongly: another's source MAC address",
        ),
        (
            "nft add element bridge snf mac '{ \"tap0\" . aa:00:00:e1:87:fd }'",
            "tap0: judged wrongly: another's source MAC address",
        ),
        (
            "nft flush set inet snf guarded-4",
            "tap1: judged wrongly: an IPv4 tunnel from another's address",
        ),
        (
            "nft flush set arp snf guarded-4",
            "tap1: judged wrongly: ARP reply for the router",
        ),
        (
            "nft flush set arp snf ipv4",
            "tap1: judged wrongly: ARP request",
        ),
        (
            "nft flush chain bridge snf guest",
            "table bridge snf: its rules are not ours",
        ),
        (
            "nft delete table arp snf",
            "table arp snf: its rules are not ours",
        ),
        (
            "nft add element inet snf guarded-4 '{ \"tap9\" }'",
            "table inet snf: elements for tap9, which has no record",
        ),
        (
            "nft add element bridge snf trunk '{ \"tap9\" }'",
            "table bridge snf: elements for tap9, which has no record",
        ),
        (
            "nft add element bridge snf to-limited '{ \"tap9\" }'",
            "table bridge snf: elements for tap9, which has no record",
        ),
        (
            "rm $BINDINGS/tap0",
            "tap0 (snf-1): not as it was made: binding",
        ),
        ("echo '{}' > $STATE/tap0", "tap0: "),
    ] {
        let script = damage
            .replace("$BINDINGS", node.bindings().to_str().unwrap())
            .replace("$STATE", node.state().to_str().unwrap());
        node.namespace.sh(&script).unwrap();
        let (lines, status) = check(&node);
        assert_eq!(status, 1, "{damage}: {lines:?}");
        assert!(
            lines.iter().any(|found| found.starts_with(line)),
            "{damage}: {lines:#?}"
        );
        // What is damaged is repaired by the next call, whatever it is.
        node.namespace.sh("nft flush ruleset").unwrap();
        let again = node.run(
            &["up"],
            &with(bridged(), &[("TAGS", "synnefo:network:0:limited")]),
        );
        assert!(again.status.success(), "{damage}: {again:?}");
        node.up(&routed());
        assert_eq!(check(&node).0, [good], "after {damage}");
    }
}

const GOOD: &str = "the configuration, this host and its NICs are as they should be";

/// The variables of one of many NICs of a kind.
fn one_of_many(number: u16, nic: Nic) -> Nic {
    let [high, low] = number.to_be_bytes();
    let network = nic["NETWORK_SUBNET"]
        .strip_suffix("0/24")
        .unwrap()
        .to_owned();
    with(
        nic,
        &[
            ("INTERFACE", &format!("tap{number}")),
            ("INSTANCE", &format!("snf-{number}")),
            ("IP", &format!("{network}{}", 10 + low)),
            ("MAC", &format!("aa:00:00:00:{high:02x}:{low:02x}")),
        ],
    )
}

fn check_of(bridged_nics: u16, routed_nics: u16) {
    let (node, _router, one, two) = node_with_both();
    drop((one, two));
    assert!(node.run(&["restore"], &Nic::new()).status.success());
    let mut taps = Vec::new();
    for number in 0..bridged_nics + routed_nics {
        taps.push(Tap::new(&node.namespace, &format!("tap{number}")).unwrap());
        let nic = if number < bridged_nics {
            bridged()
        } else {
            routed()
        };
        node.up(&one_of_many(number, nic));
    }
    let start = std::time::Instant::now();
    assert_eq!(check(&node), (vec![GOOD.to_owned()], 0));
    println!(
        "{bridged_nics} bridged, {routed_nics} routed: {:?}",
        start.elapsed()
    );
}

#[test]
fn check_is_content_with_two_nics_on_a_bridge() {
    check_of(2, 0);
}

#[test]
fn check_is_content_with_three_nics_on_a_bridge_and_three_routed() {
    check_of(3, 3);
}

#[test]
fn check_is_content_with_many_nics() {
    check_of(64, 0);
}

#[test]
fn check_is_content_with_many_routed_nics() {
    check_of(2, 62);
}

/// Addresses that a guest has made the live tables learn, and a slow NIC, change no judgement.
#[test]
fn check_is_content_whatever_guests_have_taken_and_however_slow_they_are() {
    let (node, _router, one, two) = node_with_both();
    let _third = Tap::new(&node.namespace, "tap2").unwrap();
    node.up(&with(
        one_of_many(2, bridged()),
        &[("TAGS", "snf:nic:0:rate-out:9k")],
    ));
    for case in corpus::bridged(&bridged_cast()) {
        one.send(&case.frame).unwrap();
    }
    for case in corpus::routed(&node::routed_cast(), "fe:00:00:00:00:01".parse().unwrap()) {
        two.send(&case.frame).unwrap();
    }
    assert_eq!(check(&node), (vec![GOOD.to_owned()], 0));
}

/// Entries behind a guest's port that are not its own, a guest's address elsewhere, and bridges
/// and ports that learn what they should not.
#[test]
fn check_looks_at_the_whole_forwarding_table() {
    let (node, _router, _one, _two) = node_with_both();
    let port = Tap::new(&node.namespace, "port").unwrap();
    node.namespace
        .sh("ip link set port addrgenmode none; ip link set port master br0; ip link set port up")
        .unwrap();
    assert_eq!(check(&node), (vec![GOOD.to_owned()], 0));
    let guest = "aa:00:00:e1:87:fc";
    for (damage, wanted) in [
        (
            "bridge fdb add 02:00:00:00:00:01 dev tap0 master dynamic".to_owned(),
            &[
                "tap0 (snf-1): the forwarding table of br0 has addresses behind it that are not the guest's: 02:00:00:00:00:01",
            ][..],
        ),
        (
            "for n in 1 2 3 4 5; do bridge fdb add 02:00:00:00:00:0$n dev tap0 master static; done"
                .to_owned(),
            &[
                "tap0 (snf-1): the forwarding table of br0 has addresses behind it that are not the guest's: 02:00:00:00:00:01 02:00:00:00:00:02 02:00:00:00:00:03 and 2 more",
            ],
        ),
        (
            format!("bridge fdb replace {guest} dev port master dynamic"),
            &[
                "tap0 (snf-1): not as it was made: forwarding",
                "tap0 (snf-1): the forwarding table has its address aa:00:00:e1:87:fc behind port",
            ],
        ),
        (
            format!("bridge fdb replace {guest} dev tap0 master static"),
            &["tap0 (snf-1): not as it was made: forwarding"],
        ),
        (
            format!("bridge fdb replace {guest} dev tap0 master dynamic"),
            &["tap0 (snf-1): not as it was made: forwarding"],
        ),
        (
            "bridge link set dev tap0 learning on".to_owned(),
            &["tap0 (snf-1): not as it was made: port isolated off flood off learning off"],
        ),
        (
            "ip link set br0 type bridge no_linklocal_learn 0".to_owned(),
            &["tap0 (snf-1): not as it was made: bridge br0 no_linklocal_learn on"],
        ),
        (
            "ip link set br0 type bridge no_linklocal_learn 0
             bridge link set dev tap0 learning on"
                .to_owned(),
            &[
                "tap0: the bridge learns from: a forged source to 01:80:c2:00:00:0e",
                "tap0: the bridge learns from: a VLAN tag and LLDP from a forged source",
            ],
        ),
        (
            "nft flush set bridge snf guarded-4; bridge link set dev tap0 learning on".to_owned(),
            &["tap0: the bridge learns from: ARP from a forged source"],
        ),
    ] {
        node.namespace.sh(&damage).unwrap();
        let (lines, status) = check(&node);
        assert_eq!(status, 1, "{damage}: {lines:?}");
        for line in wanted {
            assert!(
                lines.iter().any(|found| found.starts_with(line)),
                "{damage}: {line}: {lines:#?}"
            );
        }
        // The next call repairs it.
        node.namespace
            .sh(&format!(
                "bridge fdb del {guest} dev port master 2>/dev/null || true"
            ))
            .unwrap();
        node.up(&with(bridged(), &[("TAGS", "synnefo:network:0:limited")]));
        node.namespace
            .sh("nft flush ruleset
                 for n in 1 2 3 4 5; do bridge fdb del 02:00:00:00:00:0$n dev tap0 master 2>/dev/null || true; done")
            .unwrap();
        assert!(node.run(&["restore"], &Nic::new()).status.success());
        assert_eq!(check(&node).0, [GOOD], "after {damage}");
    }
    drop(port);
}

#[test]
fn check_finds_a_rate_that_is_gone() {
    let (node, _router, _one, _two) = node_with_both();
    node.up(&with(bridged(), &[("TAGS", "snf:nic:0:rate-in:90k")]));
    assert_eq!(check(&node).1, 0);
    let wrong = "tap0 (snf-1): not as it was made: rate 90000 bit/s to the guest";
    for damage in [
        "tc qdisc del dev tap0 root",
        "tc qdisc replace dev tap0 root tbf rate 1mbit burst 64k latency 50ms",
        "tc qdisc replace dev tap0 root pfifo",
    ] {
        node.namespace.sh(damage).unwrap();
        assert_eq!(check(&node), (vec![wrong.to_owned()], 1), "{damage}");
    }
    node.up(&with(bridged(), &[("TAGS", "snf:nic:0:rate-in:90k")]));
    assert_eq!(check(&node).1, 0);
}

/// The frames are sent through what is live, not through what its comments say it is.
#[test]
fn check_finds_a_rule_that_is_not_what_its_comment_says() {
    let (node, _router, _one, _two) = node_with_both();
    let before = node.dump();
    assert_eq!(check(&node).1, 0);
    node.namespace
        .sh("handle=$(nft -a list chain bridge snf guest | sed -n 's/.*source MAC address of another.*handle //p')
             rule=$(nft list chain bridge snf guest | grep 'source MAC address of another' | sed 's/ drop / accept /; s/^[ \t]*//')
             nft \"replace rule bridge snf guest handle $handle $rule\"")
        .unwrap();
    let (lines, status) = check(&node);
    assert_eq!(status, 1, "{lines:?}");
    assert!(
        lines.contains(&"tap0: judged wrongly: another's source MAC address".to_owned()),
        "{lines:#?}"
    );
    node.namespace.sh("nft flush ruleset").unwrap();
    assert!(node.run(&["restore"], &Nic::new()).status.success());
    assert_eq!(check(&node).1, 0);
    // and nothing of the node is different for it
    assert_eq!(difference(&before, &node.dump()), "");
}

#[test]
fn check_tells_of_an_interface_that_is_gone() {
    let (node, _router, one, _two) = node_with_both();
    drop(one);
    let (lines, status) = check(&node);
    assert_eq!(
        (lines, status),
        (
            vec!["tap0 (snf-1): gone; snf-ifup restore takes back what is left of it".to_owned()],
            1
        )
    );
    assert!(node.run(&["restore"], &Nic::new()).status.success());
    assert_eq!(check(&node).1, 0);
}

fn hex(frame: &[u8]) -> String {
    let digits: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(":")
}

#[test]
fn explain_names_the_rule_and_the_reason() {
    let (node, _router, one, _two) = node_with_both();
    let cases = corpus::bridged(&bridged_cast());
    let frame = |name: &str| {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        case.frame.clone()
    };
    let says = |arguments: &[&str]| {
        let output = node.run(arguments, &Nic::new());
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    for (name, last) in [
        ("RA", "dropped: router advertisement"),
        ("a VLAN tag", "dropped: EtherType that guests do not use"),
        (
            "ARP reply for the router",
            "dropped: ARP for the address of another",
        ),
        ("DHCP offer", "dropped: DHCP server"),
        (
            "another's source MAC address",
            "dropped: source MAC address of another",
        ),
        ("ping", "passes: its own address"),
        (
            "ping from a random address that was never asked for",
            "dropped: ICMPv6 from the address of another, or of a type guests do not use",
        ),
    ] {
        let said = says(&["explain", "tap0", &hex(&frame(name))]);
        assert_eq!(said.lines().last(), Some(last), "{said}");
        assert!(said.starts_with("prerouting: a guarded guest\n"), "{said}");
    }
    // What the kernel has learned meanwhile counts.
    one.send(&frame("DAD for a random link-local address"))
        .unwrap();
    let said = says(&[
        "explain",
        "tap0",
        &hex(&frame("ping from the random address")),
    ]);
    assert!(
        said.contains("\npasses: errors and echoes from its own address"),
        "{said}"
    );

    // On the way to the guest its profile decides.
    let mut ssh = frame("TCP");
    let to = |port: u8, mut frame: Vec<u8>| {
        frame[37] = port;
        hex(&frame)
    };
    let said = says(&["explain", "--to", "tap0", &to(22, ssh.clone())]);
    assert!(said.ends_with("passes: a port of the profile\n"), "{said}");
    let said = says(&["explain", "--to", "tap0", &to(23, ssh.clone())]);
    assert!(said.ends_with("dropped: not in the profile\n"), "{said}");

    // A routed one, by its own table.
    let mac: MacAddr = "aa:00:00:5b:5f:d8".parse().unwrap();
    ssh.splice(6..12, mac.octets());
    let said = says(&["explain", "tap1", &hex(&ssh)]);
    assert!(
        said.ends_with("dropped: IPv4 source address of another\n"),
        "{said}"
    );
    ssh.splice(26..30, [10, 66, 2, 7]);
    let said = says(&["explain", "tap1", &hex(&ssh)]);
    assert!(said.ends_with("passes: its own address\n"), "{said}");

    for (arguments, status) in [
        (&["explain", "tap9", "00"][..], 1),
        (&["explain", "tap0", "0g"], 2),
        (&["explain", "tap0", "000"], 2),
        (&["explain", "tap0", "0011"], 2),
    ] {
        let output = node.run(arguments, &Nic::new());
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
}
