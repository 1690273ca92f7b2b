//! The same over MariaDB: the schema, what it takes two texts for, the life of a server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::process::Command;
use std::time::Duration;

use harness::mariadb::MariaDb;
use harness::process;
use harness::scratch::Scratch;
use reqwest::Method;
use serde_json::json;
use support::rapi::FakeRapi;
use support::{Central, until};

fn server(scratch: &Scratch) -> MariaDb {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    MariaDb::start(&scratch.join("db"), port).unwrap()
}

fn rows(server: &MariaDb, query: &str) -> String {
    process::check(&mut server.client("snf", query), Duration::from_secs(60)).unwrap()
}

/// Exit status and standard output of `snf-central` on that database.
fn shell(scratch: &Scratch, server: &MariaDb, words: &[&str]) -> (Option<i32>, String) {
    let text = format!("log = 'warn'\n[database]\nurl = '{}'\n", server.uri());
    let config = scratch.write("central.toml", &text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(config)
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_made_and_checked() {
    let scratch = Scratch::new("central-mariadb").unwrap();
    let server = server(&scratch);
    let (status, text) = shell(&scratch, &server, &["check"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("snf-central migrate"), "{text}");
    for _ in 0..2 {
        let (status, text) = shell(&scratch, &server, &["migrate"]);
        assert_eq!(status, Some(0), "{text}");
    }
    let (status, text) = shell(&scratch, &server, &["check"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("database: ok"), "{text}");
    // No text of ours is compared by other rules than its characters, in no table.
    let lax = rows(
        &server,
        "SELECT table_name, column_name, collation_name FROM information_schema.columns \
         WHERE table_schema = 'snf' AND table_name <> 'seaql_migrations' \
         AND collation_name NOT IN ('utf8mb4_nopad_bin', 'utf8mb4_bin')",
    );
    assert_eq!(lax, "");
    // Where MariaDB's JSON is text of its own kind, nothing of it is a key.
    let keys = rows(
        &server,
        "SELECT s.table_name, s.column_name FROM information_schema.statistics s \
         JOIN information_schema.columns c USING (table_schema, table_name, column_name) \
         WHERE s.table_schema = 'snf' AND c.collation_name = 'utf8mb4_bin'",
    );
    assert_eq!(keys, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_much_as_may_hang_on_a_server_is_shown() {
    let scratch = Scratch::new("central-mariadb").unwrap();
    let database = server(&scratch);
    let rapi = FakeRapi::start().await;
    let folder = tempfile::tempdir().unwrap();
    let central = Central::on(rapi, folder, &database.uri(), "").await;
    support::hanging::as_much_as_there_may_be_is_shown(&central).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_and_the_database_may_die_meanwhile() {
    let scratch = Scratch::new("central-mariadb").unwrap();
    let mut database = server(&scratch);
    let folder = tempfile::tempdir().unwrap();
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &database.uri(), "").await;
    central.rapi.succeed();
    let name = "Wéb 🦀";
    let id = central.create(name, &["bridged", "routed"]).await;
    let path = format!("/compute/v2.0/servers/{id}");
    let status = async |wanted: &str| {
        until(wanted, async || {
            let answer = central.get(&path).await;
            answer.status == 200
                && answer.body["server"]["status"] == wanted
                && answer.body["server"]["SNF:task_state"] == ""
        })
        .await;
    };
    status("ACTIVE").await;
    assert_eq!(central.server(&id).await["name"], name);
    let metadata = format!("{path}/metadata");
    for (key, value) in [("a", "1"), ("A", "2"), ("a", "3")] {
        let body = json!({"metadata": {key: value}});
        central.post(&metadata, body).await.expect(200);
    }
    assert_eq!(
        central.get(&metadata).await.expect(200)["metadata"],
        json!({"a": "3", "A": "2"})
    );
    let action = format!("{path}/action");
    central
        .post(&action, json!({"os-stop": null}))
        .await
        .expect(202);
    // While the job runs, the database is gone.
    database.kill();
    until("a refusal", async || {
        let answer = central.get(&path).await;
        assert!(matches!(answer.status.as_u16(), 200 | 503), "{answer:?}");
        answer.status == 503
    })
    .await;
    assert_eq!(central.get("/readyz").await.status, 503);
    database.restart().unwrap();
    status("SHUTOFF").await;
    central.get("/readyz").await.expect(200);

    let floating = central
        .post("/network/v2.0/floatingips", json!({"floatingip": {}}))
        .await
        .expect(201);
    let floating = floating["floatingip"]["id"].as_str().unwrap().to_owned();
    let network = json!({"network": {"name": "mine"}});
    central
        .post("/network/v2.0/networks", network)
        .await
        .expect(201);
    central
        .delete(&format!("/network/v2.0/floatingips/{floating}"))
        .await
        .expect(204);
    central.delete(&path).await.expect(204);
    until("DELETED", async || {
        central.get(&path).await.body["server"]["status"] == "DELETED"
    })
    .await;
    let limits = central.get("/compute/v2.0/limits").await.expect(200);
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 0);
    for list in [
        "/compute/v2.0/servers/detail?changes-since=2020-01-01T00:00:00Z&status=DELETED",
        "/compute/v2.0/flavors/detail",
        "/compute/v2.0/images/detail",
        "/network/v2.0/networks",
        "/network/v2.0/subnets",
        "/network/v2.0/ports",
        "/network/v2.0/floatingips",
        "/image/v2/images",
        "/image/v1.0/images/detail",
        "/volume/v3/volumes/detail",
    ] {
        central.get(list).await.expect(200);
    }
    let held = rows(
        &database,
        "SELECT COUNT(*), SUM(released_at IS NULL) FROM address_history",
    );
    assert!(held.ends_with("\t0\n") && !held.starts_with('0'), "{held}");
}

/// Capital letters and spaces at the end make another name: else somebody could have as many
/// attempts at a password as there are ways to write a name.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_all_of_its_characters() {
    let scratch = Scratch::new("central-mariadb").unwrap();
    let database = server(&scratch);
    let folder = tempfile::tempdir().unwrap();
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &database.uri(), "").await;
    for (name, expected) in [
        ("alice", 200),
        ("Alice", 401),
        ("alice ", 401),
        ("älice", 401),
    ] {
        let body = json!({"auth": {"tenantName": "wonderland", "passwordCredentials": {
            "username": name, "password": "rabbit"}}});
        let path = "/identity/v2.0/tokens";
        let answer = central.ask(Method::POST, path, None, Some(body)).await;
        assert_eq!(answer.status.as_u16(), expected, "{name}: {}", answer.body);
    }
}
