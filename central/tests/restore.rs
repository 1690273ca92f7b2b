//! Nothing is destroyed that the database does not know: instances of others, instances that are
//! younger than a restored backup, servers that a message about another cluster names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::Duration;

use central::admin::reconcile::{self, Acceptance, Options};
use harness::mariadb::MariaDb;
use harness::scratch::Scratch;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use serde_json::json;
use support::broker::{Agents, isolated, served, story};
use support::rapi::FakeRapi;
use support::{Central, until};

const OFTEN: &str = "[reconcile]\ninterval_seconds = 1\n";

async fn database(central: &Central) -> DatabaseConnection {
    Database::connect(&central.config.database_url)
        .await
        .unwrap()
}

async fn number(database: &DatabaseConnection, query: &str) -> i64 {
    let backend = database.get_database_backend();
    let row = database
        .query_one_raw(Statement::from_string(backend, query))
        .await
        .unwrap()
        .unwrap();
    row.try_get_by_index(0).unwrap()
}

/// A server that is there and runs.
async fn running(central: &Central, name: &str) -> String {
    let id = central.create(name, &["bridged"]).await;
    until("ACTIVE", async || {
        let server = central.server(&id).await;
        server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
    })
    .await;
    id
}

/// Waits for so many more passes of the reconciler.
async fn passes(central: &Central, count: usize) {
    let database = database(central).await;
    let ended = "SELECT COALESCE(MAX(ended_at), 0) FROM passes";
    for _ in 0..count {
        let before = number(&database, ended).await;
        until("a pass", async || number(&database, ended).await > before).await;
    }
}

fn removals(rapi: &FakeRapi) -> Vec<String> {
    let calls = rapi.submissions();
    let removals = calls.iter().filter(|call| call.method == "DELETE");
    removals.map(|call| call.path.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_or_a_network_without_a_row_is_left_alone() {
    let central = Central::with(FakeRapi::start().await, OFTEN).await;
    central.rapi.succeed();
    running(&central, "web").await;
    central.rapi.smuggle("snf-990");
    central.rapi.with_networks(|networks| {
        let groups = json!([["default", "bridged", "br7", ""]]);
        networks.insert("snf-net-77".to_owned(), json!({"group_list": groups}));
    });
    passes(&central, 5).await;
    assert_eq!(central.rapi.instances(), ["snf-1", "snf-990"]);
    assert!(
        central
            .rapi
            .with_networks(|networks| networks.contains_key("snf-net-77"))
    );
    assert_eq!(removals(&central.rapi), [""; 0]);
}

#[test]
fn a_removal_is_believed_only_of_the_own_cluster_and_when_the_instance_is_gone() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        served(&broker, "op").await;
        served(&broker, "ask").await;
        let id = central.create("web", &[]).await;
        let instance = format!("snf-{id}");
        let job = central.rapi.last().job.unwrap();
        let mut create = story("OP_INSTANCE_CREATE", &instance, job, "");
        create.last_mut().unwrap()["instance_nics"] = json!([]);
        for message in &create {
            agents.send("op", message).await;
        }
        let status = async || central.server(&id).await["status"].take();
        until("ACTIVE", async || status().await == "ACTIVE").await;

        // Of another cluster: ignored, whatever it says.
        let shutdown = story("OP_INSTANCE_SHUTDOWN", &instance, job + 1, "");
        let removal = story("OP_INSTANCE_REMOVE", &instance, job + 2, "");
        for message in shutdown.iter().chain(&removal) {
            let mut message = message.clone();
            message["cluster"] = json!("quite.another.cluster");
            agents.send("op", &message).await;
        }
        // Of the own cluster, and not true: a dead letter with the reason.
        for message in &removal {
            agents.send("op", message).await;
        }
        until("the dead letter", async || {
            let listed = broker.ctl("list_queues name messages").unwrap().stdout;
            listed.contains("central.snf.dead\t1\n")
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(status().await, "ACTIVE");
        assert_eq!(central.rapi.instances(), [instance.as_str()]);

        // True, but nobody can be asked: it waits until somebody can.
        central.rapi.lose(&instance);
        central.rapi.set_mood(support::rapi::Mood::Unauthorized);
        agents.send("op", removal.last().unwrap()).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(status().await, "ACTIVE");
        central.rapi.set_mood(support::rapi::Mood::Good);
        until("DELETED", async || status().await == "DELETED").await;
    });
}

#[test]
fn a_network_is_removed_only_when_the_cluster_has_it_no_more() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        served(&broker, "network").await;
        served(&broker, "ask").await;
        central.create("web", &["bridged"]).await;
        let calls = central.rapi.submissions();
        let (add, connect) = (calls[0].job.unwrap(), calls[1].job.unwrap());
        for mut message in support::broker::recorded("network") {
            let is_add = message["operation"] == "OP_NETWORK_ADD";
            message["jobId"] = json!(if is_add { add } else { connect });
            agents.send("network", &message).await;
        }
        let database = database(&central).await;
        let active = "SELECT COUNT(*) FROM backend_networks WHERE state = 'ACTIVE'";
        until("the network", async || number(&database, active).await == 1).await;
        let mut removal = support::broker::recorded("network").pop().unwrap();
        removal["operation"] = json!("OP_NETWORK_REMOVE");
        removal["status"] = json!("success");
        removal["jobId"] = json!(connect + 10);
        let mut other = removal.clone();
        other["cluster"] = json!("quite.another.cluster");
        agents.send("network", &other).await;
        agents.send("network", &removal).await;
        until("the dead letters", async || {
            let listed = broker.ctl("list_queues name messages").unwrap().stdout;
            listed.contains("central.snf.dead\t2\n")
        })
        .await;
        assert_eq!(number(&database, active).await, 1);
        central
            .rapi
            .with_networks(|networks| networks.remove("snf-net-1"));
        agents.send("network", &removal).await;
        until("its state", async || number(&database, active).await == 0).await;
    });
}

/// A backup: it is made and brought back while nothing runs.
trait Backup {
    fn make(&self);
    fn bring_back(&self);
}

/// The files of SQLite, copied.
struct File(std::path::PathBuf);

/// The parts of a database that nobody has open: what is not in the file yet is in the log.
const PARTS: [&str; 2] = ["db", "db-wal"];

impl File {
    /// Waits until nothing of this process has the database open: a connection that closes
    /// late would delete the log of the file that was brought back.
    fn closed(&self) {
        let open = || {
            std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                .any(|file| {
                    file.to_string_lossy()
                        .starts_with(&*self.0.to_string_lossy())
                })
        };
        harness::wait::until_true("a closed database", harness::wait::USUAL, || !open()).unwrap();
    }
}

impl Backup for File {
    fn make(&self) {
        self.closed();
        for part in PARTS {
            let copy = self.0.with_extension(format!("{part}-backup"));
            let _ = std::fs::copy(self.0.with_extension(part), copy);
        }
    }

    fn bring_back(&self) {
        self.closed();
        for part in ["db", "db-wal", "db-shm"] {
            let _ = std::fs::remove_file(self.0.with_extension(part));
        }
        for part in PARTS {
            let copy = self.0.with_extension(format!("{part}-backup"));
            let _ = std::fs::copy(copy, self.0.with_extension(part));
        }
    }
}

/// A program that makes a dump, and one that reads it.
struct Dump {
    file: std::path::PathBuf,
    make: Vec<String>,
    read: Vec<String>,
}

fn command(words: &[String]) -> std::process::Command {
    let mut command = std::process::Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

impl Backup for Dump {
    fn make(&self) {
        let file = std::fs::File::create(&self.file).unwrap();
        assert!(command(&self.make).stdout(file).status().unwrap().success());
    }

    fn bring_back(&self) {
        let file = std::fs::File::open(&self.file).unwrap();
        let output = command(&self.read).stdin(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

async fn accept(central: &Central) {
    let acceptance = Acceptance {
        accept_restored: true,
        take_over: false,
    };
    reconcile::accept(&central.config, None, acceptance)
        .await
        .unwrap();
}

/// The number in a name: `snf-nic-7`.
fn number_in(name: &serde_json::Value) -> i64 {
    let name = name.as_str().unwrap();
    name.rsplit('-').next().unwrap().parse().unwrap()
}

/// Servers, a backup, more of everything, and the backup is brought back over the living cluster.
async fn a_restored_backup_destroys_nothing(mut central: Central, backup: &dyn Backup) {
    central.rapi.succeed();
    for name in ["one", "two", "three"] {
        running(&central, name).await;
    }
    until("the stamp", async || central.rapi.cluster_tags().len() == 1).await;
    central.stop().await;
    backup.make();
    let mut central = Central::again(central).await;
    running(&central, "four").await;
    let five = running(&central, "five").await;
    let body = json!({"network": {"name": "mine", "type": "MAC_FILTERED"}});
    let mine = central.post("/network/v2.0/networks", body.clone()).await;
    let mine = mine.expect(201)["network"]["id"].take();
    let mine: i64 = mine.as_str().unwrap().parse().unwrap();
    let last = central.rapi.last().body;
    let (nic, disk) = (&last["nics"][0]["name"], &last["disks"][0]["name"]);
    let (nic, disk) = (number_in(nic), number_in(disk));
    central.stop().await;
    backup.bring_back();
    let asked = central.rapi.submissions().len();

    let central = Central::again(central).await;
    passes(&central, 4).await;
    let all = ["snf-1", "snf-2", "snf-3", "snf-4", "snf-5"];
    assert_eq!(central.rapi.instances(), all);
    assert_eq!(central.rapi.submissions().len(), asked);
    // What is known is shown; nothing is made.
    assert_eq!(central.server("1").await["status"], "ACTIVE");
    let order = central.order("six", &["bridged"]).await;
    let servers = "/compute/v2.0/servers";
    let refused = central.post(servers, order.clone()).await;
    let text = refused.fault(503, "serviceUnavailable");
    assert!(text.contains("operator"), "{text}");
    let refused = central.post("/network/v2.0/networks", body.clone()).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let delete = central.delete("/compute/v2.0/servers/1").await;
    delete.fault(503, "serviceUnavailable");
    let held = "SELECT COUNT(*) FROM passes WHERE trouble LIKE '%older than cluster%'";
    let rows = database(&central).await;
    assert_eq!(number(&rows, held).await, 1);
    let options = Options {
        dry_run: false,
        backend: None,
        force: true,
        pause: 1,
    };
    reconcile::run(&central.config, &options).await.unwrap_err();
    assert_eq!(central.rapi.submissions().len(), asked);

    // An operator says so: it goes on, behind all numbers that there were.
    accept(&central).await;
    let made = central.post(servers, order).await.expect(202);
    let six = made["server"]["id"].as_str().unwrap();
    assert!(six.parse::<i64>().unwrap() > five.parse().unwrap(), "{six}");
    let last = central.rapi.last().body;
    assert_eq!(last["name"], format!("snf-{six}"));
    assert!(number_in(&last["nics"][0]["name"]) > nic, "{last}");
    assert!(number_in(&last["disks"][0]["name"]) > disk, "{last}");
    let again = central.post("/network/v2.0/networks", body).await;
    let again = again.expect(201)["network"]["id"].take();
    assert!(again.as_str().unwrap().parse::<i64>().unwrap() > mine);
    // The unknown ones are still only shown.
    passes(&central, 4).await;
    for name in all {
        assert!(
            central.rapi.instances().contains(&name.to_owned()),
            "{name}"
        );
    }
    assert_eq!(removals(&central.rapi), [""; 0]);
    assert_eq!(number(&rows, held).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_destroys_nothing_on_sqlite() {
    let central = Central::with(FakeRapi::start().await, OFTEN).await;
    let file = File(central.folder.path().join("central.db"));
    a_restored_backup_destroys_nothing(central, &file).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_destroys_nothing_on_postgresql() {
    let scratch = Scratch::new("central-restore").unwrap();
    let server = support::postgres(&scratch);
    let folder = tempfile::tempdir().unwrap();
    let dump = Dump {
        file: scratch.join("dump.sql"),
        make: ["pg_dump", "--clean", "--if-exists", &server.uri()]
            .map(str::to_owned)
            .to_vec(),
        read: ["psql", "-q", "-v", "ON_ERROR_STOP=1", &server.uri()]
            .map(str::to_owned)
            .to_vec(),
    };
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &server.uri(), OFTEN).await;
    a_restored_backup_destroys_nothing(central, &dump).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_destroys_nothing_on_mariadb() {
    let scratch = Scratch::new("central-restore").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = MariaDb::start(&scratch.join("db"), port).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let client = server.client("snf", "");
    let mut words: Vec<String> = client
        .get_args()
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    words.retain(|word| !word.is_empty());
    println!("{words:?}");
    let access: Vec<String> = words
        .iter()
        .filter(|word| word.starts_with("--socket") || word.starts_with("--user"))
        .cloned()
        .collect();
    let with = |program: &str| {
        let mut words = vec![program.to_owned(), "--no-defaults".to_owned()];
        words.extend(access.iter().cloned());
        words.push("snf".to_owned());
        words
    };
    let dump = Dump {
        file: scratch.join("dump.sql"),
        make: with("mariadb-dump"),
        read: with("mariadb"),
    };
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &server.uri(), OFTEN).await;
    a_restored_backup_destroys_nothing(central, &dump).await;
}

/// When the jobs are in no queue any more, and no instance is younger: a server was deleted since.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_is_known_by_its_generation() {
    let mut central = Central::with(FakeRapi::start().await, OFTEN).await;
    let file = File(central.folder.path().join("central.db"));
    central.rapi.succeed();
    for name in ["one", "two"] {
        running(&central, name).await;
    }
    until("the stamp", async || central.rapi.cluster_tags().len() == 1).await;
    central.stop().await;
    file.make();
    let mut central = Central::again(central).await;
    central.delete("/compute/v2.0/servers/2").await.expect(204);
    until("its end", async || central.rapi.instances() == ["snf-1"]).await;
    // An hour later.
    let rows = database(&central).await;
    let old = "UPDATE cluster_marks SET stamped_at = 1";
    rows.execute_unprepared(old).await.unwrap();
    let first = central.rapi.cluster_tags();
    until("another stamp in its place", async || {
        let tags = central.rapi.cluster_tags();
        tags.len() == 1 && tags != first
    })
    .await;
    rows.close().await.unwrap();
    central.stop().await;
    file.bring_back();
    central.rapi.forget_jobs();
    let central = Central::again(central).await;
    passes(&central, 4).await;
    // Nothing is concluded from its absence.
    assert_eq!(central.server("2").await["status"], "ACTIVE");
    let rows = database(&central).await;
    let held = "SELECT COUNT(*) FROM installation WHERE hold LIKE '%generation%'";
    assert_eq!(number(&rows, held).await, 1);
    accept(&central).await;
    until("its end", async || {
        central.server("2").await["status"] == "DELETED"
    })
    .await;
    assert_eq!(central.rapi.instances(), ["snf-1"]);
}

/// Two databases with one prefix on one cluster: the second one notices, and does nothing there.
#[tokio::test(flavor = "multi_thread")]
async fn two_centrals_on_one_cluster_leave_each_other_alone() {
    let first = Central::with(FakeRapi::start().await, OFTEN).await;
    first.rapi.succeed();
    running(&first, "one").await;
    until("the stamp", async || first.rapi.cluster_tags().len() == 1).await;
    let second = Central::with(first.rapi.clone(), OFTEN).await;
    passes(&second, 4).await;
    let order = second.order("mine", &[]).await;
    let refused = second.post("/compute/v2.0/servers", order.clone()).await;
    refused.fault(503, "serviceUnavailable");
    let rows = database(&second).await;
    let held = "SELECT COUNT(*) FROM passes WHERE trouble LIKE '%gives out names%'";
    assert_eq!(number(&rows, held).await, 1);
    // The first one goes on.
    running(&first, "two").await;
    passes(&first, 3).await;
    assert_eq!(first.rapi.instances(), ["snf-1", "snf-2"]);
    assert_eq!(first.rapi.cluster_tags().len(), 1);

    // An operator gives the cluster to the second one: then the first does nothing there.
    let acceptance = Acceptance {
        accept_restored: false,
        take_over: true,
    };
    reconcile::accept(&second.config, Some("cluster"), acceptance)
        .await
        .unwrap();
    passes(&second, 2).await;
    passes(&first, 4).await;
    let made = second
        .post("/compute/v2.0/servers", order)
        .await
        .expect(202);
    let id = made["server"]["id"].as_str().unwrap();
    assert!(id.parse::<i64>().unwrap() > 2, "{id}");
    let refused = first.delete("/compute/v2.0/servers/1").await;
    refused.fault(503, "serviceUnavailable");
    assert_eq!(first.rapi.instances().len(), 3);
    assert_eq!(removals(&first.rapi), [""; 0]);
}

/// The name of a server is another instance's: its deletion is not that one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_never_made_is_deleted_without_its_namesake() {
    let central = Central::with(FakeRapi::start().await, OFTEN).await;
    central.rapi.succeed();
    central.rapi.fail(json!([
        "OpPrereqError",
        [
            "Instance 'snf-1' is already in the cluster",
            "already_exists"
        ]
    ]));
    let id = central.create("web", &["bridged"]).await;
    central.rapi.smuggle("snf-1");
    until("ERROR", async || {
        central.server(&id).await["status"] == "ERROR"
    })
    .await;
    central
        .delete(&format!("/compute/v2.0/servers/{id}"))
        .await
        .expect(204);
    until("DELETED", async || {
        central.server(&id).await["status"] == "DELETED"
    })
    .await;
    passes(&central, 3).await;
    assert_eq!(central.rapi.instances(), ["snf-1"]);
    assert_eq!(removals(&central.rapi), [""; 0]);
}

fn snf_central(central: &Central, words: &[&str]) -> (i32, String) {
    let path = central.folder.path().join("central.toml");
    let url = &central.config.database_url;
    std::fs::write(&path, format!("log = 'error'\n[database]\nurl = '{url}'\n")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(path)
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text + &errors)
}

/// An operator's commands about them.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_instances_are_listed_adopted_and_removed_by_an_operator() {
    let mut central = Central::with(FakeRapi::start().await, OFTEN).await;
    let file = File(central.folder.path().join("central.db"));
    central.rapi.succeed();
    running(&central, "one").await;
    central.stop().await;
    file.make();
    let mut central = Central::again(central).await;
    let two = running(&central, "two").await;
    let address = central.server(&two).await["addresses"]["bridged"].clone();
    running(&central, "three").await;
    central.stop().await;
    file.bring_back();
    let central = Central::again(central).await;
    passes(&central, 2).await;

    let (status, text) = snf_central(&central, &["check"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("older than cluster"), "{text}");
    let (status, text) = snf_central(&central, &["status", "--wait", "1"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("older than cluster"), "{text}");
    assert!(text.contains("2 unknown instances"), "{text}");
    let (status, text) = snf_central(&central, &["reconcile", "--dry-run"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("snf-2"), "{text}");
    let (status, text) = snf_central(&central, &["instance", "list"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("snf-2") && text.contains("snf-3"), "{text}");
    assert!(!text.contains("snf-1 "), "{text}");
    let (_, text) = snf_central(&central, &["instance", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list[0]["name"], "snf-2");

    let (status, text) = snf_central(&central, &["reconcile", "--accept-restored"]);
    assert_eq!(status, 0, "{text}");
    let words = ["instance", "adopt", "snf-2", "--project", "wonderland"];
    let (status, text) = snf_central(&central, &[&words[..], &["--user", "alice"]].concat());
    assert_eq!(status, 0, "{text}");
    let server = central.server("2").await;
    assert_eq!(server["status"], "ACTIVE");
    assert_eq!(server["addresses"]["bridged"], address);
    let (status, text) = snf_central(&central, &[&words[..], &["--user", "alice"]].concat());
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("is there already"), "{text}");
    // Its address is nobody else's.
    let four = running(&central, "four").await;
    assert!(four.parse::<i64>().unwrap() > 3);
    assert_ne!(
        central.server(&four).await["addresses"]["bridged"][0],
        address[0]
    );

    let (status, text) = snf_central(&central, &["instance", "remove", "snf-3"]);
    assert_eq!(status, 1, "{text}");
    let (status, text) = snf_central(&central, &["instance", "remove", "snf-2", "--destroy"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("is known"), "{text}");
    assert_eq!(central.rapi.instances().len(), 4);
    let (status, text) = snf_central(&central, &["instance", "remove", "snf-3", "--destroy"]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(removals(&central.rapi), ["/2/instances/snf-3"]);
    // It is a server as any other one.
    passes(&central, 3).await;
    let rows = database(&central).await;
    let left = "SELECT differences FROM passes";
    assert_eq!(number(&rows, left).await, 0);
    central.delete("/compute/v2.0/servers/2").await.expect(204);
    until("its end", async || {
        central.server("2").await["status"] == "DELETED"
    })
    .await;
}
