//! Random sequences of calls, vanishing interfaces and flushed filters, against a model of
//! what the kernel's tables and the folders must hold then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::collections::BTreeSet;
use std::fs;

use agents::netlink::nftables::{Family, Nftables, Table};
use harness::netns::Netns;
use harness::tap::Tap;
use node::{Nic, Node, bridged, routed, with};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const TAPS: usize = 4;

/// What a NIC is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    routed: bool,
    /// Of `protected`, `limited`, `unprotected`, none.
    profile: Option<usize>,
    /// The last byte of its address: another than that of the same TAP before.
    second_address: bool,
    nfdhcpd: bool,
    any_ip: bool,
}

const PROFILES: [&str; 3] = ["protected", "limited", "unprotected"];

#[derive(Debug, Clone, Copy)]
enum Act {
    /// The TAP is made if it is not there, and up is called.
    Up(usize, Wish),
    Down(usize),
    /// The TAP goes without a word.
    Vanish(usize),
    /// Somebody takes all filters away.
    Flush,
    Restore,
}

fn act() -> impl Strategy<Value = Act> {
    let tap = 0..TAPS;
    let wish = (
        any::<bool>(),
        proptest::option::of(0..PROFILES.len()),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(routed, profile, second_address, nfdhcpd, any_ip)| Wish {
            routed,
            profile,
            second_address,
            nfdhcpd,
            any_ip,
        });
    prop_oneof![
        6 => (tap.clone(), wish).prop_map(|(tap, wish)| Act::Up(tap, wish)),
        2 => tap.clone().prop_map(Act::Down),
        2 => tap.prop_map(Act::Vanish),
        1 => Just(Act::Flush),
        1 => Just(Act::Restore),
    ]
}

fn tap_name(tap: usize) -> String {
    format!("tap{tap}")
}

fn mac(tap: usize) -> String {
    format!("aa:00:00:00:00:1{tap}")
}

fn ipv4(tap: usize, wish: Wish) -> String {
    let net = if wish.routed { 2 } else { 1 };
    let host = 10 + tap * 2 + usize::from(wish.second_address);
    format!("10.66.{net}.{host}")
}

fn variables(tap: usize, wish: Wish) -> Nic {
    let base = if wish.routed { routed() } else { bridged() };
    let mut tags = Vec::new();
    if let Some(profile) = wish.profile {
        tags.push(format!("synnefo:network:*:{}", PROFILES[profile]).replace('*', "0"));
    }
    if wish.any_ip {
        tags.push("snf:nic:0:any-ip".to_owned());
    }
    let (interface, mac, ip) = (tap_name(tap), mac(tap), ipv4(tap, wish));
    with(
        base,
        &[
            ("INTERFACE", interface.as_str()),
            ("INSTANCE", &format!("snf-{tap}")),
            ("MAC", &mac),
            ("IP", &ip),
            ("TAGS", &tags.join(" ")),
            ("NETWORK_TAGS", if wish.nfdhcpd { "nfdhcpd" } else { "" }),
        ],
    )
}

/// What must be there, each a line.
fn expected(nics: &[Option<Wish>; TAPS]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (tap, wish) in nics.iter().enumerate() {
        let Some(wish) = *wish else { continue };
        let name = tap_name(tap);
        let table = if wish.routed { "inet" } else { "bridge" };
        lines.insert(format!("record {name}"));
        if wish.nfdhcpd {
            lines.insert(format!("binding {name}"));
        }
        if let Some(profile) = wish.profile {
            lines.insert(format!("{table} to-{} {name}", PROFILES[profile]));
        }
        lines.insert(format!("{table} mac {name}"));
        if wish.any_ip {
            lines.insert(format!("{table} any-ip {name}"));
        } else {
            lines.insert(format!("{table} guarded-4 {name}"));
            lines.insert(format!("{table} ipv4 {name}"));
            lines.insert(format!("{table} ipv6 {name}"));
            lines.insert(format!("{table} prefix6 {name}"));
            if wish.routed {
                for set in ["guarded-4", "mac", "ipv4"] {
                    lines.insert(format!("arp {set} {name}"));
                }
            }
        }
        let ip = ipv4(tap, wish);
        if wish.routed {
            let six = format!("fd66:2::a800:ff:fe00:1{tap}");
            for (address, family) in [(ip, " -4"), (six, " -6")] {
                lines.insert(format!("ip{family} route {address} {name}"));
                lines.insert(format!("ip{family} rule {name}"));
                lines.insert(format!("ip{family} proxy {address} up0"));
                // Shared by all that are routed.
                lines.insert(format!("ip{family} rule up0"));
                lines.insert(format!("ip{family} route unreachable"));
            }
            lines.insert(format!("ip -6 proxy fd66:2::1 {name}"));
        } else {
            lines.insert(format!("port {name} br0"));
            lines.insert(format!("fdb {} {name}", mac(tap)));
        }
    }
    lines
}

/// What is there, in the model's words.
fn found(node: &Node) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (what, folder) in [("record", node.state()), ("binding", node.bindings())] {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with('.') {
                lines.insert(format!("{what} {name}"));
            }
        }
    }
    let sets = [
        "guarded-4",
        "any-ip",
        "any-mac",
        "mac",
        "ipv4",
        "ipv6",
        "nets4",
        "nets6",
        "prefix6",
        "to-protected",
        "to-limited",
        "to-unprotected",
    ];
    let elements: Vec<String> = node
        .namespace
        .run(|| {
            let mut nftables = Nftables::open()?;
            let mut found = Vec::new();
            for family in [Family::Bridge, Family::Inet, Family::Arp] {
                for set in sets {
                    for element in nftables.elements(Table::new(family, "snf"), set)? {
                        let name = element.key[..16].split(|byte| *byte == 0).next().unwrap();
                        let name = String::from_utf8_lossy(name);
                        found.push(format!("{} {set} {name}", family.name()));
                    }
                }
            }
            Ok(found)
        })
        .unwrap();
    lines.extend(elements);
    for family in [" -4", " -6"] {
        let shown = node
            .namespace
            .sh(&format!(
                "ip{family} route show table 100 2>/dev/null | sed 's/^/route /'
                 ip{family} rule | sed 's/^/rule /'
                 ip{family} neigh show proxy | sed 's/^/proxy /'"
            ))
            .unwrap();
        for line in shown.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| {
                let at = words.iter().position(|found| *found == word)?;
                words.get(at + 1).copied()
            };
            match words[0] {
                "route" if words[1] == "unreachable" => {
                    lines.insert(format!("ip{family} route unreachable"));
                }
                "route" if words[1] != "default" && !words[1].contains('/') => {
                    lines.insert(format!(
                        "ip{family} route {} {}",
                        words[1],
                        after("dev").unwrap()
                    ));
                }
                "rule" => {
                    if let Some(input) = after("iif") {
                        lines.insert(format!("ip{family} rule {input}"));
                    }
                }
                "proxy" => {
                    lines.insert(format!(
                        "ip{family} proxy {} {}",
                        words[1],
                        after("dev").unwrap()
                    ));
                }
                _ => {}
            }
        }
    }
    let ports = node
        .namespace
        .sh("ip -o link show master br0; bridge fdb show br br0 | grep static || true")
        .unwrap();
    for line in ports.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.contains("static") {
            lines.insert(format!("fdb {} {}", words[0], words[2]));
        } else {
            lines.insert(format!("port {} br0", words[1].trim_end_matches(':')));
        }
    }
    lines
}

fn run(acts: &[Act]) {
    let node = Node::new();
    let router = Netns::new().unwrap();
    node.namespace.veth("up0", &router, "guests").unwrap();
    node.namespace
        .sh(
            "ip link add br0 type bridge; ip link set br0 addrgenmode none; ip link set br0 up
             ip route add 10.66.2.0/24 dev up0 table 100
             ip route add default via 10.66.2.1 dev up0 table 100
             ip -6 route add fd66:2::/64 dev up0 table 100
             ip -6 route add default via fd66:2::1 dev up0 table 100",
        )
        .unwrap();
    let empty = found(&node);
    let mut taps: [Option<Tap>; TAPS] = [const { None }; TAPS];
    let mut nics: [Option<Wish>; TAPS] = [None; TAPS];
    for (number, act) in acts.iter().enumerate() {
        match *act {
            Act::Up(tap, wish) => {
                if taps[tap].is_none() {
                    taps[tap] = Some(Tap::new(&node.namespace, &tap_name(tap)).unwrap());
                }
                node.up(&variables(tap, wish));
                nics[tap] = Some(wish);
            }
            Act::Down(tap) => {
                node.down(&tap_name(tap));
                nics[tap] = None;
            }
            Act::Vanish(tap) => {
                taps[tap] = None;
                nics[tap] = None;
            }
            Act::Flush => node.namespace.sh("nft flush ruleset").map(drop).unwrap(),
            Act::Restore => {}
        }
        // Until then what vanished or was flushed may be as it is.
        if matches!(act, Act::Restore) || number + 1 == acts.len() {
            let output = node.run(&["restore"], &Nic::new());
            assert!(output.status.success(), "{output:?}");
            let mut wanted = expected(&nics);
            wanted.extend(empty.iter().cloned());
            let found = found(&node);
            let missing: Vec<_> = wanted.difference(&found).collect();
            let surplus: Vec<_> = found.difference(&wanted).collect();
            assert!(
                missing.is_empty() && surplus.is_empty(),
                "after act {number}: missing {missing:#?}, surplus {surplus:#?}"
            );
        }
    }
}

#[test]
fn any_sequence_ends_in_the_tables_of_the_model() {
    // PROPTEST_CASES makes it longer.
    let cases = std::env::var("PROPTEST_CASES").map_or(12, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&proptest::collection::vec(act(), 5..40), |acts| {
            run(&acts);
            Ok(())
        })
        .unwrap();
}
