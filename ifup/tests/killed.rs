//! Killed at any instant: the next call repairs, and nothing is left when the NIC goes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::netns::Netns;
use harness::tap::Tap;
use node::{Nic, Node, bridged, difference, routed, with};

/// A call that is killed after a part of the time that such a call takes.
fn killed(node: &Node, arguments: &[&str], nic: &Nic, after: Duration) {
    let mut child = node
        .command(arguments, nic)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().unwrap();
}

fn node_of_both() -> (Node, Netns) {
    let node = Node::new();
    let router = Netns::new().unwrap();
    node.namespace.veth("up0", &router, "guests").unwrap();
    node.namespace
        .sh(
            "ip link add br0 type bridge; ip link set br0 addrgenmode none; ip link set br0 up
             ip link add port type veth peer name wire
             ip link set port addrgenmode none; ip link set wire addrgenmode none
             ip link set port master br0; ip link set port up; ip link set wire up
             ip route add 10.66.2.0/24 dev up0 table 100
             ip route add default via 10.66.2.1 dev up0 table 100
             ip -6 route add fd66:2::/64 dev up0 table 100
             ip -6 route add default via fd66:2::1 dev up0 table 100",
        )
        .unwrap();
    (node, router)
}

#[test]
fn the_next_call_repairs_what_a_killed_one_left() {
    let (node, _router) = node_of_both();
    let bare = node.dump();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    let down = node.dump();
    // The same TAP in turns bridged and routed: as different as two states can be.
    let states = [
        with(routed(), &[("INTERFACE", "tap0")]),
        bridged(),
        with(
            bridged(),
            &[("TAGS", "synnefo:network:0:protected"), ("IP", "10.66.1.8")],
        ),
    ];
    let whole: Vec<(String, Duration)> = states
        .iter()
        .map(|nic| {
            let start = Instant::now();
            node.up(nic);
            let took = start.elapsed();
            (node.dump(), took)
        })
        .collect();
    node.down("tap0");
    assert_eq!(difference(&down, &node.dump()), "");
    // A spread over the call that is the same in every run.
    for step in 0_u32..24 {
        let which = (step as usize) % states.len();
        let (_, took) = &whole[which];
        killed(
            &node,
            &["up"],
            &states[which],
            took.mul_f64(f64::from(step + 1) / 24.0),
        );
        let next = (step as usize / 3) % (states.len() + 1);
        if let Some(nic) = states.get(next) {
            node.up(nic);
            assert_eq!(difference(&whole[next].0, &node.dump()), "", "step {step}");
        } else {
            node.down("tap0");
            assert_eq!(difference(&down, &node.dump()), "", "step {step}");
        }
        killed(
            &node,
            &["down", "tap0"],
            &Nic::new(),
            took.mul_f64(f64::from(step + 1) / 24.0),
        );
    }
    node.down("tap0");
    assert_eq!(difference(&down, &node.dump()), "");
    drop(tap);
    assert_eq!(difference(&bare, &node.dump()), "");
}
