//! The service that looks after what calls have made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::path::Path;

use harness::process::Daemon;
use harness::tap::Tap;
use harness::wait::until_true;
use node::{LIMIT, Nic, Node, bridged, difference, routed};

fn monitor(node: &Node, log: &Path) -> Daemon {
    let daemon = Daemon::spawn(
        "snf-ifup monitor",
        &mut node.command(&["monitor"], &Nic::new()),
        log,
    )
    .unwrap();
    // It sweeps when it starts: a record of nothing is gone soon.
    daemon
}

fn node_with_bridge() -> Node {
    let node = Node::with_config("log = \"info\"\n");
    node.namespace
        .sh(
            "ip link add br0 type bridge; ip link set br0 addrgenmode none; ip link set br0 up
             ip link add uplink type veth peer name wire
             ip link set uplink addrgenmode none; ip link set uplink master br0
             ip link set wire addrgenmode none; ip link set wire up; ip link set uplink up",
        )
        .unwrap();
    node
}

fn records(node: &Node) -> usize {
    ifup::record::interfaces(&node.state()).unwrap().len()
}

#[test]
fn what_a_vanished_tap_leaves_is_taken_back() {
    let node = node_with_bridge();
    let bare = node.dump();
    let log = node.folder.path().join("monitor.log");
    // One that vanished before it started, one while it runs.
    let before = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&bridged());
    drop(before);
    assert_eq!(records(&node), 1);
    let mut daemon = monitor(&node, &log);
    until_true("the sweep at the start", LIMIT, || records(&node) == 0).unwrap();
    let during = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&routed());
    assert_eq!(records(&node), 1);
    drop(during);
    until_true("the clean-up", LIMIT, || records(&node) == 0).unwrap();
    assert_eq!(difference(&bare, &node.dump()), "");
    daemon.still_runs().unwrap();
    let said = daemon.log();
    assert!(said.contains("tap1") && said.contains("snf-2"), "{said}");
}

#[test]
fn filters_that_are_flushed_come_back_with_all_nics_in_them() {
    let node = node_with_bridge();
    let log = node.folder.path().join("monitor.log");
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&bridged());
    let _daemon = monitor(&node, &log);
    let rules = || {
        node.namespace
            .sh("nft list table bridge snf 2>&1 || true")
            .unwrap()
    };
    let whole = rules();
    assert!(whole.contains("\"tap0\""), "{whole}");
    for damage in [
        "nft flush ruleset",
        "nft delete table bridge snf",
        "nft flush chain bridge snf guest",
        "nft delete table arp snf",
    ] {
        node.namespace.sh(damage).unwrap();
        let start = std::time::Instant::now();
        until_true(damage, LIMIT, || {
            rules() == whole && node.namespace.sh("nft list table arp snf").is_ok()
        })
        .unwrap();
        println!("{damage}: back after {:?}", start.elapsed());
    }
}

#[test]
fn connected_interfaces_are_listed() {
    let node = node_with_bridge();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&bridged());
    let output = node.run(&["list"], &Nic::new());
    let line = output.stdout.lines().nth(1).unwrap();
    for part in [
        "tap0",
        "snf-1",
        "bridged br0",
        "aa:00:00:e1:87:fc",
        "up",
        "10.66.1.7",
    ] {
        assert!(line.contains(part), "{output:?}");
    }
    let output = node.run(&["list", "--json"], &Nic::new());
    assert!(
        output.stdout.contains("\"instance\": \"snf-1\""),
        "{output:?}"
    );
}

#[test]
fn after_a_flush_the_next_nic_brings_the_others_back() {
    let node = node_with_bridge();
    let _one = Tap::new(&node.namespace, "tap0").unwrap();
    let _two = Tap::new(&node.namespace, "tap1").unwrap();
    node.up(&bridged());
    node.namespace.sh("nft flush ruleset").unwrap();
    node.up(&routed());
    let rules = node.namespace.sh("nft list ruleset").unwrap();
    assert!(rules.contains("\"tap0\" . aa:00:00:e1:87:fc"), "{rules}");
    assert!(rules.contains("\"tap1\" . aa:00:00:5b:5f:d8"), "{rules}");
    assert!(
        rules.contains("fd66:1::1"),
        "the gateway is reserved again: {rules}"
    );
}
