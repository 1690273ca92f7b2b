//! A real Ganeti cluster of one or two nodes, each a [`Host`].
//!
//! Management network 10.66.0.0/24 on the bridge `br-mgmt` of every node; node N is
//! `nodeN.gnt.lab`, 10.66.0.N, and the cluster `cluster.gnt.lab`, 10.66.0.10. Guests' bridged
//! NICs go to `br0` unless their network says otherwise. Guests run the harness's image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{Console, Image, accelerator};
use crate::host::Host;
use crate::process::{self, Output};
use crate::scratch::Scratch;
use crate::source_root;
use crate::wait::{self, Look};

/// What every cluster's RAPI asks for.
pub const RAPI_USER: &str = "central";
/// See [`RAPI_USER`].
pub const RAPI_PASSWORD: &str = "rapi-password";
/// The address of the cluster, where its RAPI is.
pub const CLUSTER_ADDRESS: &str = "10.66.0.10";
/// The name of the cluster.
pub const CLUSTER_NAME: &str = "cluster.gnt.lab";

/// A slow and busy machine is given time: 5 s is usual.
const SLOW: Duration = Duration::from_secs(300);

/// A running cluster; gone with its hosts when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; the first is the master at the start.
    pub nodes: Vec<Host>,
}

impl Cluster {
    /// Fails if this machine is a node of a real cluster: nothing of it may be touched.
    ///
    /// # Errors
    /// It is one; the text names the file that says so.
    pub fn refuse_on_a_real_node() -> Result<()> {
        for file in [
            "config.data",
            "ssconf_cluster_name",
            "server.pem",
            "queue/serial",
        ] {
            let path = Path::new("/var/lib/ganeti").join(file);
            ensure!(
                !path.exists(),
                "{} exists: this machine belongs to a Ganeti cluster, and nothing runs here",
                path.display()
            );
        }
        Ok(())
    }

    /// Brings a cluster up on `nodes` hosts (1 or 2). Logs of the hosts go to `scratch`.
    ///
    /// # Errors
    /// Ganeti is not installed, or does not come up: the text has what it printed.
    pub fn start(scratch: &Scratch, image: &Image, nodes: usize) -> Result<Self> {
        Self::refuse_on_a_real_node()?;
        let mut hosts = Vec::new();
        for number in 1..=nodes {
            let name = format!("node{number}.gnt.lab");
            let host = Host::start(&name, &scratch.join(&format!("{name}.log")))?;
            prepare(&host, number)?;
            hosts.push(host);
        }
        let cluster = Self { nodes: hosts };
        cluster.init(image)?;
        for number in 2..=nodes {
            cluster.add_node(number)?;
        }
        cluster
            .master()
            .sh(&format!("ip route del unreachable {CLUSTER_ADDRESS}"))?;
        cluster.wait_for_rapi()?;
        Ok(cluster)
    }

    /// The first node.
    pub fn master(&self) -> &Host {
        &self.nodes[0]
    }

    fn init(&self, image: &Image) -> Result<()> {
        let kvm = if accelerator() == "kvm" {
            "enabled"
        } else {
            "disabled"
        };
        self.master()
            .sh(&format!(
                "gnt-cluster init --no-ssh-init --no-etc-hosts --use-external-mip-script=yes \
                 --master-netdev=br-mgmt --master-netmask=24 \
                 --enabled-hypervisors=kvm --enabled-disk-templates=file,sharedfile,diskless \
                 --nic-parameters=mode=bridged,link=br0 --default-iallocator=snf-hail \
                 --backend-parameters=minmem=128,maxmem=128,vcpus=1,auto_balance=False \
                 --ipolicy-bounds-specs=min:memory-size=64,cpu-count=1,disk-size=1,disk-count=0,\
                 nic-count=0,spindle-use=1/max:memory-size=4096,cpu-count=4,disk-size=102400,\
                 disk-count=16,nic-count=8,spindle-use=12 \
                 --ipolicy-std-specs=memory-size=128,cpu-count=1,disk-size=64,disk-count=1,\
                 nic-count=1,spindle-use=1 \
                 --hypervisor-parameters=kvm:kvm_path=/usr/bin/qemu-system-x86_64,kvm_flag={kvm},\
                 kernel_path={},initrd_path={},root_path=/dev/ram0,serial_console=true,\
                 kernel_args='quiet mitigations=off panic=1',vnc_bind_address=127.0.0.1 \
                 {CLUSTER_NAME}",
                image.kernel.display(),
                image.initrd.display(),
            ))
            .context("gnt-cluster init")?;
        // Ganeti wants exactly this owner and mode, else adding a node fails
        self.master().sh(&format!(
            "install -d -o gnt-rapi -g gnt-masterd -m 750 /var/lib/ganeti/rapi; \
             echo '{RAPI_USER} {RAPI_PASSWORD} write' > /var/lib/ganeti/rapi/users; \
             chown gnt-rapi:gnt-masterd /var/lib/ganeti/rapi/users; \
             chmod 640 /var/lib/ganeti/rapi/users"
        ))?;
        Ok(())
    }

    fn add_node(&self, number: usize) -> Result<()> {
        let (first, other) = (self.master(), &self.nodes[number - 1]);
        for bridge in ["br-mgmt", "br0"] {
            let (here, there) = (format!("{bridge}-{number}"), format!("{bridge}-1"));
            first.netns().veth(&here, other.netns(), &there)?;
            first
                .netns()
                .ip(&format!("link set {here} master {bridge}"))?;
            other
                .netns()
                .ip(&format!("link set {there} master {bridge}"))?;
        }
        other.sh(&format!("ip route del unreachable {CLUSTER_ADDRESS}"))?;
        let address = format!("10.66.0.{number}");
        wait::until_ok("the other node's sshd", wait::USUAL, || {
            first.sh(&format!("timeout 2 bash -c '</dev/tcp/{address}/22'"))
        })?;
        let add = format!(
            "gnt-node add --no-ssh-key-check {} < /dev/null",
            other.name()
        );
        let output = first.try_sh(&add, SLOW)?;
        ensure!(
            output.status.success(),
            "{add}: {}{}",
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    fn wait_for_rapi(&self) -> Result<()> {
        wait::until_ok("RAPI", SLOW, || self.rapi("GET", "/2/info", None)).map(drop)
    }

    /// One RAPI call from the master node; returns the answer's JSON.
    ///
    /// # Errors
    /// No answer, or a status other than 200.
    pub fn rapi(&self, method: &str, path: &str, body: Option<&str>) -> Result<serde_json::Value> {
        let body = body.map_or_else(String::new, |body| format!("--data '{body}'"));
        let text = self.master().sh(&format!(
            "curl -sS -k --fail-with-body --max-time 30 -u {RAPI_USER}:{RAPI_PASSWORD} \
             -H 'Content-Type: application/json' -X {method} {body} \
             https://{CLUSTER_ADDRESS}:5080{path}"
        ))?;
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }

    /// Waits for a job's end; fails unless it succeeded.
    ///
    /// # Errors
    /// The job failed (the text has its result) or did not end in time.
    pub fn wait_for_job(&self, job: u64) -> Result<()> {
        wait::until(&format!("job {job}"), SLOW, || {
            match self.rapi("GET", &format!("/2/jobs/{job}"), None) {
                Ok(answer) => match answer["status"].as_str() {
                    Some("success") => Look::Done(()),
                    Some("error" | "canceled") => Look::Failed(answer["opresult"].to_string()),
                    other => Look::NotYet(format!("{other:?}")),
                },
                Err(error) => Look::NotYet(format!("{error:#}")),
            }
        })
    }

    /// Runs one of Ganeti's commands on the master; how it ended is the caller's to judge.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn gnt(&self, command: &str) -> Result<Output> {
        self.master().try_sh(command, SLOW)
    }

    /// The console of a running instance on its node.
    ///
    /// # Errors
    /// QEMU is not there (yet).
    pub fn console(&self, node: &Host, instance: &str) -> Result<Console> {
        Console::connect(&node.path(&format!(
            "/run/ganeti/kvm-hypervisor/ctrl/{instance}.serial"
        )))
    }

    /// The ends of Ganeti's own logs, for error texts.
    pub fn log_tail(&self) -> String {
        let logs = ["jobs.log", "node-daemon.log", "luxi-daemon.log"];
        let tails = logs.map(|log| {
            let path = self.master().path(&format!("/var/log/ganeti/{log}"));
            format!("--- {log}\n{}", process::tail(&path, 12))
        });
        tails.join("\n")
    }

    /// The path of the certificate with which RAPI answers.
    pub fn rapi_certificate(&self) -> PathBuf {
        self.master().path("/var/lib/ganeti/rapi.pem")
    }
}

/// Makes a host what Ganeti needs to find on a node.
fn prepare(host: &Host, number: usize) -> Result<()> {
    if !Path::new("/usr/lib/ganeti/daemon-util").exists() {
        bail!("Ganeti is not installed: tests/install-packages does it");
    }
    host.write(
        "/etc/hosts",
        &format!(
            "127.0.0.1 localhost\n10.66.0.1 node1.gnt.lab\n10.66.0.2 node2.gnt.lab\n\
             {CLUSTER_ADDRESS} {CLUSTER_NAME}\n"
        ),
    )?;
    host.write("/etc/resolv.conf", "")?;
    // Debian's default is 127.0.0.1
    host.write(
        "/etc/default/ganeti",
        "RAPI_ARGS=\"-b 0.0.0.0 --require-authentication\"\n",
    )?;
    let folders = "/srv/ganeti/file-storage\n/srv/ganeti/shared-file-storage\n";
    host.write("/etc/ganeti/file-storage-paths", folders)?;
    let ours = source_root().join("tests/ganeti");
    host.sh(&format!(
        "mkdir -p /srv/ganeti/os /srv/ganeti/file-storage /srv/ganeti/shared-file-storage \
           /etc/ganeti/scripts /usr/local/lib/ganeti/iallocators
         cp -r {ours}/os /srv/ganeti/os/snf-image
         install -m 755 {ours}/hail /usr/local/lib/ganeti/iallocators/snf-hail
         install -m 755 {ours}/master-ip-setup /etc/ganeti/scripts/master-ip-setup
         for bridge in br-mgmt br0; do ip link add $bridge type bridge; ip link set $bridge up; done
         ip addr add 10.66.0.{number}/24 dev br-mgmt
         # Ganeti first looks whether somebody has the address: fail at once, not after ARP's time-out
         ip route add unreachable {CLUSTER_ADDRESS}
         sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ours = ours.display(),
    ))?;
    sshd(host)
}

/// Nodes reach each other by ssh when one is added.
fn sshd(host: &Host) -> Result<()> {
    // one key for all nodes of the process: each node trusts the others
    static KEY: std::sync::OnceLock<std::result::Result<(String, String), String>> =
        std::sync::OnceLock::new();
    let (private, public) = KEY
        .get_or_init(|| make_key().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("ssh key: {error}"))?;
    host.write("/root/.ssh/id_rsa", private)?;
    host.write("/root/.ssh/id_rsa.pub", public)?;
    host.write("/root/.ssh/authorized_keys", public)?;
    host.write(
        "/etc/ssh/sshd_config",
        "HostKey /etc/ssh/ssh_host_rsa_key\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n\
         StrictModes no\n",
    )?;
    host.sh(
        "rm -f /root/.ssh/known_hosts; chmod 700 /root/.ssh; chmod 600 /root/.ssh/*; \
         [ -e /etc/ssh/ssh_host_rsa_key ] || ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key; \
         /usr/sbin/sshd",
    )
    .map(drop)
}

fn make_key() -> Result<(String, String)> {
    let scratch = Scratch::new("key")?;
    let path = scratch.join("id_rsa");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen
        .args([
            "-q",
            "-t",
            "rsa",
            "-b",
            "2048",
            "-N",
            "",
            "-C",
            "snf-tests",
            "-f",
        ])
        .arg(&path);
    process::check(&mut keygen, wait::USUAL)?;
    Ok((
        fs::read_to_string(&path)?,
        fs::read_to_string(scratch.join("id_rsa.pub"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_comes_up_and_an_instance_boots() {
        let scratch = Scratch::new("ganeti").unwrap();
        let image = Image::build().unwrap();
        let cluster = Cluster::start(&scratch, &image, 1).unwrap();
        let instance = r#"{"__version__":1,"mode":"create","name":"first","disk_template":"diskless",
            "disks":[],"nics":[{}],"os":"snf-image+default","ip_check":false,"name_check":false}"#;
        let job = cluster
            .rapi("POST", "/2/instances", Some(instance))
            .unwrap();
        cluster.wait_for_job(job.as_u64().unwrap()).unwrap();
        let mut console = cluster.console(cluster.master(), "first").unwrap();
        console.wait_for_shell(crate::guest::BOOT).unwrap();
        let name = console.run("ls /sys/class/net", wait::USUAL).unwrap();
        assert!(name.contains("eth0"), "{name}");
        assert!(!Path::new("/var/lib/ganeti/config.data").exists());
    }

    #[test]
    fn two_nodes_form_a_cluster() {
        let scratch = Scratch::new("ganeti2").unwrap();
        let image = Image::build().unwrap();
        let cluster = Cluster::start(&scratch, &image, 2).unwrap();
        let nodes = cluster.rapi("GET", "/2/nodes", None).unwrap();
        assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
    }
}
