//! A database of central's with many servers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::postgres::Postgres;
use harness::process;
use harness::scratch::Scratch;

pub const TOKEN: &str = "a-token-of-the-benchmark";

/// Where the rows are.
pub enum Base {
    Postgres(Postgres),
    Sqlite(PathBuf),
}

/// The address of a server.
pub fn address(server: i64) -> String {
    let [_, second, third, fourth] = u32::try_from(server + 256).unwrap().to_be_bytes();
    format!("10.{second}.{third}.{fourth}")
}

/// The MAC address of a server.
pub fn mac(server: i64) -> String {
    let [_, _, third, fourth] = u32::try_from(server).unwrap().to_be_bytes();
    format!("aa:00:00:00:{third:02x}:{fourth:02x}")
}

impl Base {
    /// An empty one.
    pub fn new(postgres: bool, scratch: &Scratch) -> Self {
        if postgres {
            Self::Postgres(Postgres::start(&scratch.join("pg"), 5432).unwrap())
        } else {
            Self::Sqlite(scratch.join("central.db"))
        }
    }

    /// For the configuration.
    pub fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.uri(),
            Self::Sqlite(file) => format!("sqlite://{}", file.display()),
        }
    }

    /// Runs statements; what a `SELECT` shows first.
    pub fn sql(&self, scratch: &Scratch, text: &str) -> String {
        let file = scratch.join("run.sql");
        fs::write(&file, text).unwrap();
        let mut command = match self {
            Self::Postgres(server) => server.psql("snf", &format!("\\i {}", file.display())),
            Self::Sqlite(base) => {
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

    /// Puts in so many servers, each with a NIC, an address and a disk, and what `more` says of
    /// each, then what `last` says.
    pub fn rows(&self, scratch: &Scratch, servers: i64, more: impl Fn(i64) -> String, last: &str) {
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
                 status, created_at, updated_at) SELECT {id}, {id}, '', {user}, 1, 0, 'IN_USE', 0, 0;\n"
            );
            text += &more(id);
        }
        text += last;
        text += "COMMIT;\n";
        if matches!(self, Self::Postgres(_)) {
            // what is made next comes after these
            for table in ["servers", "ports", "volumes"] {
                text += &format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', 'id'), {});\n",
                    servers + 1
                );
            }
        }
        text += "ANALYZE;\n";
        self.sql(scratch, &text);
    }
}

/// What `snf-central seed` is given: one of everything.
pub fn seed(rapi: &str, password: &str) -> String {
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
