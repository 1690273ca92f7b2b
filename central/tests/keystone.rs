//! Tokens of an external Keystone: a real one, from PyPI; a machine without PyPI skips by name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::process::{self, Daemon};
use harness::python;
use harness::scratch::Scratch;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{Central, TOKEN, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SERVERS: &str = "/compute/v2.0/servers";

/// A Keystone of our own on SQLite, with people in it.
struct Keystone {
    python: PathBuf,
    scratch: Scratch,
    port: u16,
    daemon: Option<Daemon>,
    http: Client,
}

impl Keystone {
    async fn start(python: PathBuf) -> Self {
        let scratch = Scratch::new("central-keystone").unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = scratch.path().display().to_string();
        let text = format!(
            "[DEFAULT]\nlog_file = {folder}/keystone.log\n\
             [database]\nconnection = sqlite:///{folder}/keystone.db\n\
             [token]\nprovider = fernet\n[cache]\nenabled = false\n\
             [fernet_tokens]\nkey_repository = {folder}/fernet\n\
             [credential]\nkey_repository = {folder}/credential\n"
        );
        scratch.write("keystone.conf", &text).unwrap();
        let mut this = Self {
            python,
            scratch,
            port,
            daemon: None,
            http: Client::new(),
        };
        this.manage(&["db_sync"]);
        this.make_keys();
        this.manage(&["bootstrap", "--bootstrap-password", "secret"]);
        this.run().await;
        this
    }

    fn manage(&self, words: &[&str]) {
        let mut command = Command::new(self.python.with_file_name("keystone-manage"));
        command
            .arg("--config-file")
            .arg(self.scratch.join("keystone.conf"))
            .args(words);
        process::check(&mut command, Duration::from_secs(300)).unwrap();
    }

    /// New keys: no token that was given before is good any more.
    fn make_keys(&self) {
        let folder = self.scratch.join("fernet");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let user = ["--keystone-user", "root", "--keystone-group", "root"];
        self.manage(&[&["fernet_setup"], &user[..]].concat());
    }

    async fn run(&mut self) {
        let mut command = Command::new(&self.python);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystone/serve.py"))
            .arg(self.scratch.join("keystone.conf"))
            .arg(self.port.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let log = self.scratch.join("serve.log");
        self.daemon = Some(Daemon::contained("Keystone", &command, &log).unwrap());
        until("Keystone to answer", async || {
            self.http.get(self.url()).send().await.is_ok()
        })
        .await;
    }

    fn kill(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v3", self.port)
    }

    /// A token; with a scope, for that project.
    async fn log_in(&self, user: &str, project: Option<&str>) -> String {
        let domain = json!({"id": "default"});
        let mut auth = json!({"identity": {
            "methods": ["password"],
            "password": {"user": {"name": user, "domain": domain, "password": "secret"}},
        }});
        if let Some(project) = project {
            auth["scope"] = json!({"project": {"name": project, "domain": domain}});
        }
        let answer = self
            .http
            .post(format!("{}/auth/tokens", self.url()))
            .json(&json!({ "auth": auth }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201, "{user}");
        answer.headers()["x-subject-token"]
            .to_str()
            .unwrap()
            .to_owned()
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: &Value) -> Value {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url()))
            .header("X-Auth-Token", token);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Makes a project, or a user with a role in one.
    async fn populate(&self) -> Value {
        let admin = self.log_in("admin", Some("admin")).await;
        let mut ids = json!({});
        for project in ["service", "garden", "desert"] {
            let body = json!({"project": {"name": project, "domain_id": "default"}});
            let made = self.ask(&admin, Method::POST, "/projects", &body).await;
            ids[project] = made["project"]["id"].clone();
        }
        let roles = self.ask(&admin, Method::GET, "/roles", &Value::Null).await;
        let role = |name: &str| {
            let mut all = roles["roles"].as_array().unwrap().iter();
            let found = all.find(|role| role["name"] == name).unwrap();
            found["id"].as_str().unwrap().to_owned()
        };
        // Alice is another one than ours of that name.
        for (user, project, name) in [
            ("central", "service", "admin"),
            ("alice", "garden", "member"),
            ("alice", "desert", "member"),
            ("eve", "garden", "reader"),
            ("root", "garden", "admin"),
        ] {
            if ids.get(user).is_none() {
                let body = json!({"user": {"name": user, "domain_id": "default",
                    "password": "secret"}});
                let made = self.ask(&admin, Method::POST, "/users", &body).await;
                ids[user] = made["user"]["id"].clone();
            }
            let (project, user) = (&ids[project], &ids[user]);
            let path = format!(
                "/projects/{}/users/{}/roles/{}",
                project.as_str().unwrap(),
                user.as_str().unwrap(),
                role(name)
            );
            self.ask(&admin, Method::PUT, &path, &Value::Null).await;
        }
        ids
    }
}

/// The section of the configuration; `more` goes to its end.
fn section(url: &str, folder: &Path, more: &str) -> String {
    let file = folder.join("keystone-password");
    std::fs::write(&file, "secret\n").unwrap();
    format!(
        "[keystone]\nurl = '{url}'\npassword_file = '{}'\ntimeout_seconds = 60\n{more}\n",
        file.display()
    )
}

async fn get(central: &Central, token: &str, path: &str) -> support::Answer {
    central.ask(Method::GET, path, Some(token), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_token_of_keystones_works_here() {
    let test = "who_has_a_token_of_keystones_works_here";
    let requirements =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystone/requirements.txt");
    let install = move || python::venv("keystone", &requirements);
    central::serve::install_tls();
    let python = match tokio::task::spawn_blocking(install).await.unwrap() {
        Ok(python) => python,
        Err(reason) => return harness::skip(test, &format!("{reason:#}")),
    };
    let mut keystone = Keystone::start(python).await;
    let ids = keystone.populate().await;
    let more = section(
        &keystone.url(),
        keystone.scratch.path(),
        "cache_seconds = 1",
    );
    let mut central = Central::with(FakeRapi::start().await, &more).await;
    central.rapi.succeed();

    // A project and a user come with their first token, and are not ours of the same name.
    let alice = keystone.log_in("alice", Some("garden")).await;
    let order = central.order("rose", &["bridged"]).await;
    let made = central
        .ask(Method::POST, SERVERS, Some(&alice), Some(order))
        .await
        .expect(202);
    let path = format!("{SERVERS}/{}", made["server"]["id"].as_str().unwrap());
    let shown = get(&central, &alice, &path).await.expect(200);
    assert_eq!(shown["server"]["tenant_id"], ids["garden"]);
    assert_eq!(shown["server"]["user_id"], ids["alice"]);
    central.get(&path).await.fault(404, "itemNotFound");
    get(&central, &alice, "/compute/v2.0/os-hosts")
        .await
        .fault(403, "forbidden");
    // In her other project it is not there.
    let elsewhere = keystone.log_in("alice", Some("desert")).await;
    get(&central, &elsewhere, &path)
        .await
        .fault(404, "itemNotFound");
    // Roles: one that administers the project, and nothing else unless the project is said to be
    // the operators'; one that is not let in; and a token for no project.
    let root = keystone.log_in("root", Some("garden")).await;
    get(&central, &root, &path).await.expect(200);
    get(&central, &root, "/identity/v3/users").await.expect(200);
    get(&central, &root, "/compute/v2.0/os-hosts")
        .await
        .fault(403, "forbidden");
    central.stop().await;
    let garden = ids["garden"].as_str().unwrap().to_owned();
    let config = central.config.keystone.as_mut().unwrap();
    config.admin_projects = vec![garden];
    let mut central = Central::again(central).await;
    get(&central, &root, "/compute/v2.0/os-hosts")
        .await
        .expect(200);
    get(&central, &alice, "/compute/v2.0/os-hosts")
        .await
        .fault(403, "forbidden");
    let eve = keystone.log_in("eve", Some("garden")).await;
    let message = get(&central, &eve, SERVERS).await.fault(403, "forbidden");
    assert!(message.contains("reader"), "{message}");
    let nowhere = keystone.log_in("alice", None).await;
    get(&central, &nowhere, SERVERS)
        .await
        .fault(401, "unauthorized");
    for bad in ["nonsense", "gAAAAAB", &"a".repeat(5000)] {
        get(&central, bad, SERVERS).await.fault(401, "unauthorized");
    }
    // Nobody gets a token of ours for one of Keystone's, which lasts as long as it does there.
    for (project, status) in [("garden", 201), ("desert", 401), ("wonderland", 401)] {
        let body = json!({"auth": {
            "identity": {"methods": ["token"], "token": {"id": alice}},
            "scope": {"project": {"name": project, "domain": {"id": "default"}}},
        }});
        let path = "/identity/v3/auth/tokens";
        let answer = central.ask(Method::POST, path, None, Some(body)).await;
        assert_eq!(answer.status.as_u16(), status, "{project}: {}", answer.body);
        if status == 201 {
            assert_eq!(answer.headers["x-subject-token"], alice.as_str());
        }
    }
    let projects = get(&central, &alice, "/identity/v2.0/tenants")
        .await
        .expect(200);
    assert_eq!(projects["tenants"][0]["id"], ids["garden"]);

    // What Keystone takes back is not good here, soon after.
    let admin = keystone.log_in("admin", Some("admin")).await;
    let revoked = keystone
        .http
        .delete(format!("{}/auth/tokens", keystone.url()))
        .header("X-Auth-Token", &admin)
        .header("X-Subject-Token", &elsewhere)
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), 204);
    until("the token to be worthless", async || {
        get(&central, &elsewhere, SERVERS).await.status == 401
    })
    .await;

    // Without Keystone nothing of it is believed, and ours are as good as before.
    keystone.kill();
    until("a refusal", async || {
        let answer = get(&central, &alice, SERVERS).await;
        assert!(matches!(answer.status.as_u16(), 200 | 503), "{answer:?}");
        answer.status == 503
    })
    .await;
    get(&central, "nonsense", SERVERS)
        .await
        .fault(503, "serviceUnavailable");
    get(&central, TOKEN, SERVERS).await.expect(200);
    // With other keys our own login at Keystone is void too: it is done again.
    keystone.make_keys();
    keystone.run().await;
    get(&central, &alice, SERVERS)
        .await
        .fault(401, "unauthorized");
    let alice = keystone.log_in("alice", Some("garden")).await;
    get(&central, &alice, &path).await.expect(200);

    // Projects that are not known here stay out, but for those that are said to be ours.
    central.stop().await;
    let config = central.config.keystone.as_mut().unwrap();
    config.create_projects = false;
    config.admin_roles.clear();
    let desert = ids["desert"].as_str().unwrap().to_owned();
    let garden = ids["garden"].as_str().unwrap().to_owned();
    config.projects.insert(desert, "wonderland".to_owned());
    config.projects.insert(garden, "no such".to_owned());
    let central = Central::again(central).await;
    let here = keystone.log_in("alice", Some("desert")).await;
    let made = central.create("ours", &[]).await;
    get(&central, &here, &format!("{SERVERS}/{made}"))
        .await
        .expect(200);
    get(&central, &alice, SERVERS).await.fault(403, "forbidden");
    let admin = keystone.log_in("admin", Some("admin")).await;
    get(&central, &admin, SERVERS).await.fault(403, "forbidden");

    let config = keystone.scratch.join("central.toml");
    let text = format!(
        "log = 'warn'\n[database]\nurl = '{}'\n{more}",
        central.config.database_url
    );
    for (password, status, said) in [("secret\n", 0, "keystone: ok"), ("wrong", 1, "401")] {
        std::fs::write(&config, &text).unwrap();
        let file = keystone.scratch.join("keystone-password");
        std::fs::write(file, password).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_snf-central"));
        command.arg("--config").arg(&config).arg("check");
        let check = move || process::run(&mut command, Duration::from_secs(120)).unwrap();
        let output = tokio::task::spawn_blocking(check).await.unwrap();
        let told = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert!(told.contains(said), "{told}");
    }
}

/// What no real Keystone says: nobody gets in by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_keystone_that_makes_no_sense_lets_nobody_in() {
    const LOGIN: &str = "HTTP/1.1 201 Created\r\nX-Subject-Token: ours\r\n";
    let broken = [
        (LOGIN, "HTTP/1.1 200 OK\r\n", "{}"),
        (LOGIN, "HTTP/1.1 200 OK\r\n", "<html>"),
        (LOGIN, "HTTP/1.1 204 No Content\r\n", ""),
        (LOGIN, "HTTP/1.1 302 Found\r\nLocation: /\r\n", ""),
        (LOGIN, "HTTP/1.1 401 Unauthorized\r\n", ""),
        (LOGIN, "HTTP/1.1 403 Forbidden\r\n", ""),
        (LOGIN, "HTTP/1.1 500 Oops\r\n", ""),
        (LOGIN, "nonsense\r\n", ""),
        ("HTTP/1.1 201 Created\r\n", "HTTP/1.1 200 OK\r\n", "{}"),
        ("HTTP/1.1 401 Unauthorized\r\n", "HTTP/1.1 200 OK\r\n", "{}"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v3", listener.local_addr().unwrap());
    let (say, said) = tokio::sync::watch::channel(broken[0]);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (login, answer, body) = *said.borrow();
            tokio::spawn(async move {
                let mut request = [0_u8; 8192];
                let count = stream.read(&mut request).await.unwrap_or(0);
                let head = if request[..count].starts_with(b"POST") {
                    login
                } else {
                    answer
                };
                let length = body.len();
                let text =
                    format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                let _ = stream.write_all(text.as_bytes()).await;
            });
        }
    });
    let scratch = Scratch::new("central-keystone").unwrap();
    let more = section(&url, scratch.path(), "");
    let central = Central::with(FakeRapi::start().await, &more).await;
    for what in broken {
        say.send(what).unwrap();
        let answer = get(&central, "theirs", SERVERS).await;
        assert_eq!(answer.status, 503, "{what:?}: {}", answer.body);
        answer.fault(503, "serviceUnavailable");
        get(&central, TOKEN, SERVERS).await.expect(200);
    }
}
