//! The compute service.

mod actions;
mod addresses;
mod create;
mod detail;
mod flavors;
mod hosts;
mod images;
mod interfaces;
mod keygen;
mod keypairs;
mod limits;
mod metadata;
mod networks;
mod order;
mod password;
mod personality;
mod placement;
mod quota_sets;
mod servers;
mod tags;
mod view;

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::caller::Mount;
use super::context::Context;
use super::{roots, volume};

pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(version))
        .route("/servers", get(servers::list).post(create::create))
        .route("/servers/detail", get(servers::detail))
        .route(
            "/servers/{id}",
            get(servers::show)
                .put(servers::rename)
                .delete(servers::delete),
        )
        .route("/servers/{id}/action", post(actions::act))
        .route("/servers/{id}/ips", get(addresses::all))
        .route("/servers/{id}/ips/{network}", get(addresses::of_network))
        .route(
            "/servers/{id}/metadata",
            get(metadata::all)
                .post(metadata::merge)
                .put(metadata::replace),
        )
        .route(
            "/servers/{id}/metadata/{key}",
            get(metadata::one)
                .put(metadata::set)
                .delete(metadata::remove),
        )
        .route(
            "/servers/{id}/password",
            get(password::tell).delete(password::forget),
        )
        .route(
            "/servers/{id}/tags",
            get(tags::all).put(tags::replace).delete(tags::remove_all),
        )
        .route(
            "/servers/{id}/tags/{tag}",
            get(tags::one).put(tags::add).delete(tags::remove),
        )
        .route(
            "/servers/{id}/os-volume_attachments",
            get(volume::attachments),
        )
        .route(
            "/servers/{id}/os-volume_attachments/{volume}",
            get(volume::attachment),
        )
        .route("/servers/{id}/diagnostics", get(servers::diagnostics))
        .route("/flavors", get(flavors::list))
        .route("/flavors/detail", get(flavors::detail))
        .route("/flavors/{id}", get(flavors::show))
        .route("/flavors/{id}/os-extra_specs", get(flavors::extra_specs))
        .route(
            "/servers/{id}/os-interface",
            get(interfaces::list).post(interfaces::create),
        )
        .route(
            "/servers/{id}/os-interface/{port}",
            get(interfaces::show).delete(interfaces::delete),
        )
        .route(
            "/servers/{id}/os-security-groups",
            get(limits::security_groups_of_server),
        )
        .route("/os-security-groups", get(limits::security_groups))
        .route("/os-keypairs", get(keypairs::list).post(keypairs::create))
        .route(
            "/os-keypairs/{name}",
            get(keypairs::show).delete(keypairs::delete),
        )
        .route(
            "/os-floating-ips",
            get(networks::floating_ips).post(networks::allocate),
        )
        .route(
            "/os-floating-ips/{id}",
            get(networks::floating_ip).delete(networks::release),
        )
        .route("/os-floating-ip-pools", get(networks::pools))
        .route("/os-networks", get(networks::list))
        .route("/os-tenant-networks", get(networks::list))
        .route("/os-networks/{id}", get(networks::show))
        .route("/os-availability-zone", get(limits::zones))
        .route("/os-availability-zone/detail", get(limits::zones))
        .route("/os-hypervisors", get(hosts::hypervisors))
        .route("/os-hypervisors/detail", get(hosts::hypervisors_detail))
        .route("/os-hypervisors/{id}", get(hosts::hypervisor))
        .route("/os-hosts", get(hosts::hosts))
        .route("/os-hosts/{name}", get(hosts::host))
        .route("/os-services", get(hosts::services))
        .route("/limits", get(limits::limits))
        .route(
            "/os-quota-sets/{project}",
            get(quota_sets::show).put(quota_sets::set),
        )
        .route("/os-quota-sets/{project}/detail", get(quota_sets::detail))
        .route("/extensions", get(limits::extensions))
        .route("/extensions/{alias}", get(limits::one_extension))
        .route("/images", get(images::list))
        .route("/images/detail", get(images::detail))
        .route("/images/{id}", get(images::show))
}

async fn version(mount: Mount) -> Json<Value> {
    let version = roots::compute_version(&mount);
    // novaclient asks here for the list as well, since it does not know the path of v2.0.
    Json(json!({"versions": [version.clone()], "version": version}))
}
