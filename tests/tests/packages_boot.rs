//! The Debian packages on a machine that systemd has booted on Debian's cloud kernel: services
//! under their sandbox, a guest's network by the kernel's own `queue`, job files to a broker;
//! upgrade, downgrade, remove and purge with that guest running. One boot, many looks: without
//! KVM a boot takes a minute.

#![allow(clippy::unwrap_used, clippy::panic)] // its helpers are outside of #[test] functions

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::debian::{Machine, Packages};
use harness::scratch::Scratch;
use harness::source_root;

const INSTALL: &str = "apt-get install -y -q --no-install-recommends --allow-downgrades";
const PACKAGES: &str =
    "snf-ganeti-node snf-ganeti-eventd snf-ganeti-hooks snf-ifup nfdhcpd snf-central";
const SERVICES: [&str; 4] = [
    "nfdhcpd",
    "snf-ganeti-eventd",
    "snf-ifup-monitor",
    "snf-central",
];

/// What is slow under TCG: RabbitMQ's start.
const BROKER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(120);

/// What Ganeti 3.0 says of a bridged NIC, as a shell's assignments.
const NIC: &str = "INSTANCE=snf-1 MAC=aa:00:00:00:00:07 MODE=bridged INTERFACE=tap0 INTERFACE_INDEX=0 \
    INTERFACE_UUID=55ef7b59-0918-45ef-b63d-c4266f7ab9bc INTERFACE_NAME=snf-nic-1 TAGS= VLAN= LINK=br0 \
    BRIDGE=br0 IP=10.66.1.7 NETWORK_NAME=net-br NETWORK_UUID=3471be7d-0fa3-4fd3-a994-7758b2df3938 \
    NETWORK_TAGS='nfdhcpd bridged' NETWORK_SUBNET=10.66.1.0/24 NETWORK_GATEWAY=10.66.1.1 \
    NETWORK_SUBNET6=fd66:1::/64 NETWORK_GATEWAY6=fd66:1::1";

/// What udhcpc runs in the guest.
const LEASE: &str = "#!/bin/sh
case $1 in
deconfig) ip -4 addr flush dev $interface; ip link set $interface up ;;
bound|renew) ip -4 addr flush dev $interface; ip addr add $ip/$mask dev $interface; ip link set $interface mtu ${mtu:-1500} ;;
esac
";

/// Fills what the machine sees at `/mnt`.
fn fill(share: &Path) {
    for (folder, version) in [("now", None), ("later", Some("0.1.0+later"))] {
        let packages = Packages::build(version).unwrap();
        fs::create_dir_all(share.join(folder)).unwrap();
        for file in packages.files().unwrap() {
            fs::copy(&file, share.join(folder).join(file.file_name().unwrap())).unwrap();
        }
    }
    let captured = source_root().join("agents/testdata");
    for file in ["job-7.success.json", "config.data"] {
        fs::copy(captured.join(file), share.join(file)).unwrap();
    }
    let hook = fs::read_to_string(captured.join("hook-instance-add-post.json")).unwrap();
    let hook: BTreeMap<String, String> = serde_json::from_str(&hook).unwrap();
    let mut script = "exec env -i".to_owned();
    for (name, value) in hook {
        write!(script, " '{name}={value}'").unwrap();
    }
    script.push_str(" /etc/ganeti/hooks/instance-add-post.d/snf-ganeti-hook\n");
    fs::write(share.join("hook"), script).unwrap();
    fs::write(share.join("lease"), LEASE).unwrap();
    fs::write(share.join("line"), "cat; echo\n").unwrap();
}

/// Puts a version of job 7 into the queue as Ganeti does: under another name first.
fn put_job(machine: &mut Machine, job: u32) {
    let queue = "/var/lib/ganeti/queue";
    machine
        .run(&format!(
            "sed 's/\"id\": 7,/\"id\": {job},/' /mnt/job-7.success.json > {queue}/job-{job}.new && \
             chmod 600 {queue}/job-{job}.new && mv {queue}/job-{job}.new {queue}/job-{job}"
        ))
        .unwrap();
}

/// The guest asks for a lease and reaches its gateway over both protocols.
fn guest_has_its_network(machine: &mut Machine) {
    let guest = "ip netns exec guest";
    machine
        .run(&format!(
            "{guest} udhcpc -i eth0 -f -n -q -t 20 -T 1 -s /tmp/lease 2>&1"
        ))
        .unwrap();
    let addresses = machine
        .run(&format!("{guest} ip -4 addr show dev eth0"))
        .unwrap();
    assert!(addresses.contains("10.66.1.7/24"), "{addresses}");
    guest_is_connected(machine);
}

fn guest_is_connected(machine: &mut Machine) {
    let guest = "ip netns exec guest";
    machine
        .run_until(&format!("{guest} ping -c 1 -W 5 10.66.1.1"), SOON)
        .unwrap();
    machine
        .run_until(&format!("{guest} ping -c 1 -W 5 fd66:1::1"), SOON)
        .unwrap();
}

/// What answers the guest comes in, what begins outside does not: by the kernel's own state of
/// connections on bridges. Then everything comes in again.
fn profile_knows_answers(machine: &mut Machine) {
    let up = |machine: &mut Machine, profile: &str| {
        let tags = format!(" TAGS=synnefo:network:0:{profile} ");
        let nic = NIC.replace(" TAGS= ", &tags);
        machine
            .run(&format!(
                "env -i PATH=$PATH {nic} /etc/ganeti/kvm-vif-bridge"
            ))
            .unwrap();
    };
    let guest = "ip netns exec guest";
    machine
        .run(&format!(
            "socat UDP-LISTEN:9999,fork EXEC:cat > /tmp/echo1 2>&1 & \
             {guest} socat UDP-LISTEN:9999,fork EXEC:cat > /tmp/echo2 2>&1 &"
        ))
        .unwrap();
    let out = format!("echo hello | {guest} socat -t 5 - UDP:10.66.1.1:9999 2>&1 | grep -q hello");
    let back = "echo hello | socat -t 5 - UDP:10.66.1.7:9999 2>&1 | grep -q hello";
    machine.run_until(&out, SOON).unwrap();
    machine.run_until(back, SOON).unwrap();
    up(machine, "protected");
    let rules = machine
        .run("nft list chain bridge snf to-protected")
        .unwrap();
    assert!(rules.contains("ct state"), "{rules}");
    machine.run_until(&out, SOON).unwrap();
    machine.run(&format!("! ( {back} )")).unwrap();
    up(machine, "unprotected");
    machine.run_until(back, SOON).unwrap();
}

fn services_are_ready(machine: &mut Machine) {
    for service in SERVICES {
        machine
            .run_until(&format!("systemctl is-active {service}"), SOON)
            .unwrap_or_else(|error| {
                let log = machine.run(&format!("journalctl -q --no-pager -u {service} | tail -30"));
                panic!("{error:#}\n{}", log.unwrap_or_default())
            });
    }
}

#[test]
fn a_node_from_install_to_purge() {
    let share = Scratch::new("share").unwrap();
    fill(share.path());
    let mut machine = Machine::boot(share.path()).unwrap();
    let machine = &mut machine;

    // the broker takes its time: it starts while the rest goes on without it
    machine
        .run("systemctl --quiet unmask rabbitmq-server; systemctl start --no-block rabbitmq-server")
        .unwrap();
    machine
        .run("mkdir -p /var/lib/ganeti/queue/archive && echo node1.gnt.lab > /var/lib/ganeti/ssconf_master_node && \
              echo cluster.gnt.lab > /var/lib/ganeti/ssconf_cluster_name && cp /mnt/config.data /var/lib/ganeti/ && \
              chmod 600 /var/lib/ganeti/config.data && install -m 755 /mnt/lease /tmp/lease")
        .unwrap();
    machine
        .run(&format!(
            "{INSTALL} /mnt/now/*.deb > /tmp/install.log 2>&1 || {{ cat /tmp/install.log; false; }}"
        ))
        .unwrap();
    services_are_ready(machine);

    // nobody is root who need not, and each has the one or two capabilities of its unit
    for (service, user, capabilities) in [
        ("nfdhcpd", "nfdhcpd", "0000000000003000"),
        ("snf-ganeti-eventd", "snf-eventd", "0000000000000004"),
        ("snf-central", "snf-central", "0000000000000000"),
        ("snf-ifup-monitor", "root", "0000000000003000"),
    ] {
        let status = machine
            .run(&format!(
                "pid=$(systemctl show -P MainPID {service}); stat -c user=%U /proc/$pid; grep -E 'Cap(Prm|Bnd)|NoNewPrivs|Seccomp:' /proc/$pid/status"
            ))
            .unwrap();
        assert!(status.contains(&format!("user={user}\n")), "{status}");
        for line in [
            format!("CapPrm:\t{capabilities}"),
            format!("CapBnd:\t{capabilities}"),
            "NoNewPrivs:\t1".into(),
            "Seccomp:\t2".into(),
        ] {
            assert!(status.contains(&line), "{service}: {line}: {status}");
        }
    }

    // a guest: its NIC is the other end of a TAP, as QEMU would hold it
    machine
        .run("ip link add br0 type bridge && ip addr add 10.66.1.1/24 dev br0 && ip addr add fd66:1::1/64 dev br0 nodad && \
              ip link set br0 up && ip netns add guest")
        .unwrap();
    machine
        .run("socat TUN,tun-name=tap0,tun-type=tap,iff-no-pi TUN,tun-name=eth0,tun-type=tap,iff-no-pi > /tmp/socat.log 2>&1 &")
        .unwrap();
    machine
        .run_until("ip link show tap0 && ip link show eth0", SOON)
        .unwrap();
    machine
        .run("ip link set eth0 netns guest && ip -n guest link set eth0 address aa:00:00:00:00:07 && ip -n guest link set eth0 up")
        .unwrap();
    machine
        .run(&format!(
            "env -i PATH=$PATH {NIC} /etc/ganeti/kvm-vif-bridge"
        ))
        .unwrap();
    guest_has_its_network(machine);
    // by the router advertisement alone: nothing else gives the guest this prefix
    machine
        .run_until(
            "ip -n guest -6 addr show dev eth0 scope global | grep -q 'inet6 fd66:1:'",
            SOON,
        )
        .unwrap();

    // by the kernel's own queue, without what sends bridged packets through the IP hooks
    let rules = machine.run("nft list ruleset").unwrap();
    assert!(
        rules.contains("queue") && rules.contains("table bridge nfdhcpd"),
        "{rules}"
    );
    machine
        .run("lsmod | grep -q ^nft_queue && ! lsmod | grep -q ^br_netfilter")
        .unwrap();

    profile_knows_answers(machine);

    // job files and hooks reach the broker
    machine
        .run_until("rabbitmqctl -q await_startup", BROKER)
        .unwrap();
    machine
        .run_until(
            "rabbitmqctl -q list_exchanges name | grep -q ^ganeti$",
            SOON,
        )
        .unwrap();
    machine
        .run("amqp-consume --url amqp://guest:guest@localhost -q seen -d -e ganeti -r 'ganeti.#' sh /mnt/line > /tmp/seen 2>&1 &")
        .unwrap();
    machine
        .run_until(
            "rabbitmqctl -q list_consumers | grep -q seen || { cat /tmp/seen; false; }",
            SOON,
        )
        .unwrap();
    put_job(machine, 7);
    machine
        .run_until("grep -q '\"jobId\": *7\\b' /tmp/seen", SOON)
        .unwrap();
    machine.run("sh /mnt/hook").unwrap();
    machine
        .run_until("grep -q 'ganeti-net-status' /tmp/seen", SOON)
        .unwrap();
    machine
        .run_until("! ls /var/spool/snf-agents/*.json", SOON)
        .unwrap();

    // another version and back: the guest notices nothing, the cursor is where it was
    let table = machine
        .run("cat /var/lib/nfdhcpd/tap0 /var/lib/snf-ifup/tap0; bridge link show dev tap0")
        .unwrap();
    for (job, folder) in [(8, "later"), (9, "now")] {
        machine.run("ip netns exec guest ping -q -i 0.2 10.66.1.1 > /tmp/ping 2>&1 & echo $! > /tmp/ping.pid").unwrap();
        machine.run(&format!("{INSTALL} /mnt/{folder}/*.deb > /tmp/install.log 2>&1 || {{ cat /tmp/install.log; false; }}")).unwrap();
        services_are_ready(machine);
        machine
            .run("kill -INT $(cat /tmp/ping.pid); sleep 1")
            .unwrap();
        let lost = machine
            .run("grep -o '[0-9]* received.*% packet loss' /tmp/ping")
            .unwrap();
        assert!(lost.contains(" 0% packet loss"), "{folder}: {lost}");
        let away = machine
            .run("systemctl show nfdhcpd -P InactiveExitTimestampMonotonic -P ActiveEnterTimestampMonotonic -P InactiveEnterTimestampMonotonic | tr '\\n' ' '")
            .unwrap();
        println!("nfdhcpd, start, ready, stop before (microseconds): {away}");
        guest_has_its_network(machine);
        let kept = machine
            .run("cat /var/lib/nfdhcpd/tap0 /var/lib/snf-ifup/tap0; bridge link show dev tap0")
            .unwrap();
        assert_eq!(kept, table);
        put_job(machine, job);
        machine
            .run_until(&format!("grep -q '\"jobId\": *{job}\\b' /tmp/seen"), SOON)
            .unwrap();
    }
    let repeated = machine
        .run("grep '\"jobId\": *7\\b' /tmp/seen | grep -c '\"success\"'")
        .unwrap();
    assert_eq!(repeated.trim(), "1");

    // a hung daemon is noticed and started again
    machine.run("systemctl kill -s STOP nfdhcpd").unwrap();
    machine
        .run_until(
            "test $(systemctl show -P NRestarts nfdhcpd) = 1 && systemctl is-active nfdhcpd",
            SOON,
        )
        .unwrap();
    guest_has_its_network(machine);
    // and nobody was restarted for another reason
    assert_eq!(
        machine
            .run("systemctl show -P NRestarts snf-ganeti-eventd")
            .unwrap()
            .trim(),
        "0"
    );

    // removed: the guest stays connected, its records stay
    machine
        .run(&format!(
            "dpkg -r {PACKAGES} > /tmp/remove.log 2>&1 || {{ cat /tmp/remove.log; false; }}"
        ))
        .unwrap();
    guest_is_connected(machine);
    machine
        .run("test -e /var/lib/snf-ifup/tap0 && ! nft list table bridge nfdhcpd 2> /dev/null")
        .unwrap();
    // purged: nothing is left, and the guest stays connected
    machine
        .run(&format!(
            "dpkg -P {PACKAGES} > /tmp/remove.log 2>&1 || {{ cat /tmp/remove.log; false; }}"
        ))
        .unwrap();
    guest_is_connected(machine);
    let left = machine
        .run("find / -xdev \\( -name '*snf-*' -o -name '*nfdhcpd*' \\) -not -path '/proc/*' -not -path '/mnt/*' -not -path '/sys/*' -not -path '/tmp/*'")
        .unwrap();
    assert_eq!(left, "");
    let failed = machine
        .run("systemctl --failed --no-legend --plain")
        .unwrap();
    assert_eq!(failed, "");
}
