//! A guest that moves from one node to another while others talk to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use harness::netns::Netns;
use harness::process::{self, Daemon};
use harness::tap::Tap;
use ifup::guard::frame::{arp, ethernet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use node::{LIMIT, Nic, Node, bridged, difference, with};

const GUEST: &str = "aa:00:00:e1:87:fc";

/// A guest whose NIC is behind one of several TAPs, as that of QEMU before and after it moves.
struct Guest {
    namespace: Netns,
    place: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl Guest {
    fn new(taps: Vec<OwnedFd>) -> Self {
        let namespace = Netns::new().unwrap();
        let inner = Tap::new(&namespace, "eth0").unwrap();
        namespace
            .sh(&format!(
                "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
                 ip link set eth0 address {GUEST}; ip link set eth0 up
                 ip addr add 10.66.1.7/24 dev eth0
                 ip addr add fd66:1::a800:ff:fee1:87fc/64 dev eth0 nodad"
            ))
            .unwrap();
        let place = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (at, end) = (Arc::clone(&place), Arc::clone(&stop));
        let pump = std::thread::spawn(move || {
            let outer: Vec<std::fs::File> = taps.into_iter().map(Into::into).collect();
            let inner_file: std::fs::File = inner.as_fd().try_clone_to_owned().unwrap().into();
            let mut buffer = vec![0; 70_000];
            while !end.load(Ordering::Relaxed) {
                let outer = &outer[at.load(Ordering::Relaxed)];
                let mut ready = [
                    PollFd::new(inner_file.as_fd(), PollFlags::POLLIN),
                    PollFd::new(outer.as_fd(), PollFlags::POLLIN),
                ];
                // Short: the place may change meanwhile.
                if poll(&mut ready, PollTimeout::from(5_u8)).unwrap_or(0) < 1 {
                    continue;
                }
                let readable = ready.map(|fd| {
                    fd.revents()
                        .is_some_and(|events| events.contains(PollFlags::POLLIN))
                });
                for (from, to, there) in [
                    (&inner_file, outer, readable[0]),
                    (outer, &inner_file, readable[1]),
                ] {
                    if there && let Ok(length) = (&mut &*from).read(&mut buffer) {
                        let _ = (&mut &*to).write(&buffer[..length]);
                    }
                }
            }
        });
        Self {
            namespace,
            place,
            stop,
            pump: Some(pump),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

fn pings(from: &Netns, address: &str) -> bool {
    let mut command: Command = from.command("ping");
    // Until one answer comes: on a busy machine the service takes its time.
    command.args(["-n", "-c", "1", "-i", "0.2", "-w", "5", address]);
    process::run(&mut command, LIMIT).unwrap().status.success()
}

/// A node whose `br0` has the switch behind `uplink`.
fn node_at(switch: &Netns, port: &str) -> Node {
    let node = Node::new();
    node.namespace
        .sh("ip link add br0 type bridge; ip link set br0 addrgenmode none; ip link set br0 up")
        .unwrap();
    node.namespace.veth("uplink", switch, port).unwrap();
    node.namespace
        .sh("ip link set uplink addrgenmode none; ip link set uplink master br0")
        .unwrap();
    switch
        .sh(&format!(
            "ip link set {port} addrgenmode none; ip link set {port} master sw"
        ))
        .unwrap();
    node
}

fn host_at(bridge: &Netns, name: &str, master: &str, last: u8) -> Netns {
    let host = Netns::new().unwrap();
    bridge.veth(name, &host, "eth0").unwrap();
    bridge
        .ip(&format!("link set {name} master {master}"))
        .unwrap();
    host.sh(&format!(
        "ip addr add 10.66.1.{last}/24 dev eth0; ip addr add fd66:1::{last}/64 dev eth0 nodad"
    ))
    .unwrap();
    host
}

/// The service that follows guests, as each node runs it.
fn monitor(node: &Node) -> Daemon {
    let log = node.folder.path().join("monitor.log");
    let mut command = node.command(&["monitor"], &Nic::new());
    let daemon = Daemon::spawn("snf-ifup monitor", &mut command, &log).unwrap();
    if node.state().join("tap0").exists() {
        harness::wait::until_true("the service to listen", LIMIT, || {
            let sockets = node.namespace.sh("cat /proc/net/packet").unwrap();
            sockets.lines().count() > 1
        })
        .unwrap();
    }
    daemon
}

/// QEMU's announcement of each NIC of a guest that has moved.
fn rarp(mac: &str) -> Vec<u8> {
    let mac: MacAddr = mac.parse().unwrap();
    let none = "0.0.0.0".parse().unwrap();
    ethernet(
        MacAddr::BROADCAST,
        mac,
        0x8035,
        &arp(3, (mac, none), (mac, none)),
    )
}

/// Returns the time until an answer comes.
fn found_after(from: &Netns, address: &str, start: Instant) -> Duration {
    harness::wait::until_true(address, LIMIT, || {
        let mut command: Command = from.command("ping");
        command.args(["-n", "-c", "1", "-W", "0.1", address]);
        process::run(&mut command, LIMIT).unwrap().status.success()
    })
    .unwrap();
    start.elapsed()
}

fn places(node: &Node) -> String {
    node.namespace.sh("bridge fdb show br br0").unwrap()
}

fn is_fixed(node: &Node) -> bool {
    places(node).contains(&format!("{GUEST} dev tap0 sticky master br0 static"))
}

/// Two nodes behind a switch, each with a neighbour on its bridge, and a guest on the first.
struct Move {
    switch: Netns,
    source: Node,
    target: Node,
    client: Netns,
    there: Netns,
    here: Netns,
    first: Tap,
    second: Tap,
    guest: Guest,
}

impl Move {
    fn new() -> Self {
        let switch = Netns::new().unwrap();
        switch
            .sh("ip link add sw type bridge; ip link set sw addrgenmode none; ip link set sw up")
            .unwrap();
        let (source, target) = (node_at(&switch, "source"), node_at(&switch, "target"));
        let client = host_at(&switch, "client", "sw", 20);
        let there = host_at(&target.namespace, "there", "br0", 21);
        let here = host_at(&source.namespace, "here", "br0", 22);
        let first = Tap::new(&source.namespace, "tap0").unwrap();
        source.up(&bridged());
        let second = Tap::new(&target.namespace, "tap0").unwrap();
        let descriptors = [&first, &second].map(|tap| tap.as_fd().try_clone_to_owned().unwrap());
        let guest = Guest::new(descriptors.into());
        Self {
            switch,
            source,
            target,
            client,
            there,
            here,
            first,
            second,
            guest,
        }
    }

    fn all(&self) -> [(&'static str, &Netns); 3] {
        [
            ("client", &self.client),
            ("there", &self.there),
            ("here", &self.here),
        ]
    }

    fn reached(&self, when: &str) {
        for (who, host) in self.all() {
            for address in ["10.66.1.7", "fd66:1::a800:ff:fee1:87fc"] {
                assert!(pings(host, address), "{when}: {who} to {address}");
            }
        }
    }
}

/// The longest gap that a guest may have for anybody when it moves: a second, and what a busy
/// machine adds to the start of each ping and of the service's work. Here it takes 60 to 150 ms.
const GAP: Duration = Duration::from_secs(3);

#[test]
fn a_guest_that_moves_is_found_by_all_at_once_and_then_its_place_is_fixed() {
    let moved = Move::new();
    let _monitors = [monitor(&moved.source), monitor(&moved.target)];
    moved.reached("before");
    assert!(is_fixed(&moved.source));
    moved.target.up(&bridged());
    assert!(!is_fixed(&moved.target));
    moved.reached("while it is prepared");
    assert!(pings(&moved.guest.namespace, "10.66.1.21"));
    assert!(is_fixed(&moved.source) && !is_fixed(&moved.target));

    // The source's TAP is there all the time, as it is until Ganeti ends the guest there.
    let start = Instant::now();
    moved.guest.place.store(1, Ordering::Relaxed);
    moved.second.send(&rarp(GUEST)).unwrap();
    std::thread::scope(|scope| {
        for (who, host) in moved.all() {
            scope.spawn(move || {
                let gap = found_after(host, "10.66.1.7", start);
                println!("{who}: found after {gap:?}");
                assert!(gap < GAP, "{who}: {gap:?}");
            });
        }
    });
    harness::wait::until_true("its place to be fixed", LIMIT, || is_fixed(&moved.target)).unwrap();
    println!("its place is fixed after {:?}", start.elapsed());
    assert!(!is_fixed(&moved.source));
    moved.reached("after");
    // and back, by another TAP, as a new start of the guest there
    assert!(
        moved
            .target
            .run(&["check"], &Nic::new())
            .stdout
            .lines()
            .all(|line| !line.starts_with("tap0")),
    );
    drop(moved.first);
}

/// Nobody follows: the guest is found by the switch and on its new node at once, and on its old
/// one when its TAP there is gone.
#[test]
fn a_guest_that_moves_is_found_without_the_service_too() {
    let moved = Move::new();
    moved.reached("before");
    moved.target.up(&bridged());
    moved.reached("while it is prepared");
    let start = Instant::now();
    moved.guest.place.store(1, Ordering::Relaxed);
    moved.second.send(&rarp(GUEST)).unwrap();
    for host in [&moved.client, &moved.there] {
        let gap = found_after(host, "10.66.1.7", start);
        assert!(gap < GAP, "{gap:?}");
    }
    // The pump holds the other descriptor.
    moved.source.namespace.ip("link del tap0").unwrap();
    let gap = found_after(&moved.here, "10.66.1.7", Instant::now());
    assert!(gap < GAP, "{gap:?}");
}

/// The bridge of the node that it moves to does not know it: nobody there has heard of it.
#[test]
fn a_silent_guest_is_reached_from_the_node_that_it_is_to_move_to() {
    let moved = Move::new();
    moved
        .target
        .namespace
        .sh(&format!(
            "bridge fdb del {GUEST} dev uplink master 2>/dev/null || true"
        ))
        .unwrap();
    moved.target.up(&bridged());
    let _monitor = monitor(&moved.target);
    assert!(pings(&moved.there, "10.66.1.7"));
    assert!(!is_fixed(&moved.target), "{}", places(&moved.target));
    moved.guest.place.store(1, Ordering::Relaxed);
    moved.second.send(&rarp(GUEST)).unwrap();
    harness::wait::until_true("its place to be fixed", LIMIT, || is_fixed(&moved.target)).unwrap();
}

/// A machine somewhere pretends that the guest has moved; then the guest speaks.
#[test]
fn a_guest_that_has_not_moved_keeps_its_place_whoever_says_so() {
    let moved = Move::new();
    moved.reached("before");
    let liar = Tap::new(&moved.switch, "liar").unwrap();
    moved
        .switch
        .sh("ip link set liar addrgenmode none; ip link set liar master sw; ip link set liar up")
        .unwrap();
    // Another guest on its node, which may use any address.
    let neighbour = Tap::new(&moved.source.namespace, "tap3").unwrap();
    moved.source.up(&with(
        bridged(),
        &[
            ("INTERFACE", "tap3"),
            ("INSTANCE", "snf-3"),
            ("IP", "10.66.1.3"),
            ("MAC", "aa:00:00:00:00:03"),
            ("TAGS", "snf:nic:0:any-mac"),
        ],
    ));
    let _monitor = monitor(&moved.source);
    for _ in 0..5 {
        neighbour.send(&rarp(GUEST)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_fixed(&moved.source), "{}", places(&moved.source));

    liar.send(&rarp(GUEST)).unwrap();
    harness::wait::until_true("its place to be given up", LIMIT, || {
        !is_fixed(&moved.source)
    })
    .unwrap();
    let start = Instant::now();
    assert!(pings(&moved.guest.namespace, "10.66.1.22"));
    harness::wait::until_true("its place to be fixed again", LIMIT, || {
        is_fixed(&moved.source)
    })
    .unwrap();
    println!("its place is fixed again after {:?}", start.elapsed());
    assert!(start.elapsed() < GAP);
    // Who lied once is not believed again.
    for _ in 0..20 {
        liar.send(&rarp(GUEST)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_fixed(&moved.source), "{}", places(&moved.source));
    // The switch, which believes everybody, hears the guest again.
    assert!(pings(&moved.guest.namespace, "10.66.1.20"));
    moved.reached("after");
}

#[test]
fn a_bridged_guest_is_reached_before_while_and_after_it_moves() {
    let switch = Netns::new().unwrap();
    switch
        .sh("ip link add sw type bridge; ip link set sw addrgenmode none; ip link set sw up")
        .unwrap();
    let (source, target) = (node_at(&switch, "source"), node_at(&switch, "target"));
    let client = host_at(&switch, "client", "sw", 20);
    // A neighbour on the node that the guest moves to, and one on that it leaves.
    let there = host_at(&target.namespace, "there", "br0", 21);
    let here = host_at(&source.namespace, "here", "br0", 22);
    let all = [("client", &client), ("there", &there), ("here", &here)];
    let reached = |when: &str| {
        for (who, host) in all {
            for address in ["10.66.1.7", "fd66:1::a800:ff:fee1:87fc"] {
                assert!(pings(host, address), "{when}: {who} to {address}");
            }
        }
    };
    let _monitors = [monitor(&source), monitor(&target)];
    let source_bare = source.dump();
    let first = Tap::new(&source.namespace, "tap0").unwrap();
    source.up(&bridged());
    let second = Tap::new(&target.namespace, "tap0").unwrap();
    let descriptors = [&first, &second].map(|tap| tap.as_fd().try_clone_to_owned().unwrap());
    let guest = Guest::new(descriptors.into());
    reached("before");

    // Ganeti prepares the target while the guest runs on the source.
    target.up(&bridged());
    reached("while it is prepared");
    assert!(pings(&guest.namespace, "10.66.1.21"));

    // It moves, and QEMU announces it by RARP, as it does for each NIC.
    guest.place.store(1, Ordering::Relaxed);
    let mac: MacAddr = GUEST.parse().unwrap();
    let none = "0.0.0.0".parse().unwrap();
    let announcement = arp(3, (mac, none), (mac, none));
    second
        .send(&ethernet(MacAddr::BROADCAST, mac, 0x8035, &announcement))
        .unwrap();
    reached("after");

    // The source cleans up: the TAP is gone, and what was recorded goes.
    drop(first);
    // The pump holds the other descriptor.
    source.namespace.ip("link del tap0").unwrap();
    let output = source.run(&["restore"], &Nic::new());
    assert!(output.status.success(), "{output:?}");
    let learned = |text: &str| -> String {
        let kept = text.lines().filter(|line| !line.ends_with("master br0"));
        kept.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        difference(&learned(&source_bare), &learned(&source.dump())),
        ""
    );
    reached("after the source has cleaned up");

    // What is asked again, after it is here, fixes its place.
    target.up(&with(bridged(), &[("ACTION", "up")]));
    let places = target.namespace.sh("bridge fdb show br br0").unwrap();
    assert!(
        places.contains(&format!("{GUEST} dev tap0 sticky master br0 static")),
        "{places}"
    );
    reached("in its place");
}

/// What a neighbour table has for an address.
fn place(host: &Netns, address: &str) -> String {
    let line = host.ip(&format!("neigh show {address}")).unwrap();
    let mut words = line.split_whitespace();
    words.find(|word| *word == "lladdr");
    words.next().unwrap_or_default().to_owned()
}

#[test]
fn the_router_of_a_routed_guest_hears_where_it_is_now() {
    let router = Netns::new().unwrap();
    router
        .sh(
            "ip link add guests type bridge; ip link set guests address 02:00:00:00:00:01 up
             ip addr add 10.66.2.1/24 dev guests; ip addr add fd66:2::1/64 dev guests nodad",
        )
        .unwrap();
    let node_behind = |port: &str, mac: &str| {
        let node = Node::new();
        node.namespace.veth("up0", &router, port).unwrap();
        router
            .ip(&format!("link set {port} master guests"))
            .unwrap();
        node.namespace
            .sh(&format!(
                "ip link set up0 down; ip link set up0 address {mac}; ip link set up0 up
                 ip route add 10.66.2.0/24 dev up0 table 100
                 ip route add default via 10.66.2.1 dev up0 table 100
                 ip -6 route add fd66:2::/64 dev up0 table 100
                 ip -6 route add default via fd66:2::1 dev up0 table 100"
            ))
            .unwrap();
        node
    };
    let source = node_behind("source", "02:00:00:00:00:0a");
    let target = node_behind("target", "02:00:00:00:00:0b");
    let nic = with(node::routed(), &[("INTERFACE", "tap0"), ("MAC", GUEST)]);
    let six = "fd66:2::a800:ff:fee1:87fc";
    let first = Tap::new(&source.namespace, "tap0").unwrap();
    let second = Tap::new(&target.namespace, "tap0").unwrap();
    source.up(&nic);
    let descriptors = [&first, &second].map(|tap| tap.as_fd().try_clone_to_owned().unwrap());
    let guest = Guest::new(descriptors.into());
    guest
        .namespace
        .sh(&format!(
            "ip addr flush dev eth0 scope global; ip addr add 10.66.2.7/32 dev eth0
             ip route add 10.66.2.1 dev eth0; ip route add default via 10.66.2.1
             ip addr add {six}/64 dev eth0 nodad
             ip -6 route add default via fe80::fc53:4eff:fe46:1 dev eth0"
        ))
        .unwrap();
    for address in ["10.66.2.7", six] {
        assert!(pings(&router, address), "{address}");
        assert_eq!(place(&router, address), "02:00:00:00:00:0a");
    }
    // Ganeti 3.0 connects routed NICs when the guest has moved; 3.2 says so too.
    guest.place.store(1, Ordering::Relaxed);
    target.up(&with(nic, &[("MIGRATION_PHASE", "post")]));
    harness::wait::until_true("the router to know", LIMIT, || {
        ["10.66.2.7", six]
            .iter()
            .all(|address| place(&router, address) == "02:00:00:00:00:0b")
    })
    .unwrap();
    for address in ["10.66.2.7", six] {
        assert!(pings(&router, address), "{address}");
    }
    // The source answers for it no more, once its TAP is gone.
    drop(first);
    source.namespace.ip("link del tap0").unwrap();
    assert!(source.run(&["restore"], &Nic::new()).status.success());
    let proxies = source
        .namespace
        .sh("ip neigh show proxy; ip -6 neigh show proxy; ip route show table 100")
        .unwrap();
    assert!(
        !proxies.contains("10.66.2.7") && !proxies.contains(six),
        "{proxies}"
    );
    // Asked for by hand, it is said again.
    router
        .sh("ip neigh replace 10.66.2.7 lladdr 02:00:00:00:00:0a dev guests nud stale")
        .unwrap();
    let output = target.run(&["announce", "tap0"], &Nic::new());
    assert!(output.status.success(), "{output:?}");
    harness::wait::until_true("the router to know again", LIMIT, || {
        place(&router, "10.66.2.7") == "02:00:00:00:00:0b"
    })
    .unwrap();
}

#[test]
fn a_bridged_guest_is_announced_in_its_own_name() {
    let node = Node::new();
    node.namespace
        .sh("ip link add br0 type bridge mcast_snooping 0
             ip link set br0 addrgenmode none; ip link set br0 up")
        .unwrap();
    let wire = Tap::new(&node.namespace, "wire").unwrap();
    node.namespace
        .sh("ip link set wire addrgenmode none; ip link set wire master br0; ip link set wire up")
        .unwrap();
    let _guest = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&bridged());
    // Not before: the guest may still be on another node.
    assert_eq!(
        wire.receive(std::time::Duration::from_millis(300)).unwrap(),
        None
    );
    let output = node.run(&["announce", "tap0"], &Nic::new());
    assert!(output.status.success(), "{output:?}");
    let mac: MacAddr = GUEST.parse().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let frame = wire.receive(LIMIT).unwrap().expect("five announcements");
        assert_eq!(frame[6..12], mac.octets(), "{frame:02x?}");
        let kind = u16::from_be_bytes([frame[12], frame[13]]);
        seen.push(match kind {
            0x8035 => "RARP".to_owned(),
            0x0806 => format!("ARP {} {:?}", frame[21], &frame[28..32]),
            0x86dd => {
                assert_eq!(
                    (frame[20], frame[21], frame[54], frame[58]),
                    (58, 255, 136, 0x20)
                );
                let target: [u8; 16] = frame[62..78].try_into().unwrap();
                format!("NA {}", std::net::Ipv6Addr::from(target))
            }
            other => panic!("{other:04x}"),
        });
    }
    assert_eq!(
        seen,
        [
            "RARP",
            "ARP 1 [10, 66, 1, 7]",
            "ARP 2 [10, 66, 1, 7]",
            "NA fd66:1::a800:ff:fee1:87fc",
            "NA fe80::a800:ff:fee1:87fc"
        ]
    );
    let output = node.run(&["announce", "tap9"], &Nic::new());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
