//! What is measured: nfdhcpd, and the ceiling in its place.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::process::{self, Daemon};
use harness::wait;
use nix::unistd::Pid;

use crate::frames;
use crate::peers;
use crate::site::Site;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Ours.
    Nfdhcpd,
    /// The minimal program.
    Ceiling,
    /// dnsmasq, without a file of leases.
    Dnsmasq,
    /// Kea, with leases in memory alone.
    Kea,
}

impl Who {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nfdhcpd => "nfdhcpd",
            Self::Ceiling => "ceiling",
            Self::Dnsmasq => "dnsmasq",
            Self::Kea => "Kea",
        }
    }

    /// Whether it says when it is ready, as sd_notify(3) does.
    fn notifies(self) -> bool {
        matches!(self, Self::Nfdhcpd | Self::Ceiling)
    }
}

/// The queue that both read.
const QUEUE: u16 = 42;

/// A running responder.
pub struct Responder {
    daemon: Daemon,
    /// From the start of the process until it said that it is ready.
    pub ready_after: Duration,
}

impl Responder {
    /// Starts a responder at a site, and waits until it is ready, if it says so.
    ///
    /// The ceiling has no rules of its own: it works with those that nfdhcpd left, which must
    /// have been started there before.
    pub fn start(site: &Site, who: Who) -> Result<Self> {
        let socket = site.files.join("notify");
        let _ = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket)?;
        notify.set_read_timeout(Some(wait::USUAL))?;
        let mut command;
        match who {
            Who::Ceiling => {
                command = site.namespace.command(ceiling()?);
                command
                    .arg(QUEUE.to_string())
                    .arg(site.files.join("ceiling"));
            }
            Who::Nfdhcpd => {
                let config = site.files.write("nfdhcpd.toml", &configuration(site))?;
                command = site.namespace.command(harness::program("nfdhcpd")?);
                command.arg("--config").arg(config).arg("run");
            }
            Who::Dnsmasq => {
                let config = site.files.write("dnsmasq.conf", &peers::dnsmasq(site)?)?;
                command = site.namespace.command("dnsmasq");
                command.args(["--keep-in-foreground", "--log-facility=-", "--pid-file="]);
                command.arg(format!("--conf-file={}", config.display()));
            }
            Who::Kea => {
                let config = site.files.write("kea.json", &peers::kea(site))?;
                command = site.namespace.command("kea-dhcp4");
                command.arg("-c").arg(config);
                command.env("KEA_PIDFILE_DIR", site.files.path());
                command.env("KEA_LOCKFILE_DIR", site.files.path());
            }
        }
        command.env("NOTIFY_SOCKET", &socket);
        let begin = Instant::now();
        let mut daemon = Daemon::spawn("the responder", &mut command, &site.files.join("log"))?;
        let mut message = [0; 4096];
        while who.notifies() {
            let Ok(length) = notify.recv(&mut message) else {
                daemon.still_runs()?;
                bail!(
                    "the responder is not ready; its log:\n{}",
                    daemon.log_tail()
                );
            };
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text.lines().any(|line| line == "READY=1") {
                break;
            }
        }
        let ready_after = begin.elapsed();
        Ok(Self {
            daemon,
            ready_after,
        })
    }

    /// CPU time used so far, of all its threads.
    pub fn cpu(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // nanoseconds on a CPU, waiting for one, time slices
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().context("schedstat")?;
            total += Duration::from_nanos(first.parse()?);
        }
        Ok(total)
    }

    /// Resident memory, MiB.
    pub fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|rest| rest.split_whitespace().next())
            .context("VmRSS")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.daemon.pid()
    }

    /// Fails if it has ended or complained.
    pub fn check(&mut self) -> Result<()> {
        self.daemon.still_runs()
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        self.daemon.log_tail()
    }

    /// Asks it to end, and waits for that.
    pub fn stop(self) -> Result<()> {
        self.daemon.stop(wait::USUAL).map(drop)
    }

    /// Ends it so that it cannot take its rules with it.
    pub fn kill(self) {
        self.daemon.kill();
    }
}

/// The defaults, but for places, the server's address, and how much one guest may ask: a few of
/// them ask for all.
fn configuration(site: &Site) -> String {
    let place = |name| site.files.join(name).display().to_string();
    format!(
        "bindings = {:?}\ncontrol = {:?}\n[queue]\nnumbers = [{QUEUE}]\n\
         guest_packets_per_second = 0\n[dhcp]\nserver = \"{}\"\n",
        place("bindings"),
        place("control"),
        frames::SERVER
    )
}

/// Compiles the ceiling, once.
fn ceiling() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/nfdhcpd/ceiling.c");
    let program = harness::target_dir().join("ceiling");
    let built = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if built(&program) <= built(&source) {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Wextra", "-o"])
            .arg(&program)
            .arg(&source);
        process::check(&mut cc, wait::USUAL)?;
    }
    Ok(program)
}
