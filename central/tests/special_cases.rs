//! What is not the ordinary course of a server's life.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use serde_json::json;
use support::{Central, until};

fn no_room(code: &str) -> serde_json::Value {
    json!(["OpPrereqError", ["no node has room", code]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_found_all_room_locked_is_asked_for_once_more() {
    let central = Central::start().await;
    central.rapi.fail(no_room("temp_insufficient_resources"));
    let id = central.create("patient", &["bridged"]).await;
    central.rapi.succeed();
    until("ACTIVE", async || {
        let status = central.server(&id).await["status"].take();
        assert_ne!(status, "ERROR");
        status == "ACTIVE"
    })
    .await;
    let creations: Vec<_> = central
        .rapi
        .submissions()
        .into_iter()
        .filter(|call| call.path == "/2/instances")
        .collect();
    assert_eq!(creations.len(), 2);
    let mut expected = creations[0].body.clone();
    assert_eq!(expected["opportunistic_locking"], true);
    expected["opportunistic_locking"] = json!(false);
    // The network that the first waited for is there by now.
    expected.as_object_mut().unwrap().remove("depends");
    let mut second = creations[1].body.clone();
    second.as_object_mut().unwrap().remove("depends");
    assert_eq!(second, expected);
    assert_eq!(central.server(&id).await["SNF:task_state"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_finds_no_room_again_has_failed() {
    let central = Central::start().await;
    central.rapi.fail(no_room("temp_insufficient_resources"));
    central.rapi.fail(no_room("temp_insufficient_resources"));
    let patient = central.create("patient", &["bridged"]).await;
    central.rapi.succeed();
    until("ERROR", async || {
        central.server(&patient).await["status"] == "ERROR"
    })
    .await;
    central.rapi.fail(no_room("insufficient_resources"));
    let big = central.create("big", &["bridged"]).await;
    until("ERROR", async || {
        central.server(&big).await["status"] == "ERROR"
    })
    .await;
    let calls = central.rapi.submissions();
    let creations = calls.iter().filter(|call| call.path == "/2/instances");
    assert_eq!(creations.count(), 3);
}
