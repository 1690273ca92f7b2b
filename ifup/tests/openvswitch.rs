//! Ports of a real Open vSwitch, which switches in user space where the kernel cannot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::process::Command;
use std::time::Duration;

use agents::addr::MacAddr;
use harness::process::{self, Daemon};
use harness::tap::Tap;
use harness::wait;
use ifup::guard::frame::{ethernet, tagged};
use node::{LIMIT, Nic, Node, difference, switched, with};

const GUEST: &str = "aa:00:00:e1:87:fc";
/// For experiments (RFC 9542, appendix B.2): nobody else on the switch sends it.
const EXPERIMENTAL: u16 = 0x88b5;

/// A switch of its own in a node, with its database and sockets in the node's folder.
struct Switch<'a> {
    node: &'a Node,
    // the switch itself before its database
    daemon: Daemon,
    _database: Daemon,
}

impl<'a> Switch<'a> {
    fn start(node: &'a Node) -> Self {
        let path = |name: &str| node.folder.path().join(name);
        let database = path("conf.db");
        let mut tool = Command::new("ovsdb-tool");
        tool.arg("create")
            .arg(&database)
            .arg("/usr/share/openvswitch/vswitch.ovsschema");
        process::check(&mut tool, LIMIT).unwrap();
        let daemon = |program: &str, arguments: &[&str]| {
            let mut command = node.namespace.command(program);
            for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, node.folder.path());
            }
            let socket = path(&format!("{program}.ctl"));
            command
                .args(arguments)
                .arg(format!("--unixctl={}", socket.display()));
            Daemon::spawn(program, &mut command, &path(&format!("{program}.log"))).unwrap()
        };
        let socket = path("db.sock").display().to_string();
        let database = daemon(
            "ovsdb-server",
            &[
                &database.display().to_string(),
                &format!("--remote=punix:{socket}"),
            ],
        );
        wait::until_true("the switch's database", LIMIT, || path("db.sock").exists()).unwrap();
        let switch = daemon("ovs-vswitchd", &[&format!("unix:{socket}")]);
        let switch = Self {
            node,
            daemon: switch,
            _database: database,
        };
        switch.ask("--no-wait init");
        switch
    }

    fn environment(&self) -> String {
        self.node.folder.path().display().to_string()
    }

    fn ask(&self, words: &str) -> String {
        let mut command = self.node.namespace.command("ovs-vsctl");
        command
            .arg("--timeout=60")
            .args(words.split_whitespace())
            .env("OVS_RUNDIR", self.environment());
        process::check(&mut command, LIMIT).unwrap()
    }

    /// A NIC's variables, and where the program that it asks finds the switch.
    fn nic(&self, vlan: &str) -> Nic {
        with(switched(vlan), &[("OVS_RUNDIR", &self.environment())])
    }

    fn vlans(&self) -> String {
        self.ask("--columns=tag,trunks,vlan_mode --format=csv --no-headings list Port tap0")
            .trim()
            .to_owned()
    }
}

/// What check finds wrong; nothing if nothing is.
fn checked(switch: &Switch<'_>) -> Option<String> {
    let node = switch.node;
    let environment = Nic::from([("OVS_RUNDIR".to_owned(), switch.environment())]);
    let output = node.run(&["check"], &environment);
    (!output.status.success()).then_some(output.stdout + &output.stderr)
}

/// Where a frame from `from` comes out, and with which tag: again until it is as wanted, since a
/// switch takes a change of its ports a moment later than it confirms it.
fn goes(from: &Tap, vid: Option<u16>, others: &[Tap], wanted: &[(&str, Option<u16>)]) {
    let mut number = 0_u32;
    wait::until_ok(&format!("VLAN {vid:?} to {wanted:?}"), LIMIT, || {
        number += 1;
        let mut payload = [0; 50];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let source: MacAddr = GUEST.parse()?;
        let plain = ethernet(MacAddr::BROADCAST, source, EXPERIMENTAL, &payload);
        let frame = match vid {
            Some(vid) => tagged(plain, &[(0x8100, vid)]),
            None => plain,
        };
        from.send(&frame)?;
        let mut seen = Vec::new();
        for other in others {
            let ours = other.receive_matching(Duration::from_millis(300), |frame| {
                let tail = frame.len().saturating_sub(payload.len());
                frame.get(tail..) == Some(&payload[..])
            })?;
            if let Some(frame) = ours {
                let tag = (frame[12..14] == [0x81, 0])
                    .then(|| u16::from_be_bytes([frame[14], frame[15]]) & 0xfff);
                seen.push((other.name(), tag));
            }
        }
        anyhow::ensure!(seen == wanted, "{seen:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_nic_is_a_port_of_a_real_switch_in_its_vlans() {
    let node = Node::new();
    let switch = Switch::start(&node);
    switch.ask("add-br ovs0 -- set Bridge ovs0 datapath_type=netdev");
    let mut others = Vec::new();
    for (name, vlans) in [("ten", "tag=10"), ("twenty", "tag=20"), ("trunk", "")] {
        let tap = Tap::new(&node.namespace, name).unwrap();
        switch.ask(&format!("add-port ovs0 {name}"));
        if !vlans.is_empty() {
            switch.ask(&format!("set Port {name} {vlans}"));
        }
        node.namespace
            .sh(&format!(
                "ip link set {name} addrgenmode none; ip link set {name} up"
            ))
            .unwrap();
        others.push(tap);
    }
    let guest = Tap::new(&node.namespace, "tap0").unwrap();

    for again in [false, true] {
        node.up(&switch.nic(".10"));
        assert_eq!(checked(&switch), None);
        assert_eq!(switch.vlans(), "10,[],access", "again: {again}");
        goes(&guest, None, &others, &[("ten", None), ("trunk", Some(10))]);
        goes(&guest, Some(20), &others, &[]);
    }
    for damage in [
        "set Port tap0 tag=11",
        "set Port tap0 trunks=10",
        "clear Port tap0 vlan_mode",
        "del-port ovs0 tap0",
        "del-port ovs0 tap0 -- add-port ovs0 tap0",
    ] {
        switch.ask(damage);
        let found = checked(&switch).unwrap_or_default();
        let wrong = "not as it was made: port of ovs0 (Open vSwitch) vlans .10";
        assert!(found.contains(wrong), "{damage}: {found}");
        node.up(&switch.nic(".10"));
        assert_eq!(checked(&switch), None, "{damage}");
    }
    node.up(&switch.nic(":20:10"));
    assert_eq!(checked(&switch), None);
    assert_eq!(switch.vlans(), "[],\"[10, 20]\",trunk");
    goes(
        &guest,
        Some(10),
        &others,
        &[("ten", None), ("trunk", Some(10))],
    );
    goes(
        &guest,
        Some(20),
        &others,
        &[("twenty", None), ("trunk", Some(20))],
    );
    goes(&guest, Some(30), &others, &[]);
    goes(&guest, None, &others, &[]);

    node.up(&switch.nic(".10:20"));
    assert_eq!(switch.vlans(), "10,[20],native-untagged");
    goes(&guest, None, &others, &[("ten", None), ("trunk", Some(10))]);
    goes(
        &guest,
        Some(20),
        &others,
        &[("twenty", None), ("trunk", Some(20))],
    );

    // what it had before goes
    node.up(&switch.nic(""));
    assert_eq!(switch.vlans(), "[],[],[]");
    goes(&guest, None, &others, &[("trunk", None)]);

    // on another bridge of the switch
    switch.ask("add-br ovs1 -- set Bridge ovs1 datapath_type=netdev");
    node.up(&with(switch.nic(".20"), &[("LINK", "ovs1")]));
    assert_eq!(switch.ask("list-ports ovs1"), "tap0\n");
    assert!(!switch.ask("list-ports ovs0").contains("tap0"));

    let output = node.run(&["down", "tap0"], &switch.nic(""));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(switch.ask("list-ports ovs1"), "");
    let link = node.namespace.ip("link show tap0").unwrap();
    assert!(!link.contains(",UP"), "{link}");
    assert!(!node.bindings().join("tap0").exists());
}

#[test]
fn what_a_real_switch_refuses_is_in_the_error() {
    let node = Node::new();
    let switch = Switch::start(&node);
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let error = node.refused(&switch.nic(".10"), 1);
    assert!(error.contains("no bridge named ovs0"), "{error}");
    assert!(!node.state().join("tap0").exists());
    assert_eq!(switch.ask("list-br"), "");
}

#[test]
fn a_port_whose_tap_vanished_is_taken_off_the_switch() {
    let node = Node::new();
    let switch = Switch::start(&node);
    switch.ask("add-br ovs0 -- set Bridge ovs0 datapath_type=netdev");
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&switch.nic(".10"));
    assert_eq!(switch.ask("list-ports ovs0"), "tap0\n");
    drop(tap);
    let output = node.run(&["restore"], &switch.nic(""));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(switch.ask("list-ports ovs0"), "");
}

#[test]
fn a_switch_that_does_not_answer_is_given_up_in_time_and_undone() {
    let node = Node::new();
    let switch = Switch::start(&node);
    switch.ask("add-br ovs0 -- set Bridge ovs0 datapath_type=netdev");
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    let nic = switch.nic(".10");
    switch.daemon.kill();
    // The database takes the port, nobody makes it.
    let start = std::time::Instant::now();
    let output = node.run(&["up"], &nic);
    let took = start.elapsed();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("ovs-vsctl"), "{output:?}");
    println!("given up after {took:?}");
    let mut command = node.namespace.command("ovs-vsctl");
    command
        .args(["--no-wait", "list-ports", "ovs0"])
        .env("OVS_RUNDIR", node.folder.path());
    assert_eq!(process::check(&mut command, LIMIT).unwrap(), "");
    assert_eq!(difference(&bare, &node.dump()), "");
}

/// The addresses that a bridge of the switch has learned.
fn learned(switch: &Switch<'_>) -> String {
    let mut command = switch.node.namespace.command("ovs-appctl");
    let control = switch.node.folder.path().join("ovs-vswitchd.ctl");
    command
        .arg("-t")
        .arg(control)
        .args(["fdb/show", "ovs0"])
        .env("OVS_RUNDIR", switch.environment());
    process::check(&mut command, LIMIT).unwrap()
}

/// The flows of a bridge.
fn flows(switch: &Switch<'_>, words: &str) -> String {
    let mut command = switch.node.namespace.command("ovs-ofctl");
    command
        .args(words.split_whitespace())
        .env("OVS_RUNDIR", switch.environment());
    process::check(&mut command, LIMIT).unwrap()
}

/// Waits until the switch takes frames of the guest, then sends frames with forged sources, each
/// of which differs from the guest's own in one bit.
fn forge(switch: &Switch<'_>, guest: &Tap) {
    let own: MacAddr = GUEST.parse().unwrap();
    wait::until_true("the guest to be learned", LIMIT, || {
        let frame = ethernet(MacAddr::BROADCAST, own, EXPERIMENTAL, &[0; 46]);
        guest.send(&frame).unwrap();
        learned(switch).contains(GUEST)
    })
    .unwrap();
    let destinations = (0..16)
        .map(|last| MacAddr::new([1, 0x80, 0xc2, 0, 0, last]))
        .chain([MacAddr::BROADCAST, MacAddr::new([2, 0, 0, 0, 9, 9])]);
    for destination in destinations {
        for bit in 0..48 {
            let mut octets = own.octets();
            octets[bit / 8] ^= 1 << (bit % 8);
            // A group address is no source.
            if octets[0] & 1 == 0 {
                let frame = ethernet(destination, MacAddr::new(octets), EXPERIMENTAL, &[0; 46]);
                guest.send(&frame).unwrap();
                guest.send(&tagged(frame, &[(0x8100, 7)])).unwrap();
            }
        }
        // A burst is more than the switch's queue for new flows holds.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The lines of learned addresses, without the heading.
fn places(switch: &Switch<'_>) -> Vec<String> {
    let table = learned(switch);
    let lines = table.lines().skip(1).filter(|line| !line.contains("LOCAL"));
    lines
        .map(|line| line.split_whitespace().nth(2).unwrap().to_owned())
        .collect()
}

#[test]
fn a_switch_learns_no_source_but_the_guests_own() {
    let node = Node::new();
    let switch = Switch::start(&node);
    switch.ask("add-br ovs0 -- set Bridge ovs0 datapath_type=netdev");
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&switch.nic(""));
    forge(&switch, &guest);
    assert_eq!(places(&switch), [GUEST]);
    // The flows of others are as they were.
    let others = flows(&switch, "--no-stats dump-flows ovs0 cookie=0/-1");
    assert!(others.contains("priority=0 actions=NORMAL"), "{others}");

    let environment = Nic::from([("OVS_RUNDIR".to_owned(), switch.environment())]);
    let output = node.run(&["check"], &environment);
    assert!(output.status.success(), "{output:?}");
    let note = "note: of what guests on Open vSwitch send, only the source MAC address is \
                checked: tap0 (snf-1)\n";
    assert!(output.stdout.contains(note), "{output:?}");

    // Flows that are gone are found, and the attack shows that the flows are what stops it.
    flows(&switch, "del-flows ovs0 cookie=0x534eaa0000e187fc/-1");
    let found = checked(&switch).unwrap_or_default();
    let wrong = format!("not as it was made: source {GUEST} alone on ovs0 (Open vSwitch)");
    assert!(found.contains(&wrong), "{found}");
    forge(&switch, &guest);
    assert!(places(&switch).len() > 40, "{:?}", places(&switch));
    let output = node.run(&["restore"], &environment);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.contains("tap0: the flows"), "{output:?}");
    assert_eq!(checked(&switch), None);

    let output = node.run(&["down", "tap0"], &switch.nic(""));
    assert!(output.status.success(), "{output:?}");
    let ours = flows(&switch, "dump-flows ovs0 cookie=0x534eaa0000e187fc/-1");
    assert!(!ours.contains("drop"), "{ours}");
}

/// A guest that may have several addresses is learned from, and check says so.
#[test]
fn a_switch_learns_any_source_of_a_guest_with_any_mac_and_check_says_so() {
    let node = Node::new();
    let switch = Switch::start(&node);
    switch.ask("add-br ovs0 -- set Bridge ovs0 datapath_type=netdev");
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&with(switch.nic(""), &[("TAGS", "snf:nic:0:any-mac")]));
    forge(&switch, &guest);
    assert!(places(&switch).len() > 40, "{:?}", places(&switch));
    let environment = Nic::from([("OVS_RUNDIR".to_owned(), switch.environment())]);
    let output = node.run(&["check"], &environment);
    assert!(output.status.success(), "{output:?}");
    let note = "note: nothing is checked of what guests on Open vSwitch send, and the switch \
                learns any source address from them: tap0 (snf-1)\n";
    assert!(output.stdout.contains(note), "{output:?}");
}
