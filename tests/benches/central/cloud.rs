//! A central with many servers in its database, a broker, and a RAPI that has the same servers.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use harness::netns::Netns;
use harness::process;
use harness::rabbitmq::{Place, RabbitMq};
use harness::scratch::Scratch;
use serde_json::{Value, json};

use crate::served::Served;
use crate::servers::{self, Base, address, mac};

pub const API: &str = "127.0.0.1:8774";
const RAPI: &str = "127.0.0.1:5080";

pub struct Cloud {
    pub broker: RabbitMq,
    pub base: Base,
    pub scratch: Scratch,
    /// How often the cluster's instances were asked for.
    pub looks: Arc<AtomicUsize>,
    configuration: PathBuf,
}

impl Cloud {
    /// In the namespace, which the calling thread must be in.
    pub fn new(netns: &Netns, postgres: bool, servers: i64, interval: u64) -> Self {
        let scratch = Scratch::new("bench-central").unwrap();
        let place = Place::Netns(netns);
        let broker = RabbitMq::start(place, &scratch.join("mq"), "127.0.0.1", 5672).unwrap();
        let base = Base::new(postgres, &scratch);
        let url = base.url();
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
        let password = cloud.scratch.join("password").display().to_string();
        fs::write(&seed, servers::seed(&format!("http://{RAPI}"), &password)).unwrap();
        cloud.central(&["migrate"]);
        cloud.central(&["seed", &seed.display().to_string()]);
        let connected = "INSERT INTO backend_networks (network_id, backend_id, state, jobs, \
                         claimed_until, job_id, job_rank, job_time) SELECT (SELECT id FROM networks), \
                         (SELECT id FROM backends), 'ACTIVE', '[]', 0, 0, 0, 0;\n";
        let more = |_| String::new();
        cloud.base.rows(&cloud.scratch, servers, more, connected);
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
    pub fn serve(&self, number: usize) -> Served {
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
        Served::start(&mut command)
    }

    /// Runs statements; what a `SELECT` shows first.
    pub fn sql(&self, text: &str) -> String {
        self.base.sql(&self.scratch, text)
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
