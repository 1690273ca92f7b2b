//! What this machine's kernel may lack: the state of connections on bridges, and bridges that
//! know VLANs. The node is a QEMU guest with Debian's cloud kernel, its guests are namespaces
//! in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use harness::guest::Guest;
use harness::netns::Netns;
use harness::node_image;
use harness::scratch::Scratch;

const COMMAND: Duration = Duration::from_secs(120);

/// What the node's kernel needs besides what the harness's guest has.
const MODULES: [&str; 11] = [
    "bridge",
    "8021q",
    "nf_tables",
    "nft_meta_bridge",
    "nft_ct",
    "nf_conntrack_bridge",
    "nft_limit",
    "sch_tbf",
    "af_packet",
    "tun",
    "veth",
];

/// Commands in the node, one after the other.
struct Node(Guest);

impl Node {
    fn run(&mut self, command: &str) -> String {
        let path = "PATH=/usr/local/bin:/bin";
        self.0
            .console
            .run(&format!("{path}; {command}"), COMMAND)
            .unwrap()
    }

    fn fails(&mut self, command: &str) -> bool {
        let inverted = format!("if ( {command} ) > /dev/null 2>&1; then echo ok; else echo no; fi");
        self.run(&inverted).trim() == "no"
    }

    /// Runs up for `tap0` with these variables besides the usual ones.
    fn up(&mut self, variables: &str) {
        self.run(&format!(
            "env INSTANCE=snf-1 MAC=aa:00:00:e1:87:fc MODE=bridged INTERFACE=tap0 \
             INTERFACE_INDEX=0 IP=10.66.1.7 LINK=br0 NETWORK_NAME=net \
             NETWORK_SUBNET=10.66.1.0/24 NETWORK_GATEWAY=10.66.1.1 \
             NETWORK_SUBNET6=fd66:1::/64 NETWORK_GATEWAY6=fd66:1::1 {variables} \
             snf-ifup up"
        ));
    }
}

#[test]
fn connections_and_vlans_on_debians_cloud_kernel() {
    let scratch = Scratch::new("cloud-kernel").unwrap();
    let ours = env!("CARGO_BIN_EXE_snf-ifup");
    let programs = [ours, "ip", "bridge", "nft", "socat"];
    let image = node_image::build(scratch.path(), &programs, &MODULES).unwrap();
    let host = Netns::new().unwrap();
    // This test is a process of its own.
    host.enter().unwrap();
    let mut node = Node(Guest::boot(&image, scratch.path(), &[]).unwrap());
    // The image looks after every NIC that appears: not on a node.
    node.run(
        "for p in /proc/[0-9]*; do n=${p#/proc/}; \
         if [ $n != 1 ] && tr '\\0' ' ' < $p/cmdline | grep -q '/init'; then kill $n; fi; done; true",
    );
    // By its path, since busybox's shell prefers its own ip.
    // The node's bridge, a neighbour behind a port of it, and the guest behind its TAP: the
    // TAP's frames go to another in the guest's namespace.
    for command in [
        "mkdir -p /etc /var/lib/snf-ifup /var/lib/nfdhcpd /tmp",
        "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        "/usr/local/bin/ip link add br0 type bridge mcast_snooping 0",
        "/usr/local/bin/ip link set br0 up",
        "unshare -n sleep 100000 & echo $! > /tmp/neighbour",
        "unshare -n sleep 100000 & echo $! > /tmp/guest",
        "sleep 1; /usr/local/bin/ip link add port type veth peer name eth0 netns $(cat /tmp/neighbour)",
        "/usr/local/bin/ip link set port master br0; /usr/local/bin/ip link set port up",
        // It stays if its process ends, which socat does when it has a frame for a TAP that is
        // down.
        "/usr/local/bin/ip tuntap add tap0 mode tap",
        "socat TUN,tun-type=tap,tun-name=tap0,iff-no-pi UNIX-SENDTO:/tmp/b,bind=/tmp/a \
         > /tmp/socat1 2>&1 &",
        "nsenter -t $(cat /tmp/guest) -n socat \
         TUN,tun-type=tap,tun-name=eth0,iff-no-pi UNIX-SENDTO:/tmp/a,bind=/tmp/b \
         > /tmp/socat2 2>&1 &",
        "for n in $(seq 300); do [ -e /tmp/a ] && [ -e /tmp/b ] && break; sleep 0.1; \
         done; [ -e /tmp/a ] && [ -e /tmp/b ] || { cat /tmp/socat1 /tmp/socat2; false; }",
        "nsenter -t $(cat /tmp/guest) -n /usr/local/bin/ip link set eth0 address aa:00:00:e1:87:fc",
        "nsenter -t $(cat /tmp/guest) -n /usr/local/bin/ip link set eth0 up",
        "nsenter -t $(cat /tmp/guest) -n /usr/local/bin/ip addr add 10.66.1.7/24 dev eth0",
        "nsenter -t $(cat /tmp/neighbour) -n /usr/local/bin/ip link set eth0 up",
        "nsenter -t $(cat /tmp/neighbour) -n /usr/local/bin/ip addr add 10.66.1.9/24 dev eth0",
        "nsenter -t $(cat /tmp/neighbour) -n socat UDP-LISTEN:9999,fork EXEC:cat \
         > /tmp/socat3 2>&1 &",
        "nsenter -t $(cat /tmp/guest) -n socat UDP-LISTEN:9999,fork EXEC:cat \
         > /tmp/socat4 2>&1 &",
    ] {
        node.run(command);
    }
    connections(&mut node);
    vlans(&mut node);
    a_place_in_a_vlan(&mut node);
    a_place_of_another_in_a_vlan(&mut node);
    node.0.kill();
}

/// The profile knows which packets are answers.
fn connections(node: &mut Node) {
    node.up("TAGS=synnefo:network:0:protected");
    let rules = node.run("nft list chain bridge snf to-protected");
    assert!(rules.contains("ct state"), "{rules}");
    let asks = |who: &str, address: &str| {
        format!(
            "echo hello | nsenter -t $(cat /tmp/{who}) -n socat -t 5 - UDP:{address}:9999 | grep hello"
        )
    };
    // An answer on any port comes in, which stateless rules could not tell.
    node.run(&asks("guest", "10.66.1.9"));
    assert!(node.fails(&asks("neighbour", "10.66.1.7")));
    node.up("TAGS=synnefo:network:0:unprotected");
    node.run(&asks("neighbour", "10.66.1.7"));
    node.run("snf-ifup check");
}

/// The port is of the VLANs that Ganeti says, and of no others.
fn vlans(node: &mut Node) {
    node.run("/usr/local/bin/ip link set br0 type bridge vlan_filtering 1");
    let shown = |node: &mut Node| {
        let text =
            node.run("bridge vlan show dev tap0 > /tmp/vlans < /dev/null; sed 1d /tmp/vlans; echo");
        let words: Vec<String> = text
            .lines()
            .map(|line| {
                let words = line.split_whitespace().filter(|word| *word != "tap0");
                words.collect::<Vec<_>>().join(" ")
            })
            .collect();
        words
    };
    for (vlan, wanted) in [
        (".10", &["10 PVID Egress Untagged"][..]),
        (":10:20", &["10", "20"]),
        (".30:20", &["20", "30 PVID Egress Untagged"]),
        (".10", &["10 PVID Egress Untagged"]),
    ] {
        node.up(&format!("VLAN={vlan}"));
        assert_eq!(shown(node), wanted, "{vlan}");
        node.run("snf-ifup check");
    }
    for damage in [
        "bridge vlan add dev tap0 vid 99",
        "bridge vlan del dev tap0 vid 10",
        "bridge vlan add dev tap0 vid 10 untagged",
    ] {
        node.run(damage);
        let found = node.run("snf-ifup check || true");
        assert!(
            found.contains("not as it was made: vlans .10"),
            "{damage}: {found}"
        );
        node.up("VLAN=.10");
        node.run("snf-ifup check");
    }
    // The neighbour is in the bridge's own VLAN 1, until it is in 10 as well.
    let ping = "nsenter -t $(cat /tmp/guest) -n ping -c 1 -W 3 10.66.1.9";
    assert!(node.fails(ping), "VLAN 1 is leaked");
    node.run("bridge vlan add dev port vid 10 pvid untagged");
    node.run(ping);
    node.run("snf-ifup down tap0");
    assert!(
        node.run("/usr/local/bin/ip link show tap0")
            .contains("DOWN")
    );
}

/// A guest's place in a VLAN is looked for, and taken back, in that VLAN.
fn a_place_in_a_vlan(node: &mut Node) {
    let places = |node: &mut Node| {
        let text = node
            .run("bridge fdb show br br0 > /tmp/places; grep aa:00:00:e1:87:fc /tmp/places; echo");
        let mut places: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| !line.is_empty())
            .collect();
        places.sort();
        places
    };
    let mac = "aa:00:00:e1:87:fc";
    // With any frame of its own it would be found here, as a guest that has arrived is.
    node.run(
        "nsenter -t $(cat /tmp/guest) -n sh -c \
         'echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6 && ip addr flush dev eth0' && sleep 2",
    );
    node.run("for v in \"\" \"vlan 10\"; do bridge fdb del aa:00:00:e1:87:fc dev tap0 master $v; done; true");
    // the guest is still behind the other port
    node.run(&format!(
        "bridge fdb replace {mac} dev port master dynamic vlan 10"
    ));
    let elsewhere = format!("{mac} dev port vlan 10 master br0");
    node.up("VLAN=.10");
    assert_eq!(
        places(node),
        [elsewhere.as_str()],
        "its place was taken too early"
    );
    node.run("snf-ifup check; snf-ifup down tap0");
    node.run(&format!("bridge fdb del {mac} dev port master vlan 10"));
    node.up("VLAN=.10");
    let here = |vlan: &str| format!("{mac} dev tap0 {vlan}sticky master br0 static");
    assert_eq!(places(node), [here(""), here("vlan 10 ")]);
    // it has moved away: its place in the VLAN, which is ours, is behind the other port
    node.run(&format!(
        "bridge fdb replace {mac} dev port master static vlan 10"
    ));
    node.run("snf-ifup down tap0");
    assert_eq!(places(node), [""; 0]);
}

/// Frames from another's address, to each reserved destination and to all, untagged and tagged: the
/// bridge learns from none of them in any VLAN.
fn a_place_of_another_in_a_vlan(node: &mut Node) {
    let gateway = "02:00:00:00:00:01";
    node.up("VLAN=.10");
    let inside = |command: &str| format!("nsenter -t $(cat /tmp/guest) -n {command}");
    let ip = |words: &str| inside(&format!("/usr/local/bin/ip {words}"));
    node.run(&ip("link set eth0 down"));
    node.run(&ip(&format!("link set eth0 address {gateway}")));
    node.run(&ip("link set eth0 up"));
    node.run(&ip("addr add 192.0.2.1/24 dev eth0"));
    node.run(&ip("link add link eth0 name tagged type vlan id 10"));
    node.run(&ip("link set tagged up"));
    node.run(&ip("addr add 198.51.100.1/24 dev tagged"));
    for last in 0..16 {
        let mac = format!("01:80:c2:00:00:{last:02x}");
        for (network, device) in [("192.0.2", "eth0"), ("198.51.100", "tagged")] {
            let host = last + 16;
            let entry = format!("{network}.{host} lladdr {mac} dev {device} nud permanent");
            node.run(&ip(&format!("neigh replace {entry}")));
        }
    }
    // The kernel addresses the frames as the neighbour entries say; the last is broadcast, by ARP.
    let send = "for net in 192.0.2 198.51.100; do for host in $(seq 16 31) 200; do \
                ping -c 1 -W 1 $net.$host > /tmp/ping 2>&1 & done; done; wait; true";
    let forge = inside(&format!("sh -c '{send}'"));
    let places = |node: &mut Node| {
        let text = node.run(&format!(
            "bridge fdb show br br0 > /tmp/places; grep {gateway} /tmp/places; echo"
        ));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut places: Vec<String> = text.lines().map(words).collect();
        places.retain(|line| !line.is_empty());
        places
    };
    let put_back = format!("bridge fdb replace {gateway} dev port master dynamic vlan 10");
    let there = format!("{gateway} dev port vlan 10 master br0");
    node.run(&put_back);
    node.run(&forge);
    assert_eq!(places(node), [there.as_str()]);
    node.run("snf-ifup check");
    // Without what prevents it the place is taken.
    node.run("bridge link set dev tap0 learning on");
    node.run("/usr/local/bin/ip link set br0 type bridge no_linklocal_learn 0");
    node.run(&forge);
    assert_eq!(
        places(node),
        [format!("{gateway} dev tap0 vlan 10 master br0")]
    );
    node.up("VLAN=.10");
    node.run(&put_back);
    node.run(&forge);
    assert_eq!(places(node), [there.as_str()]);
    node.run("snf-ifup check; snf-ifup down tap0");
}
