//! Measuring the clusters: what they have, what they can, what they call themselves.

use std::sync::Arc;

use sea_orm::{ActiveModelTrait, ActiveValue, DbErr, EntityTrait, IntoActiveModel};
use serde_json::{Value, json};

use super::capacity::{self, Capacity};
use super::rapi::RapiError;
use super::submission::Submitter;
use crate::model::entity::backend;
use crate::model::moment;

/// How old a measurement may be when a server is placed by it, in microseconds.
pub const FRESH: i64 = 60_000_000;

/// Why a cluster could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// RAPI failed.
    #[error(transparent)]
    Rapi(#[from] RapiError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Asks a cluster what it has and writes it down.
///
/// # Errors
/// See [`MeasureError`].
pub async fn measure(
    ganeti: &Arc<Submitter>,
    backend: &backend::Model,
) -> Result<backend::Model, MeasureError> {
    let rapi = ganeti.clients.of(backend)?;
    let nodes = rapi.get("/2/nodes", &[("bulk", "1")]).await?;
    let info = rapi.get("/2/info", &[]).await?;
    let text = |name: &str| info.get(name).and_then(Value::as_str).map(str::to_owned);
    let capacity = Capacity::of_nodes(&nodes);
    let mut row = backend.clone().into_active_model();
    row.memory_total = ActiveValue::Set(capacity.memory_total);
    row.memory_free = ActiveValue::Set(capacity.memory_free);
    row.disk_total = ActiveValue::Set(capacity.disk_total);
    row.disk_free = ActiveValue::Set(capacity.disk_free);
    row.cpus = ActiveValue::Set(capacity.cpus);
    row.instances = ActiveValue::Set(capacity.instances);
    row.disk_templates = ActiveValue::Set(json!(capacity::disk_templates(&info)));
    row.version = ActiveValue::Set(text("software_version"));
    row.cluster = ActiveValue::Set(text("name"));
    row.measured_at = ActiveValue::Set(Some(moment::now()));
    Ok(row.update(&ganeti.database).await?)
}

/// Measures every cluster whose measurement is not fresh; one that does not answer is logged
/// and keeps its old measurement.
///
/// # Errors
/// The database fails.
pub async fn measure_all(ganeti: &Arc<Submitter>) -> Result<(), DbErr> {
    let oldest = moment::now().saturating_sub(FRESH);
    for backend in backend::Entity::find().all(&ganeti.database).await? {
        if backend.offline || backend.measured_at.is_some_and(|at| at > oldest) {
            continue;
        }
        match measure(ganeti, &backend).await {
            Ok(_) => {}
            Err(MeasureError::Database(error)) => return Err(error),
            Err(MeasureError::Rapi(error)) => {
                tracing::warn!(backend = %backend.name, %error, "cannot be measured");
            }
        }
    }
    Ok(())
}
