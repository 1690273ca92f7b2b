//! Dispatchers as processes of their own, with a real broker and a real PostgreSQL, and servers
//! that messages are to come for.
#![allow(dead_code)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::postgres::Postgres;
use harness::rabbitmq::RabbitMq;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};

use super::broker::Site;
use super::rapi::FakeRapi;
use super::replay::{Script, Subject};
use super::{Central, until_within};

/// A dispatcher as a process of its own; killed when dropped.
pub struct Dispatcher(Child);

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // SIGKILL
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All the queues.
pub const QUEUES: [&str; 8] = [
    "op",
    "network",
    "net",
    "progress",
    "cluster",
    "heartbeat",
    "ask",
    "dead",
];

/// Brokers, a PostgreSQL, servers in BUILD, and the configuration of a dispatcher.
pub struct Stage {
    /// The first one that runs is asked.
    pub brokers: Vec<RabbitMq>,
    pub postgres: Postgres,
    pub central: Central,
    pub subjects: Vec<Subject>,
    configuration: PathBuf,
}

impl Stage {
    /// With `servers` servers, of which one was made by the API and the others are like it.
    pub async fn new(site: &Site, servers: i64) -> Self {
        Self::with(site, vec![site.broker()], servers).await
    }

    /// As [`Stage::new`], with these brokers.
    pub async fn with(site: &Site, brokers: Vec<RabbitMq>, servers: i64) -> Self {
        let postgres = Postgres::start(&site.scratch.join("pg"), 5432).unwrap();
        let rapi = FakeRapi::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut central = Central::on(rapi, folder, &postgres.uri(), "").await;
        let first: i64 = central.create("first", &["bridged"]).await.parse().unwrap();
        central.stop().await;
        // As of the others, there is none in the cluster when its removal is told.
        central.rapi.lose(&format!("snf-{first}"));
        let configuration = central.folder.path().join("central.toml");
        let text = format!(
            "log = 'warn'\n[api]\nlisten = '127.0.0.1:0'\n[database]\nurl = '{}'\nconnections = 4\n\
             [broker]\nurls = {:?}\n[ganeti]\ntimeout_seconds = 5\n\
             [reconcile]\ninterval_seconds = 100000\n",
            postgres.uri(),
            brokers.iter().map(RabbitMq::uri).collect::<Vec<_>>()
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
            brokers,
            postgres,
            central,
            subjects,
            configuration,
        }
    }

    /// The only broker, or the first of several.
    pub fn broker(&self) -> &RabbitMq {
        &self.brokers[0]
    }

    pub fn dispatcher(&self) -> Dispatcher {
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

    /// Waits until the queues are there.
    pub async fn ready(&self) {
        until_within(Duration::from_secs(120), "the queues", async || {
            let listed = ask(self.broker(), "list_queues name").await;
            QUEUES
                .iter()
                .all(|queue| listed.contains(&format!("central.snf.{queue}")))
        })
        .await;
    }

    /// How many messages the queues have, delivered ones included; none: not all of them answer.
    ///
    /// `list_queues` shows what a quorum queue had when it was last counted, some seconds ago, and
    /// 0 when the broker has just been started.
    pub async fn messages(&self, broker: usize) -> Option<u64> {
        let names = QUEUES.map(|queue| format!("\"central.snf.{queue}\""));
        let count = "element(2,element(2,ra:leader_query({list_to_atom(\"%2F_\"++Q),node()},\
                     fun'rabbit_fifo':query_messages_total/1)))";
        let expression = format!("eval lists:sum([{count}||Q<-[{}]]).", names.join(","));
        let counted = ask(&self.brokers[broker], &expression).await;
        counted.trim().parse().ok()
    }

    /// Waits until all the queues are empty, and nothing is in a dispatcher's hands.
    pub async fn drained(&self) {
        self.drained_at(0).await;
    }

    /// As [`Stage::drained`], when another broker than the first is to be asked.
    pub async fn drained_at(&self, broker: usize) {
        until_within(
            Duration::from_secs(300),
            "the queues to be empty",
            async || self.messages(broker).await == Some(0),
        )
        .await;
    }

    /// Has RabbitMQ write down which log is which queue's, as it does by itself some seconds after
    /// a queue is made: one that is younger when the broker is killed never has a leader again.
    pub fn written(&self) {
        let done = self
            .broker()
            .ctl("eval [dets:sync(Table)||Table<-dets:all()].");
        assert!(done.unwrap().stdout.contains("ok"));
    }

    /// Nothing lost, nothing twice, nothing stuck.
    pub async fn is_as_expected(&self, script: &Script) {
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

/// What `rabbitmqctl` prints. It is a heavy program: it is not asked again at once.
async fn ask(broker: &RabbitMq, words: &str) -> String {
    let printed = broker.ctl(words).map(|output| output.stdout);
    if printed.is_err() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    printed.unwrap_or_default()
}

pub async fn rows(database: &DatabaseConnection, query: &str) -> Vec<sea_orm::QueryResult> {
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
