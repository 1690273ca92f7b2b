//! Bodies that are too long are refused before they come, and those that do not come are answered.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::fault::{Fault, Kind, shortened};
use crate::listener::body::Late;

/// The longest body of a login, in bytes: anybody may send one.
pub const LOGIN: usize = 16 << 10;
/// A body that is refused is let come if it is not longer, in bytes, and for so long: a client that
/// is cut off while it writes may not see the answer.
const SKIPPED: usize = 4 << 20;
const SKIPPING: Duration = Duration::from_secs(1);

/// Refuses a request whose body is said to be longer than `limit` bytes, whatever its path is, and
/// answers one whose body did not come in time.
pub async fn bound(State(limit): State<usize>, request: Request, next: Next) -> Response {
    if let Some((text, length)) = announced(request.headers())
        && length > limit
    {
        let message = format!("Content-Length: {text}: a body has at most {limit} bytes");
        return refused(request, length, Fault::over_limit(message)).await;
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

/// Refuses a login that is said to be longer than any that is right.
pub async fn bound_login(request: Request, next: Next) -> Response {
    match announced(request.headers()) {
        Some((text, length)) if length > LOGIN => {
            let message = format!("Content-Length: {text}: a login has at most {LOGIN} bytes");
            refused(request, length, Fault::bad_request(message)).await
        }
        _ => next.run(request).await,
    }
}

/// The length of a body as its header says, as text and as a number.
fn announced(headers: &HeaderMap) -> Option<(String, usize)> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    // A number that is too great for this type is too great for a body.
    let length = text.parse().unwrap_or(usize::MAX);
    Some((shortened(&text), length))
}

async fn refused(request: Request, length: usize, fault: Fault) -> Response {
    if length <= SKIPPED {
        let _ = timeout(SKIPPING, skip(request.into_body())).await;
    }
    ended(fault)
}

/// Reads a body and keeps nothing of it.
async fn skip(mut body: Body) {
    while let Some(Ok(_)) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {}
}

/// A refusal after which the connection ends: the rest of the body is not read.
fn ended(fault: Fault) -> Response {
    let mut response = fault.into_response();
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
