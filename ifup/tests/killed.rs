//! Killed at any instant: the next call repairs, and nothing is left when the NIC goes.

#![allow(unsafe_code)] // pre_exec, for ptrace
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use harness::netns::Netns;
use harness::tap::Tap;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use node::{Nic, Node, bridged, difference, routed, with};

/// A call that is killed as it is about to make its system call of this number, or comes back
/// from it: between two of them nothing outside of the process changes. The number of stops
/// that it got to.
#[allow(clippy::zombie_processes)] // waited for by waitpid, which knows ptrace's stops
fn killed_at(node: &Node, arguments: &[&str], nic: &Nic, stop: usize) -> usize {
    let mut command = node.command(arguments, nic);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: ptrace(PTRACE_TRACEME) is a plain system call.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    // exec stops it first, with SIGTRAP.
    let mut stops = 0;
    let mut signal = match waitpid(pid, None).unwrap() {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => None,
        other => panic!("{other:?}"),
    };
    while stops < stop {
        ptrace::syscall(pid, signal.take()).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => stops += 1,
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(..) => return stops,
            other => panic!("{other:?}"),
        }
    }
    child.kill().unwrap();
    // The standard library's wait would stop at a ptrace stop.
    while !matches!(
        waitpid(pid, None).unwrap(),
        WaitStatus::Signaled(..) | WaitStatus::Exited(..)
    ) {}
    stops
}

/// How many calls are killed: SNF_KILLS, or some.
fn kills() -> usize {
    std::env::var("SNF_KILLS").map_or(60, |number| number.parse().unwrap())
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
             ip link set port address 02:00:00:00:00:01
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
    let whole: Vec<String> = states
        .iter()
        .map(|nic| {
            node.up(nic);
            node.dump()
        })
        .collect();
    let down_stops = killed_at(&node, &["down", "tap0"], &Nic::new(), usize::MAX);
    assert_eq!(difference(&down, &node.dump()), "");
    let stops: Vec<usize> = states
        .iter()
        .map(|nic| killed_at(&node, &["up"], nic, usize::MAX))
        .collect();
    println!("stops of up {stops:?}, of down {down_stops}");
    // Spread over the calls, the same in every run: steps of the golden section.
    let spread = |number: usize, of: usize| (number * 6180 % 10_000) * of / 10_000;
    for number in (0..kills()).step_by(2) {
        let round = number / 2;
        let which = round % states.len();
        let at = spread(number, stops[which]);
        killed_at(&node, &["up"], &states[which], at);
        let next = (round / 3) % (states.len() + 1);
        let what = format!("kill {number}, up {which} at stop {at}, then {next}");
        if let Some(nic) = states.get(next) {
            node.up(nic);
            assert_eq!(difference(&whole[next], &node.dump()), "", "{what}");
        } else {
            node.down("tap0");
            assert_eq!(difference(&down, &node.dump()), "", "{what}");
        }
        let at = spread(number + 1, down_stops);
        killed_at(&node, &["down", "tap0"], &Nic::new(), at);
    }
    node.down("tap0");
    assert_eq!(difference(&down, &node.dump()), "");
    drop(tap);
    assert_eq!(difference(&bare, &node.dump()), "");
}

/// A call was killed, and nobody calls again for that NIC: `restore` leaves it connected, or not at
/// all, and says which.
#[test]
fn restore_finishes_what_a_killed_call_left_half_done() {
    let (node, _router) = node_of_both();
    let bare = node.dump();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    let down = node.dump();
    let states = [bridged(), with(routed(), &[("INTERFACE", "tap0")])];
    let whole: Vec<String> = states
        .iter()
        .map(|nic| {
            node.up(nic);
            let whole = node.dump();
            node.down("tap0");
            whole
        })
        .collect();
    let restore = || {
        let output = node.run(&["restore"], &Nic::new());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, "", "{output:?}");
        output.stdout
    };
    let (mut finished, mut none) = (0, 0);
    // Each is three looks at the whole node, and the kernel must have settled before each.
    let rounds = kills() / 5;
    let spread = |number: usize, of: usize| number * of / rounds;
    for (nic, whole) in states.iter().zip(&whole) {
        let stops = killed_at(&node, &["up"], nic, usize::MAX);
        let down_stops = killed_at(&node, &["down", "tap0"], &Nic::new(), usize::MAX);
        for number in 0..rounds {
            let at = spread(number, stops);
            killed_at(&node, &["up"], nic, at);
            let said = restore();
            let found = node.dump();
            let what = format!("up killed at stop {at} of {stops}: {said:?}");
            if difference(&down, &found).is_empty() {
                none += 1;
                assert_eq!(said, "", "{what}");
                // so that there is something to take back
                node.up(nic);
            } else {
                finished += 1;
                assert_eq!(difference(whole, &found), "", "{what}");
                let instance = &nic["INSTANCE"];
                let line = format!("tap0 ({instance}): was half done; it is connected now\n");
                assert!(said == line || said.is_empty(), "{what}");
            }
            let at = spread(number, down_stops);
            killed_at(&node, &["down", "tap0"], &Nic::new(), at);
            let said = restore();
            let found = node.dump();
            let what = format!("down killed at stop {at} of {down_stops}: {said:?}");
            if difference(whole, &found).is_empty() {
                assert_eq!(said, "", "{what}");
                node.down("tap0");
            }
            assert_eq!(difference(&down, &node.dump()), "", "{what}");
            assert_eq!(restore(), "", "{what}");
        }
    }
    println!("{finished} were finished, {none} had not begun");
    assert!(finished > rounds / 2 && none > 0);

    // What cannot be finished is taken back.
    let stops = killed_at(&node, &["up"], &states[0], usize::MAX);
    node.down("tap0");
    let stop = (0..stops)
        .rev()
        .find(|stop| {
            killed_at(&node, &["up"], &states[0], *stop);
            let half = std::fs::read_to_string(node.state().join("tap0"))
                .is_ok_and(|text| text.contains("\"unfinished\":  true"));
            if !half {
                node.down("tap0");
            }
            half
        })
        .unwrap();
    node.namespace.ip("link del br0").unwrap();
    let said = restore();
    let line = "tap0 (snf-1): was half done and cannot be connected; it is disconnected now: ";
    assert!(
        said.starts_with(line) && said.contains("br0: no such bridge"),
        "stop {stop}: {said}"
    );
    assert!(!node.state().join("tap0").exists());
    assert_eq!(restore(), "");
    drop(tap);
    let left = difference(&bare, &node.dump());
    assert!(!left.contains("tap0"), "{left}");
}
