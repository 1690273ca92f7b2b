//! How much a project may have.
//!
//! Usage is counted, not kept: a number that is kept has to be repaired one day. Who takes
//! something locks the project's row before counting, so two who take the last of it at once
//! cannot both get it.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait,
    QueryFilter, QuerySelect,
};

use super::caller::Caller;
use super::fault::Fault;
use super::task::{RESIZING, STARTING};
use crate::dispatch::machine;
use crate::model::entity::{address, flavor, intent, network, project, quota, server};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Servers,
    /// Processors of all servers, and of those that run.
    TotalCpu,
    Cpu,
    /// MiB, likewise.
    TotalRam,
    Ram,
    /// GiB
    Disk,
    PrivateNetworks,
    FloatingIps,
}

impl Resource {
    pub const ALL: [Self; 8] = [
        Self::Servers,
        Self::TotalCpu,
        Self::Cpu,
        Self::TotalRam,
        Self::Ram,
        Self::Disk,
        Self::PrivateNetworks,
        Self::FloatingIps,
    ];

    /// Its name in the table and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::TotalCpu => "total_cpu",
            Self::Cpu => "cpu",
            Self::TotalRam => "total_ram",
            Self::Ram => "ram",
            Self::Disk => "disk",
            Self::PrivateNetworks => "private_networks",
            Self::FloatingIps => "floating_ips",
        }
    }

    /// Its name towards Cyclades clients.
    pub fn cyclades(self) -> &'static str {
        match self {
            Self::Servers => "cyclades.vm",
            Self::TotalCpu => "cyclades.total_cpu",
            Self::Cpu => "cyclades.cpu",
            Self::TotalRam => "cyclades.total_ram",
            Self::Ram => "cyclades.ram",
            Self::Disk => "cyclades.disk",
            Self::PrivateNetworks => "cyclades.network.private",
            Self::FloatingIps => "cyclades.floating_ip",
        }
    }

    /// What it is counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::TotalRam | Self::Ram => "MiB",
            Self::Disk => "GiB",
            _ => "",
        }
    }
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub servers: i64,
    pub total_cpu: i64,
    pub cpu: i64,
    pub total_ram: i64,
    pub ram: i64,
    pub disk: i64,
    pub private_networks: i64,
    pub floating_ips: i64,
}

impl Amounts {
    /// What `count` servers of a flavor take.
    pub fn of_servers(flavor: &flavor::Model, count: i64, running: bool) -> Self {
        let times = |each: i64| each.saturating_mul(count);
        let active = |each: i64| if running { times(each) } else { 0 };
        Self {
            servers: count,
            total_cpu: times(flavor.vcpus),
            cpu: active(flavor.vcpus),
            total_ram: times(flavor.ram),
            ram: active(flavor.ram),
            disk: times(flavor.disk),
            ..Self::default()
        }
    }

    pub fn of(&self, resource: Resource) -> i64 {
        match resource {
            Resource::Servers => self.servers,
            Resource::TotalCpu => self.total_cpu,
            Resource::Cpu => self.cpu,
            Resource::TotalRam => self.total_ram,
            Resource::Ram => self.ram,
            Resource::Disk => self.disk,
            Resource::PrivateNetworks => self.private_networks,
            Resource::FloatingIps => self.floating_ips,
        }
    }

    fn add(&mut self, other: &Self) {
        let fields = [
            (&mut self.servers, other.servers),
            (&mut self.total_cpu, other.total_cpu),
            (&mut self.cpu, other.cpu),
            (&mut self.total_ram, other.total_ram),
            (&mut self.ram, other.ram),
            (&mut self.disk, other.disk),
            (&mut self.private_networks, other.private_networks),
            (&mut self.floating_ips, other.floating_ips),
        ];
        for (sum, more) in fields {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The limits of a project; what has none is not limited.
pub struct Limits(HashMap<String, i64>);

impl Limits {
    pub fn of(&self, resource: Resource) -> Option<i64> {
        self.0.get(resource.name()).copied()
    }
}

/// Reads the limits of a project.
///
/// # Errors
/// The database fails.
pub async fn limits(database: &impl ConnectionTrait, project_id: &str) -> Result<Limits, DbErr> {
    let rows = quota::Entity::find()
        .filter(quota::Column::ProjectId.eq(project_id))
        .all(database)
        .await?;
    Ok(Limits(
        rows.into_iter()
            .map(|row| (row.resource, row.most))
            .collect(),
    ))
}

/// Counts what a project has.
///
/// # Errors
/// The database fails.
pub async fn usage(database: &impl ConnectionTrait, project_id: &str) -> Result<Amounts, DbErr> {
    let counts: Vec<(i64, String, Option<String>, i64)> = server::Entity::find()
        .select_only()
        .column(server::Column::FlavorId)
        .column(server::Column::State)
        .column(server::Column::Task)
        .column_as(server::Column::Id.count(), "servers")
        .filter(server::Column::ProjectId.eq(project_id))
        .filter(server::Column::DeletedAt.is_null())
        .group_by(server::Column::FlavorId)
        .group_by(server::Column::State)
        .group_by(server::Column::Task)
        .into_tuple()
        .all(database)
        .await?;
    let flavors = flavor::Entity::find()
        .filter(flavor::Column::Id.is_in(counts.iter().map(|(flavor, ..)| *flavor)))
        .all(database)
        .await?;
    let mut sum = Amounts::default();
    let task_is = |task: &Option<String>, name: &str| task.as_deref() == Some(name);
    for (id, state, task, count) in &counts {
        if let Some(flavor) = flavors.iter().find(|flavor| flavor.id == *id) {
            // One that is being built or started takes what it will take.
            let running =
                state != machine::STOPPED && state != machine::ERROR || task_is(task, STARTING);
            sum.add(&Amounts::of_servers(flavor, *count, running));
        }
    }
    if counts.iter().any(|(_, _, task, _)| task_is(task, RESIZING)) {
        sum.add(&growth(database, project_id).await?);
    }
    let networks = network::Entity::find()
        .filter(network::Column::ProjectId.eq(project_id))
        .filter(network::Column::Public.eq(false))
        .filter(network::Column::DeletedAt.is_null())
        .count(database)
        .await?;
    let addresses = address::Entity::find()
        .filter(address::Column::ProjectId.eq(project_id))
        .filter(address::Column::Floating.eq(true))
        .filter(address::Column::Live.eq(true))
        .count(database)
        .await?;
    sum.private_networks = i64::try_from(networks).unwrap_or(i64::MAX);
    sum.floating_ips = i64::try_from(addresses).unwrap_or(i64::MAX);
    Ok(sum)
}

/// What the servers of a project will take more when they have been resized.
async fn growth(database: &impl ConnectionTrait, project_id: &str) -> Result<Amounts, DbErr> {
    let resized = server::Entity::find()
        .filter(server::Column::ProjectId.eq(project_id))
        .filter(server::Column::DeletedAt.is_null())
        .filter(server::Column::Task.eq(RESIZING))
        .all(database)
        .await?;
    let flavors = flavor::Entity::find()
        .filter(flavor::Column::Id.is_in(resized.iter().map(|server| server.flavor_id)))
        .all(database)
        .await?;
    let intents = intent::Entity::find()
        .filter(intent::Column::Id.is_in(resized.iter().filter_map(|server| server.task_intent)))
        .all(database)
        .await?;
    let mut sum = Amounts::default();
    for server in &resized {
        let old = flavors.iter().find(|flavor| flavor.id == server.flavor_id);
        let asked = intents
            .iter()
            .find(|row| Some(row.id) == server.task_intent);
        let Some((old, asked)) = old.zip(asked) else {
            continue;
        };
        let more = |name: &str, old: i64| {
            let wanted = asked.request.pointer(&format!("/body/beparams/{name}"));
            let wanted = wanted.and_then(serde_json::Value::as_i64).unwrap_or(old);
            wanted.saturating_sub(old).max(0)
        };
        sum.add(&Amounts {
            total_cpu: more("vcpus", old.vcpus),
            total_ram: more("maxmem", old.ram),
            ..Amounts::default()
        });
    }
    Ok(sum)
}

/// Makes sure that the caller's project may take `more`; until the transaction ends nobody else
/// takes anything for the project.
///
/// # Errors
/// 413 naming the resource, its limit and its use.
pub async fn take(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    more: &Amounts,
) -> Result<(), Fault> {
    project::Entity::find_by_id(caller.project_id.as_str())
        .lock_exclusive()
        .one(transaction)
        .await?;
    let limits = limits(transaction, &caller.project_id).await?;
    if limits.0.is_empty() {
        return Ok(());
    }
    let used = usage(transaction, &caller.project_id).await?;
    for resource in Resource::ALL {
        let wanted = more.of(resource);
        if let Some(limit) = limits.of(resource)
            && wanted > 0
            && used.of(resource).saturating_add(wanted) > limit
        {
            return Err(Fault::over_limit(format!(
                "quota: {}: {wanted} more than the {} in use is over the limit of {limit}",
                resource.name(),
                used.of(resource)
            )));
        }
    }
    Ok(())
}
