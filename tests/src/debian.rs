//! Debian 12 systems to install the packages in: a chroot, and a machine in QEMU that systemd
//! has booted on Debian's cloud kernel.
//!
//! Both stand on what `tests/debian/build` makes once, and write to a copy of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::guest::{Console, accelerator};
use crate::process::{self, Daemon, Output};
use crate::scratch::Scratch;
use crate::wait;
use crate::{source_root, target_dir};

/// How long a step inside a Debian system may take: dpkg on a shared machine.
pub const STEP: Duration = Duration::from_secs(300);

/// The same where TCG stands for the processor: six packages installed by apt.
const EMULATED_STEP: Duration = Duration::from_secs(1200);

/// How long the machine may take to boot: half a minute under TCG on a quiet one.
pub const BOOT: Duration = Duration::from_secs(600);

/// What `tests/debian/build` makes.
#[derive(Debug, Clone)]
pub struct Base {
    /// The system as a folder tree, never written to.
    pub root: PathBuf,
    disk: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Base {
    /// Builds it if it is not there yet.
    ///
    /// # Errors
    /// Debian's archive cannot be reached, or a program is missing.
    pub fn build() -> Result<Self> {
        let (folder, guest) = (target_dir().join("debian"), target_dir().join("guest"));
        let mut build = Command::new(source_root().join("tests/debian/build"));
        process::check(build.arg(&folder).arg(&guest), Duration::from_secs(900))?;
        Ok(Self {
            root: folder.join("root"),
            disk: folder.join("disk.img"),
            kernel: guest.join("vmlinuz"),
            initrd: folder.join("initrd.img"),
        })
    }
}

/// The packages of the programs beside the running one.
#[derive(Debug)]
pub struct Packages {
    /// The folder with the `.deb` files.
    pub folder: PathBuf,
}

impl Packages {
    /// Builds them, with this version instead of the changelog's if there is one, unless that
    /// is done already: all tests share them.
    ///
    /// # Errors
    /// They cannot be built, or a program is missing.
    pub fn build(version: Option<&str>) -> Result<Self> {
        let pages = crate::program("package-pages")?;
        let programs = pages.parent().context("a program without a folder")?;
        let folder = target_dir()
            .join("debs")
            .join(version.unwrap_or("as-it-is"));
        let mut make = Command::new(source_root().join("packaging/make-debs"));
        make.args(["--plain", "--programs"])
            .arg(programs)
            .arg("--out")
            .arg(&folder);
        if let Some(version) = version {
            make.args(["--version", version]);
        }
        process::check(&mut make, Duration::from_secs(900))?;
        Ok(Self { folder })
    }

    /// The package files, without those of debugging symbols.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.folder)?;
        let mut files: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(".deb") && !name.contains("-dbgsym_")
            })
            .collect();
        files.sort();
        if files.is_empty() {
            bail!("no packages in {}", self.folder.display());
        }
        Ok(files)
    }
}

/// A Debian system in a chroot without a service manager. What is written stays until this is
/// dropped; mounts and processes end with each command.
#[derive(Debug)]
pub struct Chroot {
    base: Base,
    scratch: Scratch,
}

impl Chroot {
    /// A fresh system.
    ///
    /// # Errors
    /// The base cannot be built.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new("debian")?;
        for folder in ["upper", "work", "root", "share"] {
            scratch.folder(folder)?;
        }
        Ok(Self {
            base: Base::build()?,
            scratch,
        })
    }

    /// A folder that the system sees as `/mnt`.
    pub fn share(&self) -> PathBuf {
        self.scratch.join("share")
    }

    /// Puts the packages into a folder below `/mnt`.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn add(&self, folder: &str, packages: &Packages) -> Result<()> {
        let folder = self.share().join(folder);
        std::fs::create_dir_all(&folder)?;
        for file in packages.files()? {
            let name = file.file_name().context("a file without a name")?;
            std::fs::copy(&file, folder.join(name))?;
        }
        Ok(())
    }

    /// Runs a shell script in the system, as root, without a network.
    ///
    /// # Errors
    /// It cannot be started, or does not end in time.
    pub fn try_sh(&self, script: &str) -> Result<Output> {
        let path = |name: &str| self.scratch.join(name).display().to_string();
        let root = path("root");
        let enter = format!(
            "set -e
             mount -t overlay overlay -o lowerdir={},upperdir={},workdir={} {root}
             mount --bind {} {root}/mnt
             mount -t proc proc {root}/proc
             mount --rbind /dev {root}/dev
             exec chroot {root} /bin/sh -ec \"$1\"",
            self.base.root.display(),
            path("upper"),
            path("work"),
            path("share"),
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child=KILL"])
            .args(["sh", "-c", &enter, "sh", script])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::run(&mut command, STEP)
    }

    /// Runs a shell script that must succeed; returns all that it printed.
    ///
    /// # Errors
    /// It failed; the text has all that it printed.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.try_sh(script)?;
        let printed = output.stdout + &output.stderr;
        if !output.status.success() {
            bail!("in the chroot: {script}: {}: {printed}", output.status);
        }
        Ok(printed)
    }

    /// Every file of the system, one a line, with type, mode, owner, where a link leads, and the
    /// content's sum; without what package management itself keeps, and logs and caches.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn files(&self) -> Result<Vec<String>> {
        let listed = self.sh(
            "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /mnt -o -path /run -o -path /tmp \
               -o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg \
               -o -path /var/lib/systemd/deb-systemd-helper-enabled \\) -prune \
               -o -printf '%y %m %u:%g %p %l\\n' | sort -k4
             find /etc /usr/lib/systemd /var/lib /var/spool -xdev -type f \
               -not -path '/var/lib/dpkg/*' -not -path '/var/lib/apt/*' -print0 | sort -z | xargs -0 sha256sum",
        )?;
        Ok(listed.lines().map(str::to_owned).collect())
    }
}

/// A machine with a Debian system, booted by systemd. Its disk is a throw-away copy.
#[derive(Debug)]
pub struct Machine {
    /// A root shell on its console.
    pub console: Console,
    daemon: Daemon,
    _scratch: Scratch,
}

impl Machine {
    /// Boots it. The files in `share` are on its second disk, which is mounted at `/mnt`.
    ///
    /// # Errors
    /// QEMU does not start, or no shell answers in time.
    pub fn boot(share: &Path) -> Result<Self> {
        let base = Base::build()?;
        let scratch = Scratch::new("machine")?;
        let (second, socket) = (scratch.join("share.img"), scratch.join("console"));
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-d"]).arg(share);
        process::check(make.arg(&second).arg("1G"), STEP)?;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", &format!("q35,accel={}", accelerator())])
            .args(["-cpu", "max", "-smp", "2", "-m", "1536"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args([
                "-append",
                "console=ttyS0 quiet panic=1 mitigations=off audit=0",
            ])
            .arg("-kernel")
            .arg(&base.kernel)
            .arg("-initrd")
            .arg(&base.initrd)
            .args(["-device", "virtio-rng-pci"])
            .args([
                "-chardev",
                &format!("socket,id=c,path={},server=on,wait=off", socket.display()),
            ])
            .args(["-serial", "chardev:c"]);
        for disk in [&base.disk, &second] {
            let drive = format!("file={},if=virtio,format=raw,snapshot=on", disk.display());
            qemu.args(["-drive", &drive]);
        }
        let daemon = Daemon::spawn("QEMU", &mut qemu, &scratch.join("qemu.log"))?;
        let connected = wait::until_ok("the machine's console", wait::USUAL, || {
            Console::connect(&socket)
        });
        let mut console = connected.with_context(|| daemon.log_tail())?;
        console
            .wait_for_shell(BOOT)
            .with_context(|| daemon.log_tail())?;
        let mut machine = Self {
            console,
            daemon,
            _scratch: scratch,
        };
        machine.run("export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PAGER=cat; stty -echo cols 1000; mount /dev/vdb /mnt")?;
        Ok(machine)
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.console.run(command, EMULATED_STEP)
    }

    /// Runs a command until it succeeds.
    ///
    /// # Errors
    /// It never did.
    pub fn run_until(&mut self, command: &str, limit: Duration) -> Result<String> {
        wait::until_ok(&format!("{command:?} in the machine"), limit, || {
            self.run(command)
        })
    }

    /// Cuts its power.
    pub fn kill(self) {
        self.daemon.kill();
    }
}
