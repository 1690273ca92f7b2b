//! The database goes away, jobs fail: what users and operators see then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use harness::mariadb::MariaDb;
use harness::scratch::Scratch;
use reqwest::Method;
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{Central, TOKEN, until};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const SERVERS: &str = "/compute/v2.0/servers";
/// The time that a refusal may take while the database is away, and the recovery: half of the 20 s
/// that a request waits for a busy pool. On a quiet machine both are within 3 s.
const REFUSAL: Duration = Duration::from_secs(10);
const RECOVERY: Duration = Duration::from_secs(10);

/// The state of the line between central and its database.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    Open,
    /// Nothing passes, and nothing is refused.
    Silent,
    /// Connections break, new ones are refused.
    Cut,
}

/// Forwards to `target` as the line is; returns the port.
async fn forward(target: u16, mut line: watch::Receiver<Line>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut listener = Some(listener);
        loop {
            let now = *line.borrow_and_update();
            match (&listener, now) {
                (_, Line::Cut) => {
                    listener = None;
                    line.changed().await.unwrap();
                }
                (None, _) => {
                    listener = TcpListener::bind(("127.0.0.1", port)).await.ok();
                    if listener.is_none() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                (Some(open), _) => {
                    tokio::select! {
                        accepted = open.accept() => {
                            let (client, _) = accepted.unwrap();
                            tokio::spawn(pass(client, target, line.clone()));
                        }
                        _ = line.changed() => {}
                    }
                }
            }
        }
    });
    port
}

async fn pass(mut client: TcpStream, target: u16, mut line: watch::Receiver<Line>) {
    if line.wait_for(|line| *line != Line::Silent).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    loop {
        let result = tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            now = line.wait_for(|line| *line != Line::Open) => now.map(|now| *now),
        };
        match result {
            Ok(Line::Silent) => {
                // Held, neither read nor closed.
                if line.wait_for(|line| *line != Line::Silent).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

async fn away_and_back(uri: &str, target: u16) {
    let (set, line) = watch::channel(Line::Open);
    let port = forward(target, line).await;
    let uri = uri.replace(&target.to_string(), &port.to_string());
    let rapi = FakeRapi::start().await;
    let folder = tempfile::tempdir().unwrap();
    let central = Central::on(rapi, folder, &uri, "").await;
    central.get(SERVERS).await.expect(200);
    for how in [Line::Cut, Line::Silent] {
        set.send(how).unwrap();
        // Those that come when it happens, and those that come afterwards.
        for round in 0..3 {
            let asked = Instant::now();
            let key = json!({"keypair": {"name": "k"}});
            let requests = (0..60).map(async |number: u32| match number % 3 {
                0 => central.post("/compute/v2.0/os-keypairs", key.clone()).await,
                1 => central.get("/compute/v2.0/flavors/detail").await,
                _ => central.get(SERVERS).await,
            });
            for answer in futures_util::future::join_all(requests).await {
                if round > 0 || answer.status != 200 {
                    answer.fault(503, "serviceUnavailable");
                }
            }
            let took = asked.elapsed();
            assert!(took < REFUSAL, "round {round}: {took:?}");
        }
        set.send(Line::Open).unwrap();
        let back = Instant::now();
        until("an answer", async || {
            central.get(SERVERS).await.status == 200
        })
        .await;
        assert!(back.elapsed() < RECOVERY, "{:?}", back.elapsed());
        // All of them, not only the first.
        let requests = (0..30).map(async |_| central.get(SERVERS).await.status.as_u16());
        for status in futures_util::future::join_all(requests).await {
            assert_eq!(status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_requests_are_refused_at_once() {
    let scratch = Scratch::new("central-accidents").unwrap();
    let database = support::postgres(&scratch);
    let uri = database.uri();
    let port = port_of(&uri);
    away_and_back(&uri, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_mariadb_is_away_requests_are_refused_at_once() {
    let scratch = Scratch::new("central-accidents").unwrap();
    let database = mariadb(&scratch);
    let uri = database.uri();
    let port = port_of(&uri);
    away_and_back(&uri, port).await;
}

fn port_of(uri: &str) -> u16 {
    let after = uri.rsplit(':').next().unwrap();
    after.split('/').next().unwrap().parse().unwrap()
}

fn mariadb(scratch: &Scratch) -> MariaDb {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    MariaDb::start(&scratch.join("db"), port).unwrap()
}

fn shell(folder: &std::path::Path, database: &str, words: &[&str]) -> (Option<i32>, String) {
    let path = folder.join("shell.toml");
    let text = format!("log = 'warn'\n[database]\nurl = '{database}'\n");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(&path)
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn check_says_at_once_that_nobody_listens_and_where() {
    let folder = tempfile::tempdir().unwrap();
    for scheme in ["postgres", "mysql"] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = free.local_addr().unwrap().to_string();
        drop(free);
        let url = format!("{scheme}://snf:secret@{place}/snf");
        let asked = Instant::now();
        let (status, text) = shell(folder.path(), &url, &["check"]);
        assert!(asked.elapsed() < REFUSAL, "{text}");
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains(&place) && text.contains("refused"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_links_follow_the_host_header() {
    let central = Central::start().await;
    let (_, text) = shell(
        central.folder.path(),
        &central.config.database_url,
        &["check"],
    );
    assert!(text.contains("api.base_url: warning"), "{text}");
}

const SECRETS: [&str; 4] = ["node7.internal", "/srv/images", "10.1.2.3", "root's key"];

#[tokio::test(flavor = "multi_thread")]
async fn users_read_a_sentence_and_administrators_what_the_cluster_said() {
    let central = Central::start().await;
    central.rapi.succeed();
    central.rapi.fail(json!([
        "OpExecError",
        [
            "Could not add os for instance snf-1 on node node7.internal (10.1.2.3): \
         OS create script failed: /srv/images/secret: root's key"
        ]
    ]));
    let id = central.create("web", &[]).await;
    until("ERROR", async || {
        central.server(&id).await["status"] == "ERROR"
    })
    .await;
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    let path = format!("{SERVERS}/{id}/diagnostics");
    let told = central.get(&path).await.expect(200);
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    for line in told.as_array().unwrap() {
        assert_eq!(line["details"], Value::Null, "{line}");
        assert_ne!(line["message"], "", "{line}");
    }
    let everything = [
        told.to_string(),
        central
            .get(&format!("{SERVERS}/{id}"))
            .await
            .body
            .to_string(),
        central.get("/network/v2.0/ports").await.body.to_string(),
        central
            .get("/volume/v3/volumes/detail")
            .await
            .body
            .to_string(),
    ];
    for secret in SECRETS {
        for text in &everything {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    assert!(
        everything[0].contains("the image could not be written"),
        "{told}"
    );
    assert!(everything[0].contains("(reference: job "), "{told}");

    let (status, text) = shell(
        central.folder.path(),
        &central.config.database_url,
        &["server", "diagnostics", &id, "--json"],
    );
    assert_eq!(status, Some(0), "{text}");
    for secret in SECRETS {
        assert!(text.contains(secret), "{secret}: {text}");
    }
    let statement = "UPDATE users SET admin = true WHERE name = 'alice'";
    database.execute_unprepared(statement).await.unwrap();
    until("an administrator", async || {
        let told = central.ask(Method::GET, &path, Some(TOKEN), None).await;
        told.body.to_string().contains("node7.internal")
    })
    .await;
}
