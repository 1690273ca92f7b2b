//! The peer: a bare axum handler that asks the database once and writes down the rows.
//!
//! It knows nothing of tokens, dialects, links or logs. The rows are those that the API's answer is
//! made of, joined by the database.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use sea_orm::sqlx::{PgPool, Row as _, SqlitePool};
use serde::Serialize;

/// What an answer of the API tells of a server, as the tables have it.
const COLUMNS: &str = "SELECT s.id, s.name, s.user_id, s.project_id, s.flavor_id, s.image_id, \
    s.backend_id, s.state, s.progress, s.task, s.key_name, s.suspended, s.rescue, s.created_at, \
    s.updated_at, s.deleted_at, p.id, p.state, p.mac, p.ipv4, p.ipv6, p.firewall, p.floating, \
    n.id, n.name, v.id, m.name, m.value, t.tag \
    FROM servers s LEFT JOIN ports p ON p.server_id = s.id AND p.deleted_at IS NULL \
    LEFT JOIN networks n ON n.id = p.network_id \
    LEFT JOIN volumes v ON v.server_id = s.id AND v.deleted_at IS NULL \
    LEFT JOIN server_metadata m ON m.server_id = s.id LEFT JOIN server_tags t ON t.server_id = s.id";

macro_rules! rows {
    ($($field:ident: $kind:ty),* $(,)?) => {
        #[derive(Serialize)]
        struct Joined { $($field: $kind),* }

        macro_rules! read {
            ($row:expr) => {{
                let mut column = 0..;
                Joined { $($field: $row.get::<$kind, usize>(column.next().unwrap())),* }
            }};
        }
    };
}

rows! {
    id: i64, name: String, user_id: String, project_id: String, flavor_id: i64, image_id: String,
    backend_id: i64, state: String, progress: i32, task: Option<String>,
    key_name: Option<String>, suspended: bool, rescue: bool, created_at: i64, updated_at: i64,
    deleted_at: Option<i64>, port_id: Option<i64>, port_state: Option<String>,
    mac: Option<String>, ipv4: Option<String>, ipv6: Option<String>, firewall: Option<String>,
    floating: Option<bool>, network_id: Option<i64>, network: Option<String>,
    volume_id: Option<i64>, key: Option<String>, value: Option<String>, tag: Option<String>,
}

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

struct Peer {
    pool: Pool,
    project: String,
}

impl Peer {
    async fn rows(&self, condition: &str, value: &str, number: Option<i64>) -> Vec<Joined> {
        macro_rules! ask {
            ($pool:expr, $text:expr) => {{
                // the statement is ours, and the values are bound
                let statement = sea_orm::sqlx::AssertSqlSafe($text);
                let query = sea_orm::sqlx::query(statement);
                let query = match number {
                    Some(number) => query.bind(number),
                    None => query.bind(value.to_owned()),
                };
                let rows = query.fetch_all($pool).await.unwrap();
                rows.iter().map(|row| read!(row)).collect()
            }};
        }
        match &self.pool {
            Pool::Sqlite(pool) => ask!(pool, format!("{COLUMNS} {}", condition.replace("$1", "?"))),
            Pool::Postgres(pool) => ask!(pool, format!("{COLUMNS} {condition}")),
        }
    }
}

async fn list(State(peer): State<Arc<Peer>>) -> Json<Vec<Joined>> {
    let condition = "WHERE s.project_id = $1 AND s.deleted_at IS NULL ORDER BY s.id LIMIT 1000";
    Json(peer.rows(condition, &peer.project, None).await)
}

async fn one(State(peer): State<Arc<Peer>>, Path(id): Path<i64>) -> Json<Vec<Joined>> {
    Json(peer.rows("WHERE s.id = $1", "", Some(id)).await)
}

/// Serves the servers of `project` in the database at `url`, with as many threads and connections
/// as central has.
pub fn serve(listen: &str, url: &str, project: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let pool = if url.starts_with("sqlite") {
            Pool::Sqlite(SqlitePool::connect(url).await.unwrap())
        } else {
            Pool::Postgres(PgPool::connect(url).await.unwrap())
        };
        let peer = Arc::new(Peer {
            pool,
            project: project.to_owned(),
        });
        let router = Router::new()
            .route("/list", get(list))
            .route("/get/{id}", get(one))
            .with_state(peer);
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        axum::serve(listener, router).await.unwrap();
    });
}
