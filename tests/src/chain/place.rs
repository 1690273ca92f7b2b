//! Putting the chain up: hosts and links, the services, our programs with their configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::api::Api;
use super::timeline::Timeline;
use crate::ganeti::{CLUSTER_ADDRESS, Cluster, RAPI_PASSWORD, RAPI_USER};
use crate::guest::{Console, Image};
use crate::host::Host;
use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::rabbitmq::{Place, RabbitMq};
use crate::scratch::Scratch;
use crate::wait;

/// The host of the broker and of central.
const CENTER_ADDRESS: &str = "10.66.0.100";
const AMQP_PORT: u16 = 5672;
const API_PORT: u16 = 8774;

/// How long a program may take to be ready on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Our programs as the node finds them, as the packages install them.
const NODE_PROGRAMS: [(&str, &str); 5] = [
    ("snf-ganeti-eventd", "/usr/sbin/snf-ganeti-eventd"),
    ("snf-ganeti-hook", "/usr/lib/snf-agents/snf-ganeti-hook"),
    ("snf-progress-monitor", "/usr/bin/snf-progress-monitor"),
    ("snf-ifup", "/usr/sbin/snf-ifup"),
    ("nfdhcpd", "/usr/sbin/nfdhcpd"),
];

/// The operations after which Ganeti runs our hook.
const HOOKED: [&str; 9] = [
    "add", "start", "reboot", "modify", "migrate", "failover", "stop", "remove", "rename",
];

/// Our daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `nfdhcpd`, on the node.
    Nfdhcpd,
    /// `snf-ganeti-eventd`, on the node.
    Eventd,
    /// `snf-central serve`, in the center.
    Central,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Nfdhcpd => "nfdhcpd",
            Self::Eventd => "snf-ganeti-eventd",
            Self::Central => "snf-central",
        }
    }
}

/// The chain, up; gone with all of it when this is dropped.
#[derive(Debug)]
pub struct Chain {
    /// The Ganeti cluster, of one node.
    pub cluster: Cluster,
    /// The message broker.
    pub broker: RabbitMq,
    center: Host,
    _router: Netns,
    daemons: Vec<(Program, Daemon)>,
    scratch: Scratch,
}

/// What must be ended and removed to take down a chain that was left up.
#[derive(Debug)]
pub struct Remains {
    /// Processes whose end ends all the others.
    pub pids: Vec<Pid>,
    /// The folder of its files.
    pub folder: PathBuf,
}

impl Chain {
    /// Puts the chain up.
    ///
    /// # Errors
    /// The step that failed, with the end of the log that matters.
    pub fn start(timeline: &mut Timeline) -> Result<Self> {
        Cluster::refuse_on_a_real_node()?;
        for (name, _) in NODE_PROGRAMS {
            crate::program(name)?;
        }
        let scratch = Scratch::new("chain")?;
        let image = timeline.step("the guest's kernel and initrd", Image::build)?;
        let cluster = timeline.step("Ganeti: a cluster of one node", || {
            let cluster = Cluster::start(&scratch, &image, 1)?;
            fs::create_dir_all(cluster.master().path("/srv/images"))?;
            let mut content = b"image of the demo: ok\n".to_vec();
            content.resize(24 << 20, 0);
            fs::write(cluster.master().path("/srv/images/busybox.img"), content)?;
            Ok(cluster)
        })?;
        let (center, router) = timeline.step("networks: the center's host, a router", || {
            networks(&cluster, &scratch)
        })?;
        let broker = timeline.step("RabbitMQ", || {
            let folder = scratch.join("rabbitmq");
            RabbitMq::start(Place::Host(&center), &folder, CENTER_ADDRESS, AMQP_PORT)
        })?;
        let mut chain = Self {
            cluster,
            broker,
            center,
            _router: router,
            daemons: Vec::new(),
            scratch,
        };
        timeline.step("our agents on the node", || chain.start_agents())?;
        timeline.step("central: API and dispatcher on SQLite", || {
            chain.start_central()
        })?;
        Ok(chain)
    }

    /// The Ganeti node.
    pub fn node(&self) -> &Host {
        self.cluster.master()
    }

    /// A client of the API, without a token yet.
    pub fn api(&self) -> Api {
        Api::new(
            self.center.netns(),
            &format!("http://{CENTER_ADDRESS}:{API_PORT}"),
        )
    }

    /// A run of a client in the center's network, with the address of the API, a user, their
    /// password and their project as its last arguments.
    pub fn client(&self, program: &Path, arguments: &[&Path]) -> Command {
        let mut command = self.center.netns().command(program);
        command
            .args(arguments)
            .arg(format!("http://{CENTER_ADDRESS}:{API_PORT}"))
            .args(["demo", "demo-password", "demo"]);
        command
    }

    /// The console of a server's guest.
    ///
    /// # Errors
    /// It does not run.
    pub fn console(&self, id: &str) -> Result<Console> {
        self.cluster.console(self.node(), &format!("snf-{id}"))
    }

    /// Everything still runs that should.
    ///
    /// # Errors
    /// A daemon has ended: which, and the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.daemons
            .iter_mut()
            .try_for_each(|(_, daemon)| daemon.still_runs())
    }

    /// The ends of all logs, for a failure.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for (_, daemon) in &self.daemons {
            logs += &format!(
                "--- {}\n{}\n",
                daemon.log_path().display(),
                daemon.log_tail()
            );
        }
        logs + &self.cluster.log_tail() + "\n--- RabbitMQ\n" + &self.broker.log_tail()
    }

    /// How a person reaches the parts of a chain that is left up.
    pub fn directions(&self) -> String {
        let (center, node) = (self.center.pid(), self.node().pid());
        format!(
            "The API:           nsenter -t {center} -n curl http://{CENTER_ADDRESS}:{API_PORT}/\n\
             A token:           nsenter -t {center} -n curl -sS http://{CENTER_ADDRESS}:{API_PORT}/identity/v2.0/tokens \\\n  \
               -H 'Content-Type: application/json' -d '{{\"auth\": {{\"tenantName\": \"demo\", \
             \"passwordCredentials\": {{\"username\": \"demo\", \"password\": \"demo-password\"}}}}}}'\n\
             The node:          nsenter -t {node} -a bash\n\
             A guest's console: nsenter -t {node} -a socat -,raw,echo=0,escape=0x1d \
             UNIX-CONNECT:/run/ganeti/kvm-hypervisor/ctrl/snf-ID.serial   (Ctrl-] leaves)\n\
             Logs:              {}\n",
            self.scratch.path().display()
        )
    }

    /// Leaves everything up and returns what is needed to take it down.
    pub fn release(self) -> Remains {
        let mut pids: Vec<Pid> = self
            .daemons
            .into_iter()
            .map(|(_, daemon)| daemon.release())
            .collect();
        pids.extend(self.broker.release());
        pids.push(self.center.release());
        pids.extend(self.cluster.nodes.into_iter().map(Host::release));
        Remains {
            pids,
            folder: self.scratch.keep(),
        }
    }

    fn start_agents(&mut self) -> Result<()> {
        let node = self.cluster.master();
        for (name, path) in NODE_PROGRAMS {
            let target = crate::program(name)?;
            node.sh(&format!(
                "mkdir -p $(dirname {path}); ln -sf '{}' {path}",
                target.display()
            ))?;
        }
        node.sh("ln -s /usr/sbin/snf-ifup /etc/ganeti/kvm-vif-bridge")?;
        for operation in HOOKED {
            let folder = format!("/etc/ganeti/hooks/instance-{operation}-post.d");
            node.sh(&format!(
                "mkdir -p {folder}; ln -s /usr/lib/snf-agents/snf-ganeti-hook {folder}/snf-ganeti-hook"
            ))?;
        }
        node.write(
            "/etc/snf-agents/eventd.toml",
            &format!("[amqp]\nhosts = [\"{}\"]\n", self.broker.uri()),
        )?;
        node.sh("mkdir -p /var/lib/nfdhcpd /etc/nfdhcpd")?;
        self.launch(Program::Nfdhcpd)?;
        self.launch(Program::Eventd)
    }

    /// Starts one of our daemons, whose configuration is in place.
    fn launch(&mut self, program: Program) -> Result<()> {
        let node = self.cluster.master();
        let log = self.scratch.join(&format!("{}.log", program.name()));
        let daemon = match program {
            Program::Nfdhcpd | Program::Eventd => {
                let mut command = node.command(program.name());
                node.daemon(program.name(), command.arg("run"), &log)?
            }
            Program::Central => {
                Daemon::spawn(program.name(), &mut self.central(&["serve"])?, &log)?
            }
        };
        self.daemons.push((program, daemon));
        Ok(())
    }

    /// A run of `snf-central` with our configuration.
    fn central(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.center.netns().command(crate::program("snf-central")?);
        command
            .arg("--config")
            .arg(self.scratch.join("central/central.toml"))
            .args(words);
        Ok(command)
    }

    /// What a run of `snf-central` prints.
    ///
    /// # Errors
    /// It fails; the text has what it printed.
    pub fn snf_central(&self, words: &[&str]) -> Result<String> {
        process::check(&mut self.central(words)?, START)
    }

    /// Kills one of our daemons (SIGKILL) and starts it again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, program: Program) -> Result<()> {
        self.stop(program);
        self.launch(program)
    }

    /// Kills one of our daemons (SIGKILL).
    pub fn stop(&mut self, program: Program) {
        self.daemons.retain(|(running, _)| *running != program);
    }

    /// Has central compare the cluster with its database every five seconds, and so not wait for
    /// a minute until it sees what no event tells.
    ///
    /// # Errors
    /// The configuration cannot be written; central does not start again.
    pub fn reconcile_often(&mut self) -> Result<()> {
        let path = self.scratch.join("central/central.toml");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, text + "[reconcile]\ninterval_seconds = 5\n")?;
        self.restart(Program::Central)?;
        self.wait_for_central()
    }

    /// The log of one of our daemons, from all its starts.
    pub fn log(&self, program: Program) -> String {
        let path = self.scratch.join(&format!("{}.log", program.name()));
        fs::read_to_string(path).unwrap_or_default()
    }

    fn start_central(&mut self) -> Result<()> {
        let certificate = fs::read_to_string(self.cluster.rapi_certificate())
            .context("the certificate of Ganeti's RAPI")?;
        let first_line = certificate
            .find("-----BEGIN CERTIFICATE-----")
            .context("no certificate")?;
        let folder = self.scratch.folder("central")?;
        self.scratch
            .write("central/rapi.pem", &certificate[first_line..])?;
        self.scratch.write("central/rapi-password", RAPI_PASSWORD)?;
        self.scratch.write(
            "central/central.toml",
            &format!(
                "[api]\nlisten = \"{CENTER_ADDRESS}:{API_PORT}\"\n\
                 [database]\nurl = \"sqlite://{}/central.db\"\n\
                 [broker]\nurls = [\"{}\"]\n",
                folder.display(),
                self.broker.uri()
            ),
        )?;
        let seed = self.scratch.write("central/seed.toml", &seed(&folder))?;
        let seed = seed.display().to_string();
        for words in [&["migrate"][..], &["seed", &seed], &["check"]] {
            process::check(&mut self.central(words)?, START)?;
        }
        self.launch(Program::Central)?;
        self.wait_for_central()
    }

    /// Waits until the API says that it is ready.
    ///
    /// # Errors
    /// It does not; the text has the end of its log.
    pub fn wait_for_central(&mut self) -> Result<()> {
        let api = self.api();
        let ready = wait::until_ok("central to be ready", START, || {
            self.check()?;
            api.ready()
        });
        ready.with_context(|| self.log(Program::Central))
    }

    /// Kills the broker, as a power cut would.
    pub fn kill_broker(&mut self) {
        self.broker.kill();
    }

    /// Starts the broker again.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart_broker(&mut self) -> Result<()> {
        self.broker.restart()
    }
}

/// What `snf-central seed` puts into the database.
fn seed(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
[[project]]
name = "demo"

[[user]]
name = "demo"
password = "demo-password"
projects = ["demo"]

[[backend]]
name = "cluster"
url = "https://{CLUSTER_ADDRESS}:5080"
user = "{RAPI_USER}"
password_file = "{folder}/rapi-password"
ca_file = "{folder}/rapi.pem"

[[flavor]]
name = "tiny"
vcpus = 1
ram = 128
disk = 1
disk_template = "file"

[[image]]
name = "busybox"
os = "snf-image+default"
source = "/srv/images/busybox.img"
format = "diskdump"

[[network]]
name = "bridged"
type = "CUSTOM"
link = "br0"
public = true
[[network.subnet]]
cidr = "10.66.1.0/24"
gateway = "10.66.1.1"
[[network.subnet]]
cidr = "fd66:1::/64"
gateway = "fd66:1::1"

[[network]]
name = "routed"
type = "IP_LESS_ROUTED"
link = "100"
public = true
[[network.subnet]]
cidr = "10.66.2.0/24"
gateway = "10.66.2.1"
[[network.subnet]]
cidr = "fd66:2::/64"
gateway = "fd66:2::1"
"#
    )
}

/// The host of broker and central on the management network, and the router that is the
/// gateway of the guests: on the bridge, and behind the node's uplink.
fn networks(cluster: &Cluster, scratch: &Scratch) -> Result<(Host, Netns)> {
    let node = cluster.master().netns();
    let center = Host::start("center.gnt.lab", &scratch.join("center.log"))?;
    node.veth("center", center.netns(), "eth0")?;
    node.ip("link set center master br-mgmt")?;
    center
        .netns()
        .ip(&format!("addr add {CENTER_ADDRESS}/24 dev eth0"))?;

    let router = Netns::new()?;
    for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        router.sysctl(name, "1")?;
    }
    node.veth("router", &router, "bridged")?;
    node.ip("link set router master br0")?;
    node.veth("uplink", &router, "routed")?;
    for (interface, v4, v6) in [
        ("bridged", "10.66.1.1/24", "fd66:1::1/64"),
        ("routed", "10.66.2.1/24", "fd66:2::1/64"),
    ] {
        router.ip(&format!("addr add {v4} dev {interface}"))?;
        router.ip(&format!("addr add {v6} dev {interface} nodad"))?;
    }
    // what an operator of an IP-less routed network prepares on each node, once
    node.sh(
        "ip route add default via 10.66.2.1 dev uplink onlink table 100
         ip -6 route add fd66:2::1 dev uplink table 100
         ip -6 route add default via fd66:2::1 dev uplink onlink table 100",
    )?;
    Ok((center, router))
}

impl Remains {
    /// Ends everything and removes the files.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn take_down(&self) -> Result<()> {
        for pid in &self.pids {
            // what it holds ends with it
            let _ = signal::kill(*pid, Signal::SIGKILL);
        }
        wait::until_true("the end of all processes", wait::USUAL, || {
            self.pids
                .iter()
                .all(|pid| signal::kill(*pid, None).is_err())
        })?;
        fs::remove_dir_all(&self.folder)
            .with_context(|| format!("removing {}", self.folder.display()))
    }
}
