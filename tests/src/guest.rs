//! A QEMU guest: Debian's cloud kernel with busybox, and its serial console, on which a test
//! types as a person would.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Daemon};
use crate::wait;
use crate::{source_root, target_dir};

/// How long a guest may take to boot: about 3 s under TCG on a quiet machine.
pub const BOOT: Duration = Duration::from_secs(180);

/// The guest's kernel and initial file system.
#[derive(Clone, Debug)]
pub struct Image {
    /// Debian's cloud kernel.
    pub kernel: PathBuf,
    /// Busybox and the kernel's virtio modules.
    pub initrd: PathBuf,
}

impl Image {
    /// Builds the image if it is not there yet.
    ///
    /// # Errors
    /// Debian's archive cannot be reached, or a program is missing.
    pub fn build() -> Result<Self> {
        let folder = target_dir().join("guest");
        let mut build = Command::new(source_root().join("tests/guest/build"));
        process::check(build.arg(&folder), Duration::from_secs(300))?;
        Ok(Self {
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.img"),
        })
    }
}

/// The fastest of QEMU's accelerators that this machine has: `kvm` or `tcg`.
///
/// KVM counts only with the CPU's own virtualization: `/dev/kvm` may be there without it, and
/// then opens and makes virtual machines which never get anywhere.
pub fn accelerator() -> &'static str {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if hardware && device.is_ok() {
        "kvm"
    } else {
        "tcg"
    }
}

/// A guest that is not Ganeti's: QEMU started by the test itself on TAPs of the caller's
/// network namespace, which exist already.
#[derive(Debug)]
pub struct Guest {
    /// Its console.
    pub console: Console,
    daemon: Daemon,
}

impl Guest {
    /// Boots a guest whose NICs are `nics`: pairs of TAP name and MAC. Its files are in
    /// `folder`.
    ///
    /// # Errors
    /// QEMU does not start, or the guest does not say that it is ready.
    pub fn boot(image: &Image, folder: &Path, nics: &[(&str, &str)]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let socket = folder.join("console");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", &format!("pc,accel={}", accelerator())])
            .args(["-m", "128", "-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-append", "console=ttyS0 quiet panic=1 mitigations=off"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args([
                "-chardev",
                &format!("socket,id=c,path={},server=on,wait=off", socket.display()),
            ])
            .args(["-serial", "chardev:c"]);
        for (index, (tap, mac)) in nics.iter().enumerate() {
            qemu.args([
                "-netdev",
                &format!("tap,id=n{index},ifname={tap},script=no,downscript=no"),
            ])
            .args([
                "-device",
                &format!("virtio-net-pci,netdev=n{index},mac={mac}"),
            ]);
        }
        let daemon = Daemon::spawn("QEMU", &mut qemu, &folder.join("qemu.log"))?;
        let connected = wait::until_ok("the guest's console", wait::USUAL, || {
            Console::connect(&socket)
        });
        let mut console = connected.with_context(|| daemon.log_tail())?;
        console
            .wait_for_shell(BOOT)
            .with_context(|| daemon.log_tail())?;
        Ok(Self { console, daemon })
    }

    /// Cuts its power.
    pub fn kill(self) {
        self.daemon.kill();
    }
}

/// A serial console: a Unix socket of QEMU's with a shell behind it.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    transcript: Vec<u8>,
    commands: u32,
}

impl Console {
    /// Connects to the socket.
    ///
    /// # Errors
    /// QEMU is not there (yet).
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            stream,
            transcript: Vec::new(),
            commands: 0,
        })
    }

    /// Everything the console has shown so far.
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.transcript).replace('\r', "")
    }

    /// Waits until a shell answers. What was shown before we connected is lost, so we ask.
    ///
    /// # Errors
    /// None answers in time; the text has what was shown instead.
    pub fn wait_for_shell(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            // a shell that is not there yet must not be flooded: one question a while
            if self.try_run("true", Duration::from_secs(2))?.is_some() {
                return Ok(());
            }
        }
        bail!(
            "no shell on the guest's console after {} s; it showed:\n{}",
            limit.as_secs(),
            self.transcript()
        )
    }

    /// Runs a command in the guest; returns what it printed. Its status must be 0.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        match self.try_run(command, limit)? {
            Some((0, text)) => Ok(text),
            Some((status, text)) => bail!("in the guest: {command}: status {status}: {text}"),
            None => bail!(
                "in the guest: {command}: no answer in {} s; the console's end:\n{}",
                limit.as_secs(),
                self.recent()
            ),
        }
    }

    /// Runs a command in the guest until it succeeds.
    ///
    /// # Errors
    /// It never did; the text has the last answer.
    pub fn run_until(&mut self, command: &str, limit: Duration) -> Result<String> {
        wait::until_ok(&format!("{command:?} in the guest"), limit, || {
            self.run(command, Duration::from_secs(10))
        })
    }

    fn recent(&self) -> String {
        let from = self.transcript.len().saturating_sub(2000);
        String::from_utf8_lossy(&self.transcript[from..]).replace('\r', "")
    }

    /// Runs a command; its status and output, or nothing if it has not ended in time.
    fn try_run(&mut self, command: &str, limit: Duration) -> Result<Option<(i32, String)>> {
        self.commands += 1;
        let n = self.commands;
        // The shell echoes what is typed: the quotes keep the echo apart from the output. One
        // line: the echo of what is typed ahead of a running command mixes with its output.
        let separator = if command.trim_end().ends_with('&') {
            ""
        } else {
            ";"
        };
        let typed = format!("echo \"be\"gin-{n}:; {command}{separator} echo \"en\"d-{n}:$?:\n");
        let from = self.transcript.len();
        self.stream
            .write_all(typed.as_bytes())
            .context("typing on the guest's console")?;
        let (begin, end) = (format!("begin-{n}:\n"), format!("end-{n}:"));
        let start = Instant::now();
        while start.elapsed() < limit {
            self.read_more()?;
            let text = String::from_utf8_lossy(&self.transcript[from..]).replace('\r', "");
            let Some((_, after)) = text.split_once(&begin) else {
                continue;
            };
            let Some((body, status)) = after.split_once(&end) else {
                continue;
            };
            let Some((status, _)) = status.split_once(':') else {
                continue;
            };
            let lines = body.lines().filter(|line| !line.is_empty());
            let output = lines.fold(String::new(), |all, line| all + line + "\n");
            return Ok(Some((status.parse().unwrap_or(-1), output)));
        }
        Ok(None)
    }

    fn read_more(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the guest's console closed; its end:\n{}", self.recent()),
            Ok(length) => self.transcript.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("reading the guest's console"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;
    use crate::netns::Netns;
    use crate::scratch::Scratch;

    #[test]
    fn a_guest_boots_and_answers_on_its_console() {
        let scratch = Scratch::new("guest").unwrap();
        let host = Netns::new().unwrap();
        host.enter().unwrap();
        let image = Image::build().unwrap();
        let nic = [("tap0", "aa:00:00:00:00:07")];
        let mut guest = Guest::boot(&image, scratch.path(), &nic).unwrap();
        let mac = guest
            .console
            .run("cat /sys/class/net/eth0/address", wait::USUAL)
            .unwrap();
        assert_eq!(mac, "aa:00:00:00:00:07\n");
        assert!(guest.console.run("false", wait::USUAL).is_err());
        // the guest answers the host over its TAP
        host.ip("addr add 192.0.2.1/24 dev tap0").unwrap();
        host.ip("link set tap0 up").unwrap();
        guest
            .console
            .run_until("ip addr add 192.0.2.2/24 dev eth0", wait::USUAL)
            .unwrap();
        host.sh("ping -c 1 -W 20 192.0.2.2").unwrap();
    }

    /// A terminal echoes at once what is typed while a command runs, wherever its output is.
    #[test]
    fn nothing_is_typed_ahead_of_a_running_command() {
        let (ours, shell) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut console = Console {
            stream: ours,
            transcript: Vec::new(),
            commands: 0,
        };
        let shell = std::thread::spawn(move || {
            let mut typed = BufReader::new(&shell);
            for command in ["head -n 1 /dev/vda; ", "sleep 1 & "] {
                let mut line = String::new();
                typed.read_line(&mut line).unwrap();
                assert!(line.contains(command), "{line}");
                let number = line.split(':').next().unwrap();
                let number = number.rsplit('-').next().unwrap();
                // the echo, wrapped by the terminal, then the output
                write!(&shell, "{}\r\n{}\r\n", &line[..9], line[9..].trim_end()).unwrap();
                std::thread::sleep(Duration::from_millis(300));
                assert!(typed.buffer().is_empty(), "typed ahead");
                write!(
                    &shell,
                    "begin-{number}:\r\nok\r\nend-{number}:0:\r\nguest# "
                )
                .unwrap();
            }
        });
        for command in ["head -n 1 /dev/vda", "sleep 1 &"] {
            assert_eq!(console.run(command, wait::USUAL).unwrap(), "ok\n");
        }
        shell.join().unwrap();
    }
}
