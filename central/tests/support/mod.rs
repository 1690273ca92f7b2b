//! A central on SQLite, a RAPI that answers as the recorded one did, a client of the API.
#![allow(dead_code)]

pub mod broker;
pub mod hanging;
pub mod program;
pub mod rapi;
pub mod replay;
pub mod stage;

use std::path::Path;
use std::time::Duration;

use central::config::Config;
use harness::postgres::Postgres;
use harness::scratch::Scratch;
use reqwest::{Client, Method, StatusCode};
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use rapi::FakeRapi;

pub const TOKEN: &str = "a-token-for-alice-and-tests";
pub const OTHER_TOKEN: &str = "a-token-for-bob-and-tests";

/// A running central; it ends with the test.
pub struct Central {
    pub base: String,
    pub rapi: FakeRapi,
    pub folder: TempDir,
    pub config: Config,
    http: Client,
    stop: Option<oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

/// An answer: status, headers, body (null if it had none).
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// The message of the only fault in the body, which must have this name and the status.
    #[track_caller]
    pub fn fault(self, status: u16, name: &str) -> String {
        let code = self.status.as_u16();
        let body = self.expect(status);
        let fault = &body[name];
        assert_eq!(fault["code"], code, "{body}");
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        fault["message"].as_str().unwrap().to_owned()
    }
}

impl Central {
    /// A central with two users, two flavors, an image and three networks.
    pub async fn start() -> Self {
        Self::with(FakeRapi::start().await, "").await
    }

    /// As [`Central::start`], with a RAPI and more configuration.
    pub async fn with(rapi: FakeRapi, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}/central.db", folder.path().display());
        Self::on(rapi, folder, &database, more).await
    }

    /// As [`Central::start`], with more in the section `[api]` of the configuration.
    pub async fn with_api(rapi: FakeRapi, api: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}/central.db", folder.path().display());
        Self::on_with_api(rapi, folder, &database, "", api).await
    }

    /// As [`Central::with`], on a database.
    pub async fn on(rapi: FakeRapi, folder: TempDir, database: &str, more: &str) -> Self {
        Self::on_with_api(rapi, folder, database, more, "").await
    }

    async fn on_with_api(
        rapi: FakeRapi,
        folder: TempDir,
        database: &str,
        more: &str,
        api: &str,
    ) -> Self {
        central::serve::install_tls();
        let text = format!(
            "log = 'info'\n[api]\nlisten = '127.0.0.1:0'\n{api}\n[database]\nurl = '{database}'\n\
             [ganeti]\ntimeout_seconds = 5\n{more}"
        );
        let config = Config::parse(Path::new("test.toml"), &text).unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "secret\n").unwrap();
        let seed = folder.path().join("seed.toml");
        std::fs::write(&seed, seed_text(&rapi.url(), &password)).unwrap();
        // Twice: the second time nothing is to be done.
        for _ in 0..2 {
            central::admin::seed::run(&config, &seed).await.unwrap();
        }
        Self::run(rapi, folder, config).await
    }

    async fn run(rapi: FakeRapi, folder: TempDir, config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let server = tokio::spawn(central::serve::run(
            config.clone(),
            move |address| tell.send(address).unwrap(),
            async move {
                let _ = stopped.await;
            },
        ));
        let address = tokio::time::timeout(Duration::from_secs(60), told)
            .await
            .expect("central to listen")
            .unwrap();
        Self {
            base: format!("http://{address}"),
            rapi,
            folder,
            config,
            http: Client::new(),
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// Starts it once more, after [`Central::stop`].
    pub async fn again(mut old: Self) -> Self {
        let rapi = old.rapi.clone();
        let folder = std::mem::replace(&mut old.folder, tempfile::tempdir().unwrap());
        Self::run(rapi, folder, old.config.clone()).await
    }

    /// Ends it at once, whatever it is at.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
        }
    }

    /// Ends it in order.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            tokio::time::timeout(Duration::from_secs(60), server)
                .await
                .expect("central to end")
                .unwrap()
                .unwrap();
        }
    }

    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("X-Auth-Token", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// A body that is sent as it is.
    pub async fn ask_raw(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        answer(
            self.http
                .request(method, format!("{}{path}", self.base))
                .header("X-Auth-Token", TOKEN)
                .header("Content-Type", "application/json")
                .body(body),
        )
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Some(TOKEN), None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(TOKEN), Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(TOKEN), Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, Some(TOKEN), None).await
    }

    /// The id of the entry with this name in a list.
    pub async fn id_of(&self, path: &str, name: &str) -> String {
        let body = self.get(path).await.expect(200);
        let list = body.as_object().unwrap().values().next().unwrap();
        let entry = list
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {body}"));
        entry["id"].as_str().unwrap().to_owned()
    }

    /// The body of a create on these networks.
    pub async fn order(&self, name: &str, networks: &[&str]) -> Value {
        let mut list = Vec::new();
        for network in networks {
            let id = self.id_of("/network/v2.0/networks", network).await;
            list.push(json!({"uuid": id}));
        }
        json!({"server": {
            "name": name,
            "flavorRef": self.id_of("/compute/v2.0/flavors", "tiny").await,
            "imageRef": self.id_of("/compute/v2.0/images", "busybox").await,
            "networks": list,
        }})
    }

    /// Creates a server and returns its id.
    pub async fn create(&self, name: &str, networks: &[&str]) -> String {
        let order = self.order(name, networks).await;
        let body = self.post("/compute/v2.0/servers", order).await.expect(202);
        body["server"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn server(&self, id: &str) -> Value {
        let path = format!("/compute/v2.0/servers/{id}");
        self.get(&path).await.expect(200)["server"].take()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status();
    let headers = response.headers().clone();
    let bytes = response.bytes().await.unwrap();
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
    };
    Answer {
        status,
        headers,
        body,
    }
}

/// A PostgreSQL for a test, on a port that was free a moment ago.
pub fn postgres(scratch: &Scratch) -> Postgres {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    Postgres::start(&scratch.join("pg"), port).unwrap()
}

/// Waits until `condition` holds; a busy machine has its time.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    until_within(Duration::from_secs(120), what, condition).await;
}

/// As [`until`], for as long as `patience`.
pub async fn until_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    condition: impl Fn() -> F,
) {
    let deadline = tokio::time::Instant::now() + patience;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {patience:?} for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A central whose only cluster takes calls and does not answer, a server in it, and the cluster.
pub async fn with_a_silent_cluster() -> (Central, String, TcpListener) {
    let mut central = Central::start().await;
    central.rapi.succeed();
    let id = central.create("web", &[]).await;
    until("ACTIVE", async || {
        central.server(&id).await["status"] == "ACTIVE"
    })
    .await;
    central.stop().await;
    central.config.rapi_timeout = Duration::from_secs(600);
    let central = Central::again(central).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    let statement = format!("UPDATE backends SET url = '{url}'");
    database.execute_unprepared(&statement).await.unwrap();
    (central, format!("/compute/v2.0/servers/{id}"), silent)
}

pub fn seed_text(rapi: &str, password: &Path) -> String {
    format!(
        r#"
[[project]]
name = "wonderland"
[[project]]
name = "elsewhere"
quota = {{ servers = 2, total_cpu = 3, floating_ips = 1, private_networks = 2 }}

[[user]]
name = "alice"
password = "rabbit"
token = "{TOKEN}"
projects = ["wonderland"]
[[user]]
name = "bob"
password = "builder"
token = "{OTHER_TOKEN}"
projects = ["elsewhere"]

[[backend]]
name = "cluster"
url = "{rapi}"
username = "central"
password_file = "{}"

[[flavor]]
name = "tiny"
vcpus = 1
ram = 128
disk = 1
disk_template = "file"
[[flavor]]
name = "small"
vcpus = 2
ram = 256
disk = 1
disk_template = "file"
[[flavor]]
name = "huge"
vcpus = 1
ram = 1000000
disk = 1
disk_template = "file"

[[image]]
name = "busybox"
os = "snf-image+default"
source = "/srv/images/busybox.img"
format = "diskdump"
properties = {{ OSFAMILY = "linux" }}

[[network]]
name = "bridged"
type = "CUSTOM"
link = "br0"
public = true
[[network.subnet]]
cidr = "10.66.1.0/24"
gateway = "10.66.1.1"
[[network.subnet]]
cidr = "fd66:1::/64"
gateway = "fd66:1::1"

[[network]]
name = "routed"
type = "IP_LESS_ROUTED"
link = "100"
public = true
[[network.subnet]]
cidr = "10.66.2.0/29"
gateway = "10.66.2.1"

[[network]]
name = "private"
type = "MAC_FILTERED"
project = "elsewhere"

[[network]]
name = "public"
type = "CUSTOM"
link = "br1"
public = true
floating_ip_pool = true
external_router = true
[[network.subnet]]
cidr = "192.0.2.0/28"
gateway = "192.0.2.1"
"#,
        password.display()
    )
}
