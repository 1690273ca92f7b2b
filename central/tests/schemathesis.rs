//! A program of others tries the API out by its OpenAPI document: what it sends, and what it
//! thinks of the answers, is not ours.
//!
//! Schemathesis is installed once, into `target/clients`; a machine without PyPI skips by name.
//! `SNF_SCHEMATHESIS_EXAMPLES` is how many examples each operation gets in each phase; the default
//! is what a minute has room for. `SNF_SCHEMATHESIS_REPORT` names a file for all that was sent and
//! answered, as NDJSON.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{process, python};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{Central, TOKEN};

/// Examples of an operation in each phase, unless the environment says otherwise.
const EXAMPLES: &str = "5";
/// How long it may take on a busy machine; a run of many examples gets as long as it needs.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

const ADMINISTRATOR: &str = "a-token-for-root-and-tests";

/// Quotas, so that what is refused is refused to this project, not for want of capacity.
const MORE: &str = r#"
[[project]]
name = "wonderland"
quota = { servers = 6, private_networks = 12, floating_ips = 10 }
[[user]]
name = "root"
password = "toor-toor"
token = "a-token-for-root-and-tests"
projects = ["wonderland"]
admin = true
"#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis")
}

/// A central with something of each kind to hit.
async fn target() -> Central {
    let more = "[parameters]\nurl = 'http://central.example.org'\nnodes = ['127.0.0.1/32']\n\
        [images]\nsources = ['https://images.example.org/']\n";
    let central = Central::with(FakeRapi::start().await, more).await;
    central.rapi.succeed();
    let seed = central.folder.path().join("more.toml");
    std::fs::write(&seed, MORE).unwrap();
    central::admin::seed::run(&central.config, &seed)
        .await
        .unwrap();
    for name in ["one", "two", "three", "four"] {
        let mut order = central.order(name, &["bridged"]).await;
        order["server"]["metadata"] = json!({"role": "test"});
        order["server"]["tags"] = json!(["tag"]);
        central
            .post("/compute/v2.0/servers", order)
            .await
            .expect(202);
    }
    for name in ["key", "another key"] {
        let body = json!({"keypair": {"name": name}});
        central
            .post("/compute/v2.0/os-keypairs", body)
            .await
            .expect(200);
    }
    central
}

/// The configuration, with the ids of what is there.
async fn configuration(central: &Central, token: &str) -> String {
    let template = std::fs::read_to_string(folder().join("schemathesis.toml")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let make =
        async |path: &str, body: Value, status: u16| central.post(path, body).await.expect(status);
    let floating = async || {
        let made = make("/network/v2.0/floatingips", json!({"floatingip": {}}), 201).await;
        text(&made["floatingip"]["id"])
    };
    let image = async || {
        let wanted = json!({"name": "own", "source": "https://images.example.org/own.img"});
        text(&make("/image/v2/images", wanted, 201).await["id"])
    };
    let log_in = async || {
        let alice = json!({"username": "alice", "password": "rabbit"});
        let body = json!({"auth": {"passwordCredentials": alice}});
        let made = make("/identity/v2.0/tokens", body, 200).await;
        text(&made["access"]["token"]["id"])
    };
    let network = json!({"network": {"name": "n"}});
    let network = make("/network/v2.0/networks", network, 201).await;
    let busybox = central.id_of("/compute/v2.0/images", "busybox").await;
    template
        .replace("@token@", token)
        .replace("@image@", &busybox)
        .replace("@network@", &text(&network["network"]["id"]))
        // What one operation deletes another one cannot show: two of each.
        .replace("@own_image@", &image().await)
        .replace("@more_image@", &image().await)
        .replace("@floating@", &floating().await)
        .replace("@more_floating@", &floating().await)
        .replace("@spare@", &log_in().await)
        .replace("@more_spare@", &log_in().await)
}

async fn try_as(test: &str, token: &str) {
    let requirements = folder().join("requirements.txt");
    let installed =
        tokio::task::spawn_blocking(move || python::venv("schemathesis", &requirements));
    let python = match installed.await.unwrap() {
        Ok(python) => python,
        Err(error) => return harness::skip(test, &format!("{error:#}")),
    };
    let central = target().await;
    let path = central.folder.path().join("schemathesis.toml");
    std::fs::write(&path, configuration(&central, token).await).unwrap();
    let examples = std::env::var("SNF_SCHEMATHESIS_EXAMPLES");
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command
        .arg("--config-file")
        .arg(&path)
        // One worker: two of them can break Python 3.11's parser.
        .args(["run", "--no-color", "--workers", "1", "--warnings", "off"])
        .args(["--seed", "1", "--phases", "coverage,fuzzing,stateful"])
        .args(["--max-examples", examples.as_deref().unwrap_or(EXAMPLES)])
        .arg(format!("{}/openapi.json", central.base))
        .current_dir(central.folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Ok(report) = std::env::var("SNF_SCHEMATHESIS_REPORT") {
        command.args(["--report-ndjson-path", &report]);
    }
    let output = tokio::task::spawn_blocking(move || process::run(&mut command, LIMIT))
        .await
        .unwrap()
        .unwrap();
    println!("{}", output.stdout);
    assert!(
        output.status.success(),
        "{}{}",
        output.stdout,
        output.stderr
    );
    // It is still there, and still does what it is for.
    central.get("/readyz").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_no_5xx_and_nothing_that_the_document_does_not_say() {
    try_as(
        "a_user_gets_no_5xx_and_nothing_that_the_document_does_not_say",
        TOKEN,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_gets_no_5xx_and_nothing_that_the_document_does_not_say() {
    try_as(
        "an_administrator_gets_no_5xx_and_nothing_that_the_document_does_not_say",
        ADMINISTRATOR,
    )
    .await;
}
