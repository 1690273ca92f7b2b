//! Tests that a call's statements do not grow with what it shows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use serde_json::Value;
use tower::ServiceExt;

use super::context::Context;
use super::router;
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

    /// Servers `from..to` with a NIC, an address, a disk, metadata and a tag each.
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
        ];
        for insert in inserts {
            let statement = insert.replacen("SELECT", &format!("{numbers} SELECT"), 1);
            self.database.execute_unprepared(&statement).await.unwrap();
        }
    }

    /// How many statements the call needs, and how many things it shows.
    async fn of(&self, path: &str) -> (usize, usize) {
        let request = Request::get(path)
            .header("x-auth-token", TOKEN)
            .body(Body::empty())
            .unwrap();
        let before = self.statements.load(Ordering::Relaxed);
        // One of its own, which remembers no token.
        let api = Context::new(self.config.clone(), Arc::clone(&self.ganeti));
        let response = router(api).oneshot(request).await.unwrap();
        let after = self.statements.load(Ordering::Relaxed);
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 26)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        let list = body.as_array().or_else(|| {
            body.as_object()
                .and_then(|map| map.values().find_map(Value::as_array))
        });
        (after - before, list.map_or(1, Vec::len))
    }
}

const PATHS: &[&str] = &[
    "/compute/v2.0/servers",
    "/compute/v2.0/servers/detail",
    "/compute/v2.0/servers/2",
    "/compute/v2.0/flavors/detail",
    "/compute/v2.0/images/detail",
    "/compute/v2.0/os-keypairs",
    "/compute/v2.0/os-floating-ips",
    "/compute/v2.0/os-networks",
    "/network/v2.0/networks",
    "/network/v2.0/subnets",
    "/network/v2.0/ports",
    "/network/v2.0/floatingips",
    "/volume/v3/volumes/detail",
    "/image/v2/images",
    "/image/v1.0/images/detail",
];

#[tokio::test]
async fn a_list_of_many_needs_no_more_statements_than_one_of_two() {
    let counted = Counted::new().await;
    counted.add(2, 4).await;
    let mut few = Vec::new();
    for path in PATHS {
        few.push(counted.of(path).await);
    }
    counted.add(4, 502).await;
    for (path, (statements, shown)) in PATHS.iter().zip(few) {
        let (now, many) = counted.of(path).await;
        assert_eq!(now, statements, "{path}: {shown} and {many} shown");
        // Three for the token.
        assert!(statements <= 3 + 7, "{path}: {statements} statements");
        if path.contains("detail") && !path.contains("flavors") {
            assert!(many >= 500, "{path}: {many} shown");
        }
    }
}
