//! The HTTP side: two mounts over the same handlers.

mod account;
mod admission;
mod attachment;
pub mod authorization;
pub mod body;
mod bounds;
pub mod caller;
pub mod compute;
mod console;
pub mod context;
pub mod dialect;
pub mod fault;
mod find;
mod health;
pub mod identity;
mod image;
mod known_tokens;
mod links;
mod network;
mod nic;
pub mod one_shot;
pub mod openapi;
mod page;
mod parameters;
mod paths;
mod peer;
mod persistence;
pub mod quota;
mod request_log;
mod roots;
mod sealed;
#[cfg(test)]
mod statements;
mod task;
mod volume;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;

use self::context::Context;
use self::dialect::Dialect;
use self::fault::{Fault, Kind};
use crate::listener::RequestService;

/// The service that answers every request.
pub fn service(api: Context) -> impl RequestService {
    ServiceBuilder::new()
        .layer(MapRequestLayer::new(paths::normalise))
        .service(router(api))
}

/// All routes, with what surrounds them.
pub fn router(api: Context) -> Router {
    let limit = api.config().body_limit;
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/console/websocket", get(console::websocket))
        // Asked for as /openapi.json: the suffix is taken off every path.
        .route("/openapi", get(openapi::show))
        .merge(mount(Dialect::OpenStack))
        .nest(Dialect::Cyclades.prefix(), mount(Dialect::Cyclades))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(limit))
        .layer(middleware::from_fn_with_state(
            api.clone(),
            persistence::guard,
        ))
        .layer(middleware::from_fn(paths::readable))
        .layer(middleware::from_fn_with_state(limit, bounds::bound))
        .layer(middleware::from_fn(request_log::log))
        .with_state(api)
}

fn mount(dialect: Dialect) -> Router<Context> {
    let mut routes = Router::new()
        .merge(roots::routes())
        .nest("/identity/v2.0", identity::v2::routes())
        .nest("/identity/v3", identity::v3::routes())
        .nest("/compute/v2.0", compute::routes())
        .nest("/network/v2.0", network::routes())
        .nest("/image/v2", image::v2::routes())
        .nest("/image/v1.0", image::v1::routes())
        .nest("/image/v1", image::v1::routes())
        .nest("/volume/v2", volume::routes())
        .nest("/volume/v2.0", volume::routes())
        .nest("/volume/v3", volume::routes())
        .nest("/vmapi/v1.0", parameters::routes());
    match dialect {
        Dialect::OpenStack => routes = routes.nest("/compute/v1.1", compute::routes()),
        Dialect::Cyclades => routes = routes.nest("/account/v1.0", account::routes()),
    }
    routes.layer(Extension(dialect))
}

async fn no_such_path(uri: Uri) -> Fault {
    Fault::not_found("path", uri.path())
}

async fn no_such_method(method: Method, uri: Uri) -> Fault {
    Fault::new(
        Kind::NotAllowed,
        format!("{method} is not for {}", fault::shortened(uri.path())),
    )
}
