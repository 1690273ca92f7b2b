//! The same over PostgreSQL: one code path, another database, which can also die.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use harness::postgres::Postgres;
use harness::scratch::Scratch;
use serde_json::json;
use support::rapi::FakeRapi;
use support::{Central, until};

fn server(scratch: &Scratch) -> Postgres {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    Postgres::start(&scratch.join("pg"), port).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_and_the_database_may_die_meanwhile() {
    let scratch = Scratch::new("central-postgres").unwrap();
    let mut database = server(&scratch);
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
