//! Two requests at once, on the databases on which transactions overlap. One request is stopped in
//! the middle, before each table that it writes, while the other one runs; then the other way
//! round. What must hold is asked of the database afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::pin::pin;
use std::time::Duration;

use harness::mariadb::MariaDb;
use harness::postgres::Postgres;
use harness::scratch::Scratch;
use reqwest::Method;
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, Statement,
    TransactionTrait,
};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{Answer, Central, TOKEN};

/// A database server of the test; ended when dropped.
enum Server {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Server {
    fn uri(&self) -> String {
        match self {
            Self::Postgres(server) => server.uri(),
            Self::MariaDb(server) => server.uri(),
        }
    }
}

fn mariadb(scratch: &Scratch) -> MariaDb {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = MariaDb::start(&scratch.join("db"), port).unwrap();
    // To see who waits for a lock.
    let grant = "grant process on *.* to snf@'127.0.0.1'";
    let patience = Duration::from_secs(60);
    harness::process::check(&mut server.client("mysql", grant), patience).unwrap();
    server
}

/// A central on a database server, and connections of the test's own to it.
struct Stage {
    central: Central,
    database: DatabaseConnection,
    _server: Server,
    _scratch: Scratch,
}

impl Stage {
    async fn new(backend: DbBackend) -> Self {
        let scratch = Scratch::new("central-races").unwrap();
        let server = match backend {
            DbBackend::Postgres => Server::Postgres(support::postgres(&scratch)),
            _ => Server::MariaDb(mariadb(&scratch)),
        };
        let folder = tempfile::tempdir().unwrap();
        let rapi = FakeRapi::start().await;
        let more = "[images]\nsources = ['https://images.example.org/']\n";
        let central = Central::on(rapi, folder, &server.uri(), more).await;
        central.rapi.succeed();
        let database = Database::connect(&server.uri()).await.unwrap();
        for room in [
            "UPDATE flavors SET ram = 1, disk = 0, vcpus = 0 WHERE name = 'tiny'",
            "UPDATE images SET min_ram = 0, min_disk = 0",
        ] {
            database.execute_unprepared(room).await.unwrap();
        }
        Self {
            central,
            database,
            _server: server,
            _scratch: scratch,
        }
    }

    async fn sql(&self, statement: &str) {
        self.database.execute_unprepared(statement).await.unwrap();
    }

    async fn number(&self, query: &str) -> i64 {
        let backend = self.database.get_database_backend();
        self.database
            .query_one_raw(Statement::from_string(backend, query))
            .await
            .unwrap()
            .unwrap()
            .try_get_by_index(0)
            .unwrap()
    }

    /// Stops whoever writes to `table`, and lets all read, until the transaction ends.
    async fn close(&self, table: &str) -> DatabaseTransaction {
        let transaction = self.database.begin().await.unwrap();
        match self.database.get_database_backend() {
            DbBackend::Postgres => {
                let statement = format!("LOCK TABLE {table} IN EXCLUSIVE MODE");
                transaction.execute_unprepared(&statement).await.unwrap();
            }
            backend => {
                // Every row, and every gap between rows: InnoDB's default isolation.
                let statement = format!("SELECT COUNT(*) FROM {table} FOR UPDATE");
                transaction
                    .query_one_raw(Statement::from_string(backend, statement))
                    .await
                    .unwrap();
            }
        }
        transaction
    }

    /// Returns the number of transactions that wait for a lock.
    async fn waiting(&self) -> i64 {
        self.number(match self.database.get_database_backend() {
            DbBackend::Postgres => {
                "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            }
            _ => "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        })
        .await
    }

    async fn wait_for_waiting(&self, count: i64) {
        while self.waiting().await < count {
            // MariaDB shows the same for as long as it is asked more often than ten times a second.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// Runs `first` until it wants to write to `table`, then `second` until it is over or waits as
    /// well, then both to their ends.
    async fn interleave(
        &self,
        table: &str,
        first: impl Future<Output = u16>,
        second: impl Future<Output = u16>,
    ) -> (u16, u16) {
        let gate = self.close(table).await;
        let mut first = pin!(first);
        let mut second = pin!(second);
        let mut ended = (None, None);
        let patience = Duration::from_millis(700);
        tokio::select! {
            status = &mut first => ended.0 = Some(status),
            () = self.wait_for_waiting(1) => {}
            () = tokio::time::sleep(patience * 4) => {}
        }
        let both = async { self.wait_for_waiting(2).await };
        tokio::select! {
            status = &mut second => ended.1 = Some(status),
            () = both => {}
            () = tokio::time::sleep(patience) => {}
        }
        gate.rollback().await.unwrap();
        let rest = async {
            let first = async {
                match ended.0 {
                    Some(status) => status,
                    None => first.await,
                }
            };
            let second = async {
                match ended.1 {
                    Some(status) => status,
                    None => second.await,
                }
            };
            tokio::join!(first, second)
        };
        tokio::time::timeout(Duration::from_secs(60), rest)
            .await
            .expect("both requests to end")
    }

    async fn network(&self, name: &str, cidr: Option<&str>) -> String {
        let body = json!({"network": {"name": name}});
        let made = self.central.post("/network/v2.0/networks", body).await;
        let id = made.expect(201)["network"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        if let Some(cidr) = cidr {
            self.subnet(&id, cidr).await;
        }
        id
    }

    async fn subnet(&self, network: &str, cidr: &str) -> String {
        let body = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": cidr}});
        let made = self.central.post("/network/v2.0/subnets", body).await;
        made.expect(201)["subnet"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A server that runs and has no NIC.
    async fn server(&self) -> String {
        let id = self.central.create("web", &[]).await;
        support::until("ACTIVE", async || {
            let server = self.central.server(&id).await;
            server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
        })
        .await;
        id
    }
}

/// One request of a pair: its method, path and body.
#[derive(Clone)]
struct Call(Method, String, Option<Value>);

impl Call {
    fn post(path: &str, body: Value) -> Self {
        Self(Method::POST, path.to_owned(), Some(body))
    }

    fn delete(path: &str, id: &str) -> Self {
        Self(Method::DELETE, format!("{path}/{id}"), None)
    }

    async fn send(self, central: &Central) -> u16 {
        let Self(method, path, body) = self;
        let answer: Answer = central.ask(method, &path, Some(TOKEN), body).await;
        let status = answer.status.as_u16();
        assert!(status < 500, "{path}: {}", answer.body);
        status
    }
}

/// The rows that contradict each other, however the two requests were interleaved.
const CONTRADICTIONS: &[(&str, &str)] = &[
    (
        "a port in a network that is deleted",
        "SELECT COUNT(*) FROM ports p JOIN networks n ON n.id = p.network_id \
         WHERE p.deleted_at IS NULL AND n.deleted_at IS NOT NULL",
    ),
    (
        "an address in a subnet that is deleted",
        "SELECT COUNT(*) FROM addresses a JOIN subnets s ON s.id = a.subnet_id \
         WHERE a.live AND s.live IS NULL",
    ),
    (
        "a subnet in a network that is deleted",
        "SELECT COUNT(*) FROM subnets s JOIN networks n ON n.id = s.network_id \
         WHERE s.live AND n.deleted_at IS NOT NULL",
    ),
    (
        "a MAC prefix of a network that is deleted, or none of one that is not",
        "SELECT COUNT(*) FROM networks n LEFT JOIN pool_values v ON v.network_id = n.id \
         WHERE n.kind = 'MAC_FILTERED' AND n.name <> 'private' \
         AND (v.value IS NULL) <> (n.deleted_at IS NOT NULL)",
    ),
    (
        "a server whose image or flavor was gone before it came",
        "SELECT COUNT(*) FROM servers s JOIN images i ON i.id = s.image_id \
         JOIN flavors f ON f.id = s.flavor_id \
         WHERE s.created_at > COALESCE(i.deleted_at, s.created_at) \
         OR s.created_at > COALESCE(f.deleted_at, s.created_at)",
    ),
    (
        "a port that is on a server and in no list of it",
        "SELECT COUNT(*) FROM ports p JOIN servers s ON s.id = p.server_id \
         WHERE p.deleted_at IS NULL AND s.deleted_at IS NOT NULL",
    ),
    (
        "a floating IP that is free and attached",
        "SELECT COUNT(*) FROM addresses a JOIN ports p ON p.id = a.port_id \
         WHERE a.live IS NULL AND a.floating AND p.deleted_at IS NULL",
    ),
];

/// Interleaves what `pair` makes, in both orders, before each of `tables`; exactly one of the two
/// must have its way (`both`: or each of them).
async fn try_all<F: Future<Output = (Call, Call)>>(
    stage: &Stage,
    what: &str,
    tables: &[&str],
    both: bool,
    pair: impl Fn() -> F,
) {
    for swapped in [false, true] {
        for table in tables {
            let (left, right) = pair().await;
            let (first, second) = if swapped {
                (right, left)
            } else {
                (left, right)
            };
            let central = &stage.central;
            let (one, other) = stage
                .interleave(table, first.send(central), second.send(central))
                .await;
            let place = format!("{what}, before {table}, swapped: {swapped}: {one} and {other}");
            for (contradiction, query) in CONTRADICTIONS {
                assert_eq!(stage.number(query).await, 0, "{place}: {contradiction}");
            }
            let good = [one, other].iter().filter(|status| **status < 300).count();
            assert!(good == 1 || both && good == 2, "{place}");
        }
    }
}

/// A tenant's NIC never comes into a network that is being deleted: its MAC prefix would be
/// another tenant's next.
async fn nothing_comes_into_what_is_being_deleted(backend: DbBackend) {
    let stage = Stage::new(backend).await;
    let central = &stage.central;
    let networks = "/network/v2.0/networks";

    let tables = ["ports", "addresses", "subnets", "pool_values"];
    try_all(
        &stage,
        "a port and its network",
        &tables,
        false,
        async || {
            let network = stage.network("n", Some("10.9.0.0/24")).await;
            (
                Call::post(
                    "/network/v2.0/ports",
                    json!({"port": {"network_id": network}}),
                ),
                Call::delete(networks, &network),
            )
        },
    )
    .await;

    let tables = ["ports", "pool_values"];
    try_all(
        &stage,
        "a NIC and its network",
        &tables,
        false,
        async || {
            let network = stage.network("n", None).await;
            let server = stage.server().await;
            let nic = json!({"interfaceAttachment": {"net_id": network}});
            (
                Call::post(&format!("/compute/v2.0/servers/{server}/os-interface"), nic),
                Call::delete(networks, &network),
            )
        },
    )
    .await;

    let tables = ["servers", "ports", "intents", "pool_values"];
    try_all(
        &stage,
        "a server and its network",
        &tables,
        false,
        async || {
            let network = stage.network("n", None).await;
            let mut order = central.order("web", &[]).await;
            order["server"]["networks"] = json!([{"uuid": network}]);
            (
                Call::post("/compute/v2.0/servers", order),
                Call::delete(networks, &network),
            )
        },
    )
    .await;

    let tables = ["addresses", "subnets", "pool_values"];
    try_all(
        &stage,
        "a floating IP and its pool",
        &tables,
        false,
        async || {
            let pool = stage.network("pool", Some("10.8.0.0/24")).await;
            let statement =
                format!("UPDATE networks SET floating_ip_pool = true WHERE id = {pool}");
            stage.sql(&statement).await;
            let wanted = json!({"floatingip": {"floating_network_id": pool}});
            (
                Call::post("/network/v2.0/floatingips", wanted),
                Call::delete(networks, &pool),
            )
        },
    )
    .await;

    let tables = ["addresses", "ports", "subnets"];
    // The port may come after the subnet, and have no address.
    try_all(
        &stage,
        "an address and its subnet",
        &tables,
        true,
        async || {
            let network = stage.network("n", None).await;
            let subnet = stage.subnet(&network, "10.7.0.0/24").await;
            (
                Call::post(
                    "/network/v2.0/ports",
                    json!({"port": {"network_id": network}}),
                ),
                Call::delete("/network/v2.0/subnets", &subnet),
            )
        },
    )
    .await;

    let tables = ["subnets", "pool_values"];
    try_all(
        &stage,
        "a subnet and its network",
        &tables,
        true,
        async || {
            let network = stage.network("n", None).await;
            let subnet =
                json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.6.0.0/24"}});
            (
                Call::post("/network/v2.0/subnets", subnet),
                Call::delete(networks, &network),
            )
        },
    )
    .await;

    let tables = ["servers", "intents", "images"];
    try_all(
        &stage,
        "a server and its image",
        &tables,
        true,
        async || {
            let image = json!({"name": "mine", "source": "https://images.example.org/mine"});
            let image = central.post("/image/v2/images", image).await.expect(201);
            let image = image["id"].as_str().unwrap().to_owned();
            let mut order = central.order("web", &[]).await;
            order["server"]["imageRef"] = json!(image);
            (
                Call::post("/compute/v2.0/servers", order),
                Call::delete("/image/v2/images", &image),
            )
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_into_what_is_being_deleted_on_postgresql() {
    nothing_comes_into_what_is_being_deleted(DbBackend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_into_what_is_being_deleted_on_mariadb() {
    nothing_comes_into_what_is_being_deleted(DbBackend::MySql).await;
}

/// A thing that exists once goes to one of two requests.
async fn what_exists_once_goes_to_one(backend: DbBackend) {
    let stage = Stage::new(backend).await;
    let ports = "/network/v2.0/ports";
    let free_port = async |network: &str| {
        let made = stage
            .central
            .post(ports, json!({"port": {"network_id": network}}))
            .await;
        made.expect(201)["port"]["id"].as_str().unwrap().to_owned()
    };

    try_all(
        &stage,
        "one port for two servers",
        &["ports"],
        false,
        async || {
            let network = stage.network("n", None).await;
            let port = free_port(&network).await;
            let mut calls = Vec::new();
            for _ in 0..2 {
                let server = stage.server().await;
                let nic = json!({"interfaceAttachment": {"port_id": port}});
                let path = format!("/compute/v2.0/servers/{server}/os-interface");
                calls.push(Call::post(&path, nic));
            }
            (calls.remove(0), calls.remove(0))
        },
    )
    .await;

    let tables = ["ports", "servers"];
    try_all(
        &stage,
        "a port for a server, and its end",
        &tables,
        false,
        async || {
            let network = stage.network("n", None).await;
            let port = free_port(&network).await;
            let server = stage.server().await;
            let nic = json!({"interfaceAttachment": {"port_id": port}});
            (
                Call::post(&format!("/compute/v2.0/servers/{server}/os-interface"), nic),
                Call::delete(ports, &port),
            )
        },
    )
    .await;

    let tables = ["addresses", "ports"];
    try_all(
        &stage,
        "a floating IP for a server, and its end",
        &tables,
        false,
        async || {
            let server = stage.server().await;
            let path = "/network/v2.0/floatingips";
            let made = stage.central.post(path, json!({"floatingip": {}})).await;
            let made = made.expect(201);
            let address = made["floatingip"]["floating_ip_address"].clone();
            let id = made["floatingip"]["id"].as_str().unwrap().to_owned();
            (
                Call::post(
                    &format!("/compute/v2.0/servers/{server}/action"),
                    json!({"addFloatingIp": {"address": address}}),
                ),
                Call::delete(path, &id),
            )
        },
    )
    .await;

    try_all(
        &stage,
        "two tasks of a server",
        &["servers", "intents"],
        false,
        async || {
            let server = stage.server().await;
            let path = format!("/compute/v2.0/servers/{server}/action");
            (
                Call::post(&path, json!({"os-stop": null})),
                Call::post(&path, json!({"reboot": {"type": "SOFT"}})),
            )
        },
    )
    .await;

    try_all(
        &stage,
        "one name for two keys",
        &["keypairs"],
        false,
        async || {
            stage.sql("DELETE FROM keypairs").await;
            let key = Call::post(
                "/compute/v2.0/os-keypairs",
                json!({"keypair": {"name": "k"}}),
            );
            (key.clone(), key)
        },
    )
    .await;

    try_all(
        &stage,
        "the last key of a user",
        &["keypairs"],
        false,
        async || {
            stage.sql("DELETE FROM keypairs").await;
            for number in 0..99 {
                stage
                    .sql(&format!(
                        "INSERT INTO keypairs (user_id, name, public_key, fingerprint, created_at) \
                     SELECT id, 'key{number}', '', '', 0 FROM users WHERE name = 'alice'"
                    ))
                    .await;
            }
            let key = |name: &str| {
                Call::post(
                    "/compute/v2.0/os-keypairs",
                    json!({"keypair": {"name": name}}),
                )
            };
            (key("one"), key("other"))
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_once_goes_to_one_on_postgresql() {
    what_exists_once_goes_to_one(DbBackend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_once_goes_to_one_on_mariadb() {
    what_exists_once_goes_to_one(DbBackend::MySql).await;
}

/// A thing that an operator closes is closed when the command ends: nothing that was begun before comes
/// after.
async fn what_operators_close_is_closed(backend: DbBackend) {
    let stage = Stage::new(backend).await;
    let central = &stage.central;
    let network = stage.network("n", None).await;
    for (what, close, open) in [
        (
            "the network",
            format!("UPDATE networks SET drained = true WHERE id = {network}"),
            "UPDATE networks SET drained = false",
        ),
        (
            "the flavor",
            "UPDATE flavors SET allow_create = false".to_owned(),
            "UPDATE flavors SET allow_create = true",
        ),
        (
            "the cluster",
            "UPDATE backends SET drained = true".to_owned(),
            "UPDATE backends SET drained = false",
        ),
        (
            "the image",
            "UPDATE images SET public = false".to_owned(),
            "UPDATE images SET public = true",
        ),
        (
            "the project",
            "UPDATE projects SET enabled = false WHERE name = 'wonderland'".to_owned(),
            "UPDATE projects SET enabled = true",
        ),
    ] {
        for table in ["servers", "ports"] {
            let mut order = central.order("web", &[]).await;
            order["server"]["networks"] = json!([{"uuid": network}]);
            let call = Call::post("/compute/v2.0/servers", order);
            // The creation is under way when the command is given: the command waits for it.
            let before = stage.number("SELECT COUNT(*) FROM servers").await;
            let at_the_end = async {
                stage.sql(&close).await;
                u16::try_from(stage.number("SELECT COUNT(*) FROM servers").await - before).unwrap()
            };
            let creation = async { call.clone().send_any(central).await };
            let (status, made) = stage.interleave(table, creation, at_the_end).await;
            let after = stage.number("SELECT COUNT(*) FROM servers").await - before;
            assert_eq!(i64::from(made), after, "{what}, before {table}: {status}");
            // Afterwards nothing is made.
            let status = call.clone().send_any(central).await;
            assert!((400..=503).contains(&status), "{what}: {status}");
            stage.sql(open).await;
            // Identities are cached for a moment.
            support::until("an open project", async || {
                central.get("/compute/v2.0/servers").await.status == 200
            })
            .await;
        }
    }
}

impl Call {
    async fn send_any(self, central: &Central) -> u16 {
        let Self(method, path, body) = self;
        let answer = central.ask(method, &path, Some(TOKEN), body).await;
        answer.status.as_u16()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_close_is_closed_on_postgresql() {
    what_operators_close_is_closed(DbBackend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_close_is_closed_on_mariadb() {
    what_operators_close_is_closed(DbBackend::MySql).await;
}

/// A deadlock has a victim; if that is a request, it is done again.
async fn a_deadlock_is_no_answer(backend: DbBackend) {
    let stage = Stage::new(backend).await;
    let server = stage.server().await;
    stage.central.rapi.succeed();
    let path = format!("/compute/v2.0/servers/{server}/action");
    let stop = Call::post(&path, json!({"os-stop": null}));
    assert_eq!(stop.send(&stage.central).await, 202);
    support::until("SHUTOFF", async || {
        let server = stage.central.server(&server).await;
        server["status"] == "SHUTOFF" && server["SNF:task_state"] == ""
    })
    .await;
    // A start locks its server, then its project. This locks the project, then the server, and has
    // written more: the start is the victim.
    let other = stage.database.begin().await.unwrap();
    for statement in [
        "UPDATE projects SET enabled = true WHERE name = 'wonderland'",
        "UPDATE users SET email = 'a@example.org'",
        "UPDATE flavors SET disk_provider = 'x'",
    ] {
        other.execute_unprepared(statement).await.unwrap();
    }
    let start = async {
        let call = Call::post(&path, json!({"os-start": null}));
        call.send(&stage.central).await
    };
    let meet = async {
        stage.wait_for_waiting(1).await;
        let statement = format!("UPDATE servers SET progress = progress WHERE id = {server}");
        other.execute_unprepared(&statement).await.unwrap();
        other.commit().await.unwrap();
    };
    let (status, ()) =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(start, meet) })
            .await
            .expect("both to end");
    assert_eq!(status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_no_answer_on_postgresql() {
    a_deadlock_is_no_answer(DbBackend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_no_answer_on_mariadb() {
    a_deadlock_is_no_answer(DbBackend::MySql).await;
}
