//! `POST /servers`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder,
};

use super::order::{Order, Wanted};
use super::personality::{self, Inside};
use super::view::{Full, One};
use super::{detail, metadata, password, placement, tags};
use crate::api::body::Body;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::nic::WantedNic;
use crate::api::parameters::{self, Told};
use crate::api::quota::{self, Amounts};
use crate::api::{admission, find, nic, one_shot};
use crate::config::Parameters;
use crate::dispatch::{machine, nics};
use crate::ganeti::request::{self, Creation};
use crate::ganeti::submission::Outcome;
use crate::ganeti::{intent, label, measurement};
use crate::model::entity::{
    address, backend, flavor, image, intent as intent_row, network as network_row, port, server,
    server_metadata, server_tag, volume,
};
use crate::model::{database, history, moment};

pub async fn create(
    State(api): State<Context>,
    caller: Caller,
    body: Body,
) -> Result<Response, Fault> {
    let order = Order::parse(&body)?;
    // Asked again under locks; here before the clusters are asked.
    find::flavor(api.database(), &caller, &order.flavor).await?;
    find::image(api.database(), &caller, &order.image).await?;
    if api.config().parameters.is_none() && !order.inside.is_empty() {
        return Err(Fault::not_implemented(
            "server: personality, user_data and adminPass: not offered by this cloud",
        ));
    }
    // Outside of the transaction: these ask the clusters.
    admission::creation(&api).await?;
    measurement::measure_all(api.ganeti()).await?;
    let Written {
        server,
        intent,
        flavor,
        password,
        adopted,
    } = write_down(&api, &caller, order).await?;
    if let Outcome::NotSent(error) = api.ganeti().submit(intent).await {
        tracing::error!(server = server.id, %error, "Ganeti was not asked");
        let reason = error.to_string();
        undo(&api, &server, intent, &flavor, &adopted, &reason)
            .await
            .map_err(Fault::after_a_change)?;
        return Err(Fault::unavailable(
            "no cluster can be asked for a server now; nothing was kept",
        ));
    }
    let made = detail::one(api.database(), &caller, &server.id.to_string()).await?;
    let mut server = Full::new(&caller, &made);
    server.admin_pass = password;
    let location = caller.url(&format!("/compute/v2.0/servers/{}", made.id));
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(One { server }),
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

/// What was written down.
struct Written {
    server: server::Model,
    intent: i64,
    flavor: flavor::Model,
    password: Option<String>,
    /// Ports that were there before.
    adopted: Vec<i64>,
}

/// Everything that a new server is, in one transaction.
async fn write_down(api: &Context, caller: &Caller, order: Order) -> Result<Written, Fault> {
    let transaction = database::write(api.database()).await?;
    let flavor = find::open_flavor(&transaction, caller, &order.flavor).await?;
    let image = &find::image_for_server(&transaction, caller, &order.image).await?;
    suits(image, &flavor)?;
    let key = match &order.key_name {
        Some(name) => Some(find::keypair(&transaction, caller, name).await?.public_key),
        None => None,
    };
    let wanted = match order.networks {
        Some(networks) => networks,
        None => default_networks(&transaction).await?,
    };
    let new_ports = wanted
        .iter()
        .filter(|nic| matches!(nic, Wanted::New(_)))
        .count();
    let more = Amounts {
        ports: i64::try_from(new_ports).unwrap_or(i64::MAX),
        ..Amounts::of_servers(&flavor, 1, true)
    };
    quota::take(&transaction, caller, &more).await?;
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
    tags::begin_with(&transaction, server.id, &order.tags).await?;
    let labels: Vec<String> = order
        .tags
        .iter()
        .filter_map(|tag| label::tag(tag))
        .collect();
    let volume_id = insert_volume(&transaction, &server, &flavor).await?;
    let mut nics = Vec::new();
    let mut adopted = Vec::new();
    for (index, wanted) in wanted.iter().enumerate() {
        let index = i32::try_from(index).ok();
        nics.push(match wanted {
            Wanted::New(nic) => {
                nic::insert(&transaction, caller, Some(server.id), index, nic).await?
            }
            Wanted::Port(id) => {
                let nic = nic::adopt(&transaction, caller, server.id, index, id).await?;
                adopted.push(nic.port_id);
                nic
            }
        });
    }
    let told = match &api.config().parameters {
        Some(config) => {
            let inside = &order.inside;
            Some(tell(&transaction, config, caller, server.id, inside, key, image).await?)
        }
        None => None,
    };
    let creation = Creation {
        server_id: server.id,
        backend: &backend,
        flavor: &flavor,
        image,
        volume_id,
        nics: &nics,
        tags: &labels,
        config_url: told.as_ref().map(|(url, _)| url.as_str()),
    };
    let request = request::create(&api.ganeti().naming, &creation).map_err(|error| {
        tracing::error!(image = image.id, %error, "an image that no node may get");
        Fault::conflict(format!("image {} cannot be used: {error}", image.id))
    })?;
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
    Ok(Written {
        server,
        intent: intent.id,
        flavor,
        password: told.map(|(_, password)| password),
        adopted,
    })
}

/// Keeps what the server is told, and the password for its owner; returns where the one is, and
/// the other.
async fn tell(
    transaction: &DatabaseTransaction,
    config: &Parameters,
    caller: &Caller,
    server_id: i64,
    inside: &Inside,
    key: Option<String>,
    image: &image::Model,
) -> Result<(String, String), Fault> {
    let password = match &inside.password {
        Some(password) => password.clone(),
        None => personality::generate()?,
    };
    let told = Told {
        image,
        password: &password,
        personality: &inside.personality,
        user_data: inside.user_data.as_deref(),
        keys: key.as_deref(),
    };
    let url = parameters::keep(transaction, config, server_id, &told).await?;
    password::keep(transaction, caller, server_id, &password, config.life).await?;
    Ok((url, password))
}

/// Who names no network gets a NIC in the first public one, if there is one.
async fn default_networks(transaction: &DatabaseTransaction) -> Result<Vec<Wanted>, Fault> {
    let first = database::lock_for_reading(transaction, network_row::Entity::find())
        .filter(network_row::Column::Public.eq(true))
        .filter(network_row::Column::FloatingIpPool.eq(false))
        .filter(network_row::Column::Drained.eq(false))
        .filter(network_row::Column::DeletedAt.is_null())
        .order_by_asc(network_row::Column::Id)
        .one(transaction)
        .await?;
    Ok(first
        .into_iter()
        .map(|network| {
            Wanted::New(WantedNic {
                network: network.id.to_string(),
                address: None,
            })
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
        rescue: ActiveValue::Set(false),
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

/// Takes back all of [`write_down`]: Ganeti has never heard of the server.
async fn undo(
    api: &Context,
    server: &server::Model,
    intent_id: i64,
    flavor: &flavor::Model,
    adopted: &[i64],
    reason: &str,
) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    if !intent::end(&transaction, intent_id, intent::DROPPED, reason).await? {
        return Ok(());
    }
    // Clusters are locked before ports, as when a server is made.
    placement::book(&transaction, server.backend_id, flavor, -1).await?;
    port::Entity::update_many()
        .col_expr(port::Column::ServerId, Expr::value(None::<i64>))
        .col_expr(port::Column::NicIndex, Expr::value(None::<i32>))
        .col_expr(port::Column::State, Expr::value(nics::DOWN))
        .filter(port::Column::Id.is_in(adopted.iter().copied()))
        .filter(port::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
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
    server_tag::Entity::delete_many()
        .filter(server_tag::Column::ServerId.eq(server.id))
        .exec(&transaction)
        .await?;
    history::forget_server(&transaction, server.id).await?;
    one_shot::forget_server(&transaction, server.id).await?;
    intent_row::Entity::delete_by_id(intent_id)
        .exec(&transaction)
        .await?;
    server::Entity::delete_by_id(server.id)
        .exec(&transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
