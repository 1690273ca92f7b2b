//! Real DHCP clients as victims of a guest that plays their server from an odd port: no lease
//! of it is taken, bridged, routed or in a private network, and the clients' own messages pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agents::addr::{self, MacAddr};
use harness::process;
use harness::tap::{Client, Tap};
use ifup::guard::frame::{Ipv4, ethernet, ipv4, ipv6, udp};
use node::{LIMIT, Nic, Node, bridged, routed, with};

const THIEF: &str = "aa:00:00:00:00:05";
/// The port that the false server sends from (RFC 863).
const ODD_PORT: u16 = 9;
const OFFERED4: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 200);
const OFFERED6: Ipv6Addr = Ipv6Addr::new(0xfd66, 1, 0, 0, 0, 0, 0, 0xbad);

fn thief() -> Nic {
    with(
        bridged(),
        &[
            ("INTERFACE", "tap2"),
            ("INSTANCE", "snf-5"),
            ("IP", "10.66.1.5"),
            ("MAC", THIEF),
        ],
    )
}

/// An answer to a client's DHCPv4 message, from the odd port; none if it is none.
fn answer4(frame: &[u8], from: u16) -> Option<Vec<u8>> {
    let message = frame.get(42..)?;
    if frame.get(12..14)? != [0x08, 0x00] || frame.get(34..38)? != [0, 68, 0, 67] {
        return None;
    }
    let kind = option4(message.get(240..)?, 53)?;
    let mut answer = message.get(..240)?.to_vec();
    answer[0] = 2;
    answer[16..20].copy_from_slice(&OFFERED4.octets());
    answer.extend([53, 1, if kind == 1 { 2 } else { 5 }]);
    answer.extend([54, 4, 10, 66, 1, 5, 51, 4, 0, 0, 14, 16]);
    answer.extend([1, 4, 255, 255, 255, 0, 3, 4, 10, 66, 1, 5, 255]);
    let own = Ipv4Addr::new(10, 66, 1, 5);
    let datagram = udp(from, 68, &answer, None);
    let to = Ipv4Addr::BROADCAST;
    let packet = ipv4(own, to, 17, &datagram, &Ipv4::default());
    Some(ethernet(
        MacAddr::BROADCAST,
        THIEF.parse().unwrap(),
        0x0800,
        &packet,
    ))
}

/// The first byte of an option.
fn option4(mut options: &[u8], wanted: u8) -> Option<u8> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [255, ..] | [] | [_] => return None,
            [kind, length, rest @ ..] => {
                if *kind == wanted {
                    return rest.first().copied();
                }
                options = rest.get(usize::from(*length)..)?;
            }
        }
    }
}

/// The same of DHCPv6: an Advertise to a Solicit, a Reply to a Request.
fn answer6(frame: &[u8], from: u16) -> Option<Vec<u8>> {
    if frame.get(12..14)? != [0x86, 0xdd] || frame.get(54..58)? != [2, 34, 2, 35] {
        return None;
    }
    let message = frame.get(62..)?;
    let mut answer = vec![if message[0] == 1 { 2 } else { 7 }];
    answer.extend(message.get(1..4)?);
    // Server identifier: a DUID of link-layer address.
    let thief: MacAddr = THIEF.parse().unwrap();
    answer.extend([0, 2, 0, 10, 0, 3, 0, 1]);
    answer.extend(thief.octets());
    let mut options = message.get(4..)?;
    while let [a, b, c, d, rest @ ..] = options {
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let value = rest.get(..length)?;
        match (*a, *b) {
            (0, 1) => answer.extend(&options[..4 + length]),
            (0, 3) => {
                answer.extend([0, 3, 0, 40]);
                answer.extend(&value[..4]);
                answer.extend([0, 0, 7, 8, 0, 0, 14, 16]);
                answer.extend([0, 5, 0, 24]);
                answer.extend(OFFERED6.octets());
                answer.extend([0, 0, 14, 16, 0, 0, 28, 32]);
            }
            _ => {}
        }
        options = &rest[length..];
    }
    let victim: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
    let victim_mac = MacAddr::new(frame.get(6..12)?.try_into().ok()?);
    let own = addr::link_local(thief);
    let datagram = udp(from, 546, &answer, Some((own, victim.into())));
    let packet = ipv6(own, victim.into(), 17, 64, &datagram);
    Some(ethernet(victim_mac, thief, 0x86dd, &packet))
}

struct Scene {
    _node: Node,
    victim: Client,
    thief: Tap,
}

fn scene(config: &str, private: bool) -> Scene {
    let node = Node::with_config(config);
    node.namespace
        .sh("ip link add br0 type bridge mcast_snooping 0
             ip link set br0 addrgenmode none; ip link set br0 up")
        .unwrap();
    let guest = Tap::new(&node.namespace, "tap0").unwrap();
    let thief_tap = Tap::new(&node.namespace, "tap2").unwrap();
    let of_network = |nic: Nic| {
        if !private {
            return nic;
        }
        // Nothing is known of its addresses.
        let mut nic = with(nic, &[("NETWORK_TAGS", "nfdhcpd private-filtered")]);
        for name in [
            "IP",
            "NETWORK_SUBNET",
            "NETWORK_GATEWAY",
            "NETWORK_SUBNET6",
            "NETWORK_GATEWAY6",
        ] {
            nic.remove(name);
        }
        nic
    };
    for nic in [bridged(), thief()] {
        node.up(&of_network(nic));
    }
    let victim = guest.into_client("aa:00:00:e1:87:fc").unwrap();
    victim
        .namespace
        .sh("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up")
        .unwrap();
    Scene {
        _node: node,
        victim,
        thief: thief_tap,
    }
}

/// Runs a client while the thief answers it from a port; whether the client took a lease, and
/// how many of its messages the thief heard.
fn robbed(scene: &Scene, client: &str, folder: &Path, from: u16) -> (bool, usize) {
    let stop = AtomicBool::new(false);
    let heard = AtomicUsize::new(0);
    let script = folder.join("script");
    let taken = folder.join("taken");
    let _ = std::fs::remove_file(&taken);
    let text = format!(
        "#!/bin/sh\ncase \"${{reason:-$1}}\" in\nbound|BOUND|BOUND6) echo yes > {} ;; esac\n\
         case \"$reason\" in PREINIT*) ip link set eth0 up ;; esac\nexit 0\n",
        taken.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = folder.display();
    std::fs::write(
        format!("{folder}/dhclient.conf"),
        "timeout 4; initial-interval 1;\n",
    )
    .unwrap();
    std::fs::write(
        format!("{folder}/dhcpcd.conf"),
        "noipv6rs\nia_na 1\nnoarp\nduid\noption rapid_commit\n",
    )
    .unwrap();
    // dhcpcd keeps its files in fixed places: here in a mount namespace of its own.
    let dhcpcd = |family: &str| {
        format!(
            "unshare -m sh -c 'mount --make-rprivate /; mount -t tmpfs x /run
             mkdir -p /var/lib/dhcpcd /run/dhcpcd; mount -t tmpfs x /var/lib/dhcpcd
             timeout -s KILL 8 dhcpcd {family} -B -1 -t 5 --noarp -c {folder}/script \
             -f {folder}/dhcpcd.conf eth0' || true"
        )
    };
    let dhclient = |family: &str| {
        format!(
            "timeout -s KILL 8 dhclient {family} -1 -d -cf {folder}/dhclient.conf \
             -lf {folder}/leases{family} -pf {folder}/pid -sf {folder}/script eth0 || true"
        )
    };
    let command = match client {
        "udhcpc" => format!("udhcpc -i eth0 -n -q -f -t 4 -T 1 -s {folder}/script || true"),
        "dhclient" => dhclient("-4"),
        "dhclient6" => dhclient("-6"),
        "dhcpcd" => dhcpcd("-4"),
        "dhcpcd6" => dhcpcd("-6"),
        other => panic!("{other}"),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let Some(frame) = scene.thief.receive(Duration::from_millis(50)).unwrap() else {
                    continue;
                };
                if let Some(answer) = answer4(&frame, from).or_else(|| answer6(&frame, from)) {
                    heard.fetch_add(1, Ordering::Relaxed);
                    scene.thief.send(&answer).unwrap();
                }
            }
        });
        let mut shell = scene.victim.namespace.command("sh");
        shell.args(["-c", &command]);
        let output = process::run(&mut shell, LIMIT).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{output:?}");
    });
    (taken.exists(), heard.load(Ordering::Relaxed))
}

const CLIENTS: [&str; 5] = ["udhcpc", "dhclient", "dhcpcd", "dhclient6", "dhcpcd6"];

fn is_there(client: &str) -> bool {
    let program = client.trim_end_matches('6');
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    if !found {
        println!("left out: {program} is not installed");
    }
    found
}

#[test]
fn no_client_takes_a_lease_from_another_guest() {
    let folder = tempfile::tempdir().unwrap();
    for (private, port) in [(false, ODD_PORT), (true, ODD_PORT)] {
        let scene = scene("", private);
        for client in CLIENTS.into_iter().filter(|client| is_there(client)) {
            let (taken, heard) = robbed(&scene, client, folder.path(), port);
            assert!(heard > 0, "{client}: its own messages pass");
            assert!(!taken, "{client} took the lease, private {private}");
        }
    }
}

#[test]
fn without_the_guard_clients_do_take_it() {
    // So that the test above cannot pass for another reason.
    let folder = tempfile::tempdir().unwrap();
    let scene = scene("[guard]\nenabled = false\n", false);
    for client in CLIENTS.into_iter().filter(|client| is_there(client)) {
        let (taken, _) = robbed(&scene, client, folder.path(), ODD_PORT);
        assert!(taken, "{client} did not take the lease");
    }
}

/// The datagrams of a guest and from outside that arrive at a routed guest.
#[test]
fn nothing_comes_to_the_client_of_a_routed_guest_but_from_its_host() {
    let node = Node::new();
    let wire = Tap::new(&node.namespace, "up0").unwrap();
    node.namespace
        .sh("ip link set up0 addrgenmode none; ip link set up0 up
             ip route add 10.66.2.0/24 dev up0 table 100
             ip -6 route add fd66:2::/64 dev up0 table 100
             echo 1 > /proc/sys/net/ipv4/conf/all/forwarding
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip rule add to 10.66.2.0/24 lookup 100; ip -6 rule add to fd66:2::/64 lookup 100")
        .unwrap();
    let host: MacAddr = {
        let link = node.namespace.ip("link show up0").unwrap();
        let mut words = link
            .split_whitespace()
            .skip_while(|word| *word != "link/ether");
        words.nth(1).unwrap().parse().unwrap()
    };
    let victim = Tap::new(&node.namespace, "tap1").unwrap();
    let thief = Tap::new(&node.namespace, "tap3").unwrap();
    let thief_mac: MacAddr = THIEF.parse().unwrap();
    node.up(&with(
        routed(),
        &[
            ("INTERFACE", "tap3"),
            ("INSTANCE", "snf-5"),
            ("IP", "10.66.2.5"),
            ("MAC", THIEF),
        ],
    ));
    let router: MacAddr = "fe:53:4e:46:00:01".parse().unwrap();
    let outside: MacAddr = "aa:00:00:00:00:09".parse().unwrap();
    let thief6 = addr::in_prefix("fd66:2::/64".parse().unwrap(), thief_mac).unwrap();
    let victim6: Ipv6Addr = "fd66:2::a800:ff:fe5b:5fd8".parse().unwrap();
    let packet4 = |source: &str, from, to| {
        let datagram = udp(from, to, &[7; 20], None);
        let to = "10.66.2.7".parse().unwrap();
        ipv4(source.parse().unwrap(), to, 17, &datagram, &Ipv4::default())
    };
    let packet6 = |source: Ipv6Addr, from, to| {
        let datagram = udp(from, to, &[7; 20], Some((source, victim6)));
        ipv6(source, victim6, 17, 64, &datagram)
    };
    let open = "synnefo:network:0:unprotected";
    let whole = "gnt:isolate gnt:whitelist_ip:10.66.2.8 gnt:whitelist_ip:fd66:2::8";
    let protected = "synnefo:network:0:protected";
    for (tags, from_outside) in [(open, true), (protected, false), (whole, false)] {
        node.up(&with(routed(), &[("TAGS", tags)]));
        let mut mark = 0;
        let mut arrives = |tap: &Tap, frame: &[u8]| {
            mark += 1;
            tap.send(frame).unwrap();
            // From an address of the list, by a protocol that no profile stops.
            let echo = ifup::guard::frame::icmp(0, &[mark; 8]);
            let mark = ipv4(
                "10.66.2.8".parse().unwrap(),
                "10.66.2.7".parse().unwrap(),
                1,
                &echo,
                &Ipv4::default(),
            );
            wire.send(&ethernet(host, outside, 0x0800, &mark)).unwrap();
            let mut seen = false;
            loop {
                let got = victim.receive(LIMIT).unwrap().expect("the mark");
                if got.get(34..) == Some(&echo[..]) {
                    return seen;
                }
                let udp4 = got.get(12..14) == Some(&[8, 0]) && got.get(23) == Some(&17);
                let udp6 = got.get(12..14) == Some(&[0x86, 0xdd]) && got.get(20) == Some(&17);
                seen |= udp4 || udp6;
            }
        };
        for from in [ODD_PORT, 67, 68] {
            let frame = ethernet(router, thief_mac, 0x0800, &packet4("10.66.2.5", from, 68));
            assert!(!arrives(&thief, &frame), "{tags}: {from} to 68");
        }
        for from in [ODD_PORT, 547, 546] {
            let frame = ethernet(router, thief_mac, 0x86dd, &packet6(thief6, from, 546));
            assert!(!arrives(&thief, &frame), "{tags}: {from} to 546");
        }
        for from in [ODD_PORT, 67] {
            let frame = ethernet(host, outside, 0x0800, &packet4("10.66.2.9", from, 68));
            assert_eq!(arrives(&wire, &frame), from_outside, "{tags}: outside");
        }
        let other6 = "fd66:2::9".parse().unwrap();
        for from in [ODD_PORT, 547] {
            let frame = ethernet(host, outside, 0x86dd, &packet6(other6, from, 546));
            assert_eq!(arrives(&wire, &frame), from_outside, "{tags}: outside");
        }
        if from_outside {
            // So that nothing of the above is lost for another reason.
            let frame = ethernet(router, thief_mac, 0x0800, &packet4("10.66.2.5", 9, 69));
            assert!(arrives(&thief, &frame));
            let frame = ethernet(router, thief_mac, 0x86dd, &packet6(thief6, 9, 547));
            assert!(arrives(&thief, &frame));
        }
    }
}
