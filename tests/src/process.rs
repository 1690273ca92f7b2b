//! Running programs: to their end with a deadline, or as daemons that cannot outlive the test.
//!
//! A daemon runs in a PID namespace of its own under a small init (`tini`), so that what it
//! forks and forgets (RabbitMQ's `epmd`) is ended with it, by the kernel, also when the test
//! itself is killed: `unshare --kill-child` and `PR_SET_PDEATHSIG` chain the two together.

#![allow(unsafe_code)] // pre_exec: only async-signal-safe calls between fork and exec

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

static OUTLIVE: AtomicBool = AtomicBool::new(false);

/// From now on daemons may outlive this process, for a chain that is to be left up. What is
/// not released ([`Daemon::release`]) still ends when it is dropped.
pub fn outlive() {
    OUTLIVE.store(true, Ordering::Relaxed);
}

/// What a finished command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, lossily decoded.
    pub stdout: String,
    /// Its standard error, lossily decoded.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// Its output goes through files, so that a daemon that it leaves behind with the same
/// descriptors does not keep us waiting.
///
/// # Errors
/// It cannot be started, or has not ended at the deadline (it is killed then).
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = describe(command);
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() >= limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "{name} has not ended after {} s; it printed: {}{}",
                limit.as_secs(),
                read_back(&mut out)?,
                read_back(&mut err)?
            );
        }
        thread::sleep(Duration::from_millis(5));
    };
    Ok(Output {
        status,
        stdout: read_back(&mut out)?,
        stderr: read_back(&mut err)?,
    })
}

fn read_back(file: &mut File) -> Result<String> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Runs a command that must succeed; returns its standard output.
///
/// # Errors
/// As for [`run`], or it ended with another status than 0; the text has all it printed.
pub fn check(command: &mut Command, limit: Duration) -> Result<String> {
    let name = describe(command);
    let output = run(command, limit)?;
    if !output.status.success() {
        bail!(
            "{name}: {}: {}{}",
            output.status,
            output.stdout,
            output.stderr
        );
    }
    Ok(output.stdout)
}

/// The command as a person would type it, for messages.
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// How long `nsenter` or `unshare` may take to see the end of its child.
const REAPED_WITHIN: Duration = Duration::from_secs(10);

/// A daemon with its log file; ended, with all that it started, when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    /// Whether the daemon is a child of the process that we started (`unshare`, `nsenter`).
    wrapped: bool,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with all its output in `log`. The child itself dies with this
    /// process; what it forks does not: use [`Daemon::contained`] for what forks.
    ///
    /// # Errors
    /// It cannot be started, or the log cannot be written.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        die_with_parent(command);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", describe(command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            wrapped: false,
            log: log.to_owned(),
        })
    }

    /// Starts `command` as [`Daemon::spawn`] does, in a PID namespace of its own: all its
    /// descendants end with it. `/proc` there is its own.
    ///
    /// # Errors
    /// As for [`Daemon::spawn`].
    pub fn contained(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let mut wrapped = Command::new("unshare");
        wrapped
            .args([
                "--pid",
                "--fork",
                "--mount",
                "--mount-proc",
                "--kill-child=KILL",
                "--",
            ])
            .args(["tini", "-g", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        let mut daemon = Self::spawn(name, &mut wrapped, log)?;
        daemon.wrapped = true;
        Ok(daemon)
    }

    /// Starts `command`, an `nsenter` into a PID namespace, whose child is the daemon.
    ///
    /// # Errors
    /// As for [`Daemon::spawn`].
    pub fn entering(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let mut daemon = Self::spawn(name, command, log)?;
        daemon.wrapped = true;
        Ok(daemon)
    }

    /// The process started: the daemon itself, or for a contained one its container.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The first process inside the other PID namespace, by its PID here: the `tini` of a
    /// container, or the daemon that was entered for.
    ///
    /// # Errors
    /// It did not start in time.
    pub fn inner_pid(&self) -> Result<Pid> {
        let what = format!("the first process of {}", self.name);
        crate::wait::until_ok(&what, crate::wait::USUAL, || first_child(self.pid()))
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |text| String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// The log's path.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The end of the log, for error texts.
    pub fn log_tail(&self) -> String {
        tail(&self.log, 25)
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails if it has ended, with its status and the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended: {status}; its log:\n{}",
                self.name,
                self.log_tail()
            ),
        }
    }

    /// Waits until its log has `text`.
    ///
    /// # Errors
    /// The deadline passed, or it ended.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{text:?} in the log of {}", self.name);
        crate::wait::until(&what, limit, || {
            if self.log().contains(text) {
                crate::wait::Look::Done(())
            } else if let Err(error) = self.still_runs() {
                crate::wait::Look::Failed(format!("{error:#}"))
            } else {
                crate::wait::Look::NotYet(format!("\n{}", self.log_tail()))
            }
        })
    }

    /// Sends a signal to the process (for a contained one: to its `tini`, which passes it on).
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = if self.wrapped {
            self.inner_pid()?
        } else {
            self.pid()
        };
        signal::kill(pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// It has not ended at the deadline; it is killed then.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() >= limit {
                bail!(
                    "{} does not end on SIGTERM; its log:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it (SIGKILL) at this instant and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    /// Lets it live on after this process; returns its PID.
    pub fn release(self) -> Pid {
        let pid = self.pid();
        std::mem::forget(self);
        pid
    }

    fn end(&mut self) {
        // an entered PID namespace does not end with `nsenter`
        let inner = if self.wrapped {
            first_child(self.pid()).ok()
        } else {
            None
        };
        if let Some(inner) = inner {
            let _ = signal::kill(inner, Signal::SIGKILL);
            // its parent reaps it and ends then; killed first, it would leave a zombie behind
            let start = Instant::now();
            while self.ended().is_none() && start.elapsed() < REAPED_WITHIN {
                thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // what it held (locks, ports) is free only when it is really gone
        let start = Instant::now();
        while inner.is_some_and(is_alive) && start.elapsed() < crate::wait::USUAL {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether a process runs; a zombie does not.
fn is_alive(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first child of a process.
///
/// # Errors
/// It is gone, or has none.
pub fn first_child(parent: Pid) -> Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next().context("no child yet")?;
    Ok(Pid::from_raw(first.parse()?))
}

/// The last `lines` lines of a file, for error texts.
pub fn tail(path: &Path, lines: usize) -> String {
    let Ok(bytes) = fs::read(path) else {
        return format!("(no log at {})", path.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Makes the kernel kill the child when the *thread* that starts it ends: a daemon is started
/// from a thread that lives as long as the test.
///
///
/// Unless [`outlive`] was called.
fn die_with_parent(command: &mut Command) {
    if OUTLIVE.load(Ordering::Relaxed) {
        // of its own session, so that the terminal's Ctrl-C does not reach it either
        // SAFETY: setsid is async-signal-safe.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
        }
        return;
    }
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::wait;

    #[test]
    fn a_command_that_hangs_is_killed_and_named() {
        let error = run(Command::new("sleep").arg("100"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("sleep 100"), "{error}");
    }

    #[test]
    fn a_failing_command_says_what_it_printed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = check(&mut command, wait::USUAL).unwrap_err().to_string();
        assert!(
            error.contains("out") && error.contains("err") && error.contains('3'),
            "{error}"
        );
    }

    #[test]
    fn what_a_contained_daemon_forks_ends_with_it() {
        let scratch = Scratch::new("contained").unwrap();
        let mut command = Command::new("sh");
        // a daemon in the classical way: its own session, parent gone
        command.args(["-c", "setsid sleep 1234.5 & sleep 1000"]);
        let daemon = Daemon::contained("sh", &command, &scratch.join("log")).unwrap();
        let running = || {
            fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line == b"sleep\x001234.5\0")
            })
        };
        wait::until_true("the forked sleep", wait::USUAL, running).unwrap();
        drop(daemon);
        wait::until_true("its end", wait::USUAL, || !running()).unwrap();
    }
}
