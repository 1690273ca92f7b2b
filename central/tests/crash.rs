//! A central that is killed at any instant of creating servers loses none that it promised, and
//! makes none twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Client;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{TOKEN, until};
use tokio::time::{Instant, sleep};

/// How often it is killed.
const KILLS: u64 = 8;
/// How many create servers at once.
const CLIENTS: usize = 6;

/// A central that is killed, with SIGKILL, when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Site {
    folder: tempfile::TempDir,
    configuration: PathBuf,
    database: String,
    base: String,
}

impl Site {
    fn new(rapi: &FakeRapi) -> Self {
        central::serve::install_tls();
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}/central.db", folder.path().display());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let configuration = folder.path().join("central.toml");
        // With a short time for calls, what a killed process had claimed is soon free again.
        let text = format!(
            "[api]\nlisten = '{address}'\n[database]\nurl = '{database}'\n\
             [ganeti]\ntimeout_seconds = 2\n"
        );
        std::fs::write(&configuration, text).unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "secret\n").unwrap();
        let seed = folder.path().join("seed.toml");
        std::fs::write(&seed, support::seed_text(&rapi.url(), &password)).unwrap();
        Self {
            folder,
            configuration,
            database,
            base: format!("http://{address}"),
        }
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snf-central"));
        command
            .arg("--config")
            .arg(&self.configuration)
            .arg(word)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }

    async fn serve(&self) -> Running {
        let child = Running(self.command("serve").spawn().unwrap());
        let http = Client::new();
        let url = format!("{}/readyz", self.base);
        until("central to be ready", || async {
            let answer = http.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        child
    }
}

async fn rows(database: &DatabaseConnection, query: &str) -> Vec<(String, i64)> {
    let statement = Statement::from_string(database.get_database_backend(), query);
    database
        .query_all_raw(statement)
        .await
        .unwrap()
        .iter()
        .map(|row| {
            (
                row.try_get_by_index(0).unwrap(),
                row.try_get_by_index(1).unwrap(),
            )
        })
        .collect()
}

/// Creates servers until told to stop; returns the ids of those that it was promised.
async fn create_all(
    base: String,
    order: Value,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Vec<i64> {
    let http = Client::new();
    let mut promised = Vec::new();
    while !*stop.borrow() {
        let answer = http
            .post(format!("{base}/compute/v2.0/servers"))
            .header("X-Auth-Token", TOKEN)
            .json(&order)
            .timeout(Duration::from_secs(30))
            .send()
            .await;
        let Ok(answer) = answer else {
            // It was killed meanwhile: nobody knows.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let status = answer.status().as_u16();
        if status == 202
            && let Ok(body) = answer.json::<Value>().await
        {
            promised.push(body["server"]["id"].as_str().unwrap().parse().unwrap());
        } else {
            assert!(matches!(status, 202 | 503), "{status}");
            sleep(Duration::from_millis(20)).await;
        }
    }
    promised
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_killed_at_any_instant_makes_every_server_once() {
    let rapi = FakeRapi::start().await;
    rapi.succeed();
    let site = Site::new(&rapi);
    let seeded = site
        .command("seed")
        .arg(site.path("seed.toml"))
        .status()
        .unwrap();
    assert!(seeded.success());
    let mut child = site.serve().await;
    let database = Database::connect(&site.database).await.unwrap();
    // Room for them all.
    for statement in [
        "UPDATE flavors SET ram = 1, disk = 0, vcpus = 0 WHERE name = 'tiny'",
        "UPDATE images SET min_ram = 0",
    ] {
        database.execute_unprepared(statement).await.unwrap();
    }
    let one = |query: &'static str| {
        let database = database.clone();
        async move { rows(&database, query).await.remove(0) }
    };
    let (_, flavor) = one("SELECT name, id FROM flavors WHERE name = 'tiny'").await;
    let (image, _) = one("SELECT id, 1 FROM images").await;
    let (_, network) = one("SELECT name, id FROM networks WHERE name = 'bridged'").await;
    let order = json!({"server": {
        "name": "mortal",
        "flavorRef": flavor,
        "imageRef": image,
        "networks": [{"uuid": network}],
    }});
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let work = create_all(site.base.clone(), order.clone(), stopped.clone());
            tokio::spawn(work)
        })
        .collect();
    for kill in 0..KILLS {
        // At work, and in the midst of other statements each round.
        let before = rapi.submissions().len();
        until("some to be made", || async {
            rapi.submissions().len() >= before + 3
        })
        .await;
        sleep(Duration::from_millis(kill * 37 % 100)).await;
        drop(child);
        child = site.serve().await;
    }
    stop.send(true).unwrap();
    let mut promised = Vec::new();
    for client in clients {
        promised.extend(client.await.unwrap());
    }
    assert!(!promised.is_empty());
    // All that is wanted becomes a job, and all jobs end.
    let started = Instant::now();
    until("all intents to be settled", || async {
        let waiting = rows(
            &database,
            "SELECT 'x', COUNT(*) FROM intents WHERE state = 'pending'",
        );
        let building = rows(
            &database,
            "SELECT 'x', COUNT(*) FROM servers WHERE state = 'BUILD'",
        );
        waiting.await[0].1 == 0 && building.await[0].1 == 0
    })
    .await;
    let settled = started.elapsed();
    drop(child);
    // What Ganeti was asked, by name.
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for call in rapi.submissions() {
        if call.method == "POST" && call.path == "/2/instances" {
            let name = call.body["name"].as_str().unwrap().to_owned();
            *asked.entry(name).or_default() += 1;
        }
    }
    let twice: Vec<_> = asked.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "made twice: {twice:?}");
    let known: BTreeSet<String> = rows(&database, "SELECT state, id FROM servers")
        .await
        .into_iter()
        .map(|(state, id)| {
            assert_eq!(state, "STARTED", "server {id}");
            format!("snf-{id}")
        })
        .collect();
    let instances: BTreeSet<String> = asked.into_keys().collect();
    assert_eq!(instances, known, "instances and servers differ");
    for id in &promised {
        assert!(known.contains(&format!("snf-{id}")), "{id} was promised");
    }
    let doubled = rows(
        &database,
        "SELECT address, COUNT(*) FROM addresses WHERE live = 1 GROUP BY subnet_id, address \
         HAVING COUNT(*) > 1",
    );
    assert_eq!(doubled.await, []);
    println!(
        "{} servers, {} promised, {KILLS} kills, settled after {settled:?}",
        known.len(),
        promised.len()
    );
}
