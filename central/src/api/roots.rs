//! The version documents: what a client finds at the root of each service. No token is needed.

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

use super::caller::Mount;
use super::context::Context;

const UPDATED: &str = "2026-11-22T00:00:00Z";

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(services))
        .route("/identity", get(identity))
        .route("/compute", get(compute))
        .route("/network", get(network))
        .route("/image", get(image))
        .route("/image/versions", get(image_versions))
        .route("/volume", get(volume))
}

/// One entry of a list of versions.
fn version(mount: &Mount, id: &str, status: &str, path: &str) -> Value {
    json!({
        "id": id,
        "status": status,
        "updated": UPDATED,
        "links": [{"rel": "self", "href": mount.url(path)}],
    })
}

async fn services(mount: Mount) -> Json<Value> {
    let service = |name: &str| json!({"name": name, "links": [{"rel": "self", "href": mount.url(&format!("/{name}"))}]});
    let services = ["identity", "compute", "network", "image", "volume"].map(service);
    Json(json!({"services": services}))
}

/// The two versions of the identity service.
pub fn identity_versions(mount: &Mount) -> [Value; 2] {
    let media = |version: &str| {
        json!([{
            "base": "application/json",
            "type": format!("application/vnd.openstack.identity-{version}+json"),
        }])
    };
    let mut versions = [
        version(mount, "v3.14", "stable", "/identity/v3"),
        version(mount, "v2.0", "stable", "/identity/v2.0"),
    ];
    for (version, name) in versions.iter_mut().zip(["v3", "v2.0"]) {
        if let Some(map) = version.as_object_mut() {
            map.insert("media-types".to_owned(), media(name));
        }
    }
    versions
}

async fn identity(mount: Mount) -> (StatusCode, Json<Value>) {
    let versions = identity_versions(&mount);
    (
        StatusCode::MULTIPLE_CHOICES,
        Json(json!({"versions": {"values": versions}})),
    )
}

async fn compute(mount: Mount) -> Json<Value> {
    Json(json!({"versions": [compute_version(&mount)]}))
}

/// The version of the compute service; it has no microversions.
pub fn compute_version(mount: &Mount) -> Value {
    let mut version = version(mount, "v2.0", "CURRENT", "/compute/v2.0");
    if let Some(map) = version.as_object_mut() {
        map.insert("version".to_owned(), json!(""));
        map.insert("min_version".to_owned(), json!(""));
        map.insert(
            "media-types".to_owned(),
            json!([{
                "base": "application/json",
                "type": "application/vnd.openstack.compute+json;version=2",
            }]),
        );
    }
    version
}

async fn network(mount: Mount) -> Json<Value> {
    Json(json!({"versions": [version(&mount, "v2.0", "CURRENT", "/network/v2.0")]}))
}

/// The versions of the volume service: the same paths under both names.
pub fn volume_versions(mount: &Mount) -> [Value; 2] {
    let mut versions = [
        version(mount, "v3.0", "CURRENT", "/volume/v3/"),
        version(mount, "v2.0", "SUPPORTED", "/volume/v2/"),
    ];
    for version in &mut versions {
        if let Some(map) = version.as_object_mut() {
            map.insert("version".to_owned(), json!(""));
            map.insert("min_version".to_owned(), json!(""));
        }
    }
    versions
}

async fn volume(mount: Mount) -> (StatusCode, Json<Value>) {
    (
        StatusCode::MULTIPLE_CHOICES,
        Json(json!({"versions": volume_versions(&mount)})),
    )
}

/// Glance answers 300 at its root alone; its client takes a 300 of `/versions` for an error.
async fn image(mount: Mount) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, image_versions(mount).await)
}

async fn image_versions(mount: Mount) -> Json<Value> {
    let versions = [
        version(&mount, "v2.0", "CURRENT", "/image/v2/"),
        version(&mount, "v1.0", "SUPPORTED", "/image/v1.0/"),
    ];
    Json(json!({"versions": versions}))
}
