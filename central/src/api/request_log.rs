//! One line for each request, with an id that the client gets as well.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::caller::hex;
use crate::metrics;

/// Gives the request an id, lets it be handled, and logs what came of it: never a header or a
/// query, where secrets are.
pub async fn log(request: Request, next: Next) -> Response {
    let mut random = [0_u8; 12];
    // Without randomness the ids are equal, which harms nobody.
    let _ = getrandom::fill(&mut random);
    let id = format!("req-{}", hex(&random));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|route| route.as_str().to_owned());
    let start = Instant::now();
    let span = tracing::info_span!("request", id = %id);
    let mut response = next.run(request).instrument(span).await;
    let status = response.status().as_u16();
    let took = start.elapsed();
    let micros = took.as_micros();
    metrics::request(&method, route.as_deref(), status, took);
    // Secrets can be part of a path: then the route is shown in its place.
    let shown = match &route {
        Some(route) if route.contains("/tokens/") || route.contains("{secret}") => route.as_str(),
        _ => path.as_str(),
    };
    if status >= 500 {
        tracing::error!(%id, %method, path = %shown, status, micros, "answered");
    } else {
        tracing::info!(%id, %method, path = %shown, status, micros, "answered");
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert("x-compute-request-id", value.clone());
        headers.insert("x-openstack-request-id", value);
    }
    headers.insert(header::VARY, HeaderValue::from_static("X-Auth-Token"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    response
}
