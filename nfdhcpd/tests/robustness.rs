//! What goes wrong on a node: hostile guests, bindings and interfaces that come and go, a daemon
//! that is killed or held up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::tap::Tap;
use harness::wait;
use nix::sys::signal::Signal;
use scene::{Scene, dhcp_answer, dhcp_frame, discover};

const SECOND: Duration = Duration::from_secs(1);

/// The offered address.
fn offered(frame: &[u8]) -> [u8; 4] {
    frame[58..62].try_into().unwrap()
}

fn metric(scene: &Scene, name: &str) -> u64 {
    let page = scene.metrics();
    let line = page.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{name} is not in\n{page}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Every packet gets its verdict, if a moment after its answer.
fn wait_for_empty_queue(scene: &Scene) {
    wait::until_true("a verdict on every packet", wait::USUAL, || {
        metric(scene, "nfdhcpd_queue_waiting") == 0
    })
    .unwrap();
}

/// Two guests; the first sends `frame` as fast as it can while the second asks for its lease.
fn lease_under_flood(what: &str, frame: &[u8]) {
    let mut scene = Scene::new("flood");
    scene.start("metrics = \"127.0.0.1:9642\"\n");
    let (flooder, guest) = (scene.bridged("tap0"), scene.bridged("tap1"));
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.bind("tap1", &Scene::bridged_binding(6));
    scene.wait_for("snf-6");
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Its queue may be full: it does not care.
                if flooder.send(frame).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        thread::sleep(SECOND);
        let mut slowest = Duration::ZERO;
        for xid in 1..=5 {
            let start = Instant::now();
            let offer = discover(&guest, 6, xid, SECOND);
            let request = [50, 4, 10, 66, 1, 6, 54, 4, 10, 66, 1, 1];
            guest.send(&dhcp_frame(6, 3, xid, &request)).unwrap();
            let acknowledged = guest
                .receive_matching(SECOND, |frame| dhcp_answer(frame, xid) == Some(5))
                .unwrap();
            slowest = slowest.max(start.elapsed());
            if offer.is_none() || acknowledged.is_none() || slowest > SECOND {
                stop.store(true, Ordering::Relaxed);
                panic!("{what}: no lease within a second beside {sent:?} packets");
            }
        }
        stop.store(true, Ordering::Relaxed);
        println!("{what}: {sent:?} packets, the slowest lease took {slowest:?}");
    });
    assert!(
        sent.load(Ordering::Relaxed) > 10_000,
        "that was no flood: {sent:?}"
    );
    scene.daemon().still_runs().unwrap();
    wait::until_true("the rules' count", wait::USUAL, || {
        metric(&scene, "nfdhcpd_limited") > 1000
    })
    .unwrap();
    let lines = scene.daemon().log().lines().count();
    assert!(lines < 300, "a flooder fills the log: {lines} lines");
}

#[test]
fn a_flood_of_valid_requests_does_not_keep_another_guest_from_its_lease() {
    lease_under_flood("valid", &dhcp_frame(5, 1, 9, &[]));
}

#[test]
fn a_flood_of_spoofed_requests_does_not_keep_another_guest_from_its_lease() {
    lease_under_flood("spoofed", &dhcp_frame(6, 1, 9, &[]));
}

#[test]
fn a_flood_of_garbage_does_not_keep_another_guest_from_its_lease() {
    let mut frame = dhcp_frame(5, 1, 9, &[55, 200]);
    frame[60] ^= 0xff;
    lease_under_flood("garbage", &frame);
}

#[test]
fn a_bad_binding_quarantines_its_interface_alone() {
    let mut scene = Scene::new("quarantine");
    let (bad, good) = (scene.bridged("tap0"), scene.bridged("tap1"));
    fs::write(
        scene.bindings.join("tap0"),
        "MAC=aa:00:00:00:00:05\nHOSTNAME=h\nIP=x\n",
    )
    .unwrap();
    scene.bind("tap1", &Scene::bridged_binding(6));
    scene.start("");
    let log = scene.daemon().log();
    let line = log.lines().find(|line| line.contains("ERROR")).unwrap();
    for text in ["bindings/tap0", "line 3", "IP=\"x\""] {
        assert!(line.contains(text), "{line}");
    }
    assert!(discover(&good, 6, 1, 10 * SECOND).is_some());
    assert!(discover(&bad, 5, 1, SECOND).is_none());
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.wait_for("snf-5");
    assert!(discover(&bad, 5, 2, 10 * SECOND).is_some());
    // And a good one that turns bad is served no more: nobody gets what may be wrong.
    fs::write(scene.bindings.join("tap1"), "nonsense\n").unwrap();
    wait::until_true("quarantine", wait::USUAL, || {
        scene.daemon().log().contains("nonsense")
    })
    .unwrap();
    assert!(discover(&good, 6, 3, SECOND).is_none());
}

#[test]
fn a_changed_and_a_removed_binding_take_effect_at_once() {
    let mut scene = Scene::new("change");
    scene.start("");
    let tap = scene.bridged("tap0");
    let mut binding = Scene::bridged_binding(5);
    scene.bind("tap0", &binding);
    scene.wait_for("binding ");
    assert_eq!(
        offered(&discover(&tap, 5, 1, 10 * SECOND).unwrap()),
        [10, 66, 1, 5]
    );
    binding.ip = Some("10.66.1.77".parse().unwrap());
    scene.bind("tap0", &binding);
    scene.wait_for("10.66.1.77");
    assert_eq!(
        offered(&discover(&tap, 5, 2, 10 * SECOND).unwrap()),
        [10, 66, 1, 77]
    );
    agents::binding::remove(&scene.bindings, "tap0").unwrap();
    scene.wait_for("binding removed");
    assert!(discover(&tap, 5, 3, SECOND).is_none());
    wait::until_true("no rule", wait::USUAL, || !scene.queued().contains("tap0")).unwrap();
}

#[test]
fn an_interface_that_goes_and_comes_back_is_served_again() {
    let mut scene = Scene::new("comeback");
    scene.start("");
    scene.bind("tap0", &Scene::bridged_binding(5));
    for xid in 1..4 {
        // Each time with another index, and on the bridge only after the binding is known.
        let tap = scene.bridged("tap0");
        let answer = wait::until("an offer", wait::USUAL, || {
            match discover(&tap, 5, xid, SECOND) {
                Some(frame) => wait::Look::Done(frame),
                None => wait::Look::NotYet(String::new()),
            }
        });
        assert_eq!(offered(&answer.unwrap()), [10, 66, 1, 5]);
        drop(tap);
    }
    // From the bridge to a route: the same binding, now answered as the interface's own.
    let tap = scene.routed("tap0");
    let host_mac = scene.host.ip("-o link show tap0").unwrap();
    let frame = wait::until("an offer", wait::USUAL, || {
        match discover(&tap, 5, 9, SECOND) {
            Some(frame) => wait::Look::Done(frame),
            None => wait::Look::NotYet(String::new()),
        }
    })
    .unwrap();
    let source: Vec<String> = frame[6..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        host_mac.contains(&source.join(":")),
        "{source:?} {host_mac}"
    );
}

#[test]
fn lost_events_are_made_up_for_by_reading_all_anew() {
    let mut scene = Scene::new("overflow");
    let (old, new) = (scene.bridged("tap0"), scene.bridged("tap1"));
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.start("");
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // While the daemon stands still, more happens than the kernel keeps for it.
    scene.daemon().signal(Signal::SIGSTOP).unwrap();
    let (one, two) = (scene.bindings.join("flip"), scene.bindings.join("flop"));
    fs::write(&one, "").unwrap();
    for _ in 0..=limit / 4 {
        fs::rename(&one, &two).unwrap();
        fs::rename(&two, &one).unwrap();
    }
    fs::remove_file(&one).unwrap();
    agents::binding::remove(&scene.bindings, "tap0").unwrap();
    scene.bind("tap1", &Scene::bridged_binding(6));
    scene.daemon().signal(Signal::SIGCONT).unwrap();
    scene.wait_for("reading all bindings again");
    scene.wait_for("snf-6");
    assert!(discover(&new, 6, 1, 10 * SECOND).is_some());
    assert!(
        discover(&old, 5, 2, SECOND).is_none(),
        "its binding is gone"
    );
}

#[test]
fn a_full_queue_is_counted_and_survived() {
    let mut scene = Scene::new("full");
    scene.start(
        "metrics = \"127.0.0.1:9642\"\n[queue]\nlength = 100\nguest_packets_per_second = 0\n",
    );
    let tap = scene.bridged("tap0");
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.wait_for("snf-5");
    assert!(discover(&tap, 5, 1, 10 * SECOND).is_some());
    scene.daemon().signal(Signal::SIGSTOP).unwrap();
    for _ in 0..1000 {
        tap.send(&dhcp_frame(5, 1, 2, &[])).unwrap();
    }
    scene.daemon().signal(Signal::SIGCONT).unwrap();
    // The hundred that fitted are answered, and then the next.
    wait::until_true("an answer", wait::USUAL, || {
        discover(&tap, 5, 3, SECOND).is_some()
    })
    .unwrap();
    assert!(metric(&scene, "nfdhcpd_queue_full_total") >= 900);
    wait_for_empty_queue(&scene);
}

#[test]
fn an_interface_that_went_down_or_away_before_its_answer_harms_nobody() {
    let mut scene = Scene::new("down");
    scene.start("metrics = \"127.0.0.1:9642\"\n");
    let taps: Vec<Tap> = (0..3)
        .map(|number| scene.bridged(&format!("tap{number}")))
        .collect();
    for number in 0..3 {
        scene.bind(&format!("tap{number}"), &Scene::bridged_binding(number + 5));
    }
    scene.wait_for("snf-7");
    wait::until_true("the rules", wait::USUAL, || scene.queued().contains("tap2")).unwrap();
    scene.daemon().signal(Signal::SIGSTOP).unwrap();
    for (number, tap) in (5..).zip(&taps) {
        tap.send(&dhcp_frame(number, 1, 7, &[])).unwrap();
    }
    let mut taps = taps.into_iter();
    drop(taps.next());
    let (down, good) = (taps.next().unwrap(), taps.next().unwrap());
    scene.host.ip("link set tap1 down").unwrap();
    scene.daemon().signal(Signal::SIGCONT).unwrap();
    let answer = good.receive_matching(10 * SECOND, |frame| dhcp_answer(frame, 7).is_some());
    assert!(answer.unwrap().is_some());
    scene.host.ip("link set tap1 up").unwrap();
    assert!(discover(&down, 6, 8, 10 * SECOND).is_some());
    wait_for_empty_queue(&scene);
    assert!(metric(&scene, "nfdhcpd_send_failures_total") >= 1);
}

#[test]
fn killed_under_load_it_comes_back_and_bypass_lets_packets_go_on_meanwhile() {
    let mut scene = Scene::new("kill");
    scene.start("");
    let (tap, peer) = (scene.bridged("tap0"), scene.bridged("tap1"));
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.wait_for("snf-5");
    assert!(discover(&tap, 5, 1, 10 * SECOND).is_some());
    for xid in 100..300 {
        tap.send(&dhcp_frame(5, 1, xid, &[])).unwrap();
    }
    scene.daemon.take().unwrap().kill();
    while tap.receive(Duration::from_millis(100)).unwrap().is_some() {}
    // The rules are still there, and nobody listens: another server on the bridge would hear.
    tap.send(&dhcp_frame(5, 1, 2, &[])).unwrap();
    let heard = peer.receive_matching(10 * SECOND, |frame| {
        frame.get(46..50) == Some(&[0, 0, 0, 2])
    });
    assert!(
        heard.unwrap().is_some(),
        "without a listener the packet goes on"
    );
    scene.start("");
    assert!(discover(&tap, 5, 3, 10 * SECOND).is_some());
}

#[test]
fn bindings_that_come_and_go_a_thousand_times_a_second_do_not_disturb_others() {
    let mut scene = Scene::new("churn");
    scene.start("metrics = \"127.0.0.1:9642\"\n");
    let steady = scene.bridged("tap0");
    let _others: Vec<Tap> = (1..5)
        .map(|number| scene.bridged(&format!("tap{number}")))
        .collect();
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.wait_for("snf-5");
    let stop = AtomicBool::new(false);
    let changes = AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                number = number.wrapping_add(1);
                let name = format!("tap{}", 1 + number % 4);
                // as ifup does it, without its wait for the disk
                let (file, new) = (scene.bindings.join(&name), scene.scratch.join("new"));
                fs::write(&new, Scene::bridged_binding(number).to_string()).unwrap();
                fs::rename(&new, &file).unwrap();
                if number.is_multiple_of(3) {
                    fs::remove_file(&file).unwrap();
                }
                let done = changes.fetch_add(1, Ordering::Relaxed) + 1;
                // one each millisecond; what was late is made up for
                let due = Duration::from_millis(done);
                thread::sleep(due.saturating_sub(begin.elapsed()));
            }
        });
        for xid in 1..=200 {
            let answer = discover(&steady, 5, xid, 5 * SECOND);
            if answer.is_none_or(|frame| offered(&frame) != [10, 66, 1, 5]) {
                stop.store(true, Ordering::Relaxed);
                panic!("no good answer to {xid} beside {changes:?} changes");
            }
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (changes, seconds) = (changes.into_inner(), begin.elapsed().as_secs_f64());
    println!(
        "{changes} changes, {:.0} a second",
        changes as f64 / seconds
    );
    assert!(changes > 1000, "{changes}");
    // In the end the kernel has the rules of what is there.
    wait::until_true("rules as the bindings", wait::USUAL, || {
        let rules = scene.queued();
        (0..5).all(|number| {
            let name = format!("tap{number}");
            rules.contains(&format!("\"{name}\"")) == scene.bindings.join(&name).exists()
        })
    })
    .unwrap();
}

#[test]
fn periodic_advertisements_come_to_each_even_if_one_cannot_be_sent() {
    let mut scene = Scene::new("periodic");
    let (down, good) = (scene.bridged("tap0"), scene.bridged("tap1"));
    scene.host.ip("link set tap0 down").unwrap();
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.bind("tap1", &Scene::bridged_binding(6));
    scene.start("[ipv6]\nra_interval_seconds = 4\nrouter_lifetime_seconds = 60\n");
    let is_advertisement =
        |frame: &[u8]| frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(54) == Some(&134);
    for _ in 0..3 {
        let frame = good
            .receive_matching(10 * SECOND, is_advertisement)
            .unwrap();
        assert_eq!(
            frame.expect("an advertisement")[..6],
            [0x33, 0x33, 0, 0, 0, 1]
        );
    }
    drop(down);
    // The daemon that ends says no goodbye: the guests' default route stays.
    let daemon = scene.daemon.take().unwrap();
    daemon.stop(wait::USUAL).unwrap();
    let after = good
        .receive_matching(SECOND, |frame| {
            is_advertisement(frame) && frame.get(60..62) == Some(&[0, 0])
        })
        .unwrap();
    assert!(after.is_none(), "an advertisement with lifetime 0");
}
