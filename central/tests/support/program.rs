//! The program itself, in a process of its own: its memory and its descriptors can be measured.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use std::io::Write;

/// A running `snf-central serve`; it is killed with the test.
pub struct Program {
    child: Child,
    pub port: u16,
    pub log: std::path::PathBuf,
}

impl Program {
    /// Starts it on a database that a seed was run on, with at most `descriptors` open files.
    pub async fn start(folder: &Path, api: &str, more: &str, descriptors: u32) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let config = folder.join("program.toml");
        let text = format!(
            "log = 'info'\n[database]\nurl = 'sqlite://{}/central.db'\n\
             [api]\nlisten = '127.0.0.1:{port}'\n{api}\n{more}\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let log = folder.join("program.log");
        let output = std::fs::File::create(&log).unwrap();
        let child = Command::new("sh")
            .args(["-c", "ulimit -n $1; shift; exec \"$@\"", "sh"])
            .arg(descriptors.to_string())
            .arg(env!("CARGO_BIN_EXE_snf-central"))
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let program = Self { child, port, log };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(program.address()).is_err() {
            assert!(std::time::Instant::now() < deadline, "{}", program.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        program
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address())
    }

    /// A figure of `/proc/PID/status`, in KiB: `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command of `snf-central` on the database of `folder`.
pub fn shell(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let config = folder.join("shell.toml");
    let text = format!(
        "log = 'warn'\n[database]\nurl = 'sqlite://{}/central.db'\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(&config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command need not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// As [`shell`], for what has to succeed.
pub fn done(folder: &Path, arguments: &[&str], input: &str) -> String {
    let output = shell(folder, arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
