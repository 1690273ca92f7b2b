//! Bodies that are too long are refused before they come, and those that do not come are answered.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::fault::{Fault, Kind, shortened};
use crate::listener::body::Late;

/// Refuses a request whose body is said to be longer than `limit` bytes, whatever its path is, and
/// answers one whose body did not come in time.
pub async fn bound(State(limit): State<usize>, request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    if let Some(announced) = announced {
        let text = String::from_utf8_lossy(announced.as_bytes());
        // A number that is too great for this type is too great for a body.
        if text.parse::<usize>().map_or(true, |length| length > limit) {
            let message = format!(
                "Content-Length: {}: a body has at most {limit} bytes",
                shortened(&text)
            );
            return ended(Fault::over_limit(message));
        }
    }
    let late = request.extensions().get::<Late>().cloned();
    let response = next.run(request).await;
    if late.is_some_and(|late| late.is_late()) {
        return ended(Fault::new(
            Kind::RequestTimeout,
            "body: it did not come in time (api.body_seconds)",
        ));
    }
    response
}

/// A refusal after which the connection ends: the rest of the body is not read.
fn ended(fault: Fault) -> Response {
    let mut response = fault.into_response();
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
