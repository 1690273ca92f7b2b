//! `POST /servers`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder,
};
use serde_json::json;

use super::order::{Order, WantedNic};
use super::rows::Rows;
use super::{find, metadata, placement, view};
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::network;
use crate::api::quota::{self, Amounts};
use crate::dispatch::{machine, nics};
use crate::ganeti::addresses::{self, AddressError, Holder};
use crate::ganeti::request::{self, Creation, Nic};
use crate::ganeti::submission::Outcome;
use crate::ganeti::{intent, measurement};
use crate::model::entity::{
    address, backend, flavor, image, intent as intent_row, keypair, network as network_row, port,
    server, server_metadata, subnet, volume,
};
use crate::model::{database, moment};

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<Response, Fault> {
    let order = Order::parse(&body)?;
    let flavor = find::flavor(api.database(), &caller, &order.flavor).await?;
    if !flavor.allow_create || flavor.deleted_at.is_some() {
        return Err(Fault::forbidden(format!(
            "flavor {} is not for new servers",
            flavor.id
        )));
    }
    let image = find::image(api.database(), &caller, &order.image).await?;
    if let Some(name) = &order.key_name {
        keypair::Entity::find()
            .filter(keypair::Column::UserId.eq(caller.user_id.as_str()))
            .filter(keypair::Column::Name.eq(name.as_str()))
            .one(api.database())
            .await?
            .ok_or_else(|| Fault::not_found("keypair", name))?;
    }
    suits(&image, &flavor)?;
    // Outside of the transaction: it asks the clusters.
    measurement::measure_all(api.ganeti()).await?;
    let (server, intent, flavor) = write_down(&api, &caller, order, flavor, &image).await?;
    if let Outcome::NotSent(error) = api.ganeti().submit(intent).await? {
        tracing::error!(server = server.id, %error, "Ganeti was not asked");
        undo(&api, &server, intent, &flavor, &error.to_string()).await?;
        return Err(Fault::unavailable(
            "no cluster can be asked for a server now; nothing was kept",
        ));
    }
    let rows = Rows::of(api.database(), std::slice::from_ref(&server)).await?;
    let body = json!({"server": view::full(&caller, &server, &rows)});
    let location = caller.url(&format!("/compute/v2.0/servers/{}", server.id));
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(body),
    )
        .into_response())
}

fn suits(image: &image::Model, flavor: &flavor::Model) -> Result<(), Fault> {
    if flavor.ram < image.min_ram || flavor.disk < image.min_disk {
        return Err(Fault::bad_request(format!(
            "server.flavorRef: {}: the image needs at least {} MiB of memory and {} GiB of disk",
            flavor.id, image.min_ram, image.min_disk
        )));
    }
    Ok(())
}

/// Everything that a new server is, in one transaction.
async fn write_down(
    api: &Context,
    caller: &Caller,
    order: Order,
    flavor: flavor::Model,
    image: &image::Model,
) -> Result<(server::Model, i64, flavor::Model), Fault> {
    let transaction = database::write(api.database()).await?;
    let wanted = match order.networks {
        Some(networks) => networks,
        None => default_networks(&transaction).await?,
    };
    quota::take(&transaction, caller, &Amounts::of_servers(&flavor, 1, true)).await?;
    let backend = placement::place(&transaction, &flavor).await?;
    let server = insert_server(
        &transaction,
        caller,
        &order.name,
        order.key_name,
        &flavor,
        image,
        &backend,
    )
    .await?;
    metadata::put(&transaction, server.id, order.metadata).await?;
    let volume_id = insert_volume(&transaction, &server, &flavor).await?;
    let mut nics = Vec::new();
    for (index, nic) in wanted.iter().enumerate() {
        nics.push(insert_nic(&transaction, caller, &server, Some(index), nic).await?);
    }
    let creation = Creation {
        server_id: server.id,
        backend: &backend,
        flavor: &flavor,
        image,
        volume_id,
        nics: &nics,
        tags: &[],
    };
    let request = request::create(&api.ganeti().naming, &creation);
    let intent = intent::write(
        &transaction,
        backend.id,
        intent::CREATE,
        Some(server.id),
        None,
        &request,
    )
    .await?;
    let mut row = server.into_active_model();
    row.task = ActiveValue::Set(Some("BUILDING".to_owned()));
    row.task_intent = ActiveValue::Set(Some(intent.id));
    let server = row.update(&transaction).await?;
    transaction.commit().await?;
    Ok((server, intent.id, flavor))
}

/// Who names no network gets a NIC in the first public one, if there is one.
async fn default_networks(transaction: &DatabaseTransaction) -> Result<Vec<WantedNic>, Fault> {
    let first = network_row::Entity::find()
        .filter(network_row::Column::Public.eq(true))
        .filter(network_row::Column::FloatingIpPool.eq(false))
        .filter(network_row::Column::Drained.eq(false))
        .filter(network_row::Column::DeletedAt.is_null())
        .order_by_asc(network_row::Column::Id)
        .one(transaction)
        .await?;
    Ok(first
        .into_iter()
        .map(|network| WantedNic {
            network: network.id.to_string(),
            address: None,
        })
        .collect())
}

async fn insert_server(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    name: &str,
    key_name: Option<String>,
    flavor: &flavor::Model,
    image: &image::Model,
    backend: &backend::Model,
) -> Result<server::Model, Fault> {
    let now = moment::now();
    Ok(server::ActiveModel {
        id: ActiveValue::NotSet,
        name: ActiveValue::Set(name.to_owned()),
        user_id: ActiveValue::Set(caller.user_id.clone()),
        project_id: ActiveValue::Set(caller.project_id.clone()),
        flavor_id: ActiveValue::Set(flavor.id),
        image_id: ActiveValue::Set(image.id.clone()),
        backend_id: ActiveValue::Set(backend.id),
        key_name: ActiveValue::Set(key_name),
        state: ActiveValue::Set(machine::BUILD.to_owned()),
        progress: ActiveValue::Set(0),
        task: ActiveValue::Set(None),
        task_intent: ActiveValue::Set(None),
        task_job: ActiveValue::Set(None),
        suspended: ActiveValue::Set(false),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
        job_id: ActiveValue::Set(0),
        job_rank: ActiveValue::Set(0),
        job_time: ActiveValue::Set(0),
        job_opcode: ActiveValue::Set(None),
        job_status: ActiveValue::Set(None),
        job_log: ActiveValue::Set(None),
        state_job: ActiveValue::Set(0),
        state_rank: ActiveValue::Set(0),
        state_time: ActiveValue::Set(0),
        nics_job: ActiveValue::Set(0),
        nics_rank: ActiveValue::Set(0),
        nics_time: ActiveValue::Set(0),
        shape_job: ActiveValue::Set(0),
        shape_rank: ActiveValue::Set(0),
        shape_time: ActiveValue::Set(0),
    }
    .insert(transaction)
    .await?)
}

/// The root disk; a flavor without disks has none.
async fn insert_volume(
    transaction: &DatabaseTransaction,
    server: &server::Model,
    flavor: &flavor::Model,
) -> Result<Option<i64>, Fault> {
    if flavor.disk_template == "diskless" {
        return Ok(None);
    }
    let volume = volume::ActiveModel {
        id: ActiveValue::NotSet,
        server_id: ActiveValue::Set(server.id),
        name: ActiveValue::Set(format!("root disk of {}", server.id)),
        user_id: ActiveValue::Set(server.user_id.clone()),
        project_id: ActiveValue::Set(server.project_id.clone()),
        size: ActiveValue::Set(flavor.disk),
        disk_index: ActiveValue::Set(0),
        status: ActiveValue::Set("IN_USE".to_owned()),
        created_at: ActiveValue::Set(server.created_at),
        updated_at: ActiveValue::Set(server.created_at),
        deleted_at: ActiveValue::Set(None),
    }
    .insert(transaction)
    .await?;
    Ok(Some(volume.id))
}

/// A NIC of a server, with its address.
pub async fn insert_nic(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    server: &server::Model,
    index: Option<usize>,
    wanted: &WantedNic,
) -> Result<Nic, Fault> {
    let network = network::find::usable(transaction, caller, &wanted.network).await?;
    let v4 = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.eq(network.id))
        .filter(subnet::Column::IpVersion.eq(4))
        .filter(subnet::Column::Live.eq(true))
        .one(transaction)
        .await?;
    let now = moment::now();
    let port = port::ActiveModel {
        id: ActiveValue::NotSet,
        name: ActiveValue::Set(String::new()),
        user_id: ActiveValue::Set(caller.user_id.clone()),
        project_id: ActiveValue::Set(caller.project_id.clone()),
        network_id: ActiveValue::Set(network.id),
        server_id: ActiveValue::Set(Some(server.id)),
        state: ActiveValue::Set(nics::BUILD.to_owned()),
        nic_index: ActiveValue::Set(index.and_then(|index| i32::try_from(index).ok())),
        mac: ActiveValue::Set(None),
        ipv4: ActiveValue::Set(None),
        ipv6: ActiveValue::Set(None),
        firewall: ActiveValue::Set(None),
        floating: ActiveValue::Set(false),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    }
    .insert(transaction)
    .await?;
    let port_id = port.id;
    let address = match v4 {
        Some(subnet) => {
            let holder = Holder {
                user_id: &caller.user_id,
                project_id: &caller.project_id,
                port_id: Some(port_id),
                floating: false,
            };
            let taken = addresses::take(transaction, &subnet, wanted.address, &holder)
                .await
                .map_err(refusal)?;
            let mut row = port.into_active_model();
            row.ipv4 = ActiveValue::Set(Some(taken.address.clone()));
            row.update(transaction).await?;
            Some(taken.address)
        }
        None => match wanted.address {
            Some(address) => {
                return Err(Fault::field(
                    "fixed_ip",
                    address,
                    "the network has no IPv4 subnet",
                ));
            }
            None => None,
        },
    };
    Ok(Nic {
        port_id,
        network_id: network.id,
        address,
    })
}

/// What a user is told who gets no address.
pub fn refusal(error: AddressError) -> Fault {
    match error {
        AddressError::Database(error) => error.into(),
        AddressError::Outside { .. } => Fault::bad_request(error.to_string()),
        AddressError::Exhausted(_) | AddressError::Taken(_) => Fault::conflict(error.to_string()),
        AddressError::BadSubnet(..) => Fault::internal(error),
    }
}

/// Takes back all of [`write_down`]: Ganeti has never heard of the server.
async fn undo(
    api: &Context,
    server: &server::Model,
    intent_id: i64,
    flavor: &flavor::Model,
    reason: &str,
) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    if !intent::end(&transaction, intent_id, intent::DROPPED, reason).await? {
        return Ok(());
    }
    let ports: Vec<i64> = port::Entity::find()
        .filter(port::Column::ServerId.eq(server.id))
        .all(&transaction)
        .await?
        .into_iter()
        .map(|port| port.id)
        .collect();
    address::Entity::delete_many()
        .filter(address::Column::PortId.is_in(ports))
        .filter(address::Column::Floating.eq(false))
        .exec(&transaction)
        .await?;
    port::Entity::delete_many()
        .filter(port::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
    volume::Entity::delete_many()
        .filter(volume::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
    server_metadata::Entity::delete_many()
        .filter(server_metadata::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
    intent_row::Entity::delete_by_id(intent_id)
        .exec(&transaction)
        .await?;
    server::Entity::delete_by_id(server.id)
        .exec(&transaction)
        .await?;
    placement::book(&transaction, server.backend_id, flavor, -1).await?;
    transaction.commit().await?;
    Ok(())
}
