//! Requests that Ganeti can never be asked: they end, are told at their object, and keep nothing waiting.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use serde_json::json;
use support::rapi::{FakeRapi, Mood};
use support::{Central, until};

/// An interval that no test lives to see.
const NEVER: &str = "[reconcile]\ninterval_seconds = 100000\n";

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

async fn idle(central: &Central, id: &str, status: &str) {
    until(status, async || {
        let server = central.server(id).await;
        server["status"] == status && server["SNF:task_state"] == ""
    })
    .await;
}

/// A server that runs, and the intent to give it a NIC in `routed`, which has not been sent.
async fn with_a_pending_nic() -> (Central, DatabaseConnection, String) {
    let central = Central::with(FakeRapi::start().await, NEVER).await;
    central.rapi.succeed();
    let id = central.create("web", &["bridged"]).await;
    idle(&central, &id, "ACTIVE").await;
    let network = central.id_of("/network/v2.0/networks", "routed").await;
    let body = json!({"interfaceAttachment": {"net_id": network}});
    let path = format!("/compute/v2.0/servers/{id}/os-interface");
    // Nobody can be asked just now, and nobody knows it.
    central.rapi.set_mood(Mood::AnswersLost);
    central.post(&path, body).await.expect(200);
    central.rapi.forget_jobs();
    central.rapi.set_mood(Mood::Drained);
    let rows = database(&central).await;
    let pending = "SELECT COUNT(*) FROM intents WHERE kind = 'connect' AND state = 'pending'";
    assert_eq!(number(&rows, pending).await, 1);
    (central, rows, id)
}

async fn gone_is_told(central: &Central, rows: &DatabaseConnection, id: &str, reason: &str) {
    let soon = "UPDATE intents SET claimed_until = 0 WHERE state = 'pending'";
    rows.execute_unprepared(soon).await.unwrap();
    let pending = "SELECT COUNT(*) FROM intents WHERE state = 'pending'";
    until("its end", async || number(rows, pending).await == 0).await;
    idle(central, id, "ACTIVE").await;
    let told = central
        .get(&format!("/compute/v2.0/servers/{id}/diagnostics"))
        .await
        .expect(200);
    assert!(told.to_string().contains(reason), "{told}");
    let free = format!(
        "SELECT COUNT(*) FROM ports WHERE server_id = {id} AND deleted_at IS NULL AND network_id > 1"
    );
    assert_eq!(number(rows, &free).await, 0);
    let live = "SELECT COUNT(*) FROM addresses WHERE address LIKE '10.66.2.%' AND live";
    assert_eq!(number(rows, live).await, 0);
    // It can be used and deleted.
    let action = format!("/compute/v2.0/servers/{id}/action");
    let stop = json!({"os-stop": null});
    central.post(&action, stop).await.expect(202);
    idle(central, id, "SHUTOFF").await;
    let path = format!("/compute/v2.0/servers/{id}");
    central.delete(&path).await.expect(204);
    idle(central, id, "DELETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nic_whose_network_is_gone_is_given_up() {
    let (central, rows, id) = with_a_pending_nic().await;
    for statement in [
        "UPDATE networks SET deleted_at = 1 WHERE name = 'routed'",
        "UPDATE backend_networks SET state = 'ABSENT', jobs = '[]' WHERE network_id = \
         (SELECT id FROM networks WHERE name = 'routed')",
    ] {
        rows.execute_unprepared(statement).await.unwrap();
    }
    central.rapi.set_mood(Mood::Good);
    gone_is_told(&central, &rows, &id, "is gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_cannot_be_read_is_given_up() {
    let (central, rows, id) = with_a_pending_nic().await;
    let garbled = "UPDATE intents SET request = '{\"method\": \"SING\"}' WHERE state = 'pending'";
    rows.execute_unprepared(garbled).await.unwrap();
    central.rapi.set_mood(Mood::Good);
    gone_is_told(&central, &rows, &id, "unreadable").await;
}

/// A refusal for now is asked again, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_now_is_asked_again_for_a_day() {
    let (central, rows, id) = with_a_pending_nic().await;
    let soon = "UPDATE intents SET claimed_until = 0 WHERE state = 'pending'";
    rows.execute_unprepared(soon).await.unwrap();
    let tried = "SELECT COUNT(*) FROM intents WHERE state = 'pending' AND error LIKE '%drained%'";
    until("a refusal", async || number(&rows, tried).await == 1).await;
    rows.execute_unprepared(
        "UPDATE intents SET created_at = created_at - 90000000000 WHERE state = 'pending'",
    )
    .await
    .unwrap();
    rows.execute_unprepared(soon).await.unwrap();
    let pending = "SELECT COUNT(*) FROM intents WHERE state = 'pending'";
    until("its end", async || number(&rows, pending).await == 0).await;
    central.rapi.set_mood(Mood::Good);
    idle(&central, &id, "ACTIVE").await;
}

/// Whatever waits, for whatever reason: a deletion does not wait behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_behind_nothing() {
    let (central, rows, id) = with_a_pending_nic().await;
    central.rapi.set_mood(Mood::Good);
    let before = central.rapi.submissions().len();
    central
        .delete(&format!("/compute/v2.0/servers/{id}"))
        .await
        .expect(204);
    // At once: it is not left to a later attempt.
    let calls = central.rapi.submissions();
    assert_eq!(calls.len(), before + 1, "{calls:?}");
    assert_eq!(calls[before].method, "DELETE");
    idle(&central, &id, "DELETED").await;
    let dropped = "SELECT COUNT(*) FROM intents WHERE kind = 'connect' AND state = 'dropped'";
    assert_eq!(number(&rows, dropped).await, 1);
}

/// A creation that was never sent leaves nothing that could be removed in the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_creation_was_never_sent_is_deleted_without_asking() {
    let central = Central::with(FakeRapi::start().await, NEVER).await;
    central.rapi.succeed();
    central.create("other", &[]).await;
    let rows = database(&central).await;
    central.rapi.set_mood(Mood::AnswersLost);
    let id = central.create("web", &[]).await;
    central.rapi.forget_jobs();
    central.rapi.lose(&format!("snf-{id}"));
    central.rapi.set_mood(Mood::Good);
    // Somebody else has made one of this name meanwhile.
    let before = central.rapi.submissions().len();
    central.rapi.smuggle(&format!("snf-{id}"));
    central
        .delete(&format!("/compute/v2.0/servers/{id}"))
        .await
        .expect(204);
    until("DELETED", async || {
        central.server(&id).await["status"] == "DELETED"
    })
    .await;
    assert_eq!(central.rapi.submissions().len(), before);
    assert!(central.rapi.instances().contains(&format!("snf-{id}")));
    let pending = "SELECT COUNT(*) FROM intents WHERE state = 'pending'";
    assert_eq!(number(&rows, pending).await, 0);
}
