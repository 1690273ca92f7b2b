//! Network namespaces that no name keeps alive: a file descriptor does, and the kernel frees
//! the namespace with all its interfaces when the last descriptor and process are gone.

#![allow(unsafe_code)] // pre_exec: only setns between fork and exec

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;
use crate::wait;

/// A network namespace. Clones are the same namespace.
#[derive(Clone, Debug)]
pub struct Netns(Arc<OwnedFd>);

impl Netns {
    /// A new namespace with `lo` up.
    ///
    /// # Errors
    /// We are not root, or the kernel refuses.
    pub fn new() -> Result<Self> {
        let fd = thread::spawn(|| -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).context("a new network namespace (are you root?)")?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        })
        .join()
        .map_err(|_| anyhow!("the thread of a new network namespace panicked"))??;
        let namespace = Self(Arc::new(fd));
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The namespace of a running process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of_process(pid: nix::unistd::Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let fd = File::open(&path).with_context(|| path.clone())?;
        Ok(Self(Arc::new(fd.into())))
    }

    /// The descriptor that holds the namespace.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Moves the calling thread into the namespace, for good. Children it starts are in it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(&self) -> Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).context("entering a network namespace")
    }

    /// Runs `work` on a thread in the namespace and returns what it returns.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` failed or panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("a thread in a network namespace panicked"))?
        })
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = self.clone();
        // SAFETY: setns is a plain system call on a descriptor that the closure owns.
        unsafe {
            command.pre_exec(move || {
                setns(namespace.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(Into::into)
            });
        }
        command
    }

    /// Runs `ip` with the words of `arguments` in the namespace; returns what it printed.
    ///
    /// # Errors
    /// It failed; the text has the command and what it printed.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        process::check(
            self.command("ip").args(arguments.split_whitespace()),
            wait::USUAL,
        )
    }

    /// Runs a shell script in the namespace, stopping at the first failure; returns what it
    /// printed.
    ///
    /// # Errors
    /// It failed; the text has all it printed.
    pub fn sh(&self, script: &str) -> Result<String> {
        process::check(self.command("sh").args(["-eu", "-c", script]), wait::USUAL)
    }

    /// Sets a sysctl of the namespace: `net.ipv4.ip_forward` or with slashes.
    ///
    /// # Errors
    /// There is none of that name, or the value is refused.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| std::fs::write(&path, value).with_context(|| format!("{path} = {value}")))
    }

    /// A veth pair, `here` in this namespace and `there` in the other, both up.
    ///
    /// # Errors
    /// A name is taken or too long.
    pub fn veth(&self, here: &str, other: &Self, there: &str) -> Result<()> {
        // /proc/self/fd names the other namespace for `ip`, which inherits the descriptor
        let fd = other.0.try_clone()?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        let mut command = self.command("ip");
        command.args([
            "link", "add", here, "type", "veth", "peer", "name", there, "netns",
        ]);
        command.arg(format!("/proc/self/fd/{raw}"));
        // SAFETY: fcntl is async-signal-safe; it clears close-on-exec in the child alone.
        unsafe {
            command.pre_exec(move || {
                let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
                let fd = std::os::fd::BorrowedFd::borrow_raw(raw);
                nix::fcntl::fcntl(fd, flags).map(drop).map_err(Into::into)
            });
        }
        process::check(&mut command, wait::USUAL)?;
        self.ip(&format!("link set {here} up"))?;
        other.ip(&format!("link set {there} up"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_namespaces_reach_each_other_over_veth_and_nothing_else() {
        let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
        left.veth("eth0", &right, "eth0").unwrap();
        left.ip("addr add 192.0.2.1/24 dev eth0").unwrap();
        right.ip("addr add 192.0.2.2/24 dev eth0").unwrap();
        left.sh("ping -c 1 -W 5 192.0.2.2").unwrap();
        assert!(left.sh("ping -c 1 -W 1 198.51.100.1").is_err());
        let links = left.ip("-o link").unwrap();
        assert_eq!(links.lines().count(), 2, "{links}");
    }

    #[test]
    fn a_namespace_ends_with_its_last_holder() {
        let namespace = Netns::new().unwrap();
        namespace.ip("link add br0 type bridge").unwrap();
        let outside = process::check(Command::new("ip").args(["-o", "link"]), wait::USUAL).unwrap();
        assert!(!outside.contains("br0"), "{outside}");
    }
}
