//! Tests that a call's statements do not grow with what it shows: of every operation of the
//! OpenAPI document that reads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait};
use serde_json::Value;
use tower::ServiceExt;

use super::context::Context;
use super::{openapi, router};
use crate::config::Config;
use crate::ganeti::clients::Clients;
use crate::ganeti::naming::Naming;
use crate::ganeti::submission::Submitter;
use crate::model::database;

const TOKEN: &str = "a-token-that-counts";

const SEED: &str = r#"
[[project]]
name = "p"
[[user]]
name = "u"
password = "rabbit"
token = "a-token-that-counts"
projects = ["p"]
admin = true
[[backend]]
name = "b"
url = "http://127.0.0.1:1"
username = "u"
password_file = "/nonexistent"
[[flavor]]
name = "tiny"
vcpus = 1
ram = 128
disk = 1
disk_template = "file"
[[image]]
name = "i"
os = "o"
[[network]]
name = "n"
type = "CUSTOM"
link = "br0"
public = true
floating_ip_pool = true
[[network.subnet]]
cidr = "10.0.0.0/16"
"#;

struct Counted {
    database: DatabaseConnection,
    statements: Arc<AtomicUsize>,
    config: Config,
    ganeti: Arc<Submitter>,
    _folder: tempfile::TempDir,
}

impl Counted {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[database]\nurl = 'sqlite://{}/c.db'",
            folder.path().display()
        );
        let config = Config::parse(Path::new("c.toml"), &text).unwrap();
        let seed = folder.path().join("seed.toml");
        std::fs::write(&seed, SEED).unwrap();
        crate::admin::seed::run(&config, &seed).await.unwrap();
        let mut database = database::connect(&config.database_url, 4).await.unwrap();
        let statements = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&statements);
        database.set_metric_callback(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let ganeti = Arc::new(Submitter {
            database: database.clone(),
            clients: Clients::new(Duration::from_secs(1)),
            naming: Naming::new(config.names.clone()),
        });
        Self {
            database,
            statements,
            config,
            ganeti,
            _folder: folder,
        }
    }

    /// Servers `from..to` with a NIC, an address, a disk, metadata and a tag each; as many more of
    /// those, and diagnostics, for server 2; as many projects, flavors, images, networks, keys.
    async fn add(&self, from: i64, to: i64) {
        let numbers = format!(
            "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {})",
            to - 1
        );
        let inserts = [
            "INSERT INTO servers (id, name, user_id, project_id, flavor_id, image_id, backend_id,
                state, progress, suspended, created_at, updated_at, job_id, job_rank, job_time,
                state_job, state_rank, state_time, nics_job, nics_rank, nics_time, shape_job,
                shape_rank, shape_time)
             SELECT i, 's' || i, u.id, p.id, 1, m.id, 1, 'STARTED', 100, 0, 1, 1, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0 FROM n, users u, projects p, images m WHERE m.name = 'i'",
            "INSERT INTO ports (id, name, user_id, project_id, network_id, server_id, state, ipv4,
                floating, created_at, updated_at)
             SELECT i, '', u.id, p.id, 1, i, 'ACTIVE', '10.0.0.' || i, 1, 1, 1
             FROM n, users u, projects p",
            "INSERT INTO addresses (subnet_id, network_id, number, address, floating, user_id,
                project_id, port_id, live, created_at, updated_at)
             SELECT 1, 1, i, '10.0.0.' || i, 1, u.id, p.id, i, 1, 1, 1
             FROM n, users u, projects p",
            "INSERT INTO volumes (server_id, name, user_id, project_id, size, disk_index, status,
                created_at, updated_at)
             SELECT i, 'v', u.id, p.id, 1, 0, 'IN_USE', 1, 1 FROM n, users u, projects p",
            "INSERT INTO server_metadata (server_id, name, value) SELECT i, 'k', 'v' FROM n",
            "INSERT INTO server_tags (server_id, tag) SELECT i, 't' FROM n",
            "INSERT INTO images (id, name, os, os_params, source, format, size, properties, status,
                project_id, public, min_ram, min_disk, created_at, updated_at)
             SELECT 'i' || i, 'n', 'o', '{}', '', '', 0, '{}', 'ACTIVE', p.id, 0, 0, 0, 1, 1
             FROM n, projects p",
            "INSERT INTO networks (id, name, project_id, kind, mode, link, mac_prefix, tags,
                public, external_router, floating_ip_pool, drained, created_at, updated_at)
             SELECT i, 'n', p.id, 'CUSTOM', 'bridged', 'b', 'aa:00:0', '[]', 0, 0, 0, 0, 1, 1
             FROM n, projects p",
            "INSERT INTO keypairs (user_id, name, public_key, fingerprint, created_at)
             SELECT u.id, 'k' || i, 'x', 'f', 1 FROM n, users u",
            "INSERT INTO subnets (network_id, name, ip_version, cidr, dhcp, slaac, dns, host_routes,
                pools, live, created_at, updated_at)
             SELECT i, 's', 4, '10.1.0.0/24', 1, 0, '[]', '[]', '[]', 1, 1, 1 FROM n",
            "INSERT INTO flavors (name, vcpus, ram, disk, disk_template, allow_create, public,
                created_at) SELECT 'f' || i, 1, 128, 1, 't' || i, 1, 1, 1 FROM n",
            "INSERT INTO ports (id, name, user_id, project_id, network_id, server_id, state, ipv4,
                floating, created_at, updated_at)
             SELECT 100000 + i, '', u.id, p.id, i, 2, 'ACTIVE', '10.1.0.9', 0, 1, 1
             FROM n, users u, projects p",
            "INSERT INTO volumes (server_id, name, user_id, project_id, size, disk_index, status,
                created_at, updated_at)
             SELECT 2, 'v', u.id, p.id, 1, i, 'IN_USE', 1, 1 FROM n, users u, projects p",
            "INSERT INTO server_metadata (server_id, name, value) SELECT 2, 'k' || i, 'v' FROM n",
            "INSERT INTO server_tags (server_id, tag) SELECT 2, 't' || i FROM n",
            "INSERT INTO diagnostics (server_id, level, source, message, created_at)
             SELECT 2, 'INFO', 's', 'm', 1 FROM n",
            "INSERT INTO address_history (address, network_id, server_id, port_id, user_id,
                project_id, bound_at)
             SELECT '10.0.0.' || i, 1, 2, i, u.id, p.id, 1 FROM n, users u, projects p",
        ];
        for insert in inserts {
            let statement = insert.replacen("SELECT", &format!("{numbers} SELECT"), 1);
            self.database.execute_unprepared(&statement).await.unwrap();
        }
    }

    /// How many statements the call needs, and how many things it shows; none: it shows nothing,
    /// whatever there is.
    async fn of(&self, path: &str) -> Option<(usize, usize)> {
        let request = Request::get(path)
            .header("x-auth-token", TOKEN)
            .header("x-subject-token", TOKEN)
            .body(Body::empty())
            .unwrap();
        let before = self.statements.load(Ordering::Relaxed);
        // One of its own, which remembers no token.
        let api = Context::new(self.config.clone(), Arc::clone(&self.ganeti)).unwrap();
        let response = router(api).oneshot(request).await.unwrap();
        let after = self.statements.load(Ordering::Relaxed);
        let status = response.status();
        if status == StatusCode::NOT_IMPLEMENTED || NEVER_THERE.contains(&path) {
            return None;
        }
        assert!(
            status.is_success() || status.is_redirection(),
            "{path}: {status}"
        );
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 26)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let list = body.as_array().or_else(|| {
            body.as_object()
                .and_then(|map| map.values().find_map(Value::as_array))
        });
        Some((after - before, list.map_or(1, Vec::len)))
    }

    /// The paths of all operations that read, with ids of what is there.
    async fn paths(&self) -> Vec<String> {
        let user = crate::model::entity::user::Entity::find()
            .one(&self.database)
            .await
            .unwrap()
            .unwrap();
        let document = openapi::document();
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            if methods["get"].is_null() {
                continue;
            }
            let id = if path.contains("/servers/") || path.contains("ports") {
                "2"
            } else if path.contains("/images/") {
                "i2"
            } else if path.contains("/types/") {
                "file"
            } else {
                "1"
            };
            let name = if path.contains("hosts") { "b" } else { "k2" };
            let filled = path
                .replace("{id}", id)
                .replace("{name}", name)
                .replace("{user}", &user.id)
                .replace("{project}", &user.project_id)
                .replace("{role}", "member")
                .replace("{token}", TOKEN)
                .replace("{alias}", "os-keypairs")
                .replace("{port}", "2")
                .replace("{volume}", "1")
                .replace("{network}", "n")
                .replace("{key}", "k")
                .replace("{tag}", "t");
            assert!(!filled.contains('{'), "{filled}");
            // It is not told without a question.
            let question = if path.ends_with("/address-history") {
                "?server_id=2"
            } else {
                ""
            };
            all.push(format!("{filled}{question}"));
        }
        for list in [
            "/compute/v2.0/servers/detail",
            "/network/v2.0/networks",
            "/network/v2.0/subnets",
            "/volume/v3/volumes/detail",
        ] {
            all.push(format!("{list}?changes-since=1970-01-01T00:00:00Z"));
        }
        all
    }
}

/// What is asked for once, or not there at all.
const NEVER_THERE: &[&str] = &[
    "/compute/v2.0/servers/2/password",
    "/network/v2.0/extensions/os-keypairs",
];

#[tokio::test]
async fn a_list_of_many_needs_no_more_statements_than_one_of_two() {
    let counted = Counted::new().await;
    counted.add(2, 4).await;
    let paths = counted.paths().await;
    assert!(paths.len() > 70, "{}", paths.len());
    let mut few = Vec::new();
    for path in &paths {
        few.push(counted.of(path).await);
    }
    counted.add(4, 502).await;
    let mut long = 0;
    for (path, before) in paths.iter().zip(few) {
        let (Some((statements, shown)), Some((now, many))) = (before, counted.of(path).await)
        else {
            continue;
        };
        assert_eq!(now, statements, "{path}: {shown} and {many} shown");
        // Three for the token.
        assert!(statements <= 3 + 7, "{path}: {statements} statements");
        if many >= 200 {
            long += 1;
        }
        let alone = ["hyper", "snapshots", "quota"];
        if path.contains("detail") && !alone.iter().any(|part| path.contains(part)) {
            assert!(many >= 500 || path.contains("zone"), "{path}: {many} shown");
        }
    }
    assert!(long > 20, "{long} long lists");
    // All that hangs on a server comes with it.
    for path in ["/compute/v2.0/servers/detail", "/compute/v2.0/servers/2"] {
        let (statements, _) = counted.of(path).await.unwrap();
        assert_eq!(statements, 3 + 1, "{path}");
    }
}
