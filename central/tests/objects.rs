//! What operators list and change from a shell, and what the API makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Central, until};

/// Runs `snf-central` on the database of `central`.
fn shell(central: &Central, arguments: &[&str], input: &str) -> Output {
    let folder = central.folder.path();
    let config = folder.join("central.toml");
    let database = folder.join("central.db");
    let text = format!(
        "log = 'warn'\n[database]\nurl = 'sqlite://{}'\n",
        database.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(&config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It need not read what it does not want.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn done(central: &Central, arguments: &[&str]) -> String {
    let output = shell(central, arguments, "");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn listed(central: &Central, what: &str) -> Vec<Value> {
    let text = done(central, &[what, "list", "--json"]);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_listed_for_people_and_for_programs() {
    let central = Central::start().await;
    central.create("web", &["bridged"]).await;
    for (what, name) in [
        ("user", "alice"),
        ("project", "wonderland"),
        ("backend", "cluster"),
        ("flavor", "tiny"),
        ("image", "busybox"),
        ("network", "bridged"),
        ("server", "web"),
    ] {
        let rows = listed(&central, what);
        assert!(rows.iter().any(|row| row["name"] == name), "{rows:?}");
        let table = done(&central, &[what, "list"]);
        assert!(table.starts_with("ID  "), "{table}");
        assert_eq!(table.lines().count(), rows.len() + 1, "{table}");
    }
    let tokens = listed(&central, "token");
    assert!(tokens.iter().any(|row| row["user"] == "alice"));
    assert!(!done(&central, &["token", "list"]).contains(support::TOKEN));
    let quota = done(&central, &["quota", "list", "elsewhere", "--json"]);
    let quota: Value = serde_json::from_str(&quota).unwrap();
    assert_eq!(
        quota[0],
        json!({"resource": "servers", "used": 0, "most": 2, "granted": 2})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_change_holds_at_once() {
    let central = Central::start().await;
    let id = central.create("web", &["bridged"]).await;
    let order = central.order("next", &["bridged"]).await;
    let servers = "/compute/v2.0/servers";

    done(&central, &["backend", "drain", "cluster"]);
    central
        .post(servers, order.clone())
        .await
        .fault(503, "serviceUnavailable");
    done(&central, &["backend", "undrain", "cluster"]);
    done(&central, &["backend", "offline", "cluster"]);
    central
        .post(servers, order.clone())
        .await
        .fault(503, "serviceUnavailable");
    done(&central, &["backend", "online", "cluster"]);

    done(&central, &["flavor", "close", "tiny"]);
    central
        .post(servers, order.clone())
        .await
        .fault(403, "forbidden");
    done(&central, &["flavor", "open", "tiny"]);

    done(&central, &["quota", "set", "wonderland", "servers", "1"]);
    central
        .post(servers, order.clone())
        .await
        .fault(413, "overLimit");
    done(&central, &["quota", "set", "wonderland", "servers"]);

    done(&central, &["image", "withdraw", "busybox"]);
    central
        .post(servers, order.clone())
        .await
        .fault(404, "itemNotFound");
    done(&central, &["image", "publish", "busybox"]);
    central.post(servers, order).await.expect(202);

    done(&central, &["server", "suspend", &id]);
    let action = format!("{servers}/{id}/action");
    central
        .post(&action, json!({"os-stop": null}))
        .await
        .fault(403, "forbidden");
    done(&central, &["server", "resume", &id]);

    let output = shell(&central, &["user", "password", "alice"], "queen\n");
    assert!(output.status.success());
    let log_in = async |password: &str, project: &str| {
        let body = json!({"auth": {"tenantName": project, "passwordCredentials": {
            "username": "alice", "password": password}}});
        let path = "/identity/v2.0/tokens";
        central.ask(Method::POST, path, None, Some(body)).await
    };
    log_in("rabbit", "wonderland")
        .await
        .fault(401, "unauthorized");
    log_in("queen", "wonderland").await.expect(200);
    log_in("queen", "elsewhere")
        .await
        .fault(401, "unauthorized");
    done(&central, &["project", "join", "elsewhere", "alice"]);
    log_in("queen", "elsewhere").await.expect(200);
    done(&central, &["project", "leave", "elsewhere", "alice"]);
    log_in("queen", "elsewhere")
        .await
        .fault(401, "unauthorized");

    done(&central, &["token", "revoke", "alice"]);
    // Another process did it: this one notices soon.
    until("the token to be worthless", async || {
        central.get(servers).await.status == 401
    })
    .await;
    done(&central, &["user", "disable", "alice"]);
    log_in("queen", "wonderland")
        .await
        .fault(401, "unauthorized");
    done(&central, &["user", "enable", "alice"]);
    log_in("queen", "wonderland").await.expect(200);

    for arguments in [
        &["user", "disable", "nobody"][..],
        &["backend", "drain", "nothing"],
        &["server", "suspend", "x"],
        &["quota", "set", "wonderland", "unicorns", "1"],
        &["quota", "set", "wonderland", "servers", "-1"],
    ] {
        let output = shell(&central, arguments, "");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_of_what_runs_hold_for_starts_and_resizes() {
    let central = Central::start().await;
    central.rapi.succeed();
    let idle = async |id: &str, status: &str| {
        until(status, async || {
            let server = central.server(id).await;
            server["status"] == status && server["SNF:task_state"] == ""
        })
        .await;
    };
    let act = async |id: &str, body: Value| {
        let path = format!("/compute/v2.0/servers/{id}/action");
        central.post(&path, body).await
    };
    let limit = |resource: &str, most: &str| {
        done(&central, &["quota", "set", "wonderland", resource, most]);
    };
    let first = central.create("first", &[]).await;
    idle(&first, "ACTIVE").await;
    // Processors of what runs: one that is stopped leaves room for another.
    limit("cpu", "1");
    act(&first, json!({"os-stop": null})).await.expect(202);
    idle(&first, "SHUTOFF").await;
    let second = central.create("second", &[]).await;
    idle(&second, "ACTIVE").await;
    let message = act(&first, json!({"os-start": null}))
        .await
        .fault(413, "overLimit");
    assert!(message.contains("quota: cpu"), "{message}");
    idle(&first, "SHUTOFF").await;
    limit("cpu", "2");
    limit("ram", "255");
    let message = act(&first, json!({"os-start": null}))
        .await
        .fault(413, "overLimit");
    assert!(message.contains("quota: ram"), "{message}");
    limit("ram", "256");
    act(&first, json!({"os-start": null})).await.expect(202);
    idle(&first, "ACTIVE").await;

    // A resize counts as soon as it is asked for; of two at once one may be too many.
    limit("total_cpu", "3");
    let small = central.id_of("/compute/v2.0/flavors", "small").await;
    for id in [&first, &second] {
        act(id, json!({"os-stop": null})).await.expect(202);
        idle(id, "SHUTOFF").await;
    }
    let resize = json!({"resize": {"flavorRef": small}});
    let both =
        futures_util::future::join_all([act(&first, resize.clone()), act(&second, resize.clone())])
            .await;
    let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 413], "{both:?}");
    for id in [&first, &second] {
        idle(id, "SHUTOFF").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_an_address_is_known_when_it_has_it_no_more() {
    let central = Central::start().await;
    central.rapi.succeed();
    let active = async |id: &str| {
        until("ACTIVE", async || {
            let server = central.server(id).await;
            server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
        })
        .await;
    };
    let first = central.create("first", &["bridged"]).await;
    active(&first).await;
    let address = "10.66.1.2";
    let six = central.server(&first).await["attachments"][0]["ipv6"].clone();
    let history = |arguments: &[&str]| -> Vec<Value> {
        let mut words = vec!["address", "history", "--json"];
        words.extend(arguments);
        serde_json::from_str(&done(&central, &words)).unwrap()
    };
    let now = history(&[address]);
    assert_eq!(now.len(), 1, "{now:?}");
    assert_eq!(now[0]["server"].to_string(), first);
    assert_eq!(now[0]["user"], "alice");
    assert_eq!(now[0]["project"], "wonderland");
    assert_eq!(now[0]["released"], Value::Null);
    assert!(now[0]["mac"].is_string(), "{now:?}");
    // Both families.
    let both = history(&["--server", &first]);
    let mut addresses: Vec<&Value> = both.iter().map(|row| &row["address"]).collect();
    addresses.sort_by_key(|address| address.to_string());
    assert_eq!(addresses, [&json!(address), &six]);

    let delete = format!("/compute/v2.0/servers/{first}");
    central.delete(&delete).await.expect(204);
    until("DELETED", async || {
        central.server(&first).await["status"] == "DELETED"
    })
    .await;
    let second = central.create("second", &["bridged"]).await;
    active(&second).await;
    let now = history(&[address]);
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now[0]["released"].as_str().unwrap() <= now[1]["bound"].as_str().unwrap());
    assert_eq!(now[1]["server"].to_string(), second);
    // Each of them at its own time, and nobody before.
    for (at, expected) in [
        (now[0]["bound"].as_str().unwrap(), vec![&first]),
        (now[1]["bound"].as_str().unwrap(), vec![&second]),
        ("2020-01-01T00:00:00Z", vec![]),
    ] {
        let then = history(&[address, "--at", at]);
        let servers: Vec<String> = then.iter().map(|row| row["server"].to_string()).collect();
        assert_eq!(servers.iter().collect::<Vec<_>>(), expected, "{at}");
    }
    let table = done(&central, &["address", "history", address]);
    assert!(table.starts_with("ADDRESS  "), "{table}");
    for wrong in [&["x"][..], &[], &[address, "--at", "yesterday"]] {
        let mut words = vec!["address", "history"];
        words.extend(wrong);
        assert_eq!(shell(&central, &words, "").status.code(), Some(2));
    }

    // A floating IP goes from one server to another.
    let made = central
        .post("/network/v2.0/floatingips", json!({"floatingip": {}}))
        .await
        .expect(201);
    let floating = &made["floatingip"];
    let text = floating["floating_ip_address"].as_str().unwrap();
    let action = format!("/compute/v2.0/servers/{second}/action");
    for name in ["addFloatingIp", "removeFloatingIp"] {
        let body = json!({ name: {"address": text} });
        central.post(&action, body).await.expect(202);
        active(&second).await;
    }
    let floated = history(&[text]);
    assert_eq!(floated.len(), 1, "{floated:?}");
    assert!(floated[0]["released"].is_string(), "{floated:?}");

    // The same over HTTP, for administrators.
    let path = "/network/v2.0/address-history";
    let asked = format!("{path}?address={address}");
    central.get(&asked).await.fault(403, "forbidden");
    done(&central, &["user", "grant-admin", "alice"]);
    until("the role", async || central.get(&asked).await.status == 200).await;
    let rows = central.get(&asked).await.expect(200)["address_history"].take();
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");
    assert_eq!(rows[0]["server_id"], first.as_str());
    let next = format!("{asked}&limit=1&marker={}", rows[0]["id"].as_str().unwrap());
    let page = central.get(&next).await.expect(200);
    assert_eq!(page["address_history"], json!([rows[1]]));
    let at = rows[0]["bound"].as_str().unwrap();
    let then = central.get(&format!("{asked}&at={at}")).await.expect(200);
    assert_eq!(then["address_history"], json!([rows[0]]));
    for wrong in ["", "?address=x", "?server_id=x", "?server_id=1&at=never"] {
        central
            .get(&format!("{path}{wrong}"))
            .await
            .fault(400, "badRequest");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_comes_in_pages_and_tells_what_has_changed() {
    let central = Central::start().await;
    let image = central.id_of("/compute/v2.0/images", "busybox").await;
    done(&central, &["user", "grant-admin", "alice"]);
    let images = "/image/v2/images";
    // It is known after two seconds at most that she may.
    until("the role", async || {
        let body = json!({"name": "another", "source": "/srv/images/another.img"});
        central.post(images, body).await.status == 201
    })
    .await;
    for path in ["/network/v2.0/floatingips", "/network/v2.0/floatingips"] {
        let body = json!({"floatingip": {}});
        central.post(path, body).await.expect(201);
    }
    central.create("web", &["bridged", "routed"]).await;
    let deleted = central.create("other", &[]).await;
    for (path, member) in [
        ("/compute/v2.0/servers", "servers"),
        ("/compute/v2.0/flavors/detail", "flavors"),
        ("/compute/v2.0/images", "images"),
        ("/compute/v2.0/images/detail", "images"),
        ("/network/v2.0/networks", "networks"),
        ("/network/v2.0/subnets", "subnets"),
        ("/network/v2.0/ports", "ports"),
        ("/network/v2.0/floatingips", "floatingips"),
        ("/volume/v3/volumes", "volumes"),
        ("/image/v2/images", "images"),
        ("/image/v1.0/images/detail", ""),
    ] {
        let rows = async |query: String| -> Vec<String> {
            let body = central.get(&format!("{path}{query}")).await.expect(200);
            let list = if member.is_empty() {
                &body
            } else {
                &body[member]
            };
            let rows = list.as_array().unwrap();
            rows.iter()
                .map(|row| row["id"].as_str().unwrap().to_owned())
                .collect()
        };
        let whole = rows(String::new()).await;
        assert!(whole.len() >= 2, "{path}: {whole:?}");
        let mut paged = Vec::new();
        let mut query = "?limit=1".to_owned();
        while let [only] = rows(query).await.as_slice() {
            query = format!("?limit=1&marker={only}");
            paged.push(only.clone());
        }
        assert_eq!(paged, whole, "{path}");
    }
    let bad = "/compute/v2.0/images?marker=nothing";
    central.get(bad).await.fault(400, "badRequest");

    // What is deleted is among the changes, and only there.
    central.rapi.succeed();
    let delete = async |path: String, status: u16| {
        central.delete(&path).await.expect(status);
    };
    until("the server to be up", async || {
        central.server(&deleted).await["status"] == "ACTIVE"
    })
    .await;
    delete(format!("/compute/v2.0/servers/{deleted}"), 204).await;
    until("DELETED", async || {
        central.server(&deleted).await["status"] == "DELETED"
    })
    .await;
    let another = central.id_of("/compute/v2.0/images", "another").await;
    assert_ne!(another, image);
    delete(format!("{images}/{another}"), 204).await;
    let body = central.get("/network/v2.0/floatingips").await.expect(200);
    let floating = body["floatingips"][0]["id"].as_str().unwrap().to_owned();
    delete(format!("/network/v2.0/floatingips/{floating}"), 204).await;
    for (path, member, id) in [
        ("/compute/v2.0/servers", "servers", &deleted),
        ("/compute/v2.0/images/detail", "images", &another),
        ("/network/v2.0/floatingips", "floatingips", &floating),
    ] {
        for (query, there) in [("", false), ("?changes-since=2020-01-01T00:00:00Z", true)] {
            let body = central.get(&format!("{path}{query}")).await.expect(200);
            let mut rows = body[member].as_array().unwrap().iter();
            assert_eq!(rows.any(|row| row["id"] == **id), there, "{path}{query}");
        }
        // The clock of a client may be a little ahead.
        let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(30);
        let soon = soon
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap();
        let answer = central.get(&format!("{path}?changes-since={soon}")).await;
        assert_eq!(answer.status, 304, "{path}");
    }
}
