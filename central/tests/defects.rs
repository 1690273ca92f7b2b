//! What went wrong in the system before this one, by the numbers of that list: each must not go
//! wrong here. Those that are shown where the rest of their subject is:
//!
//! - 1, malformed messages vanish: `dispatch::what_cannot_be_applied_is_kept_with_the_reason`
//! - 3, an outage of the database makes dead letters:
//!   `faults::postgresql_and_the_broker_may_die_at_any_instant`
//! - 4, a node's clock that is ahead hides the end of a creation:
//!   `dispatch::a_server_lives_as_the_messages_say`, `machine::a_clock_cannot_hide_the_end_of_a_job`
//! - 5, RESIZE is never shown: `api::a_resize_keeps_the_disk_and_ends_with_the_new_flavor`
//! - 6, the NICs after a canceled modification: eventd's
//!   `what_the_instance_is_made_of_is_told_after_a_canceled_modify_too`
//! - 14, a parameter that Ganeti 3.1 refuses: `api::nics_come_and_go`, whose RAPI refuses what is
//!   not in the recorded opcodes
//! - 16, firewall profiles: `servers::a_firewall_profile_is_a_tag_and_takes_the_place_of_the_old_one`
//! - 20, one-shot parameters are anybody's: `servers::parameters_are_for_nodes_only`,
//!   `servers::of_many_who_ask_for_parameters_one_gets_them`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use support::broker::{isolated, served};
use support::rapi::{FakeRapi, Mood};
use support::{Central, TOKEN, until, with_a_silent_cluster};

const SERVERS: &str = "/compute/v2.0/servers";

/// A server that is up, and its path.
async fn running(central: &Central) -> String {
    central.rapi.succeed();
    let id = central.create("web", &[]).await;
    until("ACTIVE", async || {
        central.server(&id).await["status"] == "ACTIVE"
    })
    .await;
    format!("{SERVERS}/{id}")
}

#[test]
fn defect_02_a_consumer_takes_no_more_at_once_after_a_reconnection() {
    isolated(async |site| {
        let broker = site.broker();
        let _central = site.central().await;
        for queue in ["op", "network", "net", "progress", "cluster"] {
            served(&broker, queue).await;
        }
        let consumers = || {
            let listed = broker.ctl("list_consumers queue_name channel_pid prefetch_count");
            let text = listed.unwrap().stdout;
            let mut rows: Vec<Vec<String>> = text
                .lines()
                .filter(|line| line.starts_with("central.snf."))
                .map(|line| line.split('\t').map(str::to_owned).collect())
                .collect();
            rows.sort();
            rows
        };
        let channels = |rows: &[Vec<String>]| -> Vec<String> {
            rows.iter().map(|row| row[1].clone()).collect()
        };
        let before = consumers();
        let limits = |rows: &[Vec<String>]| -> BTreeMap<String, String> {
            rows.iter()
                .map(|row| (row[0].clone(), row[2].clone()))
                .collect()
        };
        // What the configuration says; what is asked of eventds has a limit of its own.
        let expected = limits(&before);
        assert_eq!(expected["central.snf.op"], "64");
        assert!(expected.values().all(|limit| limit != "0"), "{expected:?}");
        broker.ctl("close_all_connections enough").unwrap();
        until("the consumers to be back", async || {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let old = channels(&before);
            let mut new = consumers();
            new.retain(|row| !old.contains(&row[1]));
            before
                .iter()
                .all(|row| new.iter().any(|other| other[0] == row[0]))
        })
        .await;
        let mut after = consumers();
        after.retain(|row| !channels(&before).contains(&row[1]));
        let mut after = limits(&after);
        after.retain(|queue, _| expected.contains_key(queue));
        assert_eq!(after, expected);
    });
}

#[tokio::test]
async fn defect_07_an_action_is_one_action() {
    let central = Central::start().await;
    let path = running(&central).await;
    let action = format!("{path}/action");
    let before = central.rapi.submissions().len();
    for body in [
        json!({"os-stop": null, "reboot": {"type": "HARD"}}),
        json!({}),
        json!([{"os-stop": null}]),
        json!(["os-stop"]),
        json!("os-stop"),
        json!(null),
        json!(1),
    ] {
        let message = central
            .post(&action, body.clone())
            .await
            .fault(400, "badRequest");
        assert!(message.starts_with("body"), "{body}: {message}");
    }
    assert_eq!(central.rapi.submissions().len(), before);
}

#[tokio::test]
async fn defect_08_what_is_not_offered_is_501_and_what_is_nothing_is_400() {
    let central = Central::start().await;
    let path = running(&central).await;
    let action = format!("{path}/action");
    for name in [
        "delete",
        "create",
        "changePassword",
        "rebuild",
        "createImage",
        "confirmResize",
        "revertResize",
        "suspend",
        "os-getSPICEConsole",
    ] {
        for arguments in [Value::Null, json!({}), json!([]), json!("x")] {
            let answer = central.post(&action, json!({ name: arguments })).await;
            answer.fault(501, "notImplemented");
        }
    }
    let message = central
        .post(&action, json!({"explode": null}))
        .await
        .fault(400, "badRequest");
    assert!(message.contains("explode"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_09_nothing_is_locked_while_ganeti_is_asked() {
    let (central, path, silent) = with_a_silent_cluster().await;
    let stop = tokio::spawn({
        let http = reqwest::Client::new();
        let url = format!("{}{path}/action", central.base);
        let request = http
            .post(url)
            .header("X-Auth-Token", TOKEN)
            .json(&json!({"os-stop": null}));
        async move { request.send().await }
    });
    // The task is written down before Ganeti is asked.
    until("the call to be on its way", async || {
        central.get(&path).await.expect(200)["server"]["SNF:task_state"] == "STOPPING"
    })
    .await;
    let (_asked, _) = silent.accept().await.unwrap();
    central
        .put(&path, json!({"server": {"name": "renamed"}}))
        .await
        .expect(200);
    central
        .post(&format!("{path}/metadata"), json!({"metadata": {"a": "b"}}))
        .await
        .expect(200);
    let network = json!({"network": {"name": "meanwhile"}});
    central
        .post("/network/v2.0/networks", network)
        .await
        .expect(201);
    assert!(!stop.is_finished());
    stop.abort();
}

#[tokio::test]
async fn defect_10_many_keypairs_are_no_fault_and_too_many_are_over_the_limit() {
    let central = Central::start().await;
    let path = "/compute/v2.0/os-keypairs";
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3nT0k4d1sN1mXyZ9fQ0vJ8b5m7QkzG8m8WlB8fTQ6E a@b";
    let mut made = 0;
    let refused = loop {
        let body = json!({"keypair": {"name": format!("k{made}"), "public_key": key}});
        let answer = central.post(path, body).await;
        if answer.status != 200 {
            break answer;
        }
        made += 1;
    };
    assert!(made > 10, "{made}");
    refused.fault(413, "overLimit");
    let all = central.get(path).await.expect(200);
    assert_eq!(all["keypairs"].as_array().unwrap().len(), made);
}

#[tokio::test]
async fn defect_11_a_floating_ip_has_its_apis_shape() {
    let central = Central::start().await;
    let path = "/compute/v2.0/os-floating-ips";
    let made = central.post(path, json!({})).await.expect(200);
    let id = made["floating_ip"]["id"].as_str().unwrap();
    let shown = central.get(&format!("{path}/{id}")).await.expect(200);
    assert_eq!(shown, made);
    let mut fields: Vec<&str> = shown["floating_ip"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    assert_eq!(fields, ["fixed_ip", "id", "instance_id", "ip", "pool"]);
}

#[tokio::test]
async fn defect_12_all_of_a_consoles_secret_counts() {
    let central = Central::start().await;
    let path = running(&central).await;
    let id = path.rsplit('/').next().unwrap();
    let name = format!("snf-{id}");
    central.rapi.change(&name, "pnode", json!("127.0.0.1"));
    let console = json!({"os-getVNCConsole": {"type": "novnc"}});
    let answer = central
        .post(&format!("{path}/action"), console)
        .await
        .expect(200);
    let url = answer["console"]["url"].as_str().unwrap();
    let (place, secret) = url.rsplit_once('=').unwrap();
    // 256 bits in base64.
    assert_eq!(secret.len(), 43, "{secret}");
    let place = place
        .strip_prefix(&central.base.replace("http", "ws"))
        .unwrap();
    let other = if secret.ends_with('A') { 'E' } else { 'A' };
    let wrong = format!("{}{other}", &secret[..42]);
    for shown in [&secret[..8], &secret[..42], &wrong] {
        let answer = reqwest::Client::new()
            .get(format!("{}{place}={shown}", central.base))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 401, "{shown}");
    }
}

#[tokio::test]
async fn defect_13_snapshots_are_none() {
    let central = Central::start().await;
    running(&central).await;
    for path in ["/volume/v3/snapshots", "/volume/v3/snapshots/detail"] {
        let all = central.get(path).await.expect(200);
        assert_eq!(all["snapshots"], json!([]));
    }
}

#[tokio::test]
async fn defect_15_what_is_no_id_names_nothing() {
    let central = Central::start().await;
    for id in ["abc", "0", "-1", "+1", "1e3", "99999999999999999999", "%20"] {
        for place in [
            SERVERS,
            "/compute/v2.0/flavors",
            "/network/v2.0/networks",
            "/network/v2.0/ports",
            "/network/v2.0/subnets",
            "/network/v2.0/floatingips",
            "/volume/v3/volumes",
        ] {
            central
                .get(&format!("{place}/{id}"))
                .await
                .fault(404, "itemNotFound");
        }
    }
}

#[tokio::test]
async fn defect_17_a_token_in_a_query_is_no_token() {
    let central = Central::start().await;
    for path in [SERVERS, "/cyclades/compute/v2.0/servers"] {
        let path = format!("{path}?X-Auth-Token={TOKEN}");
        let answer = central.ask(Method::GET, &path, None, None).await;
        answer.fault(401, "unauthorized");
    }
}

#[tokio::test]
async fn defect_18_a_cluster_that_was_never_measured_is_no_cluster_yet() {
    let rapi = FakeRapi::start().await;
    rapi.set_mood(Mood::Unauthorized);
    let central = Central::with(rapi, "").await;
    let order = central.order("early", &[]).await;
    central
        .post(SERVERS, order)
        .await
        .fault(503, "serviceUnavailable");
    central.rapi.set_mood(Mood::Good);
    // It is measured again soon, or when somebody asks for room.
    until("room", async || {
        let order = central.order("later", &[]).await;
        let answer = central.post(SERVERS, order).await;
        assert!(
            matches!(answer.status.as_u16(), 202 | 503),
            "{}",
            answer.body
        );
        answer.status == 202
    })
    .await;
}

#[tokio::test]
async fn defect_19_full_clusters_are_not_overcommitted() {
    let central = Central::start().await;
    let mut order = central.order("huge", &[]).await;
    order["server"]["flavorRef"] = json!(central.id_of("/compute/v2.0/flavors", "huge").await);
    central
        .post(SERVERS, order)
        .await
        .fault(503, "serviceUnavailable");
    let servers = central.get(SERVERS).await.expect(200);
    assert_eq!(servers, json!({"servers": []}));
    assert!(central.rapi.submissions().is_empty());
}
