//! A PostgreSQL of our own, on a Unix socket and a TCP port of the caller's network namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::process::{self, Daemon};
use crate::wait;

/// A running server; ended when this is dropped, its data stays in its folder.
#[derive(Debug)]
pub struct Postgres {
    daemon: Option<Daemon>,
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes a cluster in `folder` (which the user `postgres` must be able to reach) and
    /// starts it on 127.0.0.1:`port`; user and database `snf`, no password.
    ///
    /// # Errors
    /// PostgreSQL is not installed or does not come up.
    pub fn start(folder: &Path, port: u16) -> Result<Self> {
        let bin = newest_bin()?;
        fs::create_dir_all(folder)?;
        let owner = User::from_name("postgres")?.context("no user postgres on this machine")?;
        chown(folder, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut init = as_postgres(&bin.join("initdb"));
        init.args([
            "--auth=trust",
            "--username=snf",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ])
        .args(["--no-sync", "--pgdata"])
        .arg(folder.join("data"))
        .current_dir(folder);
        process::check(&mut init, Duration::from_secs(120))?;
        let mut server = Self {
            daemon: None,
            folder: folder.to_owned(),
            bin,
            port,
        };
        server.restart()?;
        process::check(
            &mut server.psql("postgres", "create database snf"),
            wait::USUAL,
        )?;
        Ok(server)
    }

    /// `postgres://…`.
    pub fn uri(&self) -> String {
        format!("postgres://snf@127.0.0.1:{}/snf", self.port)
    }

    /// A `psql` that runs one statement in a database and prints bare rows.
    pub fn psql(&self, database: &str, statement: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .args([
                "-X",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "snf",
            ])
            .args([
                "-p",
                &self.port.to_string(),
                "-d",
                database,
                "-c",
                statement,
            ]);
        command
    }

    /// Kills the server, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Starts it (again) with the data it has.
    ///
    /// # Errors
    /// It does not come up; the text has the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let _ = fs::remove_file(self.folder.join("data/postmaster.pid"));
        let mut command = as_postgres(&self.bin.join("postgres"));
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-k")
            .arg(&self.folder)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .current_dir(&self.folder);
        let log = self.folder.join("log");
        self.daemon = Some(Daemon::contained("PostgreSQL", &command, &log)?);
        let ready =
            || process::check(&mut self.psql("postgres", "select 1"), wait::USUAL).map(drop);
        wait::until_ok("PostgreSQL to answer", Duration::from_secs(60), ready)
            .with_context(|| process::tail(&log, 15))
    }
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--",
        ])
        .arg(program)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8");
    command
}

fn newest_bin() -> Result<PathBuf> {
    let root = Path::new("/usr/lib/postgresql");
    let mut versions: Vec<u32> = fs::read_dir(root)
        .with_context(|| format!("{}: is PostgreSQL installed?", root.display()))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let newest = versions
        .pop()
        .with_context(|| format!("no version in {}", root.display()))?;
    Ok(root.join(newest.to_string()).join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use crate::scratch::Scratch;

    #[test]
    fn a_server_starts_and_keeps_committed_rows_over_a_kill() {
        Netns::new().unwrap().enter().unwrap();
        let scratch = Scratch::new("postgres").unwrap();
        let mut server = Postgres::start(&scratch.join("pg"), 5432).unwrap();
        let sql = "create table t (n int); insert into t values (7)";
        process::check(&mut server.psql("snf", sql), wait::USUAL).unwrap();
        server.kill();
        server.restart().unwrap();
        let rows = process::check(&mut server.psql("snf", "select n from t"), wait::USUAL).unwrap();
        assert_eq!(rows, "7\n");
    }
}
