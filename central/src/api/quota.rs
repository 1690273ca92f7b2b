//! How much a project may have.
//!
//! Usage is counted, not kept: a number that is kept has to be repaired one day. Who takes
//! something locks the project's row before counting, so two who take the last of it at once
//! cannot both get it.
//!
//! A limit is what an operator set for the project, or the default of the resource.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, Query, SelectStatement};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QuerySelect, QueryTrait, Select,
};

use super::caller::Caller;
use super::fault::Fault;
use super::task::{REBOOTING, RESIZING, STARTING};
use crate::dispatch::machine;
use crate::model::entity::{
    address, flavor, image, intent, keypair, network, port, project, project_limit, quota, server,
    subnet, user, volume,
};

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
    /// Disks of servers.
    Volumes,
    /// All ports: the NICs of servers, and those on no server.
    Ports,
    /// Ports on no server.
    UnattachedPorts,
    /// Subnets of the project's networks.
    Subnets,
    Images,
    /// SSH keys of each of the project's users.
    Keypairs,
}

/// The limit of a project that says that a resource has none, whatever its default is.
pub const UNLIMITED: i64 = -1;

impl Resource {
    pub const ALL: [Self; 14] = [
        Self::Servers,
        Self::TotalCpu,
        Self::Cpu,
        Self::TotalRam,
        Self::Ram,
        Self::Disk,
        Self::PrivateNetworks,
        Self::FloatingIps,
        Self::Volumes,
        Self::Ports,
        Self::UnattachedPorts,
        Self::Subnets,
        Self::Images,
        Self::Keypairs,
    ];

    /// The limit of a project for which an operator set none; none: no limit. What takes room on
    /// the clusters, and what comes with a server, is for operators to limit; all else costs only
    /// rows, of which nobody needs more than so many.
    pub fn default_limit(self) -> Option<i64> {
        match self {
            Self::Servers
            | Self::TotalCpu
            | Self::Cpu
            | Self::TotalRam
            | Self::Ram
            | Self::Disk
            | Self::Volumes
            | Self::Ports => None,
            Self::FloatingIps => Some(50),
            Self::PrivateNetworks
            | Self::UnattachedPorts
            | Self::Subnets
            | Self::Images
            | Self::Keypairs => Some(100),
        }
    }

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
            Self::Volumes => "volumes",
            Self::Ports => "ports",
            Self::UnattachedPorts => "unattached_ports",
            Self::Subnets => "subnets",
            Self::Images => "images",
            Self::Keypairs => "keypairs",
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
            Self::Volumes => "cyclades.volume",
            Self::Ports => "cyclades.port",
            Self::UnattachedPorts => "cyclades.port.unattached",
            Self::Subnets => "cyclades.subnet",
            Self::Images => "cyclades.image",
            Self::Keypairs => "cyclades.keypair",
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
    pub volumes: i64,
    pub ports: i64,
    pub unattached_ports: i64,
    pub subnets: i64,
    pub images: i64,
    /// Of one user.
    pub keypairs: i64,
}

impl Amounts {
    /// Nothing.
    pub const NONE: Self = Self {
        servers: 0,
        total_cpu: 0,
        cpu: 0,
        total_ram: 0,
        ram: 0,
        disk: 0,
        private_networks: 0,
        floating_ips: 0,
        volumes: 0,
        ports: 0,
        unattached_ports: 0,
        subnets: 0,
        images: 0,
        keypairs: 0,
    };

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
            volumes: match flavor.disk_template.as_str() {
                "diskless" => 0,
                _ => count,
            },
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
            Resource::Volumes => self.volumes,
            Resource::Ports => self.ports,
            Resource::UnattachedPorts => self.unattached_ports,
            Resource::Subnets => self.subnets,
            Resource::Images => self.images,
            Resource::Keypairs => self.keypairs,
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
            (&mut self.volumes, other.volumes),
            (&mut self.ports, other.ports),
            (&mut self.unattached_ports, other.unattached_ports),
            (&mut self.subnets, other.subnets),
            (&mut self.images, other.images),
            (&mut self.keypairs, other.keypairs),
        ];
        for (sum, more) in fields {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The limits of a project.
pub struct Limits(HashMap<String, i64>);

impl Limits {
    pub fn of(&self, resource: Resource) -> Option<i64> {
        match self.0.get(resource.name()) {
            Some(&UNLIMITED) => None,
            Some(limit) => Some(*limit),
            None => resource.default_limit(),
        }
    }
}

/// Reads the limits that a project was granted.
///
/// # Errors
/// The database fails.
pub async fn granted(database: &impl ConnectionTrait, project_id: &str) -> Result<Limits, DbErr> {
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

/// Reads the limits of a project that are in force: of the granted ones and those that its
/// administrators have set, the lower ones.
///
/// # Errors
/// The database fails.
pub async fn limits(database: &impl ConnectionTrait, project_id: &str) -> Result<Limits, DbErr> {
    let granted = granted(database, project_id).await?;
    lowered(database, project_id, &granted).await
}

/// [`limits`] of a project whose granted limits are known.
///
/// # Errors
/// The database fails.
pub async fn lowered(
    database: &impl ConnectionTrait,
    project_id: &str,
    granted: &Limits,
) -> Result<Limits, DbErr> {
    let mut limits = granted.0.clone();
    let own = project_limit::Entity::find()
        .filter(project_limit::Column::ProjectId.eq(project_id))
        .all(database)
        .await?;
    for row in own {
        let resource = Resource::ALL
            .into_iter()
            .find(|known| known.name() == row.resource);
        let granted = resource.and_then(|resource| granted.of(resource));
        let most = granted.map_or(row.most, |granted| row.most.min(granted));
        limits.insert(row.resource, most);
    }
    Ok(Limits(limits))
}

/// Counts what a project has, and the keypairs that its user has.
///
/// # Errors
/// The database fails.
pub async fn usage(
    database: &impl ConnectionTrait,
    project_id: &str,
    user_id: Option<&str>,
) -> Result<Amounts, DbErr> {
    let mut sum = usage_of_servers(database, project_id).await?;
    let user_id = user_id.unwrap_or_default();
    for (resource, count) in rows(database, project_id, user_id, &Resource::ALL).await? {
        let place = match resource {
            Resource::PrivateNetworks => &mut sum.private_networks,
            Resource::FloatingIps => &mut sum.floating_ips,
            Resource::Volumes => &mut sum.volumes,
            Resource::Ports => &mut sum.ports,
            Resource::UnattachedPorts => &mut sum.unattached_ports,
            Resource::Subnets => &mut sum.subnets,
            Resource::Images => &mut sum.images,
            Resource::Keypairs => &mut sum.keypairs,
            _ => continue,
        };
        *place = count;
    }
    Ok(sum)
}

/// Counts the rows of resources that are rows, with one statement.
async fn rows(
    database: &impl ConnectionTrait,
    project_id: &str,
    user_id: &str,
    resources: &[Resource],
) -> Result<Vec<(Resource, i64)>, DbErr> {
    let mut statement = Query::select();
    let mut counted = Vec::new();
    for resource in resources {
        if let Some(count) = counting(project_id, user_id, *resource) {
            statement.expr_as(
                Expr::SubQuery(None, Box::new(count.into())),
                resource.name(),
            );
            counted.push(*resource);
        }
    }
    if counted.is_empty() {
        return Ok(Vec::new());
    }
    let row = database
        .query_one(&statement)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("counts".to_owned()))?;
    counted
        .into_iter()
        .map(|resource| Ok((resource, row.try_get("", resource.name())?)))
        .collect()
}

/// The statement that counts the rows of a resource; none: it is an amount of servers.
fn counting(project_id: &str, user_id: &str, resource: Resource) -> Option<SelectStatement> {
    fn count<E: EntityTrait>(found: Select<E>, id: E::Column) -> SelectStatement {
        found
            .select_only()
            .column_as(id.count(), "rows")
            .into_query()
    }
    let ports = || {
        port::Entity::find()
            .filter(port::Column::ProjectId.eq(project_id))
            .filter(port::Column::DeletedAt.is_null())
    };
    Some(match resource {
        Resource::PrivateNetworks => {
            let found = network::Entity::find()
                .filter(network::Column::ProjectId.eq(project_id))
                .filter(network::Column::Public.eq(false))
                .filter(network::Column::DeletedAt.is_null());
            count(found, network::Column::Id)
        }
        Resource::FloatingIps => {
            let found = address::Entity::find()
                .filter(address::Column::ProjectId.eq(project_id))
                .filter(address::Column::Floating.eq(true))
                .filter(address::Column::Live.eq(true));
            count(found, address::Column::Id)
        }
        Resource::Volumes => {
            let found = volume::Entity::find()
                .filter(volume::Column::ProjectId.eq(project_id))
                .filter(volume::Column::DeletedAt.is_null());
            count(found, volume::Column::Id)
        }
        Resource::Ports => count(ports(), port::Column::Id),
        Resource::UnattachedPorts => count(
            ports().filter(port::Column::ServerId.is_null()),
            port::Column::Id,
        ),
        Resource::Subnets => {
            let of_project = Query::select()
                .column(network::Column::Id)
                .from(network::Entity)
                .and_where(network::Column::ProjectId.eq(project_id))
                .take();
            let found = subnet::Entity::find()
                .filter(subnet::Column::Live.eq(true))
                .filter(subnet::Column::NetworkId.in_subquery(of_project));
            count(found, subnet::Column::Id)
        }
        Resource::Images => {
            let found = image::Entity::find()
                .filter(image::Column::ProjectId.eq(project_id))
                .filter(image::Column::DeletedAt.is_null());
            count(found, image::Column::Id)
        }
        Resource::Keypairs => {
            let found = keypair::Entity::find().filter(keypair::Column::UserId.eq(user_id));
            count(found, keypair::Column::Id)
        }
        _ => return None,
    })
}

/// Counts the servers of a project and what they take.
async fn usage_of_servers(
    database: &impl ConnectionTrait,
    project_id: &str,
) -> Result<Amounts, DbErr> {
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
            // One that is being built or started takes what it will take; a reboot starts, too.
            let running = state != machine::STOPPED && state != machine::ERROR
                || task_is(task, STARTING)
                || task_is(task, REBOOTING);
            sum.add(&Amounts {
                volumes: 0,
                ..Amounts::of_servers(flavor, *count, running)
            });
        }
    }
    if counts.iter().any(|(_, _, task, _)| task_is(task, RESIZING)) {
        sum.add(&growth(database, project_id).await?);
    }
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
/// 403: the project is disabled. 413 naming the resource, its limit and its use.
pub async fn take(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    more: &Amounts,
) -> Result<(), Fault> {
    let project = project::Entity::find_by_id(caller.project_id.as_str())
        .lock_exclusive()
        .one(transaction)
        .await?;
    // The identity of the caller may have been read before this.
    if project.is_some_and(|project| !project.enabled) {
        return Err(Fault::forbidden("the project is disabled"));
    }
    if more.keypairs > 0 {
        // A user is in several projects: their locks do not exclude each other.
        user::Entity::find_by_id(caller.user_id.as_str())
            .lock_exclusive()
            .one(transaction)
            .await?;
    }
    let limits = limits(transaction, &caller.project_id).await?;
    let limited: Vec<(Resource, i64)> = Resource::ALL
        .into_iter()
        .filter(|resource| more.of(*resource) > 0)
        .filter_map(|resource| Some((resource, limits.of(resource)?)))
        .collect();
    let wanted: Vec<Resource> = limited.iter().map(|(resource, _)| *resource).collect();
    let (project, user) = (&caller.project_id, &caller.user_id);
    let counts = rows(transaction, project, user, &wanted).await?;
    let servers = match counts.len() < wanted.len() {
        true => usage_of_servers(transaction, project).await?,
        false => Amounts::NONE,
    };
    for (resource, limit) in limited {
        let row = counts.iter().find(|(counted, _)| *counted == resource);
        let used = row.map_or_else(|| servers.of(resource), |(_, count)| *count);
        let wanted = more.of(resource);
        if used.saturating_add(wanted) > limit {
            return Err(Fault::over_limit(format!(
                "quota: {}: {wanted} more than the {used} in use is over the limit of {limit}",
                resource.name(),
            )));
        }
    }
    Ok(())
}
