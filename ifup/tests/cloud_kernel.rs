//! What this machine's kernel may lack: the state of connections on bridges, and bridges that
//! know VLANs. The node is a QEMU guest with Debian's cloud kernel, its guests are namespaces
//! in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::guest::{Guest, Image};
use harness::netns::Netns;
use harness::process;
use harness::scratch::Scratch;

const BUILD: Duration = Duration::from_secs(120);
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

/// The harness's image with snf-ifup, the programs of the test, their libraries, and modules.
fn image(scratch: &Scratch) -> Image {
    let image = Image::build().unwrap();
    let root = scratch.folder("root").unwrap();
    for folder in ["bin", "modules", "etc", "usr/local/bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let ours = Path::new(env!("CARGO_BIN_EXE_snf-ifup"));
    let stripped = root.join("usr/local/bin/snf-ifup");
    let mut strip = Command::new("strip");
    process::check(strip.arg("-o").arg(&stripped).arg(ours), BUILD).unwrap();
    for name in ["ip", "bridge", "nft", "socat"] {
        let script = format!("readlink -f \"$(command -v {name})\"");
        let found = process::check(
            Command::new("sh")
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .args(["-eu", "-c", &script]),
            BUILD,
        )
        .unwrap();
        let program = PathBuf::from(found.trim());
        fs::copy(&program, root.join("usr/local/bin").join(name)).unwrap();
        libraries(&program, &root);
    }
    libraries(ours, &root);
    modules(&root);
    // The kernel takes several archives one after the other.
    let initrd = scratch.join("initrd.img");
    let script = format!(
        "cd {} && find . | cpio -o -H newc --quiet | gzip -1 | cat {} - > {}",
        root.display(),
        image.initrd.display(),
        initrd.display()
    );
    process::check(Command::new("sh").args(["-eu", "-c", &script]), BUILD).unwrap();
    Image {
        kernel: image.kernel,
        initrd,
    }
}

/// Copies the libraries of a program to their own paths below `root`.
fn libraries(program: &Path, root: &Path) {
    let listed = process::check(Command::new("ldd").arg(program), BUILD).unwrap();
    for library in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let target = root.join(library.strip_prefix('/').unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(library, target).unwrap();
    }
}

fn modules(root: &Path) {
    let kernel = harness::target_dir().join("guest/kernel/root");
    let mut versions = fs::read_dir(kernel.join("lib/modules")).unwrap();
    let version = versions.next().unwrap().unwrap();
    let mut known: Vec<String> = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe
            .arg("-d")
            .arg(&kernel)
            .arg("-S")
            .arg(version.file_name());
        let list = process::check(modprobe.args(["--show-depends", module]), BUILD).unwrap();
        for line in list.lines() {
            let Some(path) = line.strip_prefix("insmod ").map(str::trim) else {
                continue;
            };
            if !known.contains(&path.to_owned()) {
                let name = Path::new(path).file_name().unwrap().to_str().unwrap();
                let number = 200 + known.len();
                fs::copy(path, root.join(format!("modules/{number}-{name}"))).unwrap();
                known.push(path.to_owned());
            }
        }
    }
}

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
    // The console loses a line now and then where the machine is busy: not for every run.
    if std::env::var_os("SNF_CLOUD_KERNEL").is_none() {
        let name = "connections_and_vlans_on_debians_cloud_kernel";
        harness::skip(name, "runs if SNF_CLOUD_KERNEL is set");
        return;
    }
    let scratch = Scratch::new("cloud-kernel").unwrap();
    let image = image(&scratch);
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
        "mkdir -p /var/lib/snf-ifup /var/lib/nfdhcpd /tmp",
        "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        "/usr/local/bin/ip link add br0 type bridge mcast_snooping 0",
        "/usr/local/bin/ip link set br0 up",
        "unshare -n sleep 100000 & echo $! > /tmp/neighbour",
        "unshare -n sleep 100000 & echo $! > /tmp/guest",
        "sleep 1; /usr/local/bin/ip link add port type veth peer name eth0 netns $(cat /tmp/neighbour)",
        "/usr/local/bin/ip link set port master br0; /usr/local/bin/ip link set port up",
        "socat TUN,tun-type=tap,tun-name=tap0,iff-no-pi UNIX-SENDTO:/tmp/b,bind=/tmp/a \
         > /tmp/socat1 2>&1 &",
        "nsenter -t $(cat /tmp/guest) -n socat \
         TUN,tun-type=tap,tun-name=eth0,iff-no-pi UNIX-SENDTO:/tmp/a,bind=/tmp/b \
         > /tmp/socat2 2>&1 &",
        "for n in $(seq 300); do [ -e /sys/class/net/tap0 ] && [ -e /tmp/b ] && break; sleep 0.1; \
         done; [ -e /sys/class/net/tap0 ] && [ -e /tmp/b ] || { cat /tmp/socat1 /tmp/socat2; false; }",
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
