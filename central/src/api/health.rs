//! For load balancers and service managers.

use axum::extract::State;
use axum::http::StatusCode;
use sea_orm::ConnectionTrait;

use super::context::Context;

/// The process answers.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// The process can do its work: the database answers.
pub async fn ready(State(api): State<Context>) -> (StatusCode, String) {
    match api.database().execute_unprepared("SELECT 1").await {
        Ok(_) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the database does not answer\n".to_owned(),
            )
        }
    }
}
