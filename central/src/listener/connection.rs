//! One connection: requests in turn, and an end when nothing comes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use super::body::{AnswerBody, Late, RequestBody};
use super::stream::Stream;
use super::table::{Phase, Place, State};
use super::{Limits, RequestService};

/// The longest header of a request, in bytes, which is also what a connection may buffer.
const HEADER: usize = 32 << 10;
/// The time limits of the rest of a header, and of a body, once the service is to stop.
const LAST_HEADER: Duration = Duration::from_millis(500);
const LAST_BODY: Duration = Duration::from_secs(1);

/// Serves the requests of one connection until either side ends it.
pub async fn serve<S: RequestService>(
    tcp: TcpStream,
    peer: SocketAddr,
    place: Place,
    service: S,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let state = Arc::clone(&place.state);
    let stream = Stream::new(tcp, Arc::new(place), limits.send);
    let answering = {
        let state = Arc::clone(&state);
        service_fn(move |request| {
            answer(
                request,
                peer,
                service.clone(),
                Arc::clone(&state),
                limits.body,
            )
        })
    };
    let connection = http1::Builder::new()
        // The time limits below tell a silent connection from a slow header.
        .header_read_timeout(None)
        .timer(TokioTimer::new())
        .max_buf_size(HEADER)
        .serve_connection(TokioIo::new(stream), answering)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut stopping = None;
    loop {
        let wake = wake(&state, limits, stopping);
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection");
                }
                return;
            }
            () = state.closing.notified() => return,
            _ = stop.wait_for(|stop| *stop), if stopping.is_none() => {
                stopping = Some(Instant::now());
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(wake.into()) => {
                let phase = state.phase();
                let late = deadline(&state, limits, stopping)
                    .is_some_and(|deadline| deadline <= Instant::now());
                // Not if a request has come in the meantime.
                if late && state.change(phase, Phase::Closing) {
                    tracing::debug!(%peer, ?phase, "nothing came in time");
                    return;
                }
            }
        }
    }
}

/// When the connection ends if nothing changes; none: something is being done for it.
fn deadline(state: &State, limits: Limits, stopping: Option<Instant>) -> Option<Instant> {
    let phase = state.phase();
    let (patience, last) = match phase {
        Phase::New | Phase::Head => (Some(limits.header), Some(LAST_HEADER)),
        Phase::Idle => (Some(limits.idle), Some(LAST_HEADER)),
        // Its own limit is with the body.
        Phase::Body => (None, Some(LAST_BODY)),
        Phase::Answer | Phase::Upgraded => (None, None),
        Phase::Closing => return Some(state.since()),
    };
    let usual = patience.and_then(|patience| state.since().checked_add(patience));
    let last = stopping
        .zip(last)
        .and_then(|(stop, last)| stop.checked_add(last));
    match (usual, last) {
        (Some(usual), Some(last)) => Some(usual.min(last)),
        (usual, last) => usual.or(last),
    }
}

/// When to look again: no later than the deadline of what may begin meanwhile.
fn wake(state: &State, limits: Limits, stopping: Option<Instant>) -> Instant {
    let now = Instant::now();
    let step = match stopping {
        Some(_) => LAST_HEADER,
        None => limits.header.min(limits.idle),
    };
    let next = now.checked_add(step).unwrap_or(now);
    deadline(state, limits, stopping).map_or(next, |deadline| deadline.min(next))
}

async fn answer<S: RequestService>(
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    service: S,
    state: Arc<State>,
    patience: Duration,
) -> Result<Response, Infallible> {
    state.enter(Phase::Answer);
    let (mut parts, body) = request.into_parts();
    let late = Late::default();
    parts.extensions.insert(ConnectInfo(peer));
    parts.extensions.insert(late.clone());
    let body = if body.is_end_stream() {
        Body::empty()
    } else {
        let state = Arc::clone(&state);
        Body::new(RequestBody::new(Body::new(body), state, patience, late))
    };
    let response = service.oneshot(Request::from_parts(parts, body)).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        state.enter(Phase::Upgraded);
        return Ok(response);
    }
    state.change(Phase::Body, Phase::Answer);
    Ok(response.map(|body| Body::new(AnswerBody::new(body, state))))
}
