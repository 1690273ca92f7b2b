//! The native way: on Debian's cloud kernel, which has `queue` in nftables, nfdhcpd needs no
//! br_netfilter. The node is a QEMU guest; its NICs are TAPs here, on which the clients are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::time::Duration;

use agents::binding::Binding;
use harness::guest::Guest;
use harness::netns::Netns;
use harness::node_image;
use harness::process;
use harness::scratch::Scratch;
use harness::wait;
use scene::{Scene, mac};

const COMMAND: Duration = Duration::from_secs(60);

/// What the node's kernel needs besides what the harness's guest has.
const MODULES: [&str; 6] = [
    "bridge",
    "nf_tables",
    "nft_meta_bridge",
    "nfnetlink_queue",
    "nft_queue",
    "nft_limit",
];

fn write(guest: &mut Guest, interface: &str, binding: &Binding) {
    let text = binding.to_string().replace('\n', "\\n");
    let command = format!(
        "printf '{text}' > /var/lib/nfdhcpd/.new && mv /var/lib/nfdhcpd/.new /var/lib/nfdhcpd/{interface}"
    );
    guest.console.run(&command, COMMAND).unwrap();
}

/// udhcpc on the far end of a NIC; returns what its script printed.
fn udhcpc(host: &Netns, scene: &Scene, interface: &str) -> String {
    let mut command = host.command("udhcpc");
    command.args([
        "-i", interface, "-n", "-q", "-f", "-t", "20", "-T", "2", "-s",
    ]);
    command.arg(scene.client_script());
    process::check(&mut command, Duration::from_secs(90)).unwrap()
}

#[test]
fn native_queue_on_debians_cloud_kernel() {
    let scratch = Scratch::new("native").unwrap();
    // Only its client script is used.
    let scene = Scene::new("native-script");
    let program = env!("CARGO_BIN_EXE_nfdhcpd");
    let image = node_image::build(scratch.path(), &[program], &MODULES).unwrap();
    let host = Netns::new().unwrap();
    // This test is a process of its own.
    host.enter().unwrap();
    // The NICs of the node; the clients are at the other ends, which are here.
    let nics = [("tap0", "02:00:00:00:01:00"), ("tap1", "02:00:00:00:01:01")];
    let mut guest = Guest::boot(&image, scratch.path(), &nics).unwrap();
    for (tap, number) in [("tap0", 5), ("tap1", 6)] {
        host.ip(&format!("link set {tap} address {}", mac(number)))
            .unwrap();
        host.ip(&format!("link set {tap} up")).unwrap();
    }
    for command in [
        "mkdir -p /etc/nfdhcpd /var/lib/nfdhcpd /tmp",
        "ip link add br0 type bridge",
        // A port that only learns is answered by DHCP already, but by nobody else.
        "echo 0 > /sys/class/net/br0/bridge/forward_delay",
        "ip link set eth0 master br0",
        // The image asks for a lease on every NIC: not on a node's.
        "until ps | grep -q '[u]dhcpc .*-i br0'; do sleep 0.1; done; sleep 0.5; killall udhcpc",
        "ip addr add 10.66.1.1/24 dev br0",
        "ip -6 addr add fd66:1::1/64 dev br0",
        "ip link set br0 up",
        "ip addr add 10.66.2.1/32 dev eth1",
        "ip route add 10.66.2.6/32 dev eth1",
    ] {
        guest.console.run(command, COMMAND).unwrap();
    }
    write(&mut guest, "eth0", &Scene::bridged_binding(5));
    write(&mut guest, "eth1", &Scene::routed_binding(6));
    guest
        .console
        .run("/usr/local/bin/nfdhcpd run > /tmp/log 2>&1 &", COMMAND)
        .unwrap();
    if let Err(error) = guest.console.run_until("grep ready /tmp/log", wait::USUAL) {
        panic!(
            "{error:#}\n{}",
            guest.console.run("cat /tmp/log", COMMAND).unwrap()
        );
    }
    let ready = guest.console.run("grep ready /tmp/log", COMMAND).unwrap();
    assert!(
        ready.contains("native queue") && ready.contains("interfaces=2"),
        "{ready}"
    );
    // Nothing hands bridged packets to the IP families here.
    assert!(
        guest
            .console
            .run("test -e /proc/sys/net/bridge", COMMAND)
            .is_err()
    );

    let told = udhcpc(&host, &scene, "tap0");
    assert!(told.contains("told: ip=10.66.1.5"), "{told}");
    host.sh("ping -n -c 1 -W 20 10.66.1.1").unwrap();
    let told = udhcpc(&host, &scene, "tap1");
    assert!(told.contains("told: ip=10.66.2.6"), "{told}");
    // Duplicate address detection must be over before a router can be asked.
    wait::until("an address by SLAAC", wait::USUAL, || {
        let seen = host.ip("-6 -o addr show dev tap0 scope global").unwrap();
        if seen.contains("fd66:1::a800:ff:fe00:5/64") {
            wait::Look::Done(())
        } else {
            wait::Look::NotYet(seen)
        }
    })
    .unwrap();
    let log = guest.console.run("cat /tmp/log", COMMAND).unwrap();
    for text in [
        "DHCPREQUEST -> DHCPACK interface=\"eth0\"",
        "interface=\"eth1\"",
    ] {
        assert!(log.contains(text), "{text} is not in\n{log}");
    }
    guest.kill();
}
