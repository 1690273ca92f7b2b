//! A central with many servers in its database, and a RAPI that answers as a real one did.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::postgres::Postgres;
use harness::scratch::Scratch;
use harness::{process, wait};

pub const TOKEN: &str = "a-token-of-the-benchmark";
pub const API: &str = "127.0.0.1:8774";
pub const PEER: &str = "127.0.0.1:8775";

/// Where the rows are.
pub enum Base {
    Postgres(Postgres),
    Sqlite(PathBuf),
}

pub struct Cloud {
    pub base: Base,
    pub scratch: Scratch,
    configuration: PathBuf,
}

/// A program that serves; killed when dropped.
pub struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Served {
    fn start(command: &mut Command, address: &str) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        let served = Self(child.spawn().unwrap());
        wait::until_true(address, Duration::from_secs(120), || {
            TcpStream::connect(address).is_ok()
        })
        .unwrap();
        served
    }

    /// The seconds of CPU that it has taken.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        // USER_HZ, which is 100 on every Linux of ours
        ticks / 100.0
    }

    /// A line of its status, in MB: `VmRSS:`, `VmHWM:`.
    pub fn memory(&self, what: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}

fn address(server: i64) -> String {
    let [_, second, third, fourth] = u32::try_from(server + 256).unwrap().to_be_bytes();
    format!("10.{second}.{third}.{fourth}")
}

fn mac(server: i64) -> String {
    let [_, _, third, fourth] = u32::try_from(server).unwrap().to_be_bytes();
    format!("aa:00:00:00:{third:02x}:{fourth:02x}")
}

impl Cloud {
    /// With so many servers, each with a NIC, an address, a disk, metadata and a tag.
    pub fn new(postgres: bool, rapi: &str, servers: i64) -> Self {
        let scratch = Scratch::new("bench-api").unwrap();
        let base = if postgres {
            Base::Postgres(Postgres::start(&scratch.join("pg"), 5432).unwrap())
        } else {
            Base::Sqlite(scratch.join("central.db"))
        };
        let cloud = Self {
            base,
            configuration: scratch.join("central.toml"),
            scratch,
        };
        let text = format!(
            "[api]\nlisten = '{API}'\n[database]\nurl = '{}'\n\
             [reconcile]\ninterval_seconds = 100000\n",
            cloud.url()
        );
        fs::write(&cloud.configuration, text).unwrap();
        let password = cloud.scratch.join("password");
        fs::write(&password, "secret\n").unwrap();
        let seed = cloud.scratch.join("seed.toml");
        fs::write(&seed, seed_text(rapi, &password.display().to_string())).unwrap();
        cloud.central(&["migrate"]);
        cloud.central(&["seed", &seed.display().to_string()]);
        cloud.rows(servers);
        cloud
    }

    fn url(&self) -> String {
        match &self.base {
            Base::Postgres(server) => server.uri(),
            Base::Sqlite(file) => format!("sqlite://{}", file.display()),
        }
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
        Served::start(self.command().arg("serve"), API)
    }

    /// Serves the same rows without central.
    pub fn serve_peer(&self) -> Served {
        let project = self.sql("SELECT id FROM projects");
        let mut command = Command::new(std::env::current_exe().unwrap());
        Served::start(command.args(["peer", PEER, &self.url(), &project]), PEER)
    }

    /// Runs statements; what a `SELECT` shows first.
    pub fn sql(&self, text: &str) -> String {
        let file = self.scratch.join("run.sql");
        fs::write(&file, text).unwrap();
        let mut command = match &self.base {
            Base::Postgres(server) => server.psql("snf", &format!("\\i {}", file.display())),
            Base::Sqlite(base) => {
                let mut command = Command::new("python3");
                command.args([
                    "-c",
                    "import sqlite3,sys\n\
                     base=sqlite3.connect(sys.argv[1],timeout=60)\n\
                     text=open(sys.argv[2]).read()\n\
                     if text.startswith('SELECT'): print(base.execute(text).fetchone()[0])\n\
                     else: base.executescript(text)",
                ]);
                command.args([base, &file]);
                command
            }
        };
        let shown = process::check(&mut command, Duration::from_secs(300)).unwrap();
        shown.trim().to_owned()
    }

    fn rows(&self, servers: i64) {
        let user = "(SELECT id FROM users), (SELECT id FROM projects)";
        let network = "(SELECT id FROM networks)";
        let mut text = String::from("BEGIN;\n");
        for id in 1..=servers {
            let (ip, mac) = (address(id), mac(id));
            let number = u32::from(ip.parse::<std::net::Ipv4Addr>().unwrap());
            text += &format!(
                "INSERT INTO servers (id, name, user_id, project_id, flavor_id, image_id, backend_id, \
                 state, progress, suspended, created_at, updated_at, job_id, job_rank, job_time, \
                 state_job, state_rank, state_time, nics_job, nics_rank, nics_time, shape_job, \
                 shape_rank, shape_time) SELECT {id}, 's{id}', {user}, (SELECT id FROM flavors), \
                 (SELECT id FROM images), (SELECT id FROM backends), 'STARTED', 100, false, 0, 0, \
                 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0;\n\
                 INSERT INTO ports (id, name, user_id, project_id, network_id, server_id, state, \
                 nic_index, mac, ipv4, floating, created_at, updated_at) SELECT {id}, '', {user}, \
                 {network}, {id}, 'ACTIVE', 0, '{mac}', '{ip}', false, 0, 0;\n\
                 INSERT INTO addresses (subnet_id, network_id, number, address, floating, user_id, \
                 project_id, port_id, live, created_at, updated_at) SELECT (SELECT id FROM subnets), \
                 {network}, {number}, '{ip}', false, {user}, {id}, true, 0, 0;\n\
                 INSERT INTO volumes (id, server_id, name, user_id, project_id, size, disk_index, \
                 status, created_at, updated_at) SELECT {id}, {id}, '', {user}, 1, 0, 'IN_USE', 0, 0;\n\
                 INSERT INTO server_metadata (server_id, name, value) VALUES ({id}, 'role', 'web');\n\
                 INSERT INTO server_tags (server_id, tag) VALUES ({id}, 'blue');\n"
            );
        }
        text += "COMMIT;\n";
        if matches!(self.base, Base::Postgres(_)) {
            // what is made next comes after these
            for table in ["servers", "ports", "volumes"] {
                text += &format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', 'id'), {});\n",
                    servers + 1
                );
            }
        }
        text += "ANALYZE;\n";
        self.sql(&text);
    }
}

fn seed_text(rapi: &str, password: &str) -> String {
    format!(
        "[[project]]\nname = 'p'\n\
         [[user]]\nname = 'u'\npassword = 'u-password'\ntoken = '{TOKEN}'\nprojects = ['p']\n\
         [[backend]]\nname = 'cluster'\nurl = '{rapi}'\nusername = 'central'\n\
         password_file = '{password}'\n\
         [[flavor]]\nname = 'tiny'\nvcpus = 1\nram = 128\ndisk = 1\ndisk_template = 'file'\n\
         [[image]]\nname = 'busybox'\nos = 'snf-image+default'\nsource = '/busybox.img'\n\
         format = 'diskdump'\n\
         [[network]]\nname = 'bridged'\ntype = 'CUSTOM'\nlink = 'br0'\npublic = true\n\
         [[network.subnet]]\ncidr = '10.0.0.0/8'\ngateway = '10.0.0.1'\n"
    )
}
