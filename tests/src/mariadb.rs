//! A MariaDB of our own, on a Unix socket and a TCP port of the caller's network namespace.

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
pub struct MariaDb {
    daemon: Option<Daemon>,
    folder: PathBuf,
    port: u16,
}

impl MariaDb {
    /// Makes a server's data in `folder` (which the user `mysql` must be able to reach) and
    /// starts it on 127.0.0.1:`port`; user and database `snf`, password `snf`.
    ///
    /// # Errors
    /// MariaDB is not installed or does not come up.
    pub fn start(folder: &Path, port: u16) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let owner = User::from_name("mysql")?.context("no user mysql: is MariaDB installed?")?;
        chown(folder, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut install = as_mysql("mariadb-install-db", folder);
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        process::check(&mut install, Duration::from_secs(120))?;
        let mut server = Self {
            daemon: None,
            folder: folder.to_owned(),
            port,
        };
        server.restart()?;
        // The usual defaults of such a server: what the service needs it must ask for itself.
        let statements = "create database snf character set latin1 collate latin1_swedish_ci; \
                          create user snf@'127.0.0.1' identified by 'snf'; \
                          grant all on snf.* to snf@'127.0.0.1'";
        process::check(&mut server.client("mysql", statements), wait::USUAL)?;
        Ok(server)
    }

    /// `mysql://…`.
    pub fn uri(&self) -> String {
        format!("mysql://snf:snf@127.0.0.1:{}/snf", self.port)
    }

    /// A `mariadb` that runs statements in a database, as root, and prints bare rows.
    pub fn client(&self, database: &str, statements: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--batch", "--skip-column-names"])
            .args(["--user=root", "--default-character-set=utf8mb4"])
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--database={database}"))
            .arg(format!("--execute={statements}"));
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
        let mut command = as_mysql("mariadbd", &self.folder);
        command
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args(["--innodb-buffer-pool-size=64M", "--max-connections=400"]);
        let log = self.folder.join("log");
        self.daemon = Some(Daemon::contained("MariaDB", &command, &log)?);
        let ready = || process::check(&mut self.client("mysql", "select 1"), wait::USUAL).map(drop);
        wait::until_ok("MariaDB to answer", Duration::from_secs(120), ready)
            .with_context(|| process::tail(&log, 15))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

/// One of the server's programs, on the data in `folder`.
fn as_mysql(program: &str, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=mysql", "--regid=mysql", "--init-groups", "--"])
        .args([program, "--no-defaults"])
        .arg(format!("--datadir={}", folder.join("data").display()))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("TMPDIR", folder)
        .current_dir(folder);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use crate::scratch::Scratch;

    #[test]
    fn a_server_starts_and_keeps_committed_rows_over_a_kill() {
        Netns::new().unwrap().enter().unwrap();
        let scratch = Scratch::new("mariadb").unwrap();
        let mut server = MariaDb::start(&scratch.join("db"), 3306).unwrap();
        let sql = "create table t (n int) engine=innodb; insert into t values (7)";
        process::check(&mut server.client("snf", sql), wait::USUAL).unwrap();
        server.kill();
        server.restart().unwrap();
        let mut query = server.client("snf", "select n from t");
        assert_eq!(process::check(&mut query, wait::USUAL).unwrap(), "7\n");
    }
}
