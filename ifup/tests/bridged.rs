//! Bridged NICs on a real bridge, with traffic through the TAP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use harness::tap::Tap;
use node::{Nic, Node, bridged, difference, with};

fn node_with_bridge() -> Node {
    let node = Node::new();
    node.namespace.ip("link add br0 type bridge").unwrap();
    node.namespace
        .ip("link set br0 address 02:00:00:00:00:01 mtu 1450 up")
        .unwrap();
    node.namespace.ip("addr add 10.66.1.1/24 dev br0").unwrap();
    node.namespace
        .ip("addr add fd66:1::1/64 dev br0 nodad")
        .unwrap();
    // A port that is always up, so that the bridge is.
    node.namespace
        .sh(
            "ip link add uplink type veth peer name wire; ip link set wire up
             ip link set uplink address 02:00:00:00:00:02 master br0 up",
        )
        .unwrap();
    node
}

#[test]
fn up_connects_again_changes_nothing_and_down_leaves_nothing() {
    let node = node_with_bridge();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    node.up(&bridged());
    let first = node.dump();
    node.up(&bridged());
    assert_eq!(difference(&first, &node.dump()), "");
    let link = node.namespace.ip("-d link show tap0").unwrap();
    for part in [
        "master br0",
        "mtu 1450",
        "link/ether fe:00:00:e1:87:fc",
        ",UP",
    ] {
        assert!(link.contains(part), "{part}: {link}");
    }
    let binding = std::fs::read_to_string(node.bindings().join("tap0")).unwrap();
    for line in [
        "INDEV=br0",
        "IP=10.66.1.7",
        "MAC=aa:00:00:e1:87:fc",
        "HOSTNAME=snf-1",
        "GATEWAY=10.66.1.1",
        "SUBNET=10.66.1.0/24",
        "GATEWAY6=fd66:1::1",
        "SUBNET6=fd66:1::/64",
        "EUI64=fd66:1::a800:ff:fee1:87fc",
        "MTU=1450",
    ] {
        assert!(
            binding.lines().any(|found| found == line),
            "{line}: {binding}"
        );
    }

    let client = tap.into_client("aa:00:00:e1:87:fc").unwrap();
    client
        .namespace
        .sh("ip addr add 10.66.1.7/24 dev eth0; ip link set eth0 up
             ip addr add fd66:1::a800:ff:fee1:87fc/64 dev eth0 nodad
             ping -c 1 -W 10 10.66.1.1; ping -c 1 -W 10 fd66:1::1")
        .unwrap();
    let after_traffic = node.namespace.ip("-o addr show dev tap0").unwrap();
    assert_eq!(after_traffic, "", "the host is no one on the guest's link");

    node.down("tap0");
    node.down("tap0");
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn a_binding_has_the_keys_that_the_configuration_says() {
    let node = Node::with_config(
        "[nfdhcpd]\nnameservers = ['192.0.2.53']\n\
         keys = { NO_ONLINK32 = 'yes', MTU = '1300' }\n\
         networks.net-br = { MTU = '1280', ROUTES = '192.0.2.0/24 via 10.66.1.2' }\n\
         networks.other = { MTU = '1290' }\n",
    );
    node.namespace
        .ip("link add br0 type bridge mcast_snooping 0")
        .unwrap();
    node.namespace.ip("link set br0 mtu 1450 up").unwrap();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    node.up(&bridged());
    let binding = agents::binding::load(&node.bindings().join("tap0")).unwrap();
    assert_eq!(binding.mtu, Some(1280));
    assert!(binding.no_onlink32);
    assert_eq!(binding.routes.len(), 1);
    assert_eq!(
        binding.nameservers,
        ["192.0.2.53".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn a_nic_without_a_network_is_connected_and_nfdhcpd_is_not_told() {
    let node = node_with_bridge();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let mut bare = bridged();
    bare.retain(|name, _| !name.starts_with("NETWORK") && name != "IP");
    node.up(&bare);
    let link = node.namespace.ip("link show tap0").unwrap();
    assert!(link.contains("master br0"), "{link}");
    assert!(!node.bindings().join("tap0").exists());
    node.down("tap0");
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_changed() {
    let node = node_with_bridge();
    node.namespace
        .ip("link add veth0 type veth peer name veth1")
        .unwrap();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    type Changes = &'static [(&'static str, &'static str)];
    let cases: [(Changes, i32, &str); 13] = [
        (&[("LINK", "br9")], 1, "LINK=br9: no such bridge"),
        (&[("LINK", "veth0")], 1, "LINK=veth0: not a bridge"),
        (
            &[("INTERFACE", "tap9")],
            1,
            "INTERFACE=tap9: no such interface",
        ),
        (&[("INTERFACE", "veth0")], 1, "INTERFACE=veth0: not a TAP"),
        (&[("MODE", "bridge")], 65, "MODE=\"bridge\": not a mode"),
        (
            &[("IP", "10.66.2.7")],
            65,
            "IP=\"10.66.2.7\": not in the network",
        ),
        (&[("LINK", "")], 65, "LINK is not set"),
        (
            &[("MAC", "aa:00:00:00:00:0g")],
            65,
            "MAC=\"aa:00:00:00:00:0g\": ",
        ),
        (&[("LINK", "br0\nbr1")], 65, "control character"),
        (
            &[("INTERFACE", "tap0123456789012")],
            65,
            "INTERFACE=\"tap0123456789012\": ",
        ),
        (
            &[("TAGS", "snf:nic:0:address:10.66.1")],
            65,
            "snf:nic:0:address:10.66.1",
        ),
        (
            &[("NETWORK_GATEWAY", "10.66.2.1")],
            65,
            "NETWORK_GATEWAY=\"10.66.2.1\": ",
        ),
        (&[("VLAN", ".5000")], 65, "VLAN=\".5000\": "),
    ];
    for (changes, status, text) in cases {
        let error = node.refused(&with(bridged(), changes), status);
        assert!(error.contains(text), "{error}");
        assert!(error.contains("(snf-1): "), "{error}");
        assert_eq!(difference(&bare, &node.dump()), "", "{error}");
    }
}

#[test]
fn a_failure_in_the_middle_leaves_the_state_as_it_was() {
    let node = node_with_bridge();
    let tap = Tap::new(&node.namespace, "tap0").unwrap();
    // The last step fails: the folder of bindings is read-only.
    std::fs::create_dir(node.bindings()).unwrap();
    let chattr = |flag: &str| {
        harness::process::check(
            std::process::Command::new("chattr")
                .arg(flag)
                .arg(node.bindings()),
            node::LIMIT,
        )
    };
    let bare = node.dump();
    if chattr("+i").is_err() {
        harness::skip(
            "a_failure_in_the_middle",
            "the file system has no immutable flag",
        );
        return;
    }
    let error = node.refused(&bridged(), 1);
    chattr("-i").unwrap();
    assert!(error.contains("bindings/tap0"), "{error}");
    assert_eq!(difference(&bare, &node.dump()), "");

    // The same when it was up already, as another instance's.
    let other = with(bridged(), &[("IP", "10.66.1.8"), ("INSTANCE", "snf-9")]);
    node.up(&other);
    let before = node.dump();
    chattr("+i").unwrap();
    node.refused(&bridged(), 1);
    chattr("-i").unwrap();
    assert_eq!(difference(&before, &node.dump()), "");
    drop(tap);
}

/// Whoever waits for another call is not made to wait for ever.
#[test]
fn a_call_that_waits_ends_by_its_deadline_or_a_signal_and_has_changed_nothing() {
    let node = Node::with_config("deadline_seconds = 1\n");
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    node.namespace.ip("link add br0 type bridge").unwrap();
    let bare = node.dump();
    let lock = std::fs::File::options()
        .write(true)
        .open(node.state().join(".lock"))
        .unwrap();
    lock.lock().unwrap();
    let error = node.refused(&bridged(), 1);
    assert!(
        error.contains("not done within 1 s: waiting for"),
        "{error}"
    );

    let config = std::fs::read_to_string(node.config()).unwrap();
    let patient = config.replace("deadline_seconds = 1\n", "deadline_seconds = 3600\n");
    std::fs::write(node.config(), patient).unwrap();
    let mut command = node.command(&["up"], &bridged());
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    // From when it has the file open, it waits, and heeds signals.
    let waits = format!("/proc/{pid}/fd");
    harness::wait::until_true("the call to wait", node::LIMIT, || {
        let mut open = std::fs::read_dir(&waits).unwrap().flatten();
        open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.ends_with(".lock")))
    })
    .unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("ended by SIGTERM before: waiting for"),
        "{said}"
    );
    drop(lock);
    assert_eq!(difference(&bare, &node.dump()), "");
    node.up(&bridged());
}

#[test]
fn a_dry_run_says_all_and_does_nothing() {
    let node = node_with_bridge();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    let output = node.run(&["up", "--dry-run"], &bridged());
    assert!(output.status.success(), "{output:?}");
    for part in [
        "link address fe:00:00:e1:87:fc mtu 1450 master br0",
        "binding INDEV=br0",
    ] {
        assert!(output.stdout.contains(part), "{output:?}");
    }
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn many_at_once_are_all_right() {
    let node = node_with_bridge();
    let taps: Vec<Tap> = (0..64)
        .map(|n| Tap::new(&node.namespace, &format!("tap{n}")).unwrap())
        .collect();
    let bare = node.dump();
    let each = |n: usize| -> Nic {
        with(
            bridged(),
            &[
                ("INTERFACE", &format!("tap{n}")),
                ("INSTANCE", &format!("snf-{n}")),
                ("IP", &format!("10.66.1.{}", n + 10)),
                ("MAC", &format!("aa:00:00:00:00:{n:02x}")),
            ],
        )
    };
    let all = |arguments: fn(usize) -> Vec<String>| {
        std::thread::scope(|scope| {
            for n in 0..taps.len() {
                let (node, nic) = (&node, each(n));
                scope.spawn(move || {
                    let arguments = arguments(n);
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    let output = node.run(&arguments, &nic);
                    assert!(output.status.success(), "{output:?}");
                });
            }
        });
    };
    all(|_| vec!["up".to_owned()]);
    let ports = node
        .namespace
        .sh("bridge link | grep -c 'master br0'")
        .unwrap();
    assert_eq!(ports.trim(), "65", "the guests and the uplink");
    let bindings = std::fs::read_dir(node.bindings()).unwrap().count();
    assert_eq!(bindings, 64);
    all(|n| vec!["down".to_owned(), format!("tap{n}")]);
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn ganeti_calls_it_by_its_links() {
    let node = node_with_bridge();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    // The configuration is not named on such a command line: it is where it always is, in a
    // mount namespace of the test's own.
    let link = node.folder.path().join("kvm-vif-bridge");
    let up = node.folder.path().join("network/bridged/up");
    let down = node.folder.path().join("network/bridged/down");
    std::fs::create_dir_all(up.parent().unwrap()).unwrap();
    for path in [&link, &up, &down] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_snf-ifup"), path).unwrap();
    }
    let run = |program: &std::path::Path, nic: &Nic| {
        let mut command = node.namespace.command("unshare");
        command.args(["--mount", "sh", "-euc"]);
        command.arg(
            "mount -t tmpfs none /etc/snf-agents 2>/dev/null || {
                 mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work
                 mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
                 mkdir -p /etc/snf-agents; }
             cp \"$1\" /etc/snf-agents/ifup.toml; exec \"$2\"",
        );
        command.arg("sh").arg(node.config()).arg(program);
        command.envs(nic);
        harness::process::run(&mut command, node::LIMIT).unwrap()
    };
    let bare = node.dump();
    let output = run(&link, &bridged());
    assert!(output.status.success(), "{output:?}");
    assert!(node.bindings().join("tap0").exists());
    let wrong = run(&up, &with(bridged(), &[("MODE", "routed")]));
    assert_eq!(wrong.status.code(), Some(65), "{wrong:?}");
    let wrong = run(&up, &with(bridged(), &[("ACTION", "down")]));
    assert_eq!(wrong.status.code(), Some(65), "{wrong:?}");
    let output = run(&up, &with(bridged(), &[("ACTION", "up")]));
    assert!(output.status.success(), "{output:?}");
    let output = run(&down, &with(bridged(), &[("ACTION", "down")]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(difference(&bare, &node.dump()), "");
}
