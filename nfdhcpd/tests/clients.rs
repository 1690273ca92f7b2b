//! Real clients get what their bindings say, on bridged and on routed interfaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use harness::tap::Client;
use harness::wait;
use scene::{Scene, mac};

fn ping(client: &Client, address: &str) {
    let output = client
        .namespace
        .sh(&format!("ping -n -c 1 -W 10 {address}"));
    output.unwrap();
}

/// Waits for the guest's kernel to have a global address by SLAAC, and a default route.
fn wait_for_slaac(client: &Client, prefix: &str) -> String {
    wait::until("an address by SLAAC", wait::USUAL, || {
        let addresses = client
            .namespace
            .ip("-6 -o addr show dev eth0 scope global")
            .unwrap();
        let routes = client.namespace.ip("-6 route show default").unwrap();
        let address = addresses
            .lines()
            .filter(|line| !line.contains("tentative"))
            .find_map(|line| {
                line.split_whitespace()
                    .find(|word| word.starts_with(prefix))
            });
        match address {
            Some(address) if !routes.is_empty() => wait::Look::Done(address.to_owned()),
            _ => wait::Look::NotYet(format!("{addresses}{routes}")),
        }
    })
    .unwrap()
}

#[test]
fn bridged_udhcpc_slaac_and_rdisc6() {
    let mut scene = Scene::new("bridged");
    scene.start("");
    let tap = scene.bridged("tap0");
    let mut binding = Scene::bridged_binding(5);
    binding.mtu = Some(1450);
    binding.domain = vec!["example.com".parse().unwrap()];
    scene.bind("tap0", &binding);
    let client = tap.into_client(&mac(5)).unwrap();

    let told = scene.udhcpc(&client, "").unwrap();
    for line in [
        "told: ip=10.66.1.5",
        "told: subnet=255.255.255.0",
        "told: router=10.66.1.1",
        "told: serverid=10.66.1.1",
        "told: domain=example.com",
        "told: hostname=snf-5",
        "told: mtu=1450",
        "told: lease=604800",
    ] {
        assert!(
            told.lines().any(|have| have == line),
            "{line} is not in\n{told}"
        );
    }
    ping(&client, "10.66.1.1");

    let address = wait_for_slaac(&client, "fd66:1:");
    assert_eq!(address, "fd66:1::a800:ff:fe00:5/64");
    ping(&client, "fd66:1::1");

    let advertisement = client.namespace.sh("rdisc6 -1 -r 3 -w 3000 eth0").unwrap();
    for text in ["fd66:1::/64", "1450 bytes", "from fe80::"] {
        assert!(
            advertisement.contains(text),
            "{text} is not in\n{advertisement}"
        );
    }
    scene.wait_for("DHCPREQUEST -> DHCPACK");
    scene.wait_for("RS -> RA");
}

#[test]
fn routed_dhclient_slaac_and_gateway() {
    let mut scene = Scene::new("routed");
    // Bindings that are there before the daemon, for interfaces that are there too.
    let tap = scene.routed("tap0");
    scene.bind("tap0", &Scene::routed_binding(5));
    scene.start("");
    // The routes that ifup makes.
    scene.host.ip("addr add 10.66.2.1/32 dev tap0").unwrap();
    scene.host.ip("route add 10.66.2.5/32 dev tap0").unwrap();
    scene.host.ip("-6 route add fd66:2::/64 dev tap0").unwrap();
    scene.host.ip("-6 addr add fd66:2::1/128 dev lo").unwrap();
    scene
        .host
        .sysctl("net.ipv6.conf.all.forwarding", "1")
        .unwrap();
    let client = tap.into_client(&mac(5)).unwrap();

    let told = scene.dhclient(&client, "").unwrap();
    assert!(told.contains("told: new_ip_address=10.66.2.5"), "{told}");
    assert!(told.contains("event: BOUND"), "{told}");
    assert!(told.contains("told: new_routers=10.66.2.1"), "{told}");
    ping(&client, "10.66.2.1");

    let address = wait_for_slaac(&client, "fd66:2:");
    assert_eq!(address, "fd66:2::a800:ff:fe00:5/64");
    // The gateway's address is nowhere on this link: nfdhcpd answers for it.
    ping(&client, "fd66:2::1");
    scene.wait_for("NS -> NA");
}

#[test]
fn an_interface_without_binding_is_left_alone_and_a_spoofer_gets_nothing() {
    let mut scene = Scene::new("unbound");
    scene.start("");
    let stranger = scene.bridged("tap0").into_client(&mac(7)).unwrap();
    let spoofer = scene.bridged("tap1").into_client(&mac(8)).unwrap();
    scene.bind("tap1", &Scene::bridged_binding(5));
    scene.wait_for("binding");
    assert!(scene.udhcpc(&stranger, "-t 2").is_err());
    assert!(scene.udhcpc(&spoofer, "-t 2").is_err());
    scene.wait_for("DHCPv4 dropped");
    assert!(scene.daemon().log().contains("reason=spoofed-mac"));
    assert!(
        !scene.daemon().log().contains("interface=\"tap0\""),
        "{}",
        scene.daemon().log()
    );
    // A second server on the bridge hears the stranger: the packets of unknown ports go on.
    let rules = scene.queued();
    assert!(rules.contains("tap1") && !rules.contains("tap0"), "{rules}");
}

#[test]
fn the_rules_go_with_the_daemon_and_come_back_when_flushed() {
    let mut scene = Scene::new("rules");
    scene.start("");
    let tap = scene.bridged("tap0");
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.wait_for("snf-5");
    scene.host.sh("nft flush ruleset").unwrap();
    scene.wait_for("putting them back");
    let client = tap.into_client(&mac(5)).unwrap();
    scene.udhcpc(&client, "").unwrap();
    let daemon = scene.daemon.take().unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
    assert_eq!(scene.host.sh("nft list ruleset").unwrap(), "");
}

#[test]
fn dhclient_gets_its_ipv6_address_and_the_rest() {
    let mut scene = Scene::new("dhcp6");
    scene.start("[ipv6]\nnameservers = [\"2001:db8::53\"]\n");
    let tap = scene.bridged("tap0");
    let mut binding = Scene::bridged_binding(5);
    binding.ip6 = Some("fd66:1::5:5".parse().unwrap());
    binding.domain = vec![
        "example.com".parse().unwrap(),
        "corp.example".parse().unwrap(),
    ];
    scene.bind("tap0", &binding);
    let client = tap.into_client(&mac(5)).unwrap();
    client.namespace.ip("link set eth0 up").unwrap();
    // dhclient asks from the link-local address, which must have passed duplicate detection.
    wait::until_true("a link-local address", wait::USUAL, || {
        let addresses = client
            .namespace
            .ip("-6 -o addr show dev eth0 scope link")
            .unwrap();
        addresses.contains("fe80") && !addresses.contains("tentative")
    })
    .unwrap();
    let told = scene.dhclient(&client, "-6").unwrap();
    for text in [
        "event: BOUND6",
        "told: new_ip6_address=fd66:1::5:5",
        "told: new_dhcp6_name_servers=2001:db8::53",
        "told: new_dhcp6_domain_search=example.com. corp.example.",
    ] {
        assert!(told.contains(text), "{text} is not in\n{told}");
    }
    ping(&client, "fd66:1::1");
    let told = scene.dhclient(&client, "-6 -S").unwrap();
    assert!(
        told.contains("told: new_dhcp6_name_servers=2001:db8::53"),
        "{told}"
    );
    scene.wait_for("Request -> Reply");
    scene.wait_for("Information-request -> Reply");
    // The advertisement says where addresses come from.
    let advertisement = client.namespace.sh("rdisc6 -1 -r 3 -w 3000 eth0").unwrap();
    for text in [
        "Stateful address conf.    :          Yes",
        "2001:db8::53",
        "corp.example",
    ] {
        assert!(
            advertisement.contains(text),
            "{text} is not in\n{advertisement}"
        );
    }
}
