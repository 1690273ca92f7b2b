//! What is not the ordinary course of a server's life.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Central, until, with_a_silent_cluster};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_that_are_on_their_way_end() {
    let (mut central, path, silent) = with_a_silent_cluster().await;
    let request = reqwest::Client::new()
        .post(format!("{}{path}/action", central.base))
        .header("X-Auth-Token", support::TOKEN)
        .json(&json!({"os-stop": null}));
    let asked = tokio::spawn(async move { request.send().await });
    until("the call to be on its way", async || {
        central.get(&path).await.expect(200)["server"]["SNF:task_state"] == "STOPPING"
    })
    .await;
    let stop = async { central.stop().await };
    let cluster = async {
        // Whoever has asked the cluster for something gets its answer at last.
        loop {
            let (stream, _) = silent.accept().await.unwrap();
            drop(stream);
        }
    };
    tokio::select! {
        () = stop => {}
        () = cluster => {}
    }
    let answer = asked.await.unwrap().unwrap();
    assert!(
        matches!(answer.status().as_u16(), 202 | 503),
        "{}",
        answer.status()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_logged_with_their_ids_and_without_secrets() {
    let mut central = Central::start().await;
    central.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("central.toml");
    let log = folder.path().join("log");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = format!(
        "log = 'debug'\n[api]\nlisten = '{address}'\n\
         [database]\nurl = '{}'\n",
        central.config.database_url
    );
    std::fs::write(&config, text).unwrap();
    let mut file = std::fs::File::options();
    let output = file.create(true).append(true).open(&log).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(&config)
        .arg("serve")
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    central.base = format!("http://{address}");
    let http = reqwest::Client::new();
    until("it to serve", async || {
        let url = format!("{}/healthz", central.base);
        http.get(url).send().await.is_ok()
    })
    .await;
    let token = support::TOKEN;
    let path = "/compute/v2.0/servers/471100";
    let answer = central.get(path).await;
    let id = answer.headers["x-compute-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    answer.fault(404, "itemNotFound");
    let query = format!("{path}?X-Auth-Token={token}");
    central.get(&query).await.fault(404, "itemNotFound");
    central
        .get(&format!("/identity/v2.0/tokens/{token}"))
        .await
        .expect(200);
    for password in ["rabbit", "a wrong carrot"] {
        let body = json!({"auth": {"tenantName": "wonderland", "passwordCredentials": {
            "username": "alice", "password": password}}});
        central.post("/identity/v2.0/tokens", body).await;
    }
    // In order, as systemd does.
    terminate(&child);
    let mut status = None;
    until("it to end", async || {
        std::fs::read_to_string(&log).unwrap().contains("stopping")
    })
    .await;
    for _ in 0..600 {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let log = std::fs::read_to_string(&log).unwrap();
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    for part in ["GET", path, "404"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for secret in [token, "rabbit", "a wrong carrot"] {
        let shown = log.lines().find(|line| line.contains(secret));
        assert_eq!(shown, None);
    }
}

/// Asks a process to end.
fn terminate(child: &std::process::Child) {
    let status = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}
