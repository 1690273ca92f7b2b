//! A host of its own: network, mount, PID, IPC and UTS namespaces, and a file system on which
//! it may write as it likes. `/etc`, `/usr`, `/var` and `/root` show the machine's, with
//! all changes in memory; `/run` and `/srv` are its own and empty. Ganeti's nodes are such
//! hosts: nothing of the machine changes, and nothing outlives the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::process::{self, Daemon, Output};
use crate::wait;

/// Run as the host's first process, with its name as `$0`. The upper layers are in memory, so
/// that they work wherever the machine's own root is, and need no cleaning up.
const SETUP: &str = r#"
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /srv
for folder in etc var root usr; do
  mkdir -p /srv/upper/$folder /srv/work/$folder
  mount -t overlay overlay -o lowerdir=/$folder,upperdir=/srv/upper/$folder,workdir=/srv/work/$folder /$folder
done
mount -t tmpfs -o mode=755 tmpfs /srv
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd
hostname "$0"
ip link set lo up
exec sleep infinity
"#;

/// One host; gone with everything that runs in it when this is dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
    pid: Pid,
    netns: Netns,
    log: PathBuf,
    /// Dropped last: it is what holds the rest.
    container: Daemon,
}

impl Host {
    /// Starts a host. Its `/sys` shows its own interfaces, its `lo` is up.
    ///
    /// # Errors
    /// We are not root, or a namespace is refused.
    pub fn start(name: &str, log: &Path) -> Result<Self> {
        let mut holder = Command::new("unshare");
        // the outer container gives PIDs and /proc; this one the rest
        holder
            .args(["--net", "--uts", "--ipc", "--", "sh", "-eu", "-c", SETUP])
            .arg(name);
        // a host's daemons must not see what the caller's environment has
        holder.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        let container = Daemon::contained(name, &holder, log)?;
        let tini = container.inner_pid()?;
        // `tini` stays in the caller's network: the host is its child
        let pid = wait::until_ok(&format!("host {name}"), wait::USUAL, || {
            let child = process::first_child(tini)?;
            let comm = fs::read_to_string(format!("/proc/{child}/comm"))?;
            anyhow::ensure!(comm.trim() == "sleep", "still {}", comm.trim());
            Ok(child)
        })
        .with_context(|| process::tail(log, 10))?;
        let netns = Netns::of_process(pid)?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            netns,
            log: log.to_owned(),
            container,
        })
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A process of the host that lives as long as it: `nsenter --target PID --all`.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The host's network.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A command that will run in the host, with a plain environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .arg("--target")
            .arg(self.pid.to_string())
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .arg(program)
            .current_dir("/");
        command
    }

    /// Runs a shell script in the host, stopping at the first failure; returns what it printed.
    ///
    /// # Errors
    /// It failed or took longer than five minutes; the text has all it printed.
    pub fn sh(&self, script: &str) -> Result<String> {
        process::check(
            self.command("bash").args(["-eu", "-c", script]),
            Duration::from_secs(300),
        )
        .with_context(|| format!("on {}", self.name))
    }

    /// Runs a shell script in the host; how it ended is the caller's to judge.
    ///
    /// # Errors
    /// It cannot be started or does not end in time.
    pub fn try_sh(&self, script: &str, limit: Duration) -> Result<Output> {
        process::run(self.command("bash").args(["-c", script]), limit)
    }

    /// Starts a daemon in the host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn daemon(&self, name: &str, command: &mut Command, log: &Path) -> Result<Daemon> {
        Daemon::entering(name, command, log)
    }

    /// A path of the host as this process reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/root/{}",
            self.pid,
            path.trim_start_matches('/')
        ))
    }

    /// Writes a file of the host, making its folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let there = self.path(path);
        if let Some(folder) = there.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&there, content).with_context(|| format!("{path} on {}", self.name))
    }

    /// The holder's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Lets the host live on after this process; returns the PID whose end ends it.
    pub fn release(self) -> Pid {
        self.container.release()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_host_has_a_name_interfaces_and_files_of_its_own() {
        let scratch = Scratch::new("host").unwrap();
        let host = Host::start("node9.example", &scratch.join("log")).unwrap();
        assert_eq!(host.sh("hostname").unwrap(), "node9.example\n");
        assert_ne!(
            process::check(&mut Command::new("hostname"), wait::USUAL).unwrap(),
            "node9.example\n"
        );
        assert_eq!(host.sh("ls /sys/class/net").unwrap(), "lo\n");
        host.write("/etc/hosts", "192.0.2.9 node9.example\n")
            .unwrap();
        host.sh("echo x > /var/lib/ours; mkdir /srv/ours; echo y > /root/ours")
            .unwrap();
        assert_eq!(
            host.sh("cat /etc/hosts /var/lib/ours").unwrap(),
            "192.0.2.9 node9.example\nx\n"
        );
        assert_ne!(
            fs::read_to_string("/etc/hosts").unwrap(),
            "192.0.2.9 node9.example\n"
        );
        for path in ["/var/lib/ours", "/srv/ours", "/root/ours"] {
            assert!(
                !Path::new(path).exists(),
                "{path} of the host is on the machine"
            );
        }
    }

    #[test]
    fn what_was_started_in_a_host_ends_with_it() {
        let scratch = Scratch::new("host-end").unwrap();
        let host = Host::start("brief", &scratch.join("log")).unwrap();
        host.sh("setsid sleep 4321.5 >/dev/null 2>&1 &").unwrap();
        let running = || {
            fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line == b"sleep\x004321.5\0")
            })
        };
        wait::until_true("the sleep in the host", wait::USUAL, running).unwrap();
        drop(host);
        wait::until_true("its end", wait::USUAL, || !running()).unwrap();
    }

    #[test]
    fn a_daemon_in_a_host_is_gone_when_it_is_dropped() {
        let scratch = Scratch::new("host-daemon").unwrap();
        let host = Host::start("brief", &scratch.join("log")).unwrap();
        let mut command = host.command("sh");
        command.args(["-c", "touch /run/up; exec sleep 999"]);
        let daemon = host
            .daemon("sleep", &mut command, &scratch.join("sleep.log"))
            .unwrap();
        wait::until_true("the daemon to be up", wait::USUAL, || {
            host.sh("test -e /run/up").is_ok()
        })
        .unwrap();
        let pid = daemon.inner_pid().unwrap();
        drop(daemon);
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is still there"
        );
    }
}
