//! The ends of consoles: with their server, their user, their token.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::Duration;

use reqwest::Method;
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::{Value, json};
use support::program::done;
use support::rapi::FakeRapi;
use support::{Central, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server of alice's, its VNC server, and a token of alice's own.
struct Stage {
    central: Central,
    id: String,
    vnc: TcpListener,
    token: String,
}

impl Stage {
    async fn start() -> Self {
        let rapi = FakeRapi::start().await;
        rapi.succeed();
        let central = Central::with(rapi, "").await;
        let id = central.create("shown", &[]).await;
        until("ACTIVE", async || {
            let server = central.server(&id).await;
            server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
        })
        .await;
        let vnc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = vnc.local_addr().unwrap().port();
        let name = format!("snf-{id}");
        central.rapi.change(&name, "pnode", json!("127.0.0.1"));
        central.rapi.change(&name, "network_port", json!(port));
        let body = json!({"auth": {"passwordCredentials": {
            "username": "alice", "password": "rabbit"}}});
        let path = "/identity/v2.0/tokens";
        let body = central
            .ask(Method::POST, path, None, Some(body))
            .await
            .expect(200);
        let token = body["access"]["token"]["id"].as_str().unwrap().to_owned();
        Self {
            central,
            id,
            vnc,
            token,
        }
    }

    fn path(&self) -> String {
        format!("/compute/v2.0/servers/{}", self.id)
    }

    /// The path of a console's websocket.
    async fn console(&self) -> String {
        let action = format!("{}/action", self.path());
        let ask = json!({"os-getVNCConsole": {"type": "novnc"}});
        let body = self
            .central
            .ask(Method::POST, &action, Some(&self.token), Some(ask))
            .await
            .expect(200);
        let url = body["console"]["url"].as_str().unwrap();
        let base = self.central.base.replace("http", "ws");
        url.strip_prefix(&base).unwrap().to_owned()
    }

    /// The status line of an answer to a websocket's request, and the connection.
    async fn open(&self, path: &str) -> (String, TcpStream) {
        let host = self.central.base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        let head = String::from_utf8(head).unwrap();
        (head.lines().next().unwrap_or_default().to_owned(), stream)
    }

    async fn is_refused(&self, path: &str) {
        let (status, _) = self.open(path).await;
        assert!(
            ["401", "403", "404", "409"]
                .iter()
                .any(|code| status.starts_with(&format!("HTTP/1.1 {code} "))),
            "{status}"
        );
        // Nobody came to the VNC server.
        let accepted = tokio::time::timeout(Duration::from_millis(200), self.vnc.accept()).await;
        assert!(accepted.is_err());
    }

    async fn act(&self, body: Value) {
        let action = format!("{}/action", self.path());
        self.central.post(&action, body).await.expect(202);
    }

    async fn sql(&self, statement: &str) {
        let database = Database::connect(&self.central.config.database_url)
            .await
            .unwrap();
        database.execute_unprepared(statement).await.unwrap();
    }

    fn shell(&self, arguments: &[&str], input: &str) {
        done(self.central.folder.path(), arguments, input);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_token_ends_with_its_server() {
    let stage = Stage::start().await;
    // Stopped: even if it was started again since, on another port.
    let path = stage.console().await;
    stage.act(json!({"os-stop": null})).await;
    until("SHUTOFF", async || {
        stage.central.server(&stage.id).await["status"] == "SHUTOFF"
    })
    .await;
    stage.is_refused(&path).await;
    stage.act(json!({"os-start": null})).await;
    until("ACTIVE", async || {
        let server = stage.central.server(&stage.id).await;
        server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
    })
    .await;
    // Moved to another node, and another port.
    let name = format!("snf-{}", stage.id);
    for (field, away, back) in [
        ("pnode", json!("127.0.0.9"), json!("127.0.0.1")),
        (
            "network_port",
            json!(11_999),
            json!(stage.vnc.local_addr().unwrap().port()),
        ),
        ("oper_state", json!(false), json!(true)),
    ] {
        let path = stage.console().await;
        stage.central.rapi.change(&name, field, away);
        stage.is_refused(&path).await;
        stage.central.rapi.change(&name, field, back);
    }
    // Suspended.
    let path = stage.console().await;
    stage.shell(&["server", "suspend", &stage.id], "");
    stage.is_refused(&path).await;
    stage.shell(&["server", "resume", &stage.id], "");
    // Deleted.
    let path = stage.console().await;
    stage.central.delete(&stage.path()).await.expect(204);
    until("DELETED", async || {
        let answer = stage.central.get(&stage.path()).await;
        answer.status == 404 || answer.body["server"]["status"] == "DELETED"
    })
    .await;
    stage.is_refused(&path).await;
    // Nothing that the server was to be told is kept.
    until("one-shots to go", async || {
        let database = Database::connect(&stage.central.config.database_url)
            .await
            .unwrap();
        let statement = Statement::from_string(
            database.get_database_backend(),
            "SELECT COUNT(*) FROM one_shots".to_owned(),
        );
        let row = database.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index::<i64>(0).unwrap() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_token_ends_with_its_user() {
    let stage = Stage::start().await;
    let path = stage.console().await;
    stage.shell(&["user", "disable", "alice"], "");
    stage.is_refused(&path).await;
    stage.shell(&["user", "enable", "alice"], "");
    let path = stage.console().await;
    stage.shell(&["project", "disable", "wonderland"], "");
    stage.is_refused(&path).await;
    stage.shell(&["project", "enable", "wonderland"], "");
    let path = stage.console().await;
    stage
        .sql("UPDATE servers SET project_id = (SELECT id FROM projects WHERE name = 'elsewhere')")
        .await;
    stage.is_refused(&path).await;
    stage
        .sql("UPDATE servers SET project_id = (SELECT id FROM projects WHERE name = 'wonderland')")
        .await;
    let path = stage.console().await;
    stage.shell(&["user", "password", "alice"], "queen\n");
    stage.is_refused(&path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_console_ends_with_its_token_and_with_a_suspension() {
    let stage = Stage::start().await;
    for suspended in [true, false] {
        let path = stage.console().await;
        let (status, mut stream) = stage.open(&path).await;
        assert!(status.starts_with("HTTP/1.1 101 "), "{status}");
        let (_guest, _) = stage.vnc.accept().await.unwrap();
        // It stays while nothing happens.
        let mut byte = [0_u8; 1];
        let silence = tokio::time::timeout(Duration::from_secs(12), stream.read(&mut byte)).await;
        assert!(silence.is_err());
        if suspended {
            stage.shell(&["server", "suspend", &stage.id], "");
        } else {
            stage.shell(&["token", "revoke", "alice"], "");
        }
        let close = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut byte)).await;
        close.expect("the console to end").unwrap();
        assert_eq!(byte[0] & 0x0f, 8);
        stage.shell(&["server", "resume", &stage.id], "");
    }
}
