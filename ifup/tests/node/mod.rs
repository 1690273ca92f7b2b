//! A node in a namespace, and the program run in it as Ganeti does.

#![allow(dead_code, missing_docs)] // each test file uses a part

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::netns::Netns;
use harness::process::{self, Output};
use harness::tap::Tap;
use ifup::guard::corpus::Cast;

pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Node {
    pub namespace: Netns,
    pub folder: tempfile::TempDir,
}

/// A NIC's variables.
pub type Nic = BTreeMap<String, String>;

pub fn nic(variables: &[(&str, &str)]) -> Nic {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The variables that Ganeti 3.0 set for a bridged NIC, as captured.
pub fn bridged() -> Nic {
    nic(&[
        ("INSTANCE", "snf-1"),
        ("MAC", "aa:00:00:e1:87:fc"),
        ("MODE", "bridged"),
        ("INTERFACE", "tap0"),
        ("INTERFACE_INDEX", "0"),
        ("INTERFACE_UUID", "55ef7b59-0918-45ef-b63d-c4266f7ab9bc"),
        ("TAGS", "synnefo:network:snf-nic-1:unprotected labtag"),
        ("IP", "10.66.1.7"),
        ("INTERFACE_NAME", "snf-nic-1"),
        ("LINK", "br0"),
        ("VLAN", ""),
        ("NETWORK_NAME", "net-br"),
        ("NETWORK_UUID", "3471be7d-0fa3-4fd3-a994-7758b2df3938"),
        ("NETWORK_TAGS", "nfdhcpd bridged"),
        ("NETWORK_SUBNET", "10.66.1.0/24"),
        ("NETWORK_GATEWAY", "10.66.1.1"),
        ("NETWORK_SUBNET6", "fd66:1::/64"),
        ("NETWORK_GATEWAY6", "fd66:1::1"),
        ("BRIDGE", "br0"),
    ])
}

/// The variables that Ganeti 3.0 set for a routed NIC, as captured.
pub fn routed() -> Nic {
    nic(&[
        ("INSTANCE", "snf-2"),
        ("MAC", "aa:00:00:5b:5f:d8"),
        ("MODE", "routed"),
        ("INTERFACE", "tap1"),
        ("INTERFACE_INDEX", "0"),
        ("INTERFACE_UUID", "21efaed6-059d-4f5a-b6a8-5c6848166c7b"),
        ("TAGS", ""),
        ("IP", "10.66.2.7"),
        ("INTERFACE_NAME", "snf-nic-2"),
        ("LINK", "100"),
        ("VLAN", ""),
        ("NETWORK_NAME", "net-rt"),
        ("NETWORK_UUID", "3fc3a3a8-12cd-4460-bb55-56184a7a9c26"),
        ("NETWORK_TAGS", "nfdhcpd ip-less-routed"),
        ("NETWORK_SUBNET", "10.66.2.0/24"),
        ("NETWORK_GATEWAY", "10.66.2.1"),
        ("NETWORK_SUBNET6", "fd66:2::/64"),
        ("NETWORK_GATEWAY6", "fd66:2::1"),
    ])
}

/// Who the guest of [`bridged`] is, and whom it might pretend to be.
pub fn bridged_cast() -> Cast {
    Cast {
        mac: "aa:00:00:e1:87:fc".parse().unwrap(),
        ipv4: "10.66.1.7".parse().unwrap(),
        ipv6: "fd66:1::a800:ff:fee1:87fc".parse().unwrap(),
        other_mac: "aa:00:00:00:00:09".parse().unwrap(),
        other_ipv4: "10.66.1.9".parse().unwrap(),
        other_ipv6: "fd66:1::a800:ff:fe00:9".parse().unwrap(),
        router_ipv4: "10.66.1.1".parse().unwrap(),
        router_ipv6: "fd66:1::1".parse().unwrap(),
    }
}

/// The same of the guest of [`routed`].
pub fn routed_cast() -> Cast {
    Cast {
        mac: "aa:00:00:5b:5f:d8".parse().unwrap(),
        ipv4: "10.66.2.7".parse().unwrap(),
        ipv6: "fd66:2::a800:ff:fe5b:5fd8".parse().unwrap(),
        other_ipv4: "10.66.2.9".parse().unwrap(),
        other_ipv6: "fd66:2::a800:ff:fe00:9".parse().unwrap(),
        router_ipv4: "10.66.2.1".parse().unwrap(),
        router_ipv6: "fd66:2::1".parse().unwrap(),
        ..bridged_cast()
    }
}

pub fn with(mut nic: Nic, changes: &[(&str, &str)]) -> Nic {
    for (name, value) in changes {
        nic.insert((*name).to_owned(), (*value).to_owned());
    }
    nic
}

/// The NIC of [`bridged`] on a port of Open vSwitch instead, in Ganeti's form of VLANs.
pub fn switched(vlan: &str) -> Nic {
    with(
        bridged(),
        &[
            ("MODE", "openvswitch"),
            ("LINK", "ovs0"),
            ("BRIDGE", ""),
            ("VLAN", vlan),
            ("TAGS", ""),
        ],
    )
}

impl Node {
    /// A port of `br0` that everything is flooded to.
    pub fn witness(&self) -> Tap {
        let witness = Tap::new(&self.namespace, "witness").unwrap();
        self.namespace
            .sh(
                "ip link set witness addrgenmode none; ip link set witness master br0
                 ip link set witness up",
            )
            .unwrap();
        witness
    }

    pub fn new() -> Self {
        Self::with_config("")
    }

    /// With more lines in the configuration.
    pub fn with_config(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            namespace: Netns::new().unwrap(),
            folder,
        };
        let config = format!(
            "state = {:?}\nbindings = {:?}\n{lines}",
            node.state(),
            node.bindings()
        );
        fs::write(node.config(), config).unwrap();
        // Our filters stay; what NICs put into them does not.
        let output = node.run(&["restore"], &Nic::new());
        assert!(output.status.success(), "{output:?}");
        node
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn bindings(&self) -> PathBuf {
        self.folder.path().join("bindings")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("ifup.toml")
    }

    /// A command line of the program in the node, with these variables and no others.
    pub fn command(&self, arguments: &[&str], nic: &Nic) -> Command {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_snf-ifup"));
        command.arg("--config").arg(self.config());
        command.args(arguments).env_clear().envs(nic);
        command.env("PATH", "/nonexistent");
        command
    }

    pub fn run(&self, arguments: &[&str], nic: &Nic) -> Output {
        process::run(&mut self.command(arguments, nic), LIMIT).unwrap()
    }

    pub fn up(&self, nic: &Nic) {
        let output = self.run(&["up"], nic);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, "", "{output:?}");
        assert_eq!(output.stdout, "", "{output:?}");
    }

    pub fn down(&self, interface: &str) {
        let output = self.run(&["down", interface], &Nic::new());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, "", "{output:?}");
    }

    /// Fails with one line, which is returned without the program's name.
    pub fn refused(&self, nic: &Nic, status: i32) -> String {
        let output = self.run(&["up"], nic);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{output:?}");
        lines[0].strip_prefix("snf-ifup: ").unwrap().to_owned()
    }

    /// All that `ip`, `bridge`, `nft` and the folders show, less what changes by itself, and
    /// what the kernel makes of its own accord.
    pub fn dump(&self) -> String {
        let mut last = self.dump_once();
        harness::wait::until_true("the kernel to settle", LIMIT, || {
            std::thread::sleep(Duration::from_millis(50));
            let next = self.dump_once();
            let settled = next == last && !next.contains("tentative");
            last = next;
            settled
        })
        .unwrap();
        last
    }

    fn dump_once(&self) -> String {
        let tools = self
            .namespace
            .sh("
            for family in -4 -6; do
                ip $family rule; ip $family route show table all; ip $family neigh show nud all
                ip $family neigh show proxy
            done
            ip addr; ip -d link; bridge -d link; bridge fdb; bridge vlan; nft list ruleset
            for tap in /proc/sys/net/*/conf/tap* /proc/sys/net/*/neigh/tap*; do
                [ -d $tap ] || continue
                grep -H . $tap/* 2>/dev/null |
                    grep -v -e stable_secret -e retrans_time_ms -e reachable_time
            done
            ")
            .unwrap();
        let mut lines: Vec<String> = tools
            .lines()
            // Multicast addresses that the host hears, neighbours it has found.
            // An interface that forwards has the routers' anycast addresses.
            .filter(|line| !line.starts_with("anycast "))
            .filter(|line| !line.starts_with("33:33:") && !line.starts_with("01:00:5e:"))
            .filter(|line| {
                !line.ends_with("NOARP") && !line.contains(" lladdr ")
                    || line.ends_with("PERMANENT")
            })
            .map(|line| {
                // Timers, and what stays of having been up once.
                let words = line.split_whitespace().collect::<Vec<_>>();
                let mut kept = Vec::new();
                let mut skip = false;
                for word in words {
                    if skip {
                        skip = false;
                    } else if word.ends_with("_timer") || ["qdisc", "tso_max_size"].contains(&word)
                    {
                        skip = true;
                    } else {
                        kept.push(word);
                    }
                }
                kept.join(" ")
            })
            .collect();
        for folder in [self.state(), self.bindings()] {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().into_string().unwrap();
                let empty =
                    fs::read_dir(entry.path()).is_ok_and(|mut found| found.next().is_none());
                if name != ".lock" && !empty {
                    lines.push(format!("file {}", entry.path().display()));
                }
            }
        }
        lines.join("\n")
    }
}

/// What differs, line by line.
pub fn difference(before: &str, after: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let mut found = String::new();
    for line in &before {
        if !after.contains(line) {
            found.push_str(&format!("- {line}\n"));
        }
    }
    for line in &after {
        if !before.contains(line) {
            found.push_str(&format!("+ {line}\n"));
        }
    }
    found
}
