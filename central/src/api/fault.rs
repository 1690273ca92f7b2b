//! Faults: what a client is told when it does not get what it asked for.
//!
//! The body is `{"<name>": {"code": …, "message": …, "details": …}}`, as in OpenStack Compute.

use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::DbErr;
use serde_json::json;

use crate::model::database::is_serialization_failure;

/// The kinds of fault, each with its name and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    ItemNotFound,
    FeatureNotEnabled,
    NotAllowed,
    Conflict,
    BuildInProgress,
    OverLimit,
    BadMediaType,
    RequestTimeout,
    TooManyAttempts,
    Internal,
    NotImplemented,
    ServiceUnavailable,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "badRequest",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ItemNotFound => "itemNotFound",
            Self::FeatureNotEnabled => "featureNotEnabled",
            Self::NotAllowed => "notAllowed",
            Self::Conflict => "conflict",
            Self::BuildInProgress => "buildInProgress",
            Self::OverLimit => "overLimit",
            Self::BadMediaType => "badMediaType",
            Self::RequestTimeout => "requestTimeout",
            Self::TooManyAttempts => "tooManyRequests",
            Self::Internal => "internalServerError",
            Self::NotImplemented => "notImplemented",
            Self::ServiceUnavailable => "serviceUnavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::ItemNotFound | Self::FeatureNotEnabled => StatusCode::NOT_FOUND,
            Self::NotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict | Self::BuildInProgress => StatusCode::CONFLICT,
            Self::OverLimit => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A refusal, with its reason for people.
#[derive(Debug)]
pub struct Fault {
    pub kind: Kind,
    pub message: String,
    /// What the log says and the client does not get to see.
    cause: Option<String>,
    /// The transaction failed only for the order in which others did their work, and the request
    /// has changed nothing: [`super::persistence`] does it again.
    repeatable: bool,
    /// When to try again.
    wait: Option<Duration>,
}

/// The mark of a response to a request that may be done again.
#[derive(Debug, Clone, Copy)]
pub struct Repeatable;

impl Fault {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            cause: None,
            repeatable: false,
            wait: None,
        }
    }

    /// The same fault of a request that has changed something already: it is not done again.
    pub fn after_a_change(self) -> Self {
        Self {
            repeatable: false,
            ..self
        }
    }

    /// The same, and when to try again.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            ..self
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, message)
    }

    /// A field of a body or a query whose value cannot be used.
    pub fn field(path: &str, value: impl Display, reason: &str) -> Self {
        Self::bad_request(format!(
            "{path}: {}: {reason}",
            shortened(&value.to_string())
        ))
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    /// `what` with this id is not there, or not the caller's: that is not to be told apart.
    pub fn not_found(what: &str, id: impl Display) -> Self {
        Self::new(
            Kind::ItemNotFound,
            format!("{what} {} not found", shortened(&id.to_string())),
        )
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    pub fn over_limit(message: impl Into<String>) -> Self {
        Self::new(Kind::OverLimit, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::ServiceUnavailable, message)
    }

    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(Kind::NotImplemented, message)
    }

    /// Something of ours is broken; `cause` goes to the log only.
    pub fn internal(cause: impl Display) -> Self {
        Self {
            kind: Kind::Internal,
            message: "the server failed; the log has the reason under this request's id".to_owned(),
            cause: Some(cause.to_string()),
            repeatable: false,
            wait: None,
        }
    }
}

/// The database does not answer: not the client's fault, and perhaps soon over.
impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        let transient = matches!(
            error,
            DbErr::Conn(_) | DbErr::ConnectionAcquire(_) | DbErr::Exec(_) | DbErr::Query(_)
        );
        if transient {
            Self {
                kind: Kind::ServiceUnavailable,
                message: "the database does not answer; try again".to_owned(),
                cause: Some(error.to_string()),
                repeatable: is_serialization_failure(&error),
                wait: None,
            }
        } else {
            Self::internal(error)
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(%cause, "request failed");
        }
        let status = self.kind.status();
        let body = json!({ self.kind.name(): {
            "code": status.as_u16(),
            "message": self.message,
            "details": "",
        }});
        let mut response = (status, Json(body)).into_response();
        if self.repeatable {
            response.extensions_mut().insert(Repeatable);
        }
        let headers = response.headers_mut();
        match self.kind {
            Kind::Unauthorized => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("X-Auth-Token"),
                );
            }
            Kind::ServiceUnavailable | Kind::TooManyAttempts => {
                let seconds = self.wait.map_or(5, |wait| wait.as_secs().saturating_add(1));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        response
    }
}

/// The most of a client's value that is said back to it.
const SHOWN: usize = 80;

/// `text` cut to a length that is fit for a message.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "é".repeat(500);
        let fault = Fault::field("server.name", &long, "too long");
        assert!(fault.message.starts_with("server.name: é"));
        assert!(fault.message.chars().count() < 120, "{}", fault.message);
    }
}
