//! Servers with all that hangs on them (NICs, disks, metadata, tags), read with one statement
//! however many they are.
//!
//! What hangs on a server comes as JSON that the database makes, one text of each kind in the
//! server's row: so nothing is told twice, as a join of four tables would, and no row more comes
//! than there are servers.

use std::fmt::Display;
use std::sync::OnceLock;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, FromQueryResult, QueryFilter,
    QueryResult, QuerySelect, QueryTrait, Select, Statement,
};
use serde::de::DeserializeOwned;

use crate::api::caller::Caller;
use crate::api::fault::Fault;
use crate::api::find;
use crate::model::entity::server;

/// A server, as its users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    pub id: i64,
    pub name: String,
    pub user_id: String,
    pub project_id: String,
    pub flavor_id: i64,
    pub image_id: String,
    pub backend_id: i64,
    pub key_name: Option<String>,
    pub state: String,
    pub progress: i32,
    pub task: Option<String>,
    pub suspended: bool,
    pub rescue: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    /// Those that are up, by id.
    pub nics: Vec<Nic>,
    /// The ids of the disks, by their place.
    pub volumes: Vec<i64>,
    /// Names and values, by name.
    pub metadata: Vec<(String, String)>,
    /// The labels that its user sees, by name.
    pub tags: Vec<String>,
}

/// A NIC that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub id: i64,
    pub network_id: i64,
    /// The name of the network.
    pub network: Option<String>,
    pub mac: Option<String>,
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub firewall: Option<String>,
    /// Its address is a floating IP.
    pub floating: bool,
}

/// The columns of [`Detail`] that are the server's own, in its order.
const COLUMNS: [server::Column; 16] = [
    server::Column::Id,
    server::Column::Name,
    server::Column::UserId,
    server::Column::ProjectId,
    server::Column::FlavorId,
    server::Column::ImageId,
    server::Column::BackendId,
    server::Column::KeyName,
    server::Column::State,
    server::Column::Progress,
    server::Column::Task,
    server::Column::Suspended,
    server::Column::Rescue,
    server::Column::CreatedAt,
    server::Column::UpdatedAt,
    server::Column::DeletedAt,
];

/// What hangs on a server: which columns are gathered, and from where.
type Hanging<const N: usize> = ([&'static str; N], &'static str);

const NICS: Hanging<8> = (
    [
        "p.id",
        "p.network_id",
        "n.name",
        "p.mac",
        "p.ipv4",
        "p.ipv6",
        "p.firewall",
        "CASE WHEN p.floating THEN 1 END",
    ],
    "ports p LEFT JOIN networks n ON n.id = p.network_id \
     WHERE p.server_id = servers.id AND p.deleted_at IS NULL AND p.state = 'ACTIVE'",
);
const VOLUMES: Hanging<2> = (
    ["v.disk_index", "v.id"],
    "volumes v WHERE v.server_id = servers.id AND v.deleted_at IS NULL",
);
const METADATA: Hanging<2> = (
    ["m.name", "m.value"],
    "server_metadata m WHERE m.server_id = servers.id",
);
/// As `dispatch::labels::is_shown`.
const TAGS: Hanging<1> = (
    ["t.tag"],
    "server_tags t WHERE t.server_id = servers.id AND COALESCE(t.wanted, t.live)",
);

/// The expression of a text of JSON: an array of an array of texts for each row, or NULL where
/// there may be none.
fn gathered<const N: usize>(backend: DbBackend, (columns, from): Hanging<N>) -> String {
    let text = match backend {
        DbBackend::MySql => "CHAR",
        _ => "text",
    };
    let columns = columns.map(|column| format!("CAST({column} AS {text})"));
    let columns = columns.join(", ");
    match backend {
        // Cheaper than its json_agg(json_build_array(…)), which looks each value's type up.
        DbBackend::Postgres => {
            format!("CAST(array_to_json(ARRAY(SELECT ARRAY[{columns}] FROM {from})) AS text)")
        }
        DbBackend::MySql => {
            format!("(SELECT CAST(JSON_ARRAYAGG(JSON_ARRAY({columns})) AS CHAR) FROM {from})")
        }
        _ => format!("(SELECT json_group_array(json_array({columns})) FROM {from})"),
    }
}

/// Reads what [`gathered`] made, from the column at `index`.
fn read<const N: usize>(row: &QueryResult, index: usize) -> Result<Vec<Texts<N>>, DbErr>
where
    Texts<N>: DeserializeOwned,
{
    match row.try_get_by_index::<Option<String>>(index)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| unreadable(&text, error)),
        None => Ok(Vec::new()),
    }
}

type Texts<const N: usize> = [Option<String>; N];

fn unreadable(text: &str, error: impl Display) -> DbErr {
    DbErr::Type(format!("what hangs on a server: {text:?}: {error}"))
}

fn number(text: Option<String>) -> Result<i64, DbErr> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|error| unreadable(&text, error))
}

impl Nic {
    fn read(texts: Texts<8>) -> Result<Self, DbErr> {
        let [id, network_id, network, mac, ipv4, ipv6, firewall, floating] = texts;
        Ok(Self {
            id: number(id)?,
            network_id: number(network_id)?,
            network,
            mac,
            ipv4,
            ipv6,
            firewall,
            floating: floating.is_some(),
        })
    }
}

impl FromQueryResult for Detail {
    fn from_query_result(row: &QueryResult, _: &str) -> Result<Self, DbErr> {
        let mut detail = Self {
            id: row.try_get_by_index(0)?,
            name: row.try_get_by_index(1)?,
            user_id: row.try_get_by_index(2)?,
            project_id: row.try_get_by_index(3)?,
            flavor_id: row.try_get_by_index(4)?,
            image_id: row.try_get_by_index(5)?,
            backend_id: row.try_get_by_index(6)?,
            key_name: row.try_get_by_index(7)?,
            state: row.try_get_by_index(8)?,
            progress: row.try_get_by_index(9)?,
            task: row.try_get_by_index(10)?,
            suspended: row.try_get_by_index(11)?,
            rescue: row.try_get_by_index(12)?,
            created_at: row.try_get_by_index(13)?,
            updated_at: row.try_get_by_index(14)?,
            deleted_at: row.try_get_by_index(15)?,
            nics: Vec::new(),
            volumes: Vec::new(),
            metadata: Vec::new(),
            tags: Vec::new(),
        };
        if detail.deleted_at.is_some() {
            return Ok(detail);
        }
        let nics = read(row, 16)?.into_iter().map(Nic::read);
        detail.nics = nics.collect::<Result<_, _>>()?;
        detail.nics.sort_unstable_by_key(|nic| nic.id);
        let volumes = read(row, 17)?
            .into_iter()
            .map(|[place, id]| Ok((number(place)?, number(id)?)));
        let mut volumes = volumes.collect::<Result<Vec<_>, DbErr>>()?;
        volumes.sort_unstable();
        detail.volumes = volumes.into_iter().map(|(_, id)| id).collect();
        detail.metadata = read(row, 18)?
            .into_iter()
            .filter_map(|[name, value]| Some((name?, value?)))
            .collect();
        detail.metadata.sort_unstable();
        detail.tags = read(row, 19)?.into_iter().filter_map(|[tag]| tag).collect();
        detail.tags.sort_unstable();
        Ok(detail)
    }
}

/// The servers that `wanted` finds, in its order.
///
/// # Errors
/// The database fails.
pub async fn all(
    database: &impl ConnectionTrait,
    wanted: Select<server::Entity>,
) -> Result<Vec<Detail>, DbErr> {
    let query = columns(database.get_database_backend(), wanted);
    query.into_model::<Detail>().all(database).await
}

/// `wanted` with the columns of [`Detail`].
fn columns(backend: DbBackend, wanted: Select<server::Entity>) -> Select<server::Entity> {
    wanted
        .select_only()
        .columns(COLUMNS)
        .expr_as(Expr::cust(gathered(backend, NICS)), "nics")
        .expr_as(Expr::cust(gathered(backend, VOLUMES)), "volumes")
        .expr_as(Expr::cust(gathered(backend, METADATA)), "metadata")
        .expr_as(Expr::cust(gathered(backend, TAGS)), "tags")
}

/// The text that asks for one server by its id and project, made once: it is asked for far more
/// often than anything else.
fn one_by_id(backend: DbBackend) -> &'static str {
    static TEXTS: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    let [postgres, mysql, sqlite] = &TEXTS;
    let text = match backend {
        DbBackend::Postgres => postgres,
        DbBackend::MySql => mysql,
        _ => sqlite,
    };
    text.get_or_init(|| {
        let any = server::Entity::find_by_id(0).filter(server::Column::ProjectId.eq(""));
        columns(backend, any).build(backend).sql
    })
}

/// A server of the caller's project, also one that is deleted.
///
/// # Errors
/// 404: there is no such server for the caller. The database fails.
pub async fn one(
    database: &impl ConnectionTrait,
    caller: &Caller,
    id: &str,
) -> Result<Detail, Fault> {
    let number = find::number("server", id)?;
    let backend = database.get_database_backend();
    let values = [number.into(), caller.project_id.as_str().into()];
    let statement = Statement::from_sql_and_values(backend, one_by_id(backend), values);
    Detail::find_by_statement(statement)
        .one(database)
        .await?
        .ok_or_else(|| Fault::not_found("server", id))
}
