//! The same over PostgreSQL: one code path, another database, which can also die.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::scratch::Scratch;
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::json;
use support::rapi::FakeRapi;
use support::{Central, until};

#[tokio::test(flavor = "multi_thread")]
async fn as_much_as_may_hang_on_a_server_is_shown() {
    let scratch = Scratch::new("central-postgres").unwrap();
    let database = support::postgres(&scratch);
    let rapi = FakeRapi::start().await;
    let folder = tempfile::tempdir().unwrap();
    let central = Central::on(rapi, folder, &database.uri(), "").await;
    support::hanging::as_much_as_there_may_be_is_shown(&central).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_and_the_database_may_die_meanwhile() {
    let scratch = Scratch::new("central-postgres").unwrap();
    let mut database = support::postgres(&scratch);
    let folder = tempfile::tempdir().unwrap();
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &database.uri(), "").await;
    central.rapi.succeed();
    let id = central.create("web", &["bridged", "routed"]).await;
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
    let metadata = format!("{path}/metadata");
    for value in ["1", "2"] {
        let body = json!({"metadata": {"a": value}});
        central.post(&metadata, body).await.expect(200);
    }
    assert_eq!(
        central.get(&metadata).await.expect(200)["metadata"]["a"],
        "2"
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
    assert_eq!(central.get("/healthz").await.status, 200);
    database.restart().unwrap();
    status("SHUTOFF").await;
    central.get("/readyz").await.expect(200);
    central.delete(&path).await.expect(204);
    status_deleted(&central, &path).await;
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
    ] {
        central.get(list).await.expect(200);
    }
}

async fn status_deleted(central: &Central, path: &str) {
    until("DELETED", async || {
        central.get(path).await.body["server"]["status"] == "DELETED"
    })
    .await;
}

const MANY: usize = 500;

/// All of them are made by clients that ask again when they are told to come later.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_servers_at_once_are_each_made_once_and_fill_the_quota_exactly() {
    let scratch = Scratch::new("central-many").unwrap();
    let server = support::postgres(&scratch);
    let folder = tempfile::tempdir().unwrap();
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &server.uri(), "").await;
    let database = Database::connect(&server.uri()).await.unwrap();
    for statement in [
        // Room for them all.
        "UPDATE flavors SET ram = 1, disk = 0, vcpus = 0 WHERE name = 'tiny'",
        "UPDATE images SET min_ram = 0",
        "INSERT INTO quotas (project_id, resource, most) \
         SELECT id, 'servers', 500 FROM projects WHERE name = 'wonderland'",
    ] {
        database.execute_unprepared(statement).await.unwrap();
    }
    let order = central.order("one of many", &[]).await;
    let path = "/compute/v2.0/servers";
    let one = async || loop {
        let answer = central.post(path, order.clone()).await;
        match answer.status.as_u16() {
            202 => break,
            503 => tokio::time::sleep(Duration::from_millis(500)).await,
            _ => panic!("{answer:?}"),
        }
    };
    futures_util::future::join_all((0..MANY).map(|_| one())).await;
    let one_more = central.post(path, order.clone()).await;
    one_more.fault(413, "overLimit");

    let calls = central.rapi.submissions();
    let names: BTreeSet<String> = calls
        .iter()
        .map(|call| call.body["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((calls.len(), names.len()), (MANY, MANY));
    let query = "SELECT (SELECT COUNT(*) FROM servers WHERE deleted_at IS NULL), \
                 (SELECT COUNT(*) FROM intents WHERE state = 'submitted'), \
                 (SELECT COUNT(*) FROM intents)";
    let backend = database.get_database_backend();
    let row = database
        .query_one_raw(Statement::from_string(backend, query))
        .await
        .unwrap()
        .unwrap();
    for column in 0..3 {
        let count: i64 = row.try_get_by_index(column).unwrap();
        assert_eq!(usize::try_from(count).unwrap(), MANY, "column {column}");
    }
}

/// What it cannot keep is refused before it is asked: no client can make it look broken.
#[tokio::test(flavor = "multi_thread")]
async fn a_nul_character_is_refused_with_the_name_of_the_field() {
    let scratch = Scratch::new("central-nul").unwrap();
    let server = support::postgres(&scratch);
    let folder = tempfile::tempdir().unwrap();
    let rapi = FakeRapi::start().await;
    let central = Central::on(rapi, folder, &server.uri(), "").await;
    let password = |user: &str, tenant: &str| {
        let credentials = json!({"username": user, "password": "rabbit"});
        json!({"auth": {"tenantName": tenant, "passwordCredentials": credentials}})
    };
    let uuid = json!({"server": {
        "name": "n", "imageRef": "i\u{0}", "flavorRef": "1", "networks": [],
    }});
    for (path, body, field) in [
        (
            "/identity/v2.0/tokens",
            password("al\u{0}ice", "wonderland"),
            "auth.passwordCredentials.username",
        ),
        (
            "/identity/v2.0/tokens",
            password("alice", "\u{0}"),
            "auth.tenantName",
        ),
        ("/compute/v2.0/servers", uuid, "server.imageRef"),
        (
            "/cyclades/account/v1.0/user_catalogs",
            json!({"uuids": ["\u{0}"]}),
            "uuids[0]",
        ),
        (
            "/compute/v2.0/os-floating-ips",
            json!({"pool": "\u{0}"}),
            "pool",
        ),
        ("/image/v2/images", json!({"\u{0}": "x"}), "body"),
    ] {
        let message = central.post(path, body).await.fault(400, "badRequest");
        assert!(message.starts_with(field), "{path}: {message}");
        assert!(message.contains("NUL"), "{path}: {message}");
    }
}
