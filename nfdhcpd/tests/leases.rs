//! Over time: leases are renewed and rebound, addresses change, guests use other clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::time::Duration;

use harness::process::Daemon;
use harness::tap::Client;
use harness::wait;
use scene::{Scene, mac};

fn ping(client: &Client, address: &str) {
    client
        .namespace
        .sh(&format!("ping -n -c 1 -W 10 {address}"))
        .unwrap();
}

/// Waits until `eth0` has an address or a route with this text.
fn wait_for(client: &Client, arguments: &str, text: &str) {
    let what = format!("{text} in ip {arguments}");
    wait::until(&what, wait::USUAL, || {
        let seen = client.namespace.ip(arguments).unwrap();
        let there = seen
            .lines()
            .any(|line| line.contains(text) && !line.contains("tentative"));
        if there {
            wait::Look::Done(())
        } else {
            wait::Look::NotYet(seen)
        }
    })
    .unwrap();
}

/// udhcpc that goes on running.
fn udhcpc(scene: &Scene, client: &Client) -> Daemon {
    client.namespace.ip("link set eth0 up").unwrap();
    let mut command = client.namespace.command("udhcpc");
    command.args([
        "-i", "eth0", "-f", "-R", "-t", "5", "-T", "1", "-A", "1", "-s",
    ]);
    command.arg(scene.client_script());
    Daemon::spawn("udhcpc", &mut command, &scene.scratch.join("udhcpc.log")).unwrap()
}

#[test]
fn a_lease_is_renewed_and_when_unicast_fails_rebound() {
    let mut scene = Scene::new("renew");
    scene.start("[dhcp]\nlease_seconds = 16\nrenew_seconds = 4\nrebind_seconds = 8\n");
    scene.bind("tap0", &Scene::bridged_binding(5));
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    let mut udhcpc = udhcpc(&scene, &client);
    udhcpc.wait_for_log("event: bound", wait::USUAL).unwrap();
    // Renewed from its address, unicast.
    udhcpc.wait_for_log("event: renew", wait::USUAL).unwrap();
    // A firewall in the guest that keeps unicast from the server: it must be rebound by broadcast.
    client
        .namespace
        .sh("nft add table inet t; nft add chain inet t o '{ type filter hook output priority 0; }'; \
             nft add rule inet t o ip daddr 10.66.1.1 drop")
        .unwrap();
    let renewals = |log: &str| log.matches("event: renew").count();
    let before = renewals(&udhcpc.log());
    wait::until_true("a lease that is rebound", wait::USUAL, || {
        renewals(&udhcpc.log()) > before
    })
    .unwrap();
    assert!(
        !udhcpc
            .log()
            .contains("event: deconfig\ntold: interface=eth0\nevent: deconfig")
    );
}

#[test]
fn a_guest_whose_address_was_changed_is_refused_and_takes_the_new_one() {
    let mut scene = Scene::new("change");
    scene.start("[dhcp]\nlease_seconds = 16\nrenew_seconds = 3\nrebind_seconds = 8\n");
    let mut binding = Scene::bridged_binding(5);
    scene.bind("tap0", &binding);
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    let mut udhcpc = udhcpc(&scene, &client);
    udhcpc.wait_for_log("event: bound", wait::USUAL).unwrap();
    binding.ip = Some("10.66.1.77".parse().unwrap());
    scene.bind("tap0", &binding);
    udhcpc.wait_for_log("event: nak", wait::USUAL).unwrap();
    wait_for(&client, "-o addr show dev eth0", "10.66.1.77/24");
    scene.wait_for("DHCPREQUEST -> DHCPNAK");
    ping(&client, "10.66.1.1");
}

#[test]
fn a_lease_survives_the_daemon_and_a_move_to_another_node() {
    // Another node is another host and another nfdhcpd, with the same binding.
    let (mut one, mut other) = (Scene::new("node1"), Scene::new("node2"));
    one.start("");
    other.start("");
    one.bind("tap0", &Scene::bridged_binding(5));
    other.bind("tap0", &Scene::bridged_binding(5));
    let here = one.bridged("tap0").into_client(&mac(5)).unwrap();
    let told = one.udhcpc(&here, "").unwrap();
    let there = other.bridged("tap0").into_client(&mac(5)).unwrap();
    let again = other.udhcpc(&there, "-r 10.66.1.5").unwrap();
    let server = |told: &str| {
        told.lines()
            .find(|line| line.starts_with("told: serverid="))
            .unwrap()
            .to_owned()
    };
    assert_eq!(server(&told), server(&again));
}

#[test]
fn a_gateway_outside_the_prefix_is_reached() {
    let mut scene = Scene::new("offlink");
    scene.start("");
    let tap = scene.routed("tap0");
    let mut binding = Scene::routed_binding(5);
    binding.subnet = Some("10.66.2.5/32".parse().unwrap());
    binding.gateway = Some("192.0.2.1".parse().unwrap());
    scene.bind("tap0", &binding);
    scene.host.ip("addr add 192.0.2.1/32 dev tap0").unwrap();
    scene.host.ip("route add 10.66.2.5/32 dev tap0").unwrap();
    let client = tap.into_client(&mac(5)).unwrap();
    let told = scene
        .udhcpc(&client, "-O staticroutes -O msstaticroutes")
        .unwrap();
    assert!(told.contains("told: subnet=255.255.255.255"), "{told}");
    assert!(
        told.contains("told: staticroutes=192.0.2.1/32 0.0.0.0 0.0.0.0/0 192.0.2.1"),
        "{told}"
    );
    ping(&client, "192.0.2.1");
    // And as dhcpcd does it, by itself.
    client
        .namespace
        .ip("addr flush dev eth0 scope global")
        .unwrap();
    dhcpcd(&client, "-4");
    wait_for(&client, "-4 route", "default via 192.0.2.1");
    ping(&client, "192.0.2.1");
}

/// Runs dhcpcd once; its files are in a mount namespace of its own. Returns `resolv.conf`.
fn dhcpcd(client: &Client, arguments: &str) -> String {
    let script = format!(
        "unshare --mount sh -eu -c '\
         mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib/dhcpcd; \
         touch /run/resolv.conf; mount --bind /run/resolv.conf /etc/resolv.conf; \
         dhcpcd -1 -d -t 20 --noarp {arguments} eth0 2>&1; echo ---; cat /etc/resolv.conf'"
    );
    client.namespace.ip("link set eth0 up").unwrap();
    let output = client.namespace.sh(&script).unwrap();
    output.split("---\n").last().unwrap().to_owned()
}

#[test]
fn dhcpcd_gets_address_mtu_and_search_list() {
    let mut scene = Scene::new("dhcpcd");
    scene.start("[dhcp]\nnameservers = [\"192.0.2.53\"]\n");
    let mut binding = Scene::bridged_binding(5);
    binding.mtu = Some(1400);
    binding.domain = vec![
        "example.com".parse().unwrap(),
        "corp.example.com".parse().unwrap(),
    ];
    scene.bind("tap0", &binding);
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    let resolv = dhcpcd(&client, "-4 -o interface_mtu");
    wait_for(&client, "-4 -o addr show dev eth0", "10.66.1.5/24");
    wait_for(&client, "-4 route", "default via 10.66.1.1 dev eth0");
    for text in ["nameserver 192.0.2.53", "example.com", "corp.example.com"] {
        assert!(resolv.contains(text), "{text} is not in\n{resolv}");
    }
    // The MTU that was told is the one of its routes or of its interface.
    let told =
        client.namespace.ip("route").unwrap() + &client.namespace.ip("link show eth0").unwrap();
    assert!(told.contains("mtu 1400"), "{told}");
    // A packet of that size passes, and one more byte does not without a fragment.
    client
        .namespace
        .sh("ping -n -c 1 -W 10 -M do -s 1372 10.66.1.1")
        .unwrap();
    assert!(
        client
            .namespace
            .sh("ping -n -c 1 -W 1 -M do -s 1373 10.66.1.1")
            .is_err()
    );
}

#[test]
fn dhcpcd_gets_its_ipv6_address_from_an_advertisement_and_dhcpv6() {
    let mut scene = Scene::new("dhcpcd6");
    scene.start("[ipv6]\nmode = \"dhcpv6\"\nnameservers = [\"2001:db8::53\"]\n");
    let mut binding = Scene::bridged_binding(5);
    binding.ip6 = Some("fd66:1::5:5".parse().unwrap());
    scene.bind("tap0", &binding);
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    let resolv = dhcpcd(&client, "-6");
    wait_for(&client, "-6 -o addr show dev eth0", "fd66:1::5:5/128");
    assert!(resolv.contains("2001:db8::53"), "{resolv}");
    ping(&client, "fd66:1::1");
}

#[test]
fn wide_dhcpv6_client_gets_an_address_of_its_own() {
    let mut scene = Scene::new("dhcp6c");
    scene.start("");
    let mut binding = Scene::bridged_binding(5);
    binding.ip6 = Some("fd66:1::5:5".parse().unwrap());
    scene.bind("tap0", &binding);
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    client.namespace.ip("link set eth0 up").unwrap();
    wait_for(&client, "-6 -o addr show dev eth0 scope link", "fe80::");
    let configuration = scene
        .scratch
        .write(
            "dhcp6c.conf",
            "interface eth0 { send ia-na 0; request domain-name-servers; };\nid-assoc na 0 { };\n",
        )
        .unwrap();
    let script = format!(
        "mount -t tmpfs tmpfs /var/lib/dhcpv6; mount -t tmpfs tmpfs /run; \
         exec dhcp6c -f -D -c {} eth0",
        configuration.display()
    );
    let mut command = client.namespace.command("unshare");
    command.args(["--mount", "sh", "-eu", "-c", &script]);
    let _dhcp6c = Daemon::spawn("dhcp6c", &mut command, &scene.scratch.join("dhcp6c.log")).unwrap();
    wait_for(&client, "-6 -o addr show dev eth0", "fd66:1::5:5/");
    ping(&client, "fd66:1::1");
}

#[test]
fn a_guest_with_stable_private_and_temporary_addresses_has_ipv6() {
    let mut scene = Scene::new("privacy");
    scene.start("");
    scene.bind("tap0", &Scene::bridged_binding(5));
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    // As NetworkManager and systemd-networkd set it up: no address comes from the MAC address.
    client
        .namespace
        .sysctl("net.ipv6.conf.eth0.stable_secret", "2001:db8::1")
        .unwrap();
    client
        .namespace
        .sysctl("net.ipv6.conf.eth0.use_tempaddr", "2")
        .unwrap();
    client.namespace.ip("link set eth0 up").unwrap();
    wait_for(&client, "-6 addr show dev eth0 scope global", "temporary");
    let addresses = client.namespace.ip("-6 addr show dev eth0").unwrap();
    assert!(!addresses.contains("ff:fe00:5"), "{addresses}");
    wait::until_ok("IPv6", wait::USUAL, || {
        client.namespace.sh("ping -n -c 1 -W 2 fd66:1::1")
    })
    .unwrap();
    scene.wait_for("RS -> RA");
    assert!(
        !scene.daemon().log().contains("dropped"),
        "{}",
        scene.daemon().log()
    );
}

#[test]
fn two_guests_each_get_their_own_even_with_the_same_client_identifier() {
    let mut scene = Scene::new("clones");
    scene.start("");
    for number in [5, 6] {
        scene.bind(&format!("tap{number}"), &Scene::bridged_binding(number));
        let client = scene
            .bridged(&format!("tap{number}"))
            .into_client(&mac(number))
            .unwrap();
        let told = scene
            .udhcpc(&client, "-x 0x3d:ff00000001000100011234567852540000")
            .unwrap();
        assert!(
            told.contains(&format!("told: ip=10.66.1.{number}")),
            "{told}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Serves `script` to whoever asks for `/boot.ipxe`, until `wanted` is asked for.
fn serve_until(listener: &std::net::TcpListener, script: &str, wanted: &str) -> anyhow::Result<()> {
    use std::io::{Read as _, Write as _};
    listener.set_nonblocking(true)?;
    let mut asked = Vec::new();
    wait::until(
        &format!("a request for {wanted}"),
        Duration::from_secs(120),
        || {
            let Ok((mut stream, _)) = listener.accept() else {
                return wait::Look::NotYet(format!("{asked:?}"));
            };
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let mut request = [0; 2048];
            let length = stream.read(&mut request).unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..length])
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            let answer = format!(
                "HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{script}",
                script.len()
            );
            let _ = stream.write_all(answer.as_bytes());
            let done = line.contains(wanted);
            asked.push(line);
            if done {
                wait::Look::Done(())
            } else {
                wait::Look::NotYet(format!("{asked:?}"))
            }
        },
    )
}

#[test]
fn ipxe_from_qemus_own_rom_boots_over_the_network() {
    let mut scene = Scene::new("ipxe");
    scene.start(
        "[[dhcp.boot]]\nuser_class = \"iPXE\"\nfile = \"http://10.66.1.1:8080/boot.ipxe\"\n",
    );
    let mut binding = Scene::bridged_binding(5);
    binding.hostname = "snf-5.example.com".to_owned();
    scene.bind("tap0", &binding);
    let listener = scene
        .host
        .run(|| Ok(std::net::TcpListener::bind("10.66.1.1:8080")?))
        .unwrap();
    let mut qemu = scene.host.command("qemu-system-x86_64");
    qemu.args([
        "-machine",
        &format!("pc,accel={}", harness::guest::accelerator()),
    ])
    .args(["-m", "256", "-nodefaults", "-display", "none", "-boot", "n"])
    .args(["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no"])
    .args([
        "-device",
        &format!("virtio-net-pci,netdev=n,mac={},bootindex=1", mac(5)),
    ]);
    let _qemu = Daemon::spawn("QEMU", &mut qemu, &scene.scratch.join("qemu.log")).unwrap();
    wait::until_ok("QEMU's TAP", wait::USUAL, || {
        scene.host.ip("link set tap0 master br0")
    })
    .unwrap();
    scene.host.ip("link set tap0 up").unwrap();
    // The script's first line runs only in iPXE, which says by the second what it was told.
    let script = "#!ipxe\nchain http://10.66.1.1:8080/booted-${net0/ip}-${net0/hostname}\n";
    serve_until(&listener, script, "/booted-10.66.1.5-snf-5").unwrap_or_else(|error| {
        panic!("{error:#}\n{}", scene.daemon().log());
    });
}

/// A binding with so many routes besides the default one.
fn binding_with_routes(count: u8) -> agents::binding::Binding {
    let mut binding = Scene::bridged_binding(5);
    binding.routes = (0..count)
        .map(|number| agents::binding::Route {
            destination: format!("172.16.{number}.0/24").parse().unwrap(),
            via: "10.66.1.9".parse().unwrap(),
        })
        .collect();
    binding
}

/// The routes of the guest through the router of its binding, and the default ones.
fn installed(client: &Client) -> (usize, Vec<String>) {
    let routes = client.namespace.ip("-4 route").unwrap();
    let own = routes
        .lines()
        .filter(|line| line.starts_with("172.16.") && line.contains("via 10.66.1.9"))
        .count();
    let default = routes
        .lines()
        .filter(|line| line.starts_with("default"))
        .map(str::to_owned)
        .collect();
    (own, default)
}

/// systemd-networkd for `eth0`, without a service manager.
fn networkd(scene: &Scene, client: &Client) -> Daemon {
    let script = "mount -t tmpfs tmpfs /run; mount -t sysfs -o ro sysfs /sys; \
         mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases \
         /run/systemd/netif/lldp; \
         printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=ipv4\\nIPv6AcceptRA=no\\n\
         LinkLocalAddressing=no\\n' > /run/systemd/network/10-eth0.network; \
         chown -R systemd-network /run/systemd/netif; \
         exec /lib/systemd/systemd-networkd";
    let mut command = client.namespace.command("unshare");
    command.args(["--mount", "sh", "-eu", "-c", script]);
    command.env("SYSTEMD_LOG_LEVEL", "debug");
    command.env("SYSTEMD_LOG_TARGET", "console");
    Daemon::spawn(
        "networkd",
        &mut command,
        &scene.scratch.join("networkd.log"),
    )
    .unwrap()
}

#[test]
fn sixty_routes_reach_real_clients_and_none_is_made_up() {
    let mut scene = Scene::new("routes");
    scene.start("");
    scene.bind("tap0", &binding_with_routes(60));
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();

    // dhcpcd and networkd take messages as long as the link does: all of them fit.
    dhcpcd(&client, "-4");
    wait_for(&client, "-4 route", "172.16.59.0/24");
    let (own, default) = installed(&client);
    assert_eq!((own, default.len()), (60, 1), "dhcpcd: {default:?}");
    assert!(default[0].contains("via 10.66.1.1"), "{default:?}");
    client.namespace.ip("addr flush dev eth0").unwrap();
    client
        .namespace
        .ip("route flush dev eth0 table main")
        .unwrap();

    let mut networkd = networkd(&scene, &client);
    wait::until("routes from networkd", wait::USUAL, || {
        let _ = networkd.still_runs();
        let (own, default) = installed(&client);
        if own == 60 && !default.is_empty() {
            wait::Look::Done(())
        } else {
            wait::Look::NotYet(format!("{own} {default:?}\n{}", networkd.log_tail()))
        }
    })
    .unwrap();
    let (_, default) = installed(&client);
    assert_eq!(default.len(), 1, "networkd: {default:?}");
    assert!(default[0].contains("via 10.66.1.1"), "{default:?}");
    drop(networkd);
    client.namespace.ip("addr flush dev eth0").unwrap();

    // dhclient takes 576 bytes: whole routes, as many as fit, and the log says how many do not.
    let told = scene.dhclient(&client, "").unwrap();
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("told: new_rfc3442_classless_static_routes="))
        .unwrap_or_else(|| panic!("{told}"));
    let numbers: Vec<&str> = line.split(' ').collect();
    // The default route is five numbers, the others are eight.
    assert_eq!((numbers.len() - 5) % 8, 0, "{line}");
    let came = (numbers.len() - 5) / 8;
    assert!((40..60).contains(&came), "{came}");
    scene.wait_for(&format!(
        "DHCPv4 option 121 (classless routes): {} of 61 items left out",
        60 - came
    ));
    let log = scene.daemon().log();
    let line = log.lines().find(|line| line.contains("left out")).unwrap();
    assert!(line.contains("tap0") && line.contains("snf-5"), "{line}");
}
