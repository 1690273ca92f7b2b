//! A central with many servers in its database, a broker, and a RAPI that has the same servers.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use harness::netns::Netns;
use harness::postgres::Postgres;
use harness::process;
use harness::rabbitmq::{Place, RabbitMq};
use harness::scratch::Scratch;
use serde_json::{Value, json};

pub const API: &str = "127.0.0.1:8774";
pub const TOKEN: &str = "a-token-of-the-benchmark";
const RAPI: &str = "127.0.0.1:5080";

/// Where the rows are.
pub enum Base {
    Postgres(Postgres),
    Sqlite(PathBuf),
}

pub struct Cloud {
    pub broker: RabbitMq,
    pub base: Base,
    pub scratch: Scratch,
    /// How often the cluster's instances were asked for.
    pub looks: Arc<AtomicUsize>,
    configuration: PathBuf,
}

/// A `snf-central serve`; killed when dropped.
pub struct Central(Child);

impl Drop for Central {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Central {
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

    /// Its resident memory, in MB.
    pub fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}

pub fn address(server: i64) -> String {
    let [_, second, third, fourth] = u32::try_from(server + 256).unwrap().to_be_bytes();
    format!("10.{second}.{third}.{fourth}")
}

pub fn mac(server: i64) -> String {
    let [_, _, third, fourth] = u32::try_from(server).unwrap().to_be_bytes();
    format!("aa:00:00:00:{third:02x}:{fourth:02x}")
}

impl Cloud {
    /// In the namespace, which the calling thread must be in.
    pub fn new(netns: &Netns, postgres: bool, servers: i64, interval: u64) -> Self {
        let scratch = Scratch::new("bench-central").unwrap();
        let place = Place::Netns(netns);
        let broker = RabbitMq::start(place, &scratch.join("mq"), "127.0.0.1", 5672).unwrap();
        let base = if postgres {
            Base::Postgres(Postgres::start(&scratch.join("pg"), 5432).unwrap())
        } else {
            Base::Sqlite(scratch.join("central.db"))
        };
        let url = match &base {
            Base::Postgres(server) => server.uri(),
            Base::Sqlite(file) => format!("sqlite://{}", file.display()),
        };
        let configuration = scratch.join("central.toml");
        let cloud = Self {
            broker,
            base,
            looks: rapi(servers),
            configuration,
            scratch,
        };
        for (name, listen) in [("central.toml", API), ("other.toml", "127.0.0.1:0")] {
            let text = format!(
                "log = 'error'\n[api]\nlisten = '{listen}'\n[database]\nurl = '{url}'\n\
                 connections = 4\n[broker]\nurls = ['{}']\n[reconcile]\n\
                 interval_seconds = {interval}\n",
                cloud.broker.uri()
            );
            fs::write(cloud.scratch.join(name), text).unwrap();
        }
        fs::write(cloud.scratch.join("password"), "secret\n").unwrap();
        let seed = cloud.scratch.join("seed.toml");
        fs::write(&seed, seed_text(&cloud.scratch.join("password"))).unwrap();
        cloud.central(&["migrate"]);
        cloud.central(&["seed", &seed.display().to_string()]);
        cloud.rows(servers);
        cloud
    }

    fn command(&self) -> Command {
        let mut command = Command::new(harness::program("snf-central").unwrap());
        command.arg("--config").arg(&self.configuration);
        command
    }

    /// What a run of `snf-central` prints.
    pub fn central(&self, words: &[&str]) -> String {
        process::check(self.command().args(words), Duration::from_secs(120)).unwrap()
    }

    /// Serves, the first with the API at its address.
    pub fn serve(&self, number: usize) -> Central {
        let name = if number == 0 {
            "central.toml"
        } else {
            "other.toml"
        };
        let mut command = Command::new(harness::program("snf-central").unwrap());
        command
            .arg("--config")
            .arg(self.scratch.join(name))
            .arg("serve");
        Central(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Runs statements; what the last one shows.
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
        let shown = process::check(&mut command, Duration::from_secs(120)).unwrap();
        shown.trim().to_owned()
    }

    fn rows(&self, servers: i64) {
        let mut text = String::from("BEGIN;\n");
        let user = "(SELECT id FROM users), (SELECT id FROM projects)";
        let network = "(SELECT id FROM networks)";
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
        }
        text += &format!(
            "INSERT INTO backend_networks (network_id, backend_id, state, jobs, claimed_until, job_id, \
             job_rank, job_time) SELECT {network}, (SELECT id FROM backends), 'ACTIVE', '[]', 0, 0, 0, 0;\n\
             COMMIT;\n"
        );
        if matches!(self.base, Base::Postgres(_)) {
            text += "ANALYZE;\n";
        }
        self.sql(&text);
    }

    /// All as it was before any message.
    pub fn reset(&self) {
        let text = "UPDATE servers SET state = 'STARTED', job_id = 0, job_rank = 0, job_time = 0, \
                    state_job = 0, state_rank = 0, state_time = 0, nics_job = 0, nics_rank = 0, \
                    nics_time = 0;\n";
        self.sql(text);
        if let Base::Postgres(_) = self.base {
            self.sql("VACUUM ANALYZE servers;\nVACUUM ANALYZE ports;\nCHECKPOINT;\n");
        }
    }
}

fn seed_text(password: &Path) -> String {
    format!(
        "[[project]]\nname = 'p'\n\
         [[user]]\nname = 'u'\npassword = 'u-password'\ntoken = '{TOKEN}'\nprojects = ['p']\n\
         [[backend]]\nname = 'cluster'\nurl = 'http://{RAPI}'\nusername = 'central'\n\
         password_file = '{}'\n\
         [[flavor]]\nname = 'tiny'\nvcpus = 1\nram = 128\ndisk = 1\ndisk_template = 'file'\n\
         [[image]]\nname = 'busybox'\nos = 'snf-image+default'\nsource = '/busybox.img'\n\
         format = 'diskdump'\n\
         [[network]]\nname = 'bridged'\ntype = 'CUSTOM'\nlink = 'br0'\npublic = true\n\
         [[network.subnet]]\ncidr = '10.0.0.0/8'\ngateway = '10.0.0.1'\n",
        password.display()
    )
}

/// Answers as a real Ganeti did, with so many instances instead of one; counts the looks.
fn rapi(servers: i64) -> Arc<AtomicUsize> {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../central/tests/data/rapi.json")).unwrap();
    let one = &recorded["instance"]["body"];
    let instances: Vec<Value> = (1..=servers)
        .map(|id| {
            let mut instance = one.clone();
            for (field, value) in [
                ("name", json!(format!("snf-{id}"))),
                ("oper_state", json!(true)),
                ("tags", json!([])),
                (
                    "beparams",
                    json!({"vcpus": 1, "minmem": 128, "maxmem": 128}),
                ),
                ("nic.names", json!([format!("snf-nic-{id}")])),
                ("nic.ips", json!([address(id)])),
                ("nic.macs", json!([mac(id)])),
                ("nic.networks.names", json!(["snf-net-1"])),
                ("disk.names", json!([format!("snf-vol-{id}")])),
                ("disk.sizes", json!([1024])),
            ] {
                instance[field] = value;
            }
            instance
        })
        .collect();
    let instances = Arc::new(Value::from(instances).to_string());
    let mut network = recorded["network"]["body"].clone();
    network["name"] = json!("snf-net-1");
    network["group_list"] = json!([["default", "bridged", "br0", ""]]);
    network["inst_list"] = json!(["snf-1"]);
    let networks = json!([network]).to_string();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let listener = TcpListener::bind(RAPI).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (recorded, instances, networks, looks) = (
                recorded.clone(),
                Arc::clone(&instances),
                networks.clone(),
                Arc::clone(&looks),
            );
            thread::spawn(move || {
                answer(&stream.unwrap(), |path| {
                    Some(match path {
                        "/2/instances" => {
                            looks.fetch_add(1, Ordering::Relaxed);
                            instances.to_string()
                        }
                        "/2/networks" => networks.clone(),
                        "/2/jobs" => "[]".to_owned(),
                        "/2/info" | "/2/features" | "/2/groups" | "/2/nodes" => {
                            recorded[&path[3..]]["body"].to_string()
                        }
                        _ => return None,
                    })
                });
            });
        }
    });
    counted
}

fn answer(stream: &TcpStream, body_of: impl Fn(&str) -> Option<String>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        let target = request.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let (status, body) = match body_of(path) {
            Some(body) => ("200 OK", body),
            None => (
                "404 Not Found",
                "{\"code\": 404, \"message\": \"Not Found\"}".to_owned(),
            ),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}
