//! Asking a cluster whether what a message says is gone is gone.

use agents::message::EventTime;
use serde_json::Value;

use super::outcome::RouteError;
use crate::ganeti::job::{self, Told};
use crate::ganeti::rapi::Rapi;

/// A message that tells of the end of an object.
pub struct Removal<'a> {
    /// The object's name.
    pub object: &'a str,
    pub operation: &'a str,
    pub job: u64,
}

/// Holds a successful removal against what the cluster has under the name: `found`. Returns
/// whether the object is gone.
///
/// # Errors
/// [`RouteError::Poison`]: the cluster has it, and no such job. [`RouteError::Transient`]: its job
/// has succeeded, and the cluster still lists the object, which it will not do for long.
pub async fn is_gone(
    rapi: &Rapi,
    found: Option<&Value>,
    removal: &Removal<'_>,
) -> Result<bool, RouteError> {
    let Some(found) = found else {
        return Ok(true);
    };
    let Removal {
        object,
        operation,
        job,
    } = removal;
    let answer = rapi.get(&format!("/2/jobs/{job}"), &[]).await?;
    let ended = job::tell(&answer, "").into_iter().find_map(|told| {
        let (name, opcode, status, time) = match told {
            Told::Op(told) => (told.instance, told.operation, told.status, told.event_time),
            Told::Network(told) => (told.network, told.operation, told.status, told.event_time),
        };
        (name == *object && opcode == *operation && status == "success").then_some(time)
    });
    match ended {
        Some(ended) if is_younger(found, ended) => Ok(false),
        Some(_) => Err(RouteError::Transient(format!(
            "job {job} has removed {object}, and the cluster still lists it"
        ))),
        None => Err(RouteError::Poison(format!(
            "{operation} success of {object}: the cluster has it, and job {job} there did not \
             remove it"
        ))),
    }
}

/// Returns whether an object was made after a time: it has only the name of what was removed then.
fn is_younger(found: &Value, time: EventTime) -> bool {
    let made = found.get("ctime").and_then(Value::as_f64);
    made.is_some_and(|made| made > time.since_epoch().as_secs_f64())
}
