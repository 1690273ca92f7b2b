//! The speed of snf-ifup, whole processes, against the leanest shell that does the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)] // a benchmark may stop, and rounds its figures

mod forwarding;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agents::addr::{MacAddr, in_prefix, link_local};
use agents::netlink::{LinkChange, Rtnetlink};
use anyhow::{Context, Result, bail};
use clap::Parser;
use harness::netns::Netns;
use harness::tap::Tap;
use nix::sys::resource::{UsageWho, getrusage};

/// Measures snf-ifup: one more NIC with so many there already, up and down, and many at once.
///
/// Program and shell take turns in one run. Printed are medians, in brackets the least and the
/// most, of wall and of CPU time of the whole process and what it starts.
#[derive(Parser)]
struct Arguments {
    /// NICs measured in each place.
    #[arg(long, default_value_t = 40)]
    nics: usize,
    /// NICs that are there already.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2000])]
    others: Vec<usize>,
    /// Guarded ports that packets are forwarded past; 0 leaves that out.
    #[arg(long, default_value_t = 2000)]
    ports: usize,
    /// NICs at once.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Site {
    namespace: Netns,
    _router: Netns,
    folder: tempfile::TempDir,
    program: PathBuf,
    shell: PathBuf,
    /// The name of the set of guarded interfaces.
    guarded: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bridged,
    Routed,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Bridged => "bridged",
            Self::Routed => "routed",
        }
    }
}

impl Site {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (namespace, router) = (Netns::new()?, Netns::new()?);
        namespace.veth("up0", &router, "guests")?;
        // Where a host has an address of its own the kernel looks no further for a source.
        namespace.veth("mgmt0", &router, "mgmt")?;
        namespace.sh("ip addr add 192.0.2.1/24 dev mgmt0
             for n in 0 1 2 3 4 5 6 7 8 9; do
                 ip link add br$n type bridge
                 ip link set br$n address 02:00:00:00:00:0$n up
             done
             ip route add 10.0.0.0/8 dev up0 table 100
             ip route add default via 10.0.0.1 dev up0 table 100
             ip -6 route add fd66::/64 dev up0 table 100
             ip -6 route add default via fd66::1 dev up0 table 100")?;
        let config = format!(
            "state = {:?}\nbindings = {:?}\n",
            folder.path().join("state"),
            folder.path().join("bindings")
        );
        fs::write(folder.path().join("ifup.toml"), config)?;
        fs::create_dir(folder.path().join("shell"))?;
        let mut site = Self {
            namespace,
            _router: router,
            folder,
            program: harness::program("snf-ifup")?,
            shell: harness::source_root().join("tests/benches/ifup/lean.sh"),
            guarded: String::new(),
        };
        site.namespace.run(|| run(&mut site.ours(&["restore"])))?;
        let sets = site.namespace.sh("nft list sets bridge")?;
        let guarded = sets
            .split_whitespace()
            .find(|word| word.starts_with("guarded-"));
        site.guarded = guarded.context("the set of guarded interfaces")?.to_owned();
        Ok(site)
    }

    /// Ours, to be started by a thread in the namespace: to have each process enter it would
    /// copy this program first, at the expense of what is measured.
    fn ours(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let config = self.folder.path().join("ifup.toml");
        command
            .env_clear()
            .arg("--config")
            .arg(config)
            .args(arguments);
        command
    }

    /// The shell, as [`Site::ours`].
    fn lean(&self) -> Command {
        let mut command = Command::new(&self.shell);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("BINDINGS", self.folder.path().join("shell"));
        command.env("TABLE", "100").env("UPLINK", "up0");
        command.env("GUARDED", &self.guarded);
        command.env("ROUTED_MAC", "fe:53:4e:46:00:01");
        command
    }

    /// Makes TAPs and what Ganeti says of them.
    fn nics(&self, mode: Mode, prefix: &str, count: usize) -> Result<Vec<(Tap, Nic)>> {
        (0..count)
            .map(|n| {
                let nic = Nic::new(mode, prefix, n);
                Ok((Tap::new(&self.namespace, &nic.interface)?, nic))
            })
            .collect()
    }
}

struct Nic {
    interface: String,
    variables: Vec<(&'static str, String)>,
}

impl Nic {
    fn new(mode: Mode, prefix: &str, n: usize) -> Self {
        let interface = format!("{prefix}{n}");
        // Prefixes begin with different letters: different addresses.
        let kind = prefix.as_bytes()[0];
        let [.., high, low] = n.to_be_bytes();
        let mac = MacAddr::new([0xaa, mode as u8, kind, 0, high, low]);
        let net = "fd66::/64".parse().unwrap();
        // A bridge has at most 1024 ports.
        let link = match (mode, prefix) {
            (Mode::Routed, _) => "100".to_owned(),
            (Mode::Bridged, "o") => format!("br{}", 1 + n / 500),
            (Mode::Bridged, _) => "br0".to_owned(),
        };
        let variables = vec![
            ("INSTANCE", format!("snf-{prefix}{n}")),
            ("MAC", mac.to_string()),
            ("MODE", mode.name().to_owned()),
            ("INTERFACE", interface.clone()),
            ("INTERFACE_INDEX", "0".to_owned()),
            (
                "INTERFACE_UUID",
                "55ef7b59-0918-45ef-b63d-c4266f7ab9bc".to_owned(),
            ),
            ("TAGS", "synnefo:network:0:protected".to_owned()),
            ("IP", format!("10.{kind}.{high}.{low}")),
            ("LINK", link),
            ("NETWORK_NAME", "net".to_owned()),
            ("NETWORK_TAGS", "nfdhcpd".to_owned()),
            ("NETWORK_SUBNET", "10.0.0.0/8".to_owned()),
            ("NETWORK_GATEWAY", "10.0.0.1".to_owned()),
            ("NETWORK_SUBNET6", "fd66::/64".to_owned()),
            ("NETWORK_GATEWAY6", "fd66::1".to_owned()),
            ("EUI64", in_prefix(net, mac).unwrap().to_string()),
            ("LINK_LOCAL", link_local(mac).to_string()),
        ];
        Self {
            interface,
            variables,
        }
    }

    fn of(&self, mut command: Command) -> Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {said}", output.status);
    }
    Ok(())
}

#[derive(Default)]
struct Times {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
    /// Processes and threads that the machine has started meanwhile.
    started: Vec<u64>,
}

impl Times {
    fn measure(&mut self, mut command: Command) -> Result<()> {
        let (before, started) = (children_cpu()?, all_started()?);
        let start = Instant::now();
        run(&mut command)?;
        self.wall.push(start.elapsed());
        self.cpu.push(children_cpu()? - before);
        self.started.push(all_started()? - started);
        Ok(())
    }
}

/// How many processes and threads the machine has ever started.
fn all_started() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("processes "));
    line.context("processes")?
        .trim()
        .parse()
        .context("processes")
}

fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let time = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000)
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn show(times: &[Duration]) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let least = times.iter().min().copied().unwrap_or_default();
    let most = times.iter().max().copied().unwrap_or_default();
    format!(
        "{:.2} ms [{:.2}-{:.2}]",
        milliseconds(median(times)),
        milliseconds(least),
        milliseconds(most)
    )
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut alone: Vec<(&str, Duration, Duration)> = Vec::new();
    for others in &arguments.others {
        for mode in [Mode::Bridged, Mode::Routed] {
            settle()?;
            let site = Site::new()?;
            let there = site.nics(mode, "o", *others)?;
            let (ours, lean, down) = site.namespace.run(|| {
                for (_, nic) in &there {
                    run(&mut nic.of(site.ours(&["up"])))?;
                }
                one_more(&site, mode, arguments.nics)
            })?;
            println!("{} with {others} there:", mode.name());
            for (name, times) in [
                ("snf-ifup up", &ours),
                ("lean shell up", &lean),
                ("snf-ifup down", &down),
            ] {
                // Others start some too: the least of all times is its own.
                let started = times.started.iter().min().copied().unwrap_or_default();
                println!(
                    "  {name:14} wall {}, CPU {}, processes {started}",
                    show(&times.wall),
                    show(&times.cpu),
                );
            }
            let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
            println!(
                "  the shell takes {:.1} times as long, and {:.1} times the CPU",
                ratio(median(&lean.wall), median(&ours.wall)),
                ratio(median(&lean.cpu), median(&ours.cpu))
            );
            match alone.iter().find(|(of, ..)| *of == mode.name()) {
                Some((_, wall, cpu)) => println!(
                    "  against the first place: wall {:.2}, CPU {:.2}",
                    ratio(median(&ours.wall), *wall),
                    ratio(median(&ours.cpu), *cpu)
                ),
                None => alone.push((mode.name(), median(&ours.wall), median(&ours.cpu))),
            }
        }
    }
    for mode in [Mode::Bridged, Mode::Routed] {
        settle()?;
        at_once(mode, arguments.at_once)?;
    }
    if arguments.ports > 0 {
        settle()?;
        forwarding::measure(arguments.ports)?;
    }
    Ok(())
}

/// Waits until the kernel has cleaned up the namespaces of the last measurement: meanwhile it
/// holds the lock that every change of a link needs.
fn settle() -> Result<()> {
    let namespace = Netns::new()?;
    let limit = Instant::now() + Duration::from_secs(120);
    namespace.run(|| {
        let mut rtnetlink = Rtnetlink::open()?;
        let loopback = rtnetlink.link_by_name("lo")?.context("lo")?.index;
        let mut quick = 0;
        while quick < 50 && Instant::now() < limit {
            let start = Instant::now();
            let change = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            rtnetlink.change_link(loopback, "lo", &change)?;
            quick = if start.elapsed() < Duration::from_millis(2) {
                quick + 1
            } else {
                0
            };
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })
}

/// One NIC after another, the program and the shell in turns.
fn one_more(site: &Site, mode: Mode, count: usize) -> Result<(Times, Times, Times)> {
    let mine = site.nics(mode, "m", count)?;
    let shells = site.nics(mode, "s", count)?;
    let (mut ours, mut lean, mut down) = (Times::default(), Times::default(), Times::default());
    for ((_, mine), (_, shells)) in mine.iter().zip(&shells) {
        ours.measure(mine.of(site.ours(&["up"])))?;
        lean.measure(shells.of(site.lean()))?;
    }
    for (_, nic) in &mine {
        down.measure(site.ours(&["down", &nic.interface]))?;
    }
    Ok((ours, lean, down))
}

fn at_once(mode: Mode, count: usize) -> Result<()> {
    let site = Site::new()?;
    let nics = site.nics(mode, "m", count)?;
    let wall = site.namespace.run(|| {
        let start = Instant::now();
        let mut children = Vec::new();
        for (_, nic) in &nics {
            let mut command = nic.of(site.ours(&["up"]));
            children.push(command.stdin(Stdio::null()).spawn()?);
        }
        for mut child in children {
            let status = child.wait()?;
            if !status.success() {
                bail!("one of many at once: {status}");
            }
        }
        let wall = start.elapsed();
        let mut rtnetlink = Rtnetlink::open()?;
        for (_, nic) in &nics {
            let link = rtnetlink.link_by_name(&nic.interface)?.context("a TAP")?;
            if !link.up {
                bail!("{} is not up", nic.interface);
            }
        }
        Ok(wall)
    })?;
    println!(
        "{} {count} at once: {:.0} ms, all up",
        mode.name(),
        wall.as_secs_f64() * 1000.0
    );
    Ok(())
}
