//! A central with many servers in its database, and a RAPI that answers as a real one did.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::scratch::Scratch;
use harness::{process, wait};

use crate::served::Served;
use crate::servers::{self, Base};

pub const API: &str = "127.0.0.1:8774";
pub const PEER: &str = "127.0.0.1:8775";

pub struct Cloud {
    pub base: Base,
    pub scratch: Scratch,
    configuration: PathBuf,
}

/// Waits until it takes connections.
fn listening(served: Served, address: &str) -> Served {
    wait::until_true(address, Duration::from_secs(120), || {
        TcpStream::connect(address).is_ok()
    })
    .unwrap();
    served
}

impl Cloud {
    /// With so many servers, each with a NIC, an address, a disk, metadata and a tag.
    pub fn new(postgres: bool, rapi: &str, servers: i64) -> Self {
        let scratch = Scratch::new("bench-api").unwrap();
        let base = Base::new(postgres, &scratch);
        let cloud = Self {
            base,
            configuration: scratch.join("central.toml"),
            scratch,
        };
        let text = format!(
            "[api]\nlisten = '{API}'\n[database]\nurl = '{}'\n\
             [reconcile]\ninterval_seconds = 100000\n",
            cloud.base.url()
        );
        fs::write(&cloud.configuration, text).unwrap();
        let password = cloud.scratch.join("password");
        fs::write(&password, "secret\n").unwrap();
        let seed = cloud.scratch.join("seed.toml");
        fs::write(&seed, servers::seed(rapi, &password.display().to_string())).unwrap();
        cloud.central(&["migrate"]);
        cloud.central(&["seed", &seed.display().to_string()]);
        let more = |id| {
            format!(
                "INSERT INTO server_metadata (server_id, name, value) VALUES ({id}, 'role', 'web');\n\
                 INSERT INTO server_tags (server_id, tag) VALUES ({id}, 'blue');\n"
            )
        };
        cloud.base.rows(&cloud.scratch, servers, more, "");
        cloud
    }

    fn command(&self) -> Command {
        let mut command = Command::new(harness::program("snf-central").unwrap());
        command.arg("--config").arg(&self.configuration);
        command
    }

    fn central(&self, words: &[&str]) -> String {
        process::check(self.command().args(words), Duration::from_secs(120)).unwrap()
    }

    pub fn serve(&self) -> Served {
        listening(Served::start(self.command().arg("serve")), API)
    }

    /// Serves the same rows without central.
    pub fn serve_peer(&self) -> Served {
        let project = self.sql("SELECT id FROM projects");
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command.args(["peer", PEER, &self.base.url(), &project]);
        listening(Served::start(command), PEER)
    }

    /// Runs statements; what a `SELECT` shows first.
    pub fn sql(&self, text: &str) -> String {
        self.base.sql(&self.scratch, text)
    }
}
