//! Instances that carry our prefix and have no row here: an operator adopts or removes them.

use std::sync::Arc;

use agents::message::{InstanceDisk, InstanceNic};
use reqwest::Method;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use super::seen::{self, Seen};
use crate::dispatch::outcome::RouteError;
use crate::dispatch::{disks, labels, machine, nics};
use crate::ganeti::label;
use crate::ganeti::rapi::RapiError;
use crate::ganeti::submission::Submitter;
use crate::model::entity::{
    backend, flavor, image, network, port, repair as audit, server, volume,
};
use crate::model::ids::{self, Ids};
use crate::model::register::Order;
use crate::model::{database, moment};

/// The state of a disk that a server has.
const IN_USE: &str = "IN_USE";

/// A refusal to adopt or remove an instance.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// RAPI failed.
    #[error(transparent)]
    Rapi(#[from] RapiError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// It cannot be done, for this reason.
    #[error("{0}")]
    Refused(String),
}

impl From<RouteError> for AdoptionError {
    fn from(error: RouteError) -> Self {
        Self::Refused(error.to_string())
    }
}

fn refused<T>(reason: impl Into<String>) -> Result<T, AdoptionError> {
    Err(AdoptionError::Refused(reason.into()))
}

/// The parts of a server.
pub struct Adoption<'a> {
    /// The name of the instance.
    pub instance: &'a str,
    pub project_id: &'a str,
    pub user_id: &'a str,
    /// None: the flavor with the shape and the disks that the instance has.
    pub flavor_id: Option<i64>,
    /// None: the only image with the OS that the instance has.
    pub image_id: Option<&'a str>,
    /// The name that users see; none: that of the instance.
    pub name: Option<&'a str>,
}

/// The result of an adoption.
#[derive(Debug)]
pub struct Adopted {
    pub server_id: i64,
    pub flavor: String,
    pub image: String,
    /// The parts that were left out, each with the reason.
    pub notes: Vec<String>,
}

/// Makes the rows of a server of an instance that has none.
///
/// # Errors
/// See [`AdoptionError`].
pub async fn adopt(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
    adoption: &Adoption<'_>,
) -> Result<Adopted, AdoptionError> {
    let name = adoption.instance;
    let naming = &ganeti.naming;
    let Some(id) = naming.instance_id(name) else {
        let example = naming.instance(42);
        return refused(format!(
            "{name:?}: not a name of this prefix, as {example} is"
        ));
    };
    let rapi = ganeti.clients.of(backend)?;
    // The jobs before the instance, as the reconciler does.
    let last_job = Seen::look(&rapi, naming, 0).await?.last_job;
    let Some(raw) = rapi.instance(name).await? else {
        return refused(format!("backend {} has no instance {name}", backend.name));
    };
    let instance = match seen::instance(raw.clone()) {
        Ok(instance) => instance,
        Err(error) => return refused(format!("{name}: {error}")),
    };
    let now = moment::now();
    let order = Order::looked(last_job, now);
    let transaction = database::write(&ganeti.database).await?;
    let old = server::Entity::find_by_id(id)
        .lock_exclusive()
        .one(&transaction)
        .await?;
    if old.as_ref().is_some_and(|row| row.deleted_at.is_none()) {
        return refused(format!("server {id} is there already"));
    }
    let shape = instance.shape;
    let flavor = flavor_of(
        &transaction,
        adoption.flavor_id,
        &raw,
        shape,
        &instance.disks,
    )
    .await?;
    let image = image_of(&transaction, adoption.image_id, &raw).await?;
    let state = match instance.running {
        Some(false) => machine::STOPPED,
        _ => machine::STARTED,
    };
    let row = server::ActiveModel {
        id: ActiveValue::Set(id),
        name: ActiveValue::Set(adoption.name.unwrap_or(name).to_owned()),
        user_id: ActiveValue::Set(adoption.user_id.to_owned()),
        project_id: ActiveValue::Set(adoption.project_id.to_owned()),
        flavor_id: ActiveValue::Set(flavor.id),
        image_id: ActiveValue::Set(image.id.clone()),
        backend_id: ActiveValue::Set(backend.id),
        key_name: ActiveValue::Set(None),
        state: ActiveValue::Set(state.to_owned()),
        progress: ActiveValue::Set(100),
        task: ActiveValue::Set(None),
        task_intent: ActiveValue::Set(None),
        task_job: ActiveValue::Set(None),
        suspended: ActiveValue::Set(false),
        rescue: ActiveValue::Set(instance.rescue.unwrap_or(false)),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
        job_id: ActiveValue::Set(order.job),
        job_rank: ActiveValue::Set(order.rank),
        job_time: ActiveValue::Set(order.time),
        job_opcode: ActiveValue::Set(None),
        job_status: ActiveValue::Set(None),
        job_log: ActiveValue::Set(None),
        state_job: ActiveValue::Set(order.job),
        state_rank: ActiveValue::Set(order.rank),
        state_time: ActiveValue::Set(order.time),
        nics_job: ActiveValue::Set(order.job),
        nics_rank: ActiveValue::Set(order.rank),
        nics_time: ActiveValue::Set(order.time),
        shape_job: ActiveValue::Set(order.job),
        shape_rank: ActiveValue::Set(order.rank),
        shape_time: ActiveValue::Set(order.time),
    };
    let server = match old {
        None => row.insert(&transaction).await?,
        Some(_) => row.update(&transaction).await?,
    };
    let mut rows = Rows {
        ganeti,
        transaction: &transaction,
        server: &server,
        now,
        floor: Ids {
            server: id,
            ..Ids::default()
        },
        notes: Vec::new(),
    };
    for (index, nic) in instance.nics.iter().enumerate() {
        rows.nic(index, nic).await?;
    }
    for (index, disk) in instance.disks.iter().enumerate() {
        rows.disk(index, disk).await?;
    }
    let Rows { floor, notes, .. } = rows;
    let absent = nics::Absent::Active;
    nics::make_so(naming, &transaction, &server, &instance.nics, absent).await?;
    let names = instance.tags.iter().filter_map(|tag| label::of_tag(tag));
    labels::make_so(&transaction, id, &names.collect(), order).await?;
    note(&transaction, backend, id, "adopted", name, None).await?;
    transaction.commit().await?;
    // A number that was named and not given out is not given out again.
    ids::raise(&ganeti.database, floor).await?;
    Ok(Adopted {
        server_id: id,
        flavor: flavor.name,
        image: image.name,
        notes,
    })
}

/// The parts of a server that is being adopted.
struct Rows<'a> {
    ganeti: &'a Arc<Submitter>,
    transaction: &'a DatabaseTransaction,
    server: &'a server::Model,
    now: i64,
    /// The numbers in the names of the parts.
    floor: Ids,
    notes: Vec<String>,
}

impl Rows<'_> {
    async fn nic(&mut self, index: usize, nic: &InstanceNic) -> Result<(), AdoptionError> {
        let naming = &self.ganeti.naming;
        let shown = format!(
            "NIC {index} ({}, {})",
            nic.name.as_deref().unwrap_or("no name"),
            nic.mac
        );
        let Some(id) = nic.name.as_deref().and_then(|name| naming.nic_id(name)) else {
            self.notes
                .push(format!("{shown} is left out: its name is not ours"));
            return Ok(());
        };
        let network_name = nic.network.as_deref().unwrap_or("no network");
        let network = match naming.network_id(network_name) {
            Some(network) => {
                network::Entity::find_by_id(network)
                    .filter(network::Column::DeletedAt.is_null())
                    .one(self.transaction)
                    .await?
            }
            None => None,
        };
        let Some(network) = network else {
            let reason = format!("{network_name} is no network of ours");
            self.notes.push(format!("{shown} is left out: {reason}"));
            return Ok(());
        };
        let old = port::Entity::find_by_id(id).one(self.transaction).await?;
        if let Some(old) = &old
            && old.deleted_at.is_none()
        {
            return refused(format!("{shown}: port {id} is there already"));
        }
        let row = port::ActiveModel {
            id: ActiveValue::Set(id),
            name: ActiveValue::Set(String::new()),
            user_id: ActiveValue::Set(self.server.user_id.clone()),
            project_id: ActiveValue::Set(self.server.project_id.clone()),
            network_id: ActiveValue::Set(network.id),
            server_id: ActiveValue::Set(Some(self.server.id)),
            state: ActiveValue::Set(nics::ACTIVE.to_owned()),
            nic_index: ActiveValue::Set(i32::try_from(index).ok()),
            mac: ActiveValue::Set(None),
            ipv4: ActiveValue::Set(None),
            ipv6: ActiveValue::Set(None),
            firewall: ActiveValue::Set(None),
            floating: ActiveValue::Set(false),
            created_at: ActiveValue::Set(self.now),
            updated_at: ActiveValue::Set(self.now),
            deleted_at: ActiveValue::Set(None),
        };
        match old {
            None => row.insert(self.transaction).await?,
            Some(_) => row.update(self.transaction).await?,
        };
        Ids::note(&mut self.floor.nic, Some(id));
        Ok(())
    }

    async fn disk(&mut self, index: usize, disk: &InstanceDisk) -> Result<(), AdoptionError> {
        let naming = &self.ganeti.naming;
        let id = disk.name.as_deref().and_then(|name| naming.volume_id(name));
        let old = match id {
            Some(id) => volume::Entity::find_by_id(id).one(self.transaction).await?,
            None => None,
        };
        if let Some(old) = &old
            && old.deleted_at.is_none()
        {
            return refused(format!("disk {index}: volume {} is there already", old.id));
        }
        let row = volume::ActiveModel {
            id: id.map_or(ActiveValue::NotSet, ActiveValue::Set),
            server_id: ActiveValue::Set(self.server.id),
            name: ActiveValue::Set(format!("disk {index} of {}", self.server.id)),
            user_id: ActiveValue::Set(self.server.user_id.clone()),
            project_id: ActiveValue::Set(self.server.project_id.clone()),
            size: ActiveValue::Set(disks::gib(disk.size)),
            disk_index: ActiveValue::Set(i32::try_from(index).unwrap_or(i32::MAX)),
            status: ActiveValue::Set(IN_USE.to_owned()),
            created_at: ActiveValue::Set(self.now),
            updated_at: ActiveValue::Set(self.now),
            deleted_at: ActiveValue::Set(None),
        };
        match old {
            None => row.insert(self.transaction).await?,
            Some(_) => row.update(self.transaction).await?,
        };
        Ids::note(&mut self.floor.volume, id);
        Ok(())
    }
}

async fn flavor_of(
    transaction: &DatabaseTransaction,
    wanted: Option<i64>,
    raw: &Value,
    shape: Option<(i64, i64)>,
    list: &[InstanceDisk],
) -> Result<flavor::Model, AdoptionError> {
    if let Some(id) = wanted {
        return match flavor::Entity::find_by_id(id).one(transaction).await? {
            Some(flavor) => Ok(flavor),
            None => refused(format!("there is no flavor {id}")),
        };
    }
    let template = raw.get("disk_template").and_then(Value::as_str);
    let (Some((vcpus, ram)), Some(template)) = (shape, template) else {
        return refused("the cluster does not say which shape it has: name a flavor");
    };
    let disk = list.first().map_or(0, |disk| disks::gib(disk.size));
    let found = flavor::Entity::find()
        .filter(flavor::Column::Vcpus.eq(vcpus))
        .filter(flavor::Column::Ram.eq(ram))
        .filter(flavor::Column::Disk.eq(disk))
        .filter(flavor::Column::DiskTemplate.eq(template))
        .filter(flavor::Column::DeletedAt.is_null())
        .order_by_asc(flavor::Column::Id)
        .one(transaction)
        .await?;
    match found {
        Some(flavor) => Ok(flavor),
        None => refused(format!(
            "no flavor has {vcpus} vcpus, {ram} MiB of memory and {disk} GiB of disk on \
             {template}: make one, or name another"
        )),
    }
}

async fn image_of(
    transaction: &DatabaseTransaction,
    wanted: Option<&str>,
    raw: &Value,
) -> Result<image::Model, AdoptionError> {
    if let Some(id) = wanted {
        return match image::Entity::find_by_id(id).one(transaction).await? {
            Some(image) => Ok(image),
            None => refused(format!("there is no image {id}")),
        };
    }
    let os = raw.get("os").and_then(Value::as_str).unwrap_or_default();
    let mut found = image::Entity::find()
        .filter(image::Column::Os.eq(os))
        .filter(image::Column::DeletedAt.is_null())
        .limit(2)
        .all(transaction)
        .await?;
    match (found.pop(), found.is_empty()) {
        (Some(image), true) => Ok(image),
        (None, _) => refused(format!("no image has the OS {os:?}: name one")),
        (Some(_), false) => refused(format!("several images have the OS {os:?}: name one")),
    }
}

/// Asks a cluster to remove an instance that has no row, with its disks; returns the job.
///
/// # Errors
/// See [`AdoptionError`].
pub async fn remove(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
    name: &str,
) -> Result<i64, AdoptionError> {
    let Some(id) = ganeti.naming.instance_id(name) else {
        let example = ganeti.naming.instance(42);
        return refused(format!(
            "{name:?}: not a name of this prefix, as {example} is"
        ));
    };
    let rapi = ganeti.clients.of(backend)?;
    if rapi.instance(name).await?.is_none() {
        return refused(format!("backend {} has no instance {name}", backend.name));
    }
    let known = server::Entity::find_by_id(id)
        .filter(server::Column::DeletedAt.is_null())
        .filter(server::Column::BackendId.eq(backend.id))
        .one(&ganeti.database)
        .await?;
    if known.is_some() {
        return refused(format!(
            "server {id} is known: it is deleted by the API, with all that it has"
        ));
    }
    let entry = note(&ganeti.database, backend, id, "removed", name, None).await?;
    let reason = format!("snf-central:{}:operator", ganeti.naming.prefix());
    let path = format!("/2/instances/{name}");
    let body = json!({});
    let job = rapi
        .submit(Method::DELETE, &path, &[], Some(&body), &reason)
        .await?;
    let mut entry = entry.into_active_model();
    entry.job_id = ActiveValue::Set(Some(job));
    entry.update(&ganeti.database).await?;
    Ok(job)
}

/// An entry in the audit of the reconciler: an operator did this.
async fn note(
    database: &impl sea_orm::ConnectionTrait,
    backend: &backend::Model,
    server: i64,
    what: &str,
    instance: &str,
    job: Option<i64>,
) -> Result<audit::Model, DbErr> {
    audit::ActiveModel {
        id: ActiveValue::NotSet,
        created_at: ActiveValue::Set(moment::now()),
        backend_id: ActiveValue::Set(Some(backend.id)),
        object: ActiveValue::Set(format!("server {server}")),
        what: ActiveValue::Set(what.to_owned()),
        before: ActiveValue::Set("-".to_owned()),
        after: ActiveValue::Set(format!("{instance}, by an operator")),
        job_id: ActiveValue::Set(job),
    }
    .insert(database)
    .await
}
