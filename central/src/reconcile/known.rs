//! What the database has of a cluster: read after the cluster has been asked, so that what the
//! cluster has because we asked for it is known here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QuerySelect};
use serde_json::Value;

use crate::dispatch::labels;
use crate::ganeti::intent;
use crate::model::entity::{
    backend_network, flavor, intent as intent_row, network, port, server, server_tag, volume,
};
use crate::model::moment;

/// The rows of one cluster, as far as they can be compared.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The servers that are not deleted, by number.
    pub servers: BTreeMap<i64, Server>,
    /// The servers that another cluster has.
    pub elsewhere: HashSet<i64>,
    /// The networks of the whole system, also the deleted ones.
    pub networks: BTreeMap<i64, Network>,
}

/// A server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Server {
    pub state: String,
    /// Its creation is known to have failed.
    pub failed: bool,
    /// Nothing was ever made for it: an instance of its name is another one.
    pub refused: bool,
    pub task: Option<String>,
    pub task_job: Option<i64>,
    /// Something is still to be asked of Ganeti.
    pub waiting: bool,
    /// Processors and MiB of memory, as its flavor says.
    pub shape: (i64, i64),
    pub nics: Vec<Nic>,
    pub disks: Vec<Disk>,
    /// The labels that its user sees.
    pub labels: BTreeSet<String>,
    /// It boots from the rescue image.
    pub rescue: bool,
}

/// A NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nic {
    pub id: i64,
    pub network: i64,
    pub state: String,
    pub index: Option<i32>,
    pub mac: Option<String>,
    pub ipv4: Option<String>,
    pub firewall: Option<String>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    pub id: i64,
    pub index: i32,
    /// GiB
    pub size: i64,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    pub deleted: bool,
    /// Its state in this cluster; none: there is no row for it.
    pub state: Option<String>,
    /// The jobs that bring it in.
    pub jobs: Vec<i64>,
    /// A process is at it.
    pub claimed: bool,
}

impl Known {
    /// Reads the rows of a backend.
    ///
    /// # Errors
    /// The database fails.
    pub async fn load(database: &DatabaseConnection, backend: i64) -> Result<Self, DbErr> {
        let mut known = Self::default();
        let waiting: HashSet<i64> = intent_row::Entity::find()
            .select_only()
            .column(intent_row::Column::ServerId)
            .filter(intent_row::Column::State.eq(intent::PENDING))
            .filter(intent_row::Column::BackendId.eq(backend))
            .filter(intent_row::Column::ServerId.is_not_null())
            .into_tuple::<i64>()
            .all(database)
            .await?
            .into_iter()
            .collect();
        let shapes: HashMap<i64, (i64, i64)> = flavor::Entity::find()
            .all(database)
            .await?
            .into_iter()
            .map(|flavor| (flavor.id, (flavor.vcpus, flavor.ram)))
            .collect();
        let servers = server::Entity::find()
            .filter(server::Column::BackendId.eq(backend))
            .filter(server::Column::DeletedAt.is_null())
            .all(database)
            .await?;
        for row in servers {
            let failed = row.job_opcode.as_deref() == Some("OP_INSTANCE_CREATE")
                && matches!(row.job_status.as_deref(), Some("error" | "canceled"));
            known.servers.insert(
                row.id,
                Server {
                    failed,
                    refused: false,
                    waiting: waiting.contains(&row.id),
                    shape: shapes.get(&row.flavor_id).copied().unwrap_or_default(),
                    state: row.state,
                    task: row.task,
                    task_job: row.task_job,
                    nics: Vec::new(),
                    disks: Vec::new(),
                    labels: BTreeSet::new(),
                    rescue: row.rescue,
                },
            );
        }
        known.elsewhere = server::Entity::find()
            .select_only()
            .column(server::Column::Id)
            .filter(server::Column::BackendId.ne(backend))
            .filter(server::Column::DeletedAt.is_null())
            .into_tuple::<i64>()
            .all(database)
            .await?
            .into_iter()
            .collect();
        for id in intent::never_made(database, known.servers.keys().copied()).await? {
            if let Some(server) = known.servers.get_mut(&id) {
                server.refused = true;
            }
        }
        known.load_nics(database, backend).await?;
        known.load_disks(database, backend).await?;
        known.load_labels(database, backend).await?;
        known.load_networks(database, backend).await?;
        Ok(known)
    }

    /// The jobs that somebody waits for.
    pub fn jobs(&self) -> impl Iterator<Item = i64> {
        let servers = self.servers.values().filter_map(|server| server.task_job);
        let networks = self.networks.values().flat_map(|network| &network.jobs);
        servers.chain(networks.copied())
    }

    /// The highest number of a job that a message has told of.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_job(database: &DatabaseConnection, backend: i64) -> Result<i64, DbErr> {
        let servers = server::Entity::find()
            .select_only()
            .column_as(server::Column::JobId.max(), "most")
            .filter(server::Column::BackendId.eq(backend))
            .into_tuple::<Option<i64>>()
            .one(database)
            .await?;
        let networks = backend_network::Entity::find()
            .select_only()
            .column_as(backend_network::Column::JobId.max(), "most")
            .filter(backend_network::Column::BackendId.eq(backend))
            .into_tuple::<Option<i64>>()
            .one(database)
            .await?;
        Ok(servers.flatten().max(networks.flatten()).unwrap_or(0))
    }

    async fn load_nics(
        &mut self,
        database: &DatabaseConnection,
        backend: i64,
    ) -> Result<(), DbErr> {
        let rows = port::Entity::find()
            .filter(port::Column::ServerId.in_subquery(servers_of(backend)))
            .filter(port::Column::DeletedAt.is_null())
            .all(database)
            .await?;
        for row in rows {
            let server = row.server_id.and_then(|id| self.servers.get_mut(&id));
            if let Some(server) = server {
                server.nics.push(Nic {
                    id: row.id,
                    network: row.network_id,
                    state: row.state,
                    index: row.nic_index,
                    mac: row.mac,
                    ipv4: row.ipv4,
                    firewall: row.firewall,
                });
            }
        }
        Ok(())
    }

    async fn load_disks(
        &mut self,
        database: &DatabaseConnection,
        backend: i64,
    ) -> Result<(), DbErr> {
        let rows = volume::Entity::find()
            .filter(volume::Column::ServerId.in_subquery(servers_of(backend)))
            .filter(volume::Column::DeletedAt.is_null())
            .all(database)
            .await?;
        for row in rows {
            if let Some(server) = self.servers.get_mut(&row.server_id) {
                server.disks.push(Disk {
                    id: row.id,
                    index: row.disk_index,
                    size: row.size,
                });
            }
        }
        Ok(())
    }

    async fn load_labels(
        &mut self,
        database: &DatabaseConnection,
        backend: i64,
    ) -> Result<(), DbErr> {
        let rows = server_tag::Entity::find()
            .filter(server_tag::Column::ServerId.in_subquery(servers_of(backend)))
            .all(database)
            .await?;
        for row in rows.into_iter().filter(labels::is_shown) {
            if let Some(server) = self.servers.get_mut(&row.server_id) {
                server.labels.insert(row.tag);
            }
        }
        Ok(())
    }

    async fn load_networks(
        &mut self,
        database: &DatabaseConnection,
        backend: i64,
    ) -> Result<(), DbErr> {
        for row in network::Entity::find().all(database).await? {
            let known = self.networks.entry(row.id).or_default();
            known.deleted = row.deleted_at.is_some();
        }
        let rows = backend_network::Entity::find()
            .filter(backend_network::Column::BackendId.eq(backend))
            .all(database)
            .await?;
        let now = moment::now();
        for row in rows {
            let Some(known) = self.networks.get_mut(&row.network_id) else {
                continue;
            };
            let jobs = row.jobs.as_array().into_iter().flatten();
            known.jobs = jobs.filter_map(Value::as_i64).collect();
            known.claimed = row.claimed_until > now;
            known.state = Some(row.state);
        }
        Ok(())
    }
}

fn servers_of(backend: i64) -> sea_orm::sea_query::SelectStatement {
    use sea_orm::QueryTrait;
    server::Entity::find()
        .select_only()
        .column(server::Column::Id)
        .filter(server::Column::BackendId.eq(backend))
        .filter(server::Column::DeletedAt.is_null())
        .into_query()
}
