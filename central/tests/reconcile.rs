//! The reconciler: what somebody changes in Ganeti behind our back, or what no message told,
//! comes right by itself, on SQLite and on PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use central::admin::reconcile::{self, Options};
use harness::postgres::Postgres;
use harness::scratch::Scratch;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use serde_json::{Value, json};
use support::rapi::{FakeRapi, Mood};
use support::{Central, OTHER_TOKEN, until};

const OFTEN: &str = "[reconcile]\ninterval_seconds = 1\n";
/// An interval that no test lives to see.
const NEVER: &str = "[reconcile]\ninterval_seconds = 100000\n";

async fn database(central: &Central) -> DatabaseConnection {
    Database::connect(&central.config.database_url)
        .await
        .unwrap()
}

/// What the audit says: object, what, before, after, whether a job was made.
async fn audit(database: &DatabaseConnection) -> Vec<(String, String, String, String, bool)> {
    let backend = database.get_database_backend();
    let query = "SELECT object, what, before, after, job_id FROM repairs ORDER BY id";
    let rows = database
        .query_all_raw(Statement::from_string(backend, query))
        .await
        .unwrap();
    let text = |row: &sea_orm::QueryResult, name: &str| row.try_get::<String>("", name).unwrap();
    rows.iter()
        .map(|row| {
            (
                text(row, "object"),
                text(row, "what"),
                text(row, "before"),
                text(row, "after"),
                row.try_get::<Option<i64>>("", "job_id").unwrap().is_some(),
            )
        })
        .collect()
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

async fn execute(database: &DatabaseConnection, statement: &str) {
    database.execute_unprepared(statement).await.unwrap();
}

/// Waits for a state that nothing is going on in.
async fn status(central: &Central, id: &str, wanted: &str) {
    until(wanted, async || {
        let server = central.server(id).await;
        server["status"] == wanted && server["SNF:task_state"] == ""
    })
    .await;
}

/// A server that is there and runs.
async fn running(central: &Central, name: &str) -> String {
    let id = central.create(name, &["bridged"]).await;
    status(central, &id, "ACTIVE").await;
    id
}

fn port(server: &Value, version: u64) -> Option<&str> {
    let list = server["addresses"]["bridged"].as_array()?;
    let entry = list.iter().find(|entry| entry["version"] == version)?;
    entry["addr"].as_str()
}

/// All that can be changed behind our back, one after the other.
async fn everything_comes_right(central: Central) {
    central.rapi.succeed();
    let id = running(&central, "web").await;
    let instance = format!("snf-{id}");
    let rapi = &central.rapi;
    let field = async |name: &str| central.server(&id).await[name].take();

    rapi.change(&instance, "oper_state", json!(false));
    status(&central, &id, "SHUTOFF").await;
    rapi.change(&instance, "oper_state", json!(true));
    status(&central, &id, "ACTIVE").await;

    let params = json!({"vcpus": 2, "minmem": 256, "maxmem": 256});
    rapi.change(&instance, "beparams", params);
    let small = central.id_of("/compute/v2.0/flavors", "small").await;
    until("the other flavor", async || {
        field("flavor").await["id"] == json!(small)
    })
    .await;

    // Another address: the old one is free, the new one is taken.
    rapi.change_nics(&instance, |nics| {
        nics[0]["ip"] = json!("10.66.1.77");
        nics[0]["mac"] = json!("aa:00:00:00:be:ef");
    });
    until("the other address", async || {
        port(&central.server(&id).await, 4) == Some("10.66.1.77")
    })
    .await;
    let server = central.server(&id).await;
    assert_eq!(port(&server, 6), Some("fd66:1::a800:ff:fe00:beef"));
    let other = running(&central, "other").await;
    assert_eq!(port(&central.server(&other).await, 4), Some("10.66.1.2"));
    let database = database(&central).await;
    let live = |ip: &str| format!("SELECT COUNT(*) FROM addresses WHERE address = '{ip}' AND live");
    assert_eq!(number(&database, &live("10.66.1.77")).await, 1);

    // A profile, and one of a NIC that is not there.
    let nic = central.server(&id).await["attachments"][0]["id"].take();
    let nic = nic.as_str().map_or_else(|| nic.to_string(), str::to_owned);
    let nic = nic
        .trim_start_matches("nic-")
        .rsplit('-')
        .next()
        .unwrap()
        .to_owned();
    rapi.change(
        &instance,
        "tags",
        json!([format!("synnefo:network:snf-nic-{nic}:protected")]),
    );
    until("the firewall profile", async || {
        field("attachments").await[0]["firewallProfile"] == "ENABLED"
    })
    .await;
    rapi.change(
        &instance,
        "tags",
        json!(["synnefo:network:snf-nic-999:protected"]),
    );
    until("the tag to be taken off", async || {
        rapi.submissions().iter().any(|call| {
            call.method == "DELETE" && call.path == format!("/2/instances/{instance}/tags")
        })
    })
    .await;

    // A label, and a rescue.
    rapi.change(
        &instance,
        "tags",
        json!(["cyclades:user:front+end", "more"]),
    );
    until("the label", async || {
        field("tags").await == json!(["front end"])
    })
    .await;
    let boot = json!({"boot_order": "cdrom", "cdrom_image_path": "/srv/rescue.iso"});
    rapi.change(&instance, "hvparams", boot);
    until("the rescue", async || field("SNF:rescue").await == true).await;

    // A bigger disk.
    rapi.change(&instance, "disk.sizes", json!([5 * 1024]));
    let size = format!("SELECT size FROM volumes WHERE server_id = {id}");
    until("the disk's size", async || {
        number(&database, &size).await == 5
    })
    .await;

    // The NIC is gone, and then the server.
    rapi.change_nics(&instance, Vec::clear);
    until("the NIC to be gone", async || {
        field("attachments").await == json!([])
    })
    .await;
    rapi.lose(&instance);
    status(&central, &id, "DELETED").await;
    status(&central, &other, "ACTIVE").await;

    // An instance of ours that nobody knows.
    rapi.smuggle("snf-4711");
    rapi.smuggle("somebody-elses");
    // It is left alone, and nothing more is done until a person has looked.
    let held = "SELECT COUNT(*) FROM passes WHERE trouble LIKE '%snf-4711 is there%'";
    until("the reconciler to stop", async || {
        number(&database, held).await == 1
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(
        rapi.instances(),
        [
            format!("snf-{other}"),
            "snf-4711".to_owned(),
            "somebody-elses".to_owned()
        ]
    );

    let entries = audit(&database).await;
    let server = format!("server {id}");
    let of_server: Vec<&str> = entries
        .iter()
        .filter(|(object, ..)| *object == server)
        .map(|(_, what, ..)| what.as_str())
        .collect();
    // On a slow machine a look may come before the job's own news, and so add to these.
    let count = |what: &str| of_server.iter().filter(|other| **other == what).count();
    for (what, least) in [
        ("state", 2),
        ("flavor", 1),
        ("nics", 2),
        ("tags", 1),
        ("disks", 1),
        ("labels", 1),
        ("rescue", 1),
    ] {
        assert!(count(what) >= least, "{what}: {of_server:?}");
    }
    assert_eq!(count("stale"), 1, "{of_server:?}");
    let find = |what: &str| entries.iter().find(|entry| entry.1 == what).unwrap();
    let text = |text: &str| text.to_owned();
    let stopped = (
        server.clone(),
        text("state"),
        text("STARTED"),
        text("STOPPED"),
        false,
    );
    assert!(entries.contains(&stopped), "{entries:?}");
    assert_eq!(find("flavor").2, "1 vcpus, 128 MiB");
    assert_eq!(find("flavor").3, "2 vcpus, 256 MiB");
    let moved = |entry: &&(String, String, String, String, bool)| {
        entry.2.contains("10.66.1.2") && entry.3.contains("10.66.1.77")
    };
    assert!(entries.iter().any(|entry| moved(&entry)), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.1 != "orphan"));
    assert_eq!(number(&database, "SELECT COUNT(*) FROM leases").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_right_on_sqlite() {
    everything_comes_right(Central::with(FakeRapi::start().await, OFTEN).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_right_on_postgresql() {
    let scratch = Scratch::new("central-reconcile").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = Postgres::start(&scratch.join("pg"), port).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rapi = FakeRapi::start().await;
    everything_comes_right(Central::on(rapi, folder, &server.uri(), OFTEN).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_come_right() {
    let central = Central::with(FakeRapi::start().await, OFTEN).await;
    central.rapi.succeed();
    let database = database(&central).await;
    let other = async |path: &str, body: Value| {
        let method = reqwest::Method::POST;
        central
            .ask(method, path, Some(OTHER_TOKEN), Some(body))
            .await
    };
    let id = running(&central, "web").await;
    let network = central.id_of("/network/v2.0/networks", "bridged").await;
    let name = format!("snf-net-{network}");
    let state =
        format!("SELECT COUNT(*) FROM backend_networks WHERE network_id = {network} AND state = ");

    // Disconnected behind our back: it is connected again.
    until("the network to be active", async || {
        number(&database, &format!("{state}'ACTIVE'")).await == 1
    })
    .await;
    central
        .rapi
        .with_networks(|networks| networks.get_mut(&name).unwrap()["group_list"] = json!([]));
    until("the network to be connected again", async || {
        central
            .rapi
            .with_networks(|networks| networks[&name]["group_list"] != json!([]))
    })
    .await;
    until("the network to be active again", async || {
        number(&database, &format!("{state}'ACTIVE'")).await == 1
    })
    .await;

    // Removed behind our back, when nothing was in it: the next NIC brings it in again.
    central.rapi.lose(&format!("snf-{id}"));
    status(&central, &id, "DELETED").await;
    central
        .rapi
        .with_networks(|networks| networks.remove(&name));
    until("the network to be known as absent", async || {
        number(&database, &format!("{state}'ABSENT'")).await == 1
    })
    .await;
    running(&central, "next").await;
    assert!(
        central
            .rapi
            .with_networks(|networks| networks.contains_key(&name))
    );

    // Deleted by its owner: it is removed from the cluster as well. In a private one of bob's
    // there was a server once.
    let body = json!({"network": {"name": "mine", "type": "MAC_FILTERED"}});
    let mine = other("/network/v2.0/networks", body).await.expect(201)["network"]["id"].take();
    let mine = mine.as_str().unwrap().to_owned();
    let name = format!("snf-net-{mine}");
    central.rapi.with_networks(|networks| {
        networks.insert(
            name.clone(),
            json!({"group_list": [["default", "bridged", "prv0", ""]]}),
        )
    });
    let row = format!(
        "SELECT COUNT(*) FROM backend_networks WHERE network_id = {mine} AND state = 'ACTIVE'"
    );
    until("its row", async || number(&database, &row).await == 1).await;
    let path = format!("/network/v2.0/networks/{mine}");
    let deleted = central
        .ask(reqwest::Method::DELETE, &path, Some(OTHER_TOKEN), None)
        .await;
    deleted.expect(204);
    until("the network to be removed", async || {
        central
            .rapi
            .with_networks(|networks| !networks.contains_key(&name))
    })
    .await;
    let calls = central.rapi.submissions();
    let calls: Vec<String> = calls
        .iter()
        .filter(|call| call.path.contains(&name))
        .map(|call| format!("{} {}", call.method, call.path))
        .collect();
    assert_eq!(
        calls,
        [
            format!("PUT /2/networks/{name}/disconnect"),
            format!("DELETE /2/networks/{name}")
        ]
    );
    let row = format!(
        "SELECT COUNT(*) FROM backend_networks WHERE network_id = {mine} AND state = 'DELETED'"
    );
    until("its row to say so", async || {
        number(&database, &row).await == 1
    })
    .await;
}

/// Rows that a lost transaction or a restored backup leaves behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_and_not_used_is_let_go() {
    let central = Central::with(FakeRapi::start().await, OFTEN).await;
    central.rapi.succeed();
    let database = database(&central).await;
    let id = running(&central, "web").await;
    // A stuck task: its job is not known to anybody.
    let stuck = format!("UPDATE servers SET task = 'STOPPING', task_job = 3 WHERE id = {id}");
    execute(&database, &stuck).await;
    central.rapi.forget_jobs();
    status(&central, &id, "ACTIVE").await;
    // Addresses: one of a NIC that is gone, and a NIC whose address nobody holds.
    let columns = "name, user_id, project_id, network_id, state, ipv4, floating, created_at, \
                   updated_at, deleted_at";
    let values = "user_id, project_id, network_id";
    let port = |ip: &str, deleted: &str| {
        format!(
            "INSERT INTO ports ({columns}) SELECT 'lost', {values}, 'DOWN', '{ip}', floating, 0, 0, \
             {deleted} FROM ports WHERE server_id = {id}"
        )
    };
    execute(&database, &port("10.66.1.50", "1")).await;
    execute(
        &database,
        "INSERT INTO addresses (subnet_id, network_id, number, address, floating, user_id, \
         project_id, port_id, live, created_at, updated_at) SELECT subnet_id, network_id, \
         number + 48, '10.66.1.50', floating, user_id, project_id, (SELECT MAX(id) FROM ports), \
         live, 0, 0 FROM addresses",
    )
    .await;
    execute(&database, &port("10.66.1.60", "NULL")).await;
    execute(
        &database,
        "INSERT INTO pool_values (pool, value, network_id) SELECT 'bridge', 9, id FROM networks \
         WHERE name = 'private'",
    )
    .await;
    execute(
        &database,
        "UPDATE networks SET deleted_at = 1 WHERE name = 'private'",
    )
    .await;
    let live = |ip: &str| format!("SELECT COUNT(*) FROM addresses WHERE address = '{ip}' AND live");
    assert_eq!(number(&database, &live("10.66.1.50")).await, 1);
    until("the leaked address to be free", async || {
        number(&database, &live("10.66.1.50")).await == 0
    })
    .await;
    until("the other one to be held", async || {
        number(&database, &live("10.66.1.60")).await == 1
    })
    .await;
    until("the bridge to be free", async || {
        number(
            &database,
            "SELECT COUNT(*) FROM pool_values WHERE value = 9",
        )
        .await
            == 0
    })
    .await;
    let entries = audit(&database).await;
    let whats: Vec<&str> = entries.iter().map(|entry| entry.1.as_str()).collect();
    for what in ["task", "leaked", "unheld"] {
        assert!(whats.contains(&what), "{entries:?}");
    }
}

fn options(dry_run: bool, force: bool) -> Options {
    Options {
        dry_run,
        backend: None,
        force,
        pause: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_on_an_error_or_when_too_much_is_missing() {
    let central = Central::with(FakeRapi::start().await, NEVER).await;
    central.rapi.succeed();
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        ids.push(running(&central, name).await);
    }
    let database = database(&central).await;
    let run =
        async |dry_run, force| reconcile::run(&central.config, &options(dry_run, force)).await;
    for id in &ids {
        central.rapi.lose(&format!("snf-{id}"));
    }
    // An error is no answer.
    central.rapi.set_mood(Mood::Unauthorized);
    for dry_run in [true, false] {
        run(dry_run, false).await.unwrap_err();
    }
    central.rapi.set_mood(Mood::Good);
    // A dry run changes nothing.
    run(true, false).await.unwrap();
    assert_eq!(audit(&database).await, []);
    // All of five: more than three, and more than a tenth.
    let error = run(false, false).await.unwrap_err();
    assert!(
        error.to_string().contains("could not be reconciled"),
        "{error}"
    );
    let trouble = number(
        &database,
        "SELECT COUNT(*) FROM passes WHERE trouble LIKE '5 of 5 servers would change%'",
    )
    .await;
    assert_eq!(trouble, 1);
    for id in &ids {
        assert_eq!(central.server(id).await["status"], "ACTIVE");
    }
    let entries = audit(&database).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].0.as_str(), entries[0].1.as_str()),
        ("backend cluster", "stopped")
    );
    // Unless a person says so.
    run(false, true).await.unwrap();
    for id in &ids {
        assert_eq!(central.server(id).await["status"], "DELETED");
    }
    assert_eq!(audit(&database).await.len(), 6);
}

/// One of several processes reconciles, and another one when that ends.
#[tokio::test(flavor = "multi_thread")]
async fn one_process_leads() {
    let mut first = Central::with(FakeRapi::start().await, OFTEN).await;
    let database = database(&first).await;
    let held = "SELECT COUNT(*) FROM leases WHERE until > 0";
    until("a leader", async || number(&database, held).await == 1).await;
    let holder = async || {
        let backend = database.get_database_backend();
        let query = Statement::from_string(backend, "SELECT holder FROM leases");
        let row = database.query_one_raw(query).await.unwrap().unwrap();
        row.try_get_by_index::<String>(0).unwrap()
    };
    let leader = holder().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let second = tokio::spawn(central::serve::run(
        first.config.clone(),
        |_| {},
        async move {
            let _ = stopped.await;
        },
    ));
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(holder().await, leader);
    first.stop().await;
    until("another leader", async || {
        holder().await != leader && number(&database, held).await == 1
    })
    .await;
    drop(stop);
    second.await.unwrap().unwrap();
    assert_eq!(number(&database, held).await, 0);
}

/// One that has died is followed by another one soon, however long the interval is, and what it did
/// last is to be read meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_died_is_followed() {
    let mut first = Central::with(FakeRapi::start().await, NEVER).await;
    let database = database(&first).await;
    let passes = "SELECT COUNT(*) FROM passes";
    until("a pass", async || number(&database, passes).await == 1).await;
    let held = "SELECT COUNT(*) FROM leases WHERE until > 0";
    assert_eq!(number(&database, held).await, 1);
    first.kill().await;
    assert_eq!(number(&database, passes).await, 1);
    execute(&database, "DELETE FROM passes").await;
    // A minute later.
    execute(&database, "UPDATE leases SET until = until - 60000000").await;
    let _second = Central::again(first).await;
    until("its pass", async || number(&database, passes).await == 1).await;
}
