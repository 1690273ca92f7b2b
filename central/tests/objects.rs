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
        json!({"resource": "servers", "used": 0, "most": 2})
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
