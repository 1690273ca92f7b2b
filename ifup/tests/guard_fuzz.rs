//! Random frames of a guest through the rules of a real TAP, judged by an oracle that knows
//! the RFCs and not the rules: what arrives is permitted, what is legitimate arrives, and
//! `explain` says of every frame what the kernel does.
//!
//! `SNF_GUARD_FRAMES` is how many (1000000 by `make fuzz-guard`), `SNF_GUARD_SEED` which.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs
)]

#[path = "oracle/generator.rs"]
mod generator;
mod node;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agents::addr;
use agents::netlink::nftables::Nftables;
use generator::{Generator, Random};
use harness::tap::Tap;
use ifup::config::Config;
use ifup::explain::{Live, Way};
use ifup::guard::BRIDGE;
use ifup::guard::explain::{Explanation, Outcome};
use ifup::guard::frame::ethernet;
use node::{Node, bridged, bridged_cast, with};
use oracle::{Guest, Verdict};

const LIMIT: Duration = Duration::from_secs(60);
const BATCH: usize = 64;
/// Examples of each kind of error that are shown.
const SHOWN: usize = 3;

fn number(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect(name),
        Err(_) => usual,
    }
}

struct Bench {
    node: Node,
    guest: Tap,
    witness: Tap,
    /// A port of its own for marks, which no rule looks at.
    marker: Tap,
    marks: u32,
    live: Live,
    /// The guest's addresses that the kernel remembers.
    learned: BTreeSet<(String, Vec<u8>)>,
}

impl Bench {
    fn new(tags: &str) -> Self {
        let node = Node::new();
        node.namespace
            .sh("ip link add br0 type bridge mcast_snooping 0
                 ip link set br0 addrgenmode none; ip link set br0 up
                 for name in iptables ip6tables arptables; do
                     file=/proc/sys/net/bridge/bridge-nf-call-$name
                     [ ! -e $file ] || echo 0 > $file
                 done")
            .unwrap();
        let guest = Tap::new(&node.namespace, "tap0").unwrap();
        let witness = node.witness();
        let marker = Tap::new(&node.namespace, "marker").unwrap();
        node.namespace
            .sh(
                "ip link set marker addrgenmode none; ip link set marker master br0
                 ip link set marker up",
            )
            .unwrap();
        node.up(&with(bridged(), &[("TAGS", tags)]));
        // A forged source must not send the frames for the other back to the guest.
        node.namespace
            .sh("bridge link set dev tap0 learning off")
            .unwrap();
        let live = Self::read(&node);
        Self {
            node,
            guest,
            witness,
            marker,
            marks: 0,
            live,
            learned: BTreeSet::new(),
        }
    }

    fn read(node: &Node) -> Live {
        let config = Config::load(Some(&node.config())).unwrap();
        node.namespace
            .run(|| Ok(Live::read(BRIDGE, &config, &mut Nftables::open()?)?))
            .unwrap()
    }

    /// Sends the frames; which of them arrived.
    fn send(&mut self, frames: &[Vec<u8>]) -> Vec<bool> {
        for frame in frames {
            self.guest.send(frame).unwrap();
        }
        self.marks += 1;
        let mark = ethernet(
            agents::addr::MacAddr::BROADCAST,
            "02:00:00:00:00:01".parse().unwrap(),
            0x88b5,
            &self.marks.to_be_bytes(),
        );
        self.marker.send(&mark).unwrap();
        let mut seen = Vec::new();
        loop {
            let frame = self.witness.receive(LIMIT).unwrap().expect("the mark");
            if frame == mark {
                break;
            }
            seen.push(frame);
        }
        // A bridge keeps the order.
        let mut seen = seen.into_iter().peekable();
        let arrived = frames
            .iter()
            .map(|frame| seen.next_if(|seen| seen == frame).is_some())
            .collect();
        assert_eq!(seen.next(), None, "a frame that nobody sent");
        arrived
    }

    fn explain(&self, frame: &[u8]) -> Explanation {
        self.live.explain("tap0", frame, Way::From).unwrap()
    }

    /// Returns whether the kernel will remember something that it does not know yet.
    fn learns(&mut self, explanation: &Explanation) -> bool {
        let mut new = false;
        for (set, element) in &explanation.learned {
            new |= self.learned.insert((set.clone(), element.key.clone()));
        }
        new
    }
}

#[derive(Default)]
struct Report {
    arrived: usize,
    legitimate: usize,
    forbidden: usize,
    errors: BTreeMap<String, Vec<String>>,
}

impl Report {
    fn error(&mut self, kind: String, frame: &[u8], explanation: &Explanation) {
        let examples = self.errors.entry(kind).or_default();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        examples.push(format!("{hex}\n{explanation}"));
    }
}

/// Sends so many frames and holds what becomes of them against the judge.
fn run(tags: &str, count: u64, seed: u64, mut judge: impl FnMut(&[u8]) -> Verdict) {
    let mut bench = Bench::new(tags);
    let cast = bridged_cast();
    let mut generator = Generator {
        random: Random::new(seed),
        cast: &cast,
        tags: !tags.is_empty(),
    };
    let mut report = Report::default();
    let mut done = 0;
    while done < count {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut explanations = Vec::new();
        while frames.len() < BATCH {
            let frame = generator.frame();
            if frames.contains(&frame) {
                continue;
            }
            let explanation = bench.explain(&frame);
            let learns = bench.learns(&explanation);
            frames.push(frame);
            explanations.push((explanation, learns));
            if learns {
                break;
            }
        }
        let arrived = bench.send(&frames);
        for ((frame, (explanation, learns)), arrived) in
            frames.iter().zip(&explanations).zip(arrived)
        {
            if *learns {
                bench.live = Bench::read(&bench.node);
            }
            // What is for bridges does not go on, whatever the rules say.
            let to_bridges = frame[..5] == [1, 0x80, 0xc2, 0, 0] && frame[5] < 16;
            let said = explanation.outcome == Outcome::Passes;
            if said != arrived && !(to_bridges && said) {
                let kind = format!("explain: {said}, kernel: {arrived}");
                report.error(kind, frame, explanation);
            }
            report.arrived += usize::from(arrived);
            match (judge(frame), arrived) {
                (Verdict::Forbidden(reason), true) => {
                    report.error(format!("arrived: {reason}"), frame, explanation);
                }
                (Verdict::Forbidden(_), false) => report.forbidden += 1,
                (Verdict::Legitimate, false) if !to_bridges => {
                    let reason = explanation.path.last().map_or("", |(_, reason)| reason);
                    report.error(format!("lost: {reason}"), frame, explanation);
                }
                (Verdict::Legitimate, _) => report.legitimate += 1,
                (Verdict::Tolerated, _) => {}
            }
        }
        done += frames.len() as u64;
    }
    println!(
        "seed {seed}: {done} frames, {} arrived, {} were legitimate, {} forbidden",
        report.arrived, report.legitimate, report.forbidden
    );
    let errors: Vec<String> = report
        .errors
        .iter()
        .map(|(kind, examples)| {
            let shown = examples.iter().take(SHOWN).cloned().collect::<Vec<_>>();
            format!("{} x {kind}\n{}", examples.len(), shown.join("\n"))
        })
        .collect();
    assert!(errors.is_empty(), "seed {seed}:\n{}", errors.join("\n"));
    // The frames are of all kinds, so that finding nothing means something.
    let least = done as usize / 50;
    assert!(report.legitimate > least && report.forbidden > least);
}

#[test]
fn random_frames_are_judged_as_the_rfcs_have_it() {
    let count = number("SNF_GUARD_FRAMES", 50_000);
    let seed = number("SNF_GUARD_SEED", 1);
    let cast = bridged_cast();
    let mut guest = Guest {
        mac: cast.mac.octets(),
        ipv4: cast.ipv4,
        ipv6: vec![cast.ipv6, addr::link_local(cast.mac)],
        prefixes: vec![
            [0xfd, 0x66, 0, 1, 0, 0, 0, 0],
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0],
        ],
        reserved: vec![cast.router_ipv6],
        chosen: BTreeSet::new(),
    };
    run("", count, seed, |frame| guest.judge(frame));
}

#[test]
fn random_frames_of_a_guest_with_any_mac_address_are_no_servers() {
    let count = number("SNF_GUARD_FRAMES", 50_000) / 5;
    let seed = number("SNF_GUARD_SEED", 1);
    run("snf:nic:0:any-mac", count, seed, oracle::judge_any);
}
