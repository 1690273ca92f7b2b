//! Which server had which address, and when: for administrators.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::page::Parameters;
use crate::model::history::{self, Question};

/// `?address=` or `?server_id=`, or both; `?at=` a time.
pub async fn list(
    State(api): State<Context>,
    _caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, Fault> {
    let address = match parameters.get("address") {
        Some(text) => Some(
            text.parse()
                .map_err(|_| Fault::field("address", text, "must be an IPv4 or IPv6 address"))?,
        ),
        None => None,
    };
    let question = Question {
        address,
        server_id: parameters.number("server_id")?,
        at: parameters.time("at")?,
    };
    if question.address.is_none() && question.server_id.is_none() {
        return Err(Fault::bad_request("address or server_id: missing"));
    }
    let after = parameters.number("marker")?.unwrap_or(0);
    let rows = history::find(api.database(), question, after, parameters.limit()?).await?;
    let views: Vec<Value> = rows.iter().map(history::view).collect();
    Ok(Json(json!({ "address_history": views })))
}
