//! Requests and the database: an answer at once while the database is away, and the same work once
//! more when only the order of concurrent transactions was in its way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::context::Context;
use super::fault::{Fault, Repeatable};
use crate::model::availability::{self, Availability};

/// The most attempts of a request.
const ATTEMPTS: u32 = 6;
/// The longest pause before the second attempt; it doubles with each one.
const PAUSE: Duration = Duration::from_millis(20);
/// The paths that are answered without the database, or tell of it themselves.
const INDEPENDENT: [&str; 3] = ["/healthz", "/readyz", "/openapi"];

/// The part of a body that was read. The pieces are shared with the reader, not copied.
#[derive(Default)]
struct Read {
    pieces: Vec<Bytes>,
    ended: bool,
}

/// A body that is remembered as it is read.
#[derive(Clone, Default)]
struct Remembered(Arc<Mutex<Read>>);

impl Remembered {
    fn with<T>(&self, change: impl FnOnce(&mut Read) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `body`, which is remembered from now on.
    fn around(&self, body: Body) -> Body {
        let (pieces, end) = (self.clone(), self.clone());
        let read = body.into_data_stream().inspect(move |piece| {
            if let Ok(piece) = piece {
                pieces.with(|read| read.pieces.push(piece.clone()));
            }
        });
        let end = stream::poll_fn(move |_| {
            end.with(|read| read.ended = true);
            Poll::Ready(None)
        });
        Body::from_stream(read.chain(end))
    }

    /// The whole body again; none: it was not read to its end.
    fn again(&self) -> Option<Body> {
        self.with(|read| match (read.ended, read.pieces.as_slice()) {
            (true, []) => Some(Body::empty()),
            (true, [whole]) => Some(Body::from(whole.clone())),
            (true, pieces) => Some(Body::from(pieces.concat())),
            (false, _) => None,
        })
    }
}

fn away() -> Response {
    Fault::unavailable("the database does not answer; try again").into_response()
}

/// Runs a request, but no longer than the database is there. What has begun to write is not
/// abandoned: its connection tells it what has become of the database.
async fn while_there(availability: &Availability, request: Request, next: Next) -> Response {
    let wrote = Arc::new(AtomicBool::new(false));
    let work = availability::observed(Arc::clone(&wrote), next.run(request));
    tokio::pin!(work);
    tokio::select! {
        response = &mut work => return response,
        () = availability.away() => {}
    }
    if wrote.load(Ordering::Relaxed) {
        work.await
    } else {
        away()
    }
}

/// Answers 503 while the database is away, and repeats what failed by a deadlock.
pub async fn guard(State(api): State<Context>, request: Request, next: Next) -> Response {
    if INDEPENDENT.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let availability = api.availability();
    if availability.is_away() {
        return away();
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return while_there(availability, request, next).await;
    }
    let remembered = Remembered::default();
    let (parts, body) = request.into_parts();
    let mut body = remembered.around(body);
    let mut attempt = 1;
    loop {
        let request = Request::from_parts(parts.clone(), body);
        let response = while_there(availability, request, next.clone()).await;
        if response.extensions().get::<Repeatable>().is_none() || attempt == ATTEMPTS {
            return response;
        }
        let Some(again) = remembered.again() else {
            return response;
        };
        body = again;
        tracing::info!(attempt, "transactions were in each other's way: once more");
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// A random time, so that two that met do not meet again.
fn pause(attempt: u32) -> Duration {
    let longest = PAUSE.saturating_mul(1 << attempt.min(6));
    let chance = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    longest.mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_there_again_once_it_was_read_to_its_end() {
        for pieces in [vec![], vec!["one"], vec!["one", " and ", "two"]] {
            let whole = pieces.concat();
            let remembered = Remembered::default();
            let stream = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
            let body = remembered.around(Body::from_stream(stream));
            assert!(remembered.again().is_none());
            let read = axum::body::to_bytes(body, 100).await.unwrap();
            assert_eq!(read, whole);
            let again = remembered.again().unwrap();
            assert_eq!(axum::body::to_bytes(again, 100).await.unwrap(), whole);
        }
    }
}
