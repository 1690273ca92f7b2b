//! snf-ifup on both nodes of a real Ganeti cluster: a guest with a bridged and a routed NIC
//! migrates alive, there and back, while others talk to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::ganeti::Cluster;
use harness::guest::{BOOT, Image};
use harness::host::Host;
use harness::netns::Netns;
use harness::process::Daemon;
use harness::scratch::Scratch;
use harness::wait;

/// A slow and busy machine is given time.
const SLOW: Duration = Duration::from_secs(300);
const MINUTES: Duration = Duration::from_secs(120);
const BRIDGED: &str = "10.66.1.7";
const ROUTED: &str = "10.66.2.7";

fn gnt(cluster: &Cluster, command: &str) -> String {
    let output = cluster.gnt(command).unwrap();
    assert!(
        output.status.success(),
        "{command}: {}{}\n{}",
        output.stdout,
        output.stderr,
        cluster.log_tail()
    );
    output.stdout
}

/// A ping every 20 ms that says when each answer came.
struct Pings {
    daemon: Daemon,
    log: PathBuf,
}

impl Pings {
    fn start(scratch: &Scratch, from: &Netns, name: &str, address: &str) -> Self {
        let log = scratch.join(name);
        let mut ping: Command = from.command("ping");
        ping.args(["-n", "-D", "-i", "0.02", "-W", "1", address]);
        let daemon = Daemon::spawn("ping", &mut ping, &log).unwrap();
        Self { daemon, log }
    }

    /// Waits for so many answers more.
    fn wait_for_more(&self, more: usize) {
        let have = answers(&self.log).len();
        wait::until_true("answers to pings", MINUTES, || {
            answers(&self.log).len() >= have + more
        })
        .unwrap_or_else(|error| panic!("{error}: {}", harness::process::tail(&self.log, 5)));
    }

    /// The longest time without an answer, in milliseconds; the end of the pings.
    fn gap(self) -> f64 {
        self.daemon.kill();
        let times = answers(&self.log);
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.fold(0.0, f64::max) * 1000.0
    }
}

/// When answers came, in seconds.
fn answers(log: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(log).unwrap();
    let answers = text.lines().filter(|line| line.contains(" bytes from "));
    answers
        .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
        .collect()
}

/// What a node has of the guest. What the kernel has learned from frames is not of the node's
/// making, and ages.
fn traces(node: &Host) -> String {
    node.sh("ls -A /var/lib/snf-ifup /var/lib/nfdhcpd
         for family in -4 -6; do
             ip $family rule; ip $family route show table 100; ip $family neigh show proxy
             ip $family neigh show nud permanent
         done
         for table in bridge inet arp; do
             for set in $(nft list sets $table | awk '$1 == \"set\" {print $2}'); do
                 case $set in learned6|claimed6|pace6) continue ;; esac
                 nft list set $table snf $set
             done
         done
         bridge fdb show br br0 | grep ' static' || :")
        .unwrap()
}

fn migrate(
    scratch: &Scratch,
    cluster: &Cluster,
    routers: [(&Netns, &str, &str); 3],
    (from, to): (&Host, &Host),
) {
    let pings = routers.map(|(router, name, address)| {
        let log = format!("{name}-to-{}.log", to.name());
        (name, Pings::start(scratch, router, &log, address))
    });
    for (_, pings) in &pings {
        pings.wait_for_more(50);
    }
    gnt(
        cluster,
        &format!("gnt-instance migrate -f -n {} snf-1", to.name()),
    );
    for (name, pings) in pings {
        // it is there: not the answers from before
        pings.wait_for_more(100);
        println!(
            "GAP {name}, {} to {}: {:.0} ms",
            from.name(),
            to.name(),
            pings.gap()
        );
    }

    let list = to.sh("snf-ifup list").unwrap();
    assert!(list.contains(BRIDGED) && list.contains(ROUTED), "{list}");
    to.sh("snf-ifup check")
        .unwrap_or_else(|error| panic!("{} after the migration: {error:#}", to.name()));
    let there = traces(to);
    for trace in [BRIDGED, ROUTED, "fd66:1::", "tap0", "tap1"] {
        assert!(there.contains(trace), "{trace}: {there}");
    }
    // Ganeti tells the source nothing: the monitor has seen the TAPs vanish
    wait::until_ok("the source to be cleaned up", MINUTES, || {
        let here = traces(from);
        for trace in [BRIDGED, ROUTED, "ff:fe", "tap0", "tap1", "aa:00:00"] {
            anyhow::ensure!(!here.contains(trace), "{trace}: {here}");
        }
        Ok(())
    })
    .unwrap();
    from.sh("snf-ifup check").unwrap();
}

#[test]
fn a_guest_is_reached_while_it_moves_and_nothing_of_it_stays_behind() {
    // Open: once in three times the guest was not reached again after it had come back.
    if std::env::var_os("SNF_LIVE_MIGRATION").is_none() {
        let name = "a_guest_is_reached_while_it_moves_and_nothing_of_it_stays_behind";
        harness::skip(name, "runs if SNF_LIVE_MIGRATION is set");
        return;
    }
    let scratch = Scratch::new("live-migration").unwrap();
    let image = Image::build().unwrap();
    let cluster = Cluster::start(&scratch, &image, 2).unwrap();
    let [first, second] = &cluster.nodes[..] else {
        panic!("two nodes");
    };

    // the gateways of both networks, and what an operator prepares on each node, once
    let router = Netns::new().unwrap();
    router
        .sh("ip link add guests type bridge; ip link set guests up
             ip addr add 10.66.2.1/24 dev guests; ip addr add fd66:2::1/64 dev guests nodad")
        .unwrap();
    // one neighbour on each node of the bridged network
    let neighbours = [Netns::new().unwrap(), Netns::new().unwrap()];
    let program = harness::program("snf-ifup").unwrap();
    let mut monitors = Vec::new();
    for ((node, number), neighbour) in cluster.nodes.iter().zip(1..).zip(&neighbours) {
        let netns = node.netns();
        netns.veth("neighbour", neighbour, "eth0").unwrap();
        netns.ip("link set neighbour master br0").unwrap();
        neighbour
            .sh(&format!(
                "ip addr add 10.66.1.{number}/24 dev eth0; \
                 ip addr add fd66:1::{number}/64 dev eth0 nodad"
            ))
            .unwrap();
        let port = format!("node{number}");
        netns.veth("uplink", &router, &port).unwrap();
        router
            .ip(&format!("link set {port} master guests"))
            .unwrap();
        node.sh(&format!(
            "ip route add default via 10.66.2.1 dev uplink onlink table 100
             ip -6 route add fd66:2::1 dev uplink table 100
             ip -6 route add default via fd66:2::1 dev uplink onlink table 100
             sysctl -qw net.ipv4.conf.all.rp_filter=0
             mkdir -p /var/lib/nfdhcpd
             ln -s {} /usr/sbin/snf-ifup
             ln -s /usr/sbin/snf-ifup /etc/ganeti/kvm-vif-bridge",
            program.display()
        ))
        .unwrap();
        let mut command = node.command("snf-ifup");
        let log = scratch.join(&format!("monitor-{}.log", node.name()));
        monitors.push(
            node.daemon("snf-ifup monitor", command.arg("monitor"), &log)
                .unwrap(),
        );
    }

    for (name, mode, link, net, tags) in [
        ("bridged", "bridged", "br0", 1, "nfdhcpd"),
        ("routed", "routed", "100", 2, "nfdhcpd,ip-less-routed"),
    ] {
        gnt(
            &cluster,
            &format!(
                "gnt-network add --network=10.66.{net}.0/24 --gateway=10.66.{net}.1 \
                 --network6=fd66:{net}::/64 --gateway6=fd66:{net}::1 --tags={tags} {name}"
            ),
        );
        gnt(
            &cluster,
            &format!("gnt-network connect --nic-parameters=mode={mode},link={link} {name}"),
        );
    }
    let instance = format!(
        r#"{{"__version__":1,"mode":"create","name":"snf-1","disk_template":"diskless","disks":[],
        "nics":[{{"network":"bridged","ip":"{BRIDGED}"}},{{"network":"routed","ip":"{ROUTED}"}}],
        "os":"snf-image+default","ip_check":false,"name_check":false,"pnode":"node1.gnt.lab"}}"#
    );
    let job = cluster
        .rapi("POST", "/2/instances", Some(&instance))
        .unwrap();
    cluster
        .wait_for_job(job.as_u64().unwrap())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.log_tail()));
    let mut console = cluster.console(first, "snf-1").unwrap();
    console.wait_for_shell(BOOT).unwrap();
    // Nobody leases addresses here. What asks for them may start late, and takes ours away then.
    console
        .run_until(
            &format!(
                "killall -9 udhcpc; ip addr add {BRIDGED}/24 dev eth0; \
                 ip addr add {ROUTED}/32 dev eth1; ip route add 10.66.2.1 dev eth1; \
                 ping -c 1 -W 5 10.66.1.1 && ping -c 1 -W 5 10.66.2.1"
            ),
            SLOW,
        )
        .unwrap();
    drop(console);

    let others = [
        (&neighbours[0], "bridged, seen from node1", BRIDGED),
        (&neighbours[1], "bridged, seen from node2", BRIDGED),
        (&router, "routed", ROUTED),
    ];
    migrate(&scratch, &cluster, others, (first, second));
    migrate(&scratch, &cluster, others, (second, first));
    for monitor in &mut monitors {
        monitor.still_runs().unwrap();
    }
}
