//! Faults with real parts: dispatchers die at random instants, the network is cut; in the end
//! every server is what a model says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::postgres::Postgres;
use harness::rabbitmq::RabbitMq;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use support::broker::{Agents, Site, isolated};
use support::rapi::FakeRapi;
use support::replay::{Chance, Script, Subject, script};
use support::{Central, until_within};

/// A dispatcher as a process of its own; killed when dropped.
struct Dispatcher(Child);

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // SIGKILL
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A broker, a PostgreSQL, servers in BUILD, and the configuration of a dispatcher.
struct Stage {
    broker: RabbitMq,
    postgres: Postgres,
    central: Central,
    configuration: PathBuf,
    subjects: Vec<Subject>,
}

impl Stage {
    /// With `servers` servers, of which one was made by the API and the others are like it.
    async fn new(site: &Site, servers: i64) -> Self {
        let broker = site.broker();
        let postgres = Postgres::start(&site.scratch.join("pg"), 5432).unwrap();
        let rapi = FakeRapi::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut central = Central::on(rapi, folder, &postgres.uri(), "").await;
        let first: i64 = central.create("first", &["bridged"]).await.parse().unwrap();
        central.stop().await;
        let configuration = central.folder.path().join("central.toml");
        let text = format!(
            "log = 'warn'\n[api]\nlisten = '127.0.0.1:0'\n[database]\nurl = '{}'\nconnections = 4\n\
             [broker]\nurls = ['{}']\n[reconcile]\ninterval_seconds = 100000\n",
            postgres.uri(),
            broker.uri()
        );
        std::fs::write(&configuration, text).unwrap();
        let database = Database::connect(&postgres.uri()).await.unwrap();
        multiply(&database, first, servers).await;
        let rows = rows(
            &database,
            "SELECT s.id, p.id, s.task_job FROM servers s JOIN ports p ON p.server_id = s.id ORDER BY s.id",
        )
        .await;
        let subjects = rows
            .iter()
            .map(|row| Subject {
                id: row.try_get_by_index(0).unwrap(),
                port: row.try_get_by_index(1).unwrap(),
                create_job: row.try_get_by_index(2).unwrap(),
            })
            .collect();
        Self {
            broker,
            postgres,
            central,
            configuration,
            subjects,
        }
    }

    fn dispatcher(&self) -> Dispatcher {
        let log = self.central.folder.path().join("dispatchers.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_snf-central"))
            .arg("--config")
            .arg(&self.configuration)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Dispatcher(child)
    }

    /// Waits until all the queues are empty, acknowledged messages included.
    async fn drained(&self) {
        until_within(
            Duration::from_secs(300),
            "the queues to be empty",
            async || {
                let listed = self.broker.ctl("list_queues name messages").unwrap().stdout;
                let ours = listed.lines().filter(|line| line.starts_with("central."));
                let depths: Vec<&str> = ours.filter_map(|line| line.split('\t').nth(1)).collect();
                depths.len() == 7 && depths.iter().all(|depth| *depth == "0")
            },
        )
        .await;
    }

    /// Nothing lost, nothing twice, nothing stuck.
    async fn is_as_expected(&self, script: &Script) {
        let database = Database::connect(&self.postgres.uri()).await.unwrap();
        let found = rows(
            &database,
            "SELECT s.id, s.state, s.deleted_at, s.task, p.mac, p.state, \
             (SELECT COUNT(*) FROM diagnostics d WHERE d.server_id = s.id) \
             FROM servers s JOIN ports p ON p.server_id = s.id ORDER BY s.id",
        )
        .await;
        assert_eq!(found.len(), script.expected.len());
        for row in &found {
            let id: i64 = row.try_get_by_index(0).unwrap();
            let expected = &script.expected[&id];
            let deleted: Option<i64> = row.try_get_by_index(2).unwrap();
            let task: Option<String> = row.try_get_by_index(3).unwrap();
            let notes: i64 = row.try_get_by_index(6).unwrap();
            assert_eq!(task, None, "server {id}");
            assert_eq!(notes, 1, "server {id}");
            let port: String = row.try_get_by_index(5).unwrap();
            match expected.state {
                Some(state) => {
                    assert_eq!(deleted, None, "server {id}");
                    assert_eq!(
                        row.try_get_by_index::<String>(1).unwrap(),
                        state,
                        "server {id}"
                    );
                    let mac: Option<String> = row.try_get_by_index(4).unwrap();
                    assert_eq!(mac.as_ref(), Some(&expected.mac), "server {id}");
                    assert_eq!(port, "ACTIVE", "server {id}");
                }
                None => {
                    assert!(deleted.is_some(), "server {id}");
                    assert_eq!(port, "DELETED", "server {id}");
                }
            }
        }
    }
}

async fn rows(database: &DatabaseConnection, query: &str) -> Vec<sea_orm::QueryResult> {
    let backend = database.get_database_backend();
    database
        .query_all_raw(Statement::from_string(backend, query))
        .await
        .unwrap()
}

/// Makes more servers of the first one, each with a NIC and a job of its own.
async fn multiply(database: &DatabaseConnection, first: i64, servers: i64) {
    let columns = async |table: &str| {
        let query = format!(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = '{table}' \
             AND column_name NOT IN ('id', 'server_id', 'task_job') ORDER BY ordinal_position"
        );
        let rows = rows(database, &query).await;
        let names: Vec<String> = rows
            .iter()
            .map(|row| row.try_get_by_index(0).unwrap())
            .collect();
        names.join(", ")
    };
    let (server, port) = (columns("servers").await, columns("ports").await);
    let more = servers - 1;
    for statement in [
        format!(
            "INSERT INTO servers ({server}, task_job) SELECT {server}, task_job + number \
             FROM servers, generate_series(1, {more}) AS number WHERE id = {first}"
        ),
        format!(
            "INSERT INTO ports ({port}, server_id) SELECT {port}, other FROM ports, \
             (SELECT id AS other FROM servers WHERE id <> {first}) AS others \
             WHERE server_id = {first}"
        ),
    ] {
        database.execute_unprepared(&statement).await.unwrap();
    }
}

async fn nap(chance: &mut Chance, most_millis: usize) {
    let millis = u64::try_from(chance.below(most_millis)).unwrap();
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

const KILLS: usize = 200;

#[test]
fn a_dispatcher_killed_at_any_instant_loses_nothing() {
    isolated(async |site| {
        let stage = Stage::new(&site, 60).await;
        let mut chance = Chance::new(7);
        let script = script(&stage.subjects, 4, &mut chance);
        // Once in peace, so that the queues are there.
        let first = stage.dispatcher();
        until_within(Duration::from_secs(120), "the queues", async || {
            let listed = stage.broker.ctl("list_queues name").unwrap().stdout;
            listed.contains("central.snf.heartbeat")
        })
        .await;
        drop(first);
        let agents = Agents::connect(&stage.broker).await;
        let portion = script.messages.len().div_ceil(KILLS);
        let mut sent = 0;
        for _ in 0..KILLS {
            sent = agents.send_many(&script.messages, sent, portion).await;
            let dispatcher = stage.dispatcher();
            nap(&mut chance, 1200).await;
            drop(dispatcher);
        }
        assert_eq!(sent, script.messages.len());
        let _last = stage.dispatcher();
        stage.drained().await;
        stage.is_as_expected(&script).await;
    });
}

/// Cuts the way to a port of this namespace, and heals it.
fn cut(site: &Site, port: u16, cut: bool) {
    let script = if cut {
        format!(
            "nft add table inet cut; nft add chain inet cut input '{{ type filter hook input priority 0; }}'; \
             nft add rule inet cut input tcp dport {port} drop; nft add rule inet cut input tcp sport {port} drop"
        )
    } else {
        "nft delete table inet cut".to_owned()
    };
    site.netns.sh(&script).unwrap();
}

#[test]
fn the_network_may_be_cut_between_any_two() {
    isolated(async |site| {
        let stage = Stage::new(&site, 30).await;
        let mut chance = Chance::new(10);
        let script = script(&stage.subjects, 4, &mut chance);
        let _dispatchers = [stage.dispatcher(), stage.dispatcher()];
        until_within(Duration::from_secs(120), "the queues", async || {
            let listed = stage.broker.ctl("list_queues name").unwrap().stdout;
            listed.contains("central.snf.heartbeat")
        })
        .await;
        let portion = script.messages.len().div_ceil(3);
        let mut sent = 0;
        // Shorter than the heartbeat's patience, longer than it; and the database.
        for (port, seconds) in [
            (stage.broker.port(), 5),
            (stage.broker.port(), 50),
            (5432, 20),
        ] {
            let agents = Agents::connect(&stage.broker).await;
            sent = agents.send_many(&script.messages, sent, portion).await;
            cut(&site, port, true);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            cut(&site, port, false);
        }
        assert_eq!(sent, script.messages.len());
        stage.drained().await;
        stage.is_as_expected(&script).await;
    });
}
