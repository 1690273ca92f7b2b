//! Firewall profiles: what comes to a guest from a neighbour, a router, the host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::process::Command;

use harness::netns::Netns;
use harness::process;
use harness::tap::{Client, Tap};
use node::{LIMIT, Nic, Node, bridged, routed, with};

const GUEST4: &str = "10.66.1.7";
const GUEST6: &str = "fd66:1::a800:ff:fee1:87fc";

fn tagged(profile: &str) -> Nic {
    let tag = format!("labtag synnefo:network:snf-nic-1:{profile}");
    with(bridged(), &[("TAGS", &tag)])
}

/// A bridge with the guest behind `tap0` and a neighbour behind a veth.
fn network() -> (Node, Client, Netns) {
    let node = Node::new();
    let neighbour = Netns::new().unwrap();
    node.namespace
        .sh("ip link add br0 type bridge; ip link set br0 addrgenmode none; ip link set br0 up")
        .unwrap();
    node.namespace.veth("other", &neighbour, "eth0").unwrap();
    node.namespace.ip("link set other master br0").unwrap();
    neighbour
        .sh("ip addr add 10.66.1.9/24 dev eth0; ip addr add fd66:1::9/64 dev eth0 nodad")
        .unwrap();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&tagged("unprotected"));
    let guest = tap.into_client("aa:00:00:e1:87:fc").unwrap();
    guest
        .namespace
        .sh(&format!(
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up
             ip addr add {GUEST4}/24 dev eth0; ip addr add {GUEST6}/64 dev eth0 nodad"
        ))
        .unwrap();
    (node, guest, neighbour)
}

/// Listens on ports of the guest and connects from the neighbour; whether it was answered.
fn connects(from: &Netns, to: &Netns, address: &str, port: u16) -> bool {
    let address = address.to_owned();
    to.run(|| {
        let listener = std::net::TcpListener::bind(("::", port)).unwrap();
        let found = from.run(move || {
            let to = std::net::SocketAddr::new(address.parse().unwrap(), port);
            let limit = std::time::Duration::from_millis(1500);
            Ok(std::net::TcpStream::connect_timeout(&to, limit).is_ok())
        });
        drop(listener);
        found
    })
    .unwrap()
}

fn pings(from: &Netns, address: &str) -> bool {
    let mut command: Command = from.command("ping");
    command.args(["-n", "-c", "1", "-W", "2", address]);
    process::run(&mut command, LIMIT).unwrap().status.success()
}

#[test]
fn each_profile_lets_in_what_it_says_and_changes_in_one_step() {
    let (node, guest, neighbour) = network();
    // (profile, ping, ssh, http) as the neighbour sees it.
    for (profile, ping, ssh, http) in [
        ("unprotected", true, true, true),
        ("limited", true, true, false),
        ("protected", false, false, false),
        ("unprotected", true, true, true),
    ] {
        node.up(&tagged(profile));
        for address in [GUEST4, GUEST6] {
            let what = format!("{profile} {address}");
            assert_eq!(pings(&neighbour, address), ping, "ping {what}");
            assert_eq!(
                connects(&neighbour, &guest.namespace, address, 22),
                ssh,
                "22 {what}"
            );
            assert_eq!(
                connects(&neighbour, &guest.namespace, address, 80),
                http,
                "80 {what}"
            );
        }
        // Whatever the profile, the guest reaches others and gets its answers.
        for address in ["10.66.1.9", "fd66:1::9"] {
            assert!(pings(&guest.namespace, address), "{profile} {address}");
            assert!(
                connects(&guest.namespace, &neighbour, address, 80),
                "{profile} {address}"
            );
        }
    }
}

#[test]
fn a_routed_guest_has_profiles_too() {
    let node = Node::new();
    let tap = Tap::new(&node.namespace, "tap1").unwrap();
    let tag = |profile: &str| {
        let tag = format!("synnefo:network:0:{profile}");
        with(routed(), &[("TAGS", &tag)])
    };
    node.up(&tag("protected"));
    let guest = tap.into_client("aa:00:00:5b:5f:d8").unwrap();
    guest
        .namespace
        .sh("ip link set eth0 up; ip addr add 10.66.2.7/32 dev eth0
             ip route add 10.66.2.1 dev eth0; ip route add default via 10.66.2.1")
        .unwrap();
    let from_host = |port| connects(&node.namespace, &guest.namespace, "10.66.2.7", port);
    let host_pings = || {
        let mut command: Command = node.namespace.command("ping");
        command.args(["-n", "-c", "1", "-W", "2", "-I", "10.66.2.1", "10.66.2.7"]);
        process::run(&mut command, LIMIT).unwrap().status.success()
    };
    // The host's connections start from the gateway's address, which leads to the table.
    let rule = "ip rule add to 10.66.2.7 lookup 100; ip addr show";
    node.namespace.sh(rule).unwrap();
    assert!(!host_pings());
    assert!(!from_host(22));
    assert!(pings(&guest.namespace, "10.66.2.1"));
    node.up(&tag("limited"));
    assert!(host_pings());
    assert!(from_host(22));
    assert!(!from_host(80));
}

#[test]
fn a_profile_that_is_not_configured_is_refused_and_one_that_is_works() {
    let node = Node::with_config("[profiles.web]\ntcp = [80, 443]\n");
    node.namespace
        .sh("ip link add br0 type bridge; ip link set br0 up")
        .unwrap();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let error = node.refused(&tagged("protected"), 65);
    assert!(
        error.contains("no profile of this name is configured"),
        "{error}"
    );
    node.up(&tagged("web"));
    let rules = node
        .namespace
        .sh("nft list chain bridge snf to-web")
        .unwrap();
    assert!(rules.contains("443") || rules.contains("0x01bb"), "{rules}");
}

/// The variant that runs is said: on this kernel or another, as its rules are.
#[test]
fn list_and_check_say_how_a_profile_tells_answers() {
    let node = Node::new();
    node.namespace
        .sh("ip link add br0 type bridge; ip link set br0 up")
        .unwrap();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let _routed = Tap::new(&node.namespace, "tap1").unwrap();
    let says = |arguments: &[&str]| {
        let output = node.run(arguments, &Nic::new());
        output.stdout + &output.stderr
    };
    node.up(&tagged("unprotected"));
    assert!(says(&["list"]).contains("unprotected "));
    assert!(!says(&["check"]).contains("stateful"));
    node.up(&tagged("protected"));
    let tag = "synnefo:network:0:limited";
    node.up(&with(routed(), &[("TAGS", tag)]));
    let rules = node.namespace.sh("nft list table bridge snf").unwrap();
    let variant = if rules.contains("ct state") {
        "stateful"
    } else {
        "stateless"
    };
    let list = says(&["list"]);
    assert!(list.contains(&format!("protected ({variant})")), "{list}");
    assert!(list.contains("limited (stateful)"), "{list}");
    let list = says(&["list", "--json"]);
    assert!(
        list.contains(&format!("\"tracking\": \"{variant}\"")),
        "{list}"
    );
    let check = says(&["check"]);
    for line in ["firewall profiles of", variant, "stateful"] {
        assert!(check.contains(line), "{check}");
    }
}
