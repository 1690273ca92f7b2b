//! Learning of bridges from guests: nothing but their own addresses, whatever they send.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::sync::atomic::{AtomicBool, Ordering};

use agents::addr::MacAddr;
use harness::netns::Netns;
use harness::tap::Tap;
use harness::wait::until_true;
use ifup::guard::forwarding_corpus;
use ifup::guard::frame::{arp, ethernet, tagged};
use node::{LIMIT, Nic, Node, bridged, bridged_cast, with};

const GUEST: &str = "aa:00:00:e1:87:fc";
const VICTIM: &str = "aa:00:00:00:00:09";
const GATEWAY: &str = "02:00:00:00:00:01";

/// A node whose `br0` has a gateway behind a port and a victim connected by the program; and the
/// attacker's TAP, which is up already but not connected.
struct Bridge {
    node: Node,
    attacker: Tap,
    _victim: Tap,
    gateway: Tap,
}

impl Bridge {
    fn new(options: &str) -> Self {
        let node = Node::new();
        node.namespace
            .sh(&format!(
                "ip link add br0 type bridge mcast_snooping 0 {options}
                 ip link set br0 addrgenmode none; ip link set br0 up"
            ))
            .unwrap();
        let gateway = Tap::new(&node.namespace, "uplink").unwrap();
        node.namespace
            .sh(
                "ip link set uplink addrgenmode none; ip link set uplink master br0
                 ip link set uplink up
                 bridge link set dev uplink state 3 2>/dev/null || true",
            )
            .unwrap();
        let attacker = Tap::new(&node.namespace, "tap0").unwrap();
        node.namespace
            .sh("ip link set tap0 addrgenmode none; ip link set tap0 up")
            .unwrap();
        let victim = Tap::new(&node.namespace, "tap1").unwrap();
        let bridge = Self {
            node,
            attacker,
            _victim: victim,
            gateway,
        };
        bridge.node.up(&victim_nic());
        bridge.gateway_speaks();
        bridge
    }

    fn gateway_speaks(&self) {
        let mac: MacAddr = GATEWAY.parse().unwrap();
        let frame = ethernet(MacAddr::BROADCAST, mac, 0x88b5, &[0; 46]);
        until_true("the gateway to be learned", LIMIT, || {
            self.gateway.send(&frame).unwrap();
            self.table().contains(&format!("{GATEWAY} dev uplink"))
        })
        .unwrap();
    }

    fn table(&self) -> String {
        self.node.namespace.sh("bridge fdb show br br0").unwrap()
    }

    /// Entries of others behind the attacker's port, and entries of others that have moved.
    fn wrong(&self) -> Vec<String> {
        let table = self.table();
        let mut wrong: Vec<String> = table
            .lines()
            .filter(|line| {
                line.contains(" dev tap0 ")
                    && line.contains("master br0")
                    && !line.starts_with(GUEST)
                    && !line.contains("permanent")
            })
            .map(str::to_owned)
            .collect();
        for (mac, port) in [(VICTIM, "tap1"), (GATEWAY, "uplink")] {
            let mut places = table
                .lines()
                .filter(|line| line.starts_with(mac))
                .peekable();
            if places.peek().is_none() {
                wrong.push(format!("{mac} is nowhere"));
            }
            wrong.extend(
                places
                    .filter(|line| !line.contains(&format!(" dev {port} ")))
                    .map(str::to_owned),
            );
        }
        wrong
    }

    fn no_linklocal_learn(&self) -> bool {
        let shown = self.node.namespace.ip("-d link show br0").unwrap();
        assert!(shown.contains("no_linklocal_learn "), "{shown}");
        shown.contains("no_linklocal_learn 1")
    }
}

fn victim_nic() -> Nic {
    with(
        bridged(),
        &[
            ("INTERFACE", "tap1"),
            ("INSTANCE", "snf-9"),
            ("IP", "10.66.1.9"),
            ("MAC", VICTIM),
        ],
    )
}

/// Forged sources: of others, of nobody, of the host, of groups.
fn sources() -> Vec<MacAddr> {
    [
        GATEWAY,
        VICTIM,
        "02:de:ad:be:ef:01",
        "fe:00:00:e1:87:fc",
        "fe:00:00:00:00:09",
        "00:00:5e:00:01:07",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect()
}

/// All reserved destinations and some others, all EtherTypes to some of them, with and without
/// tags.
fn attacks() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = forwarding_corpus::all(&bridged_cast())
        .into_iter()
        .map(|case| case.frame)
        .collect();
    let gateway: MacAddr = GATEWAY.parse().unwrap();
    let guest: MacAddr = GUEST.parse().unwrap();
    let mut destinations: Vec<MacAddr> = (0..16).map(forwarding_corpus::reserved).collect();
    destinations.extend((0x10..0x30).map(forwarding_corpus::reserved));
    for text in [
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "33:33:00:00:00:01",
        "01:15:4e:00:00:01", // media redundancy (IEC 62439-2)
        "01:00:0c:cc:cc:cc",
        VICTIM,
        GATEWAY,
    ] {
        destinations.push(text.parse().unwrap());
    }
    let kinds = [
        0x0026, 0x05dc, 0x0800, 0x0806, 0x8035, 0x86dd, 0x8100, 0x88a8, 0x8808, 0x8809, 0x888e,
        0x88cc, 0x88e3, 0x88e5, 0x88f5, 0x88f7, 0x8902, 0x9000,
    ];
    for source in sources() {
        for destination in &destinations {
            for kind in kinds {
                let frame = ethernet(*destination, source, kind, &[0; 46]);
                for tags in [
                    &[(0x8100, 0)][..],
                    &[(0x8100, 10)],
                    &[(0x8100, 0x6001)],
                    &[(0x88a8, 10)],
                    &[(0x88a8, 0), (0x8100, 10)],
                ] {
                    frames.push(tagged(frame.clone(), tags));
                }
                frames.push(frame);
            }
        }
    }
    for kind in 0..=u16::MAX {
        let last = if kind % 2 == 0 { 0x0e } else { 0x03 };
        frames.push(ethernet(
            forwarding_corpus::reserved(last),
            gateway,
            kind,
            &[0; 46],
        ));
    }
    // ARP and RARP that only the sender's address within is true of
    for sender in [guest, gateway] {
        for operation in [1, 2, 3] {
            let address = "10.66.1.7".parse().unwrap();
            let message = arp(operation, (sender, address), (sender, address));
            let kind = if operation == 3 { 0x8035 } else { 0x0806 };
            frames.push(ethernet(MacAddr::BROADCAST, gateway, kind, &message));
        }
    }
    frames
}

fn attacked(options: &str, nic: &Nic, prepared: &str) {
    let bridge = Bridge::new(options);
    bridge.node.namespace.sh(prepared).unwrap();
    bridge.node.up(nic);
    until_true("the port to forward", LIMIT, || {
        let port = bridge
            .node
            .namespace
            .sh("bridge -d link show dev tap0")
            .unwrap();
        port.contains("state forwarding")
    })
    .unwrap();
    let before = bridge.table().lines().count();
    for frame in attacks() {
        // A frame that the kernel does not even take from a guest is no attack.
        let _ = bridge.attacker.send(&frame);
    }
    assert_eq!(bridge.wrong(), Vec::<String>::new(), "{options}");
    let after = bridge.table();
    assert!(after.lines().count() <= before + 1, "{after}");
}

#[test]
fn a_guest_takes_no_place_but_its_own() {
    attacked("", &bridged(), "");
}

#[test]
fn a_guest_takes_no_place_on_a_bridge_with_spanning_tree() {
    attacked("stp_state 1 forward_delay 200", &bridged(), "");
}

/// Returns whether the kernel has bridges that know VLANs.
fn has_vlans() -> bool {
    let made = Netns::new()
        .unwrap()
        .ip("link add br0 type bridge vlan_filtering 1");
    if made.is_err() {
        harness::skip(
            "vlan_filtering",
            "the kernel has no bridges that know VLANs",
        );
    }
    made.is_ok()
}

#[test]
fn a_guest_takes_no_place_on_a_bridge_that_knows_vlans() {
    if !has_vlans() {
        return;
    }
    for vlan in ["", ".1", ".10", ".1:10:20", ":1:10"] {
        attacked("vlan_filtering 1", &with(bridged(), &[("VLAN", vlan)]), "");
    }
}

#[test]
fn a_guest_takes_no_place_with_any_address_or_as_a_router() {
    for tags in [
        "snf:nic:0:any-ip",
        "snf:nic:0:vrrp:7",
        "snf:nic:0:rate-out:90k",
    ] {
        let nic = with(bridged(), &[("TAGS", tags)]);
        let output = Bridge::new("").node.run(&["up", "--dry-run"], &nic);
        assert!(output.status.success(), "{output:?}");
        if !tags.contains("vrrp") {
            attacked("", &nic, "");
        }
    }
}

/// The bridge's first frame: while a guest is awaited its port learns.
#[test]
fn a_guest_that_is_awaited_takes_no_place() {
    attacked(
        "",
        &bridged(),
        &format!("bridge fdb replace {GUEST} dev uplink master dynamic"),
    );
    if has_vlans() {
        attacked(
            "vlan_filtering 1",
            &bridged(),
            &format!("bridge fdb replace {GUEST} dev uplink master dynamic vlan 1"),
        );
    }
}

/// IEEE 802.1D, section 9.3.1: a configuration message of a bridge that would be the root.
fn bpdu(source: MacAddr) -> Vec<u8> {
    let mut message = vec![0x42, 0x42, 3, 0, 0, 0, 0, 0];
    let identifier: Vec<u8> = [0, 0].into_iter().chain(source.octets()).collect();
    message.extend(&identifier);
    message.extend([0; 4]);
    message.extend(&identifier);
    // port, age, maximum age, hello time and delay, in seconds / 256
    message.extend([0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]);
    let length = u16::try_from(message.len()).unwrap();
    message.resize(46, 0);
    ethernet(forwarding_corpus::reserved(0), source, length, &message)
}

#[test]
fn a_guest_is_not_the_root_of_a_spanning_tree() {
    let bridge = Bridge::new("stp_state 1 forward_delay 200");
    bridge.node.up(&bridged());
    let root = || {
        let shown = bridge.node.namespace.ip("-d link show br0").unwrap();
        let mut words = shown
            .split_whitespace()
            .skip_while(|word| *word != "root_port");
        words.nth(1).unwrap().to_owned()
    };
    let speaks = || {
        for _ in 0..5 {
            bridge.attacker.send(&bpdu(GUEST.parse().unwrap())).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        root()
    };
    assert_eq!(speaks(), "0");
    // The message is a good one.
    bridge
        .node
        .namespace
        .sh("bridge link set dev tap0 root_block off")
        .unwrap();
    assert_ne!(speaks(), "0");
}

/// The TAP is up and its guest sends all the time while it is connected, changed and again.
#[test]
fn a_guest_takes_no_place_while_it_is_connected() {
    let bridge = Bridge::new("");
    let over = AtomicBool::new(false);
    let gateway: MacAddr = GATEWAY.parse().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let frames: Vec<Vec<u8>> = (0..16)
                .map(|last| {
                    let group = forwarding_corpus::reserved(last);
                    ethernet(group, gateway, 0x88cc, &[0; 46])
                })
                .chain([ethernet(MacAddr::BROADCAST, gateway, 0x0806, &[0; 46])])
                .collect();
            while !over.load(Ordering::Relaxed) {
                for frame in &frames {
                    // It is down for moments.
                    let _ = bridge.attacker.send(frame);
                }
            }
        });
        for round in 0..20 {
            bridge.node.up(&bridged());
            assert_eq!(bridge.wrong(), Vec::<String>::new(), "round {round}");
            bridge.node.up(&with(bridged(), &[("IP", "10.66.1.8")]));
            assert_eq!(bridge.wrong(), Vec::<String>::new(), "round {round}");
            bridge.node.down("tap0");
            assert_eq!(bridge.wrong(), Vec::<String>::new(), "round {round}");
            bridge.node.namespace.ip("link set tap0 up").unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Each cure holds by itself what it is for: a slip of one is no hole.
#[test]
fn each_of_the_cures_keeps_a_place_without_the_others() {
    let lldp = |source: &str| {
        ethernet(
            forwarding_corpus::reserved(0x0e),
            source.parse().unwrap(),
            0x88cc,
            &[0; 46],
        )
    };
    for (undone, kept) in [
        (
            "ip link set br0 type bridge no_linklocal_learn 0",
            &[GATEWAY, VICTIM][..],
        ),
        ("bridge link set dev tap0 learning on", &[GATEWAY, VICTIM]),
        (
            "ip link set br0 type bridge no_linklocal_learn 0
             bridge link set dev tap0 learning on",
            &[VICTIM],
        ),
    ] {
        let bridge = Bridge::new("");
        bridge.node.up(&bridged());
        bridge.node.namespace.sh(undone).unwrap();
        for mac in [GATEWAY, VICTIM] {
            bridge.attacker.send(&lldp(mac)).unwrap();
        }
        let stolen: Vec<&str> = [GATEWAY, VICTIM]
            .into_iter()
            .filter(|mac| bridge.table().contains(&format!("{mac} dev tap0")))
            .collect();
        let lost: Vec<&&str> = kept.iter().filter(|mac| stolen.contains(mac)).collect();
        assert!(lost.is_empty(), "{undone}: {}", bridge.table());
        // With all undone that could keep it, the gateway's is taken: the attack is a real one.
        assert_eq!(stolen.contains(&GATEWAY), !kept.contains(&GATEWAY));
    }
}

/// A guest that may use any MAC address does so, but not those of guests that have a place.
#[test]
fn a_guest_with_any_mac_address_is_found_by_each_and_takes_no_guests_place() {
    let bridge = Bridge::new("");
    bridge
        .node
        .up(&with(bridged(), &[("TAGS", "snf:nic:0:any-mac")]));
    let another = "02:00:00:00:00:77";
    for mac in [GUEST, another, VICTIM] {
        let source = mac.parse().unwrap();
        let frame = ethernet(MacAddr::BROADCAST, source, 0x88b5, &[0; 46]);
        bridge.attacker.send(&frame).unwrap();
    }
    let table = bridge.table();
    for mac in [GUEST, another] {
        assert!(table.contains(&format!("{mac} dev tap0")), "{table}");
    }
    assert!(!table.contains(&format!("{VICTIM} dev tap0")), "{table}");
    // As a guest with one address it keeps none of the others.
    bridge.node.up(&bridged());
    assert_eq!(bridge.wrong(), Vec::<String>::new());
    assert!(bridge.table().contains(&format!("{GUEST} dev tap0")));
}

#[test]
fn the_bridge_is_as_it_was_when_the_last_nic_is_gone() {
    for before in [false, true] {
        let node = Node::new();
        node.namespace
            .sh(&format!(
                "ip link add br0 type bridge no_linklocal_learn {}; ip link set br0 up",
                u8::from(before)
            ))
            .unwrap();
        let learns = || {
            let shown = node.namespace.ip("-d link show br0").unwrap();
            shown.contains("no_linklocal_learn 0")
        };
        let taps: Vec<Tap> = (0..3)
            .map(|n| Tap::new(&node.namespace, &format!("tap{n}")).unwrap())
            .collect();
        let nic = |n: u8| {
            with(
                bridged(),
                &[
                    ("INTERFACE", &format!("tap{n}")),
                    ("IP", &format!("10.66.1.{}", n + 10)),
                    ("MAC", &format!("aa:00:00:00:00:0{n}")),
                ],
            )
        };
        for n in 0..3 {
            node.up(&nic(n));
            node.up(&nic(n));
            assert!(!learns());
        }
        // The first is gone without a word, the others say so, in another order than they came.
        let mut taps = taps.into_iter();
        drop(taps.next());
        let _others: Vec<Tap> = taps.collect();
        assert!(node.run(&["restore"], &Nic::new()).status.success());
        assert!(!learns());
        node.down("tap1");
        assert!(!learns());
        node.down("tap2");
        assert_eq!(learns(), !before);
    }
}

#[test]
fn no_linklocal_learn_is_on_while_there_is_a_nic() {
    let bridge = Bridge::new("");
    assert!(bridge.no_linklocal_learn());
    bridge.node.down("tap1");
    assert!(!bridge.no_linklocal_learn());
}

/// A node is upgraded while guests run: their NICs are what the new program makes of them.
#[test]
fn restore_renews_the_nics_of_an_older_program() {
    let bridge = Bridge::new("");
    let path = bridge.node.state().join("tap1");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["shared"]
        .as_array_mut()
        .unwrap()
        .retain(|step| step["step"] != "no-link-local-learn");
    for step in record["steps"].as_array_mut().unwrap() {
        step.as_object_mut().unwrap().remove("learning");
    }
    std::fs::write(&path, serde_json::to_string_pretty(&record).unwrap()).unwrap();
    bridge
        .node
        .namespace
        .sh(&format!(
            "ip link set br0 type bridge no_linklocal_learn 0
             bridge link set dev tap1 learning on
             bridge fdb replace {VICTIM} dev tap1 master static"
        ))
        .unwrap();
    let output = bridge.node.run(&["restore"], &Nic::new());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        output.stdout,
        "tap1 (snf-9): was connected by an older program; it is as this one does it now\n"
    );
    assert!(bridge.no_linklocal_learn());
    let output = bridge.node.run(&["check"], &Nic::new());
    assert!(!output.stdout.contains("tap1"), "{output:?}");
    assert_eq!(bridge.node.run(&["restore"], &Nic::new()).stdout, "");
    bridge.node.down("tap1");
    assert!(!bridge.no_linklocal_learn());
}
