//! A server as JSON.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::rows::Rows;
use crate::api::caller::{Caller, hex};
use crate::api::dialect::Dialect;
use crate::api::{links, task as server_task};
use crate::dispatch::{machine, nics};
use crate::model::entity::{port, server};
use crate::model::moment;

/// The status that users see.
pub fn status(server: &server::Model, dialect: Dialect) -> &'static str {
    if server.deleted_at.is_some() {
        return "DELETED";
    }
    let task = server.task.as_deref();
    match server.state.as_str() {
        machine::BUILD => "BUILD",
        machine::STARTED if task == Some("REBOOTING") => "REBOOT",
        machine::STARTED => "ACTIVE",
        machine::STOPPED if task == Some(server_task::RESIZING) => "RESIZE",
        machine::STOPPED => dialect.stopped(),
        machine::ERROR => "ERROR",
        _ => "UNKNOWN",
    }
}

/// How far the server is, in per cent.
fn progress(server: &server::Model) -> i32 {
    match server.state.as_str() {
        _ if server.deleted_at.is_some() => 0,
        machine::BUILD => server.progress,
        machine::ERROR => 0,
        _ => 100,
    }
}

/// Id, name and links.
pub fn brief(caller: &Caller, server: &server::Model) -> Value {
    json!({
        "id": server.id.to_string(),
        "name": server.name,
        "links": links::of(caller, &format!("/compute/v2.0/servers/{}", server.id)),
    })
}

/// Everything.
pub fn full(caller: &Caller, server: &server::Model, rows: &Rows) -> Value {
    let dialect = caller.dialect;
    let linked = |kind: &str, id: &str| {
        json!({
            "id": id,
            "links": [{
                "rel": "bookmark",
                "href": caller.url(&format!("/compute/v2.0/{kind}/{id}")),
            }],
        })
    };
    let ports = rows.ports(server.id);
    let power = match server.state.as_str() {
        machine::STARTED => 1,
        machine::STOPPED => 4,
        _ => 0,
    };
    let vm_state = match server.state.as_str() {
        _ if server.deleted_at.is_some() => "deleted",
        machine::STARTED => "active",
        machine::STOPPED => "stopped",
        machine::ERROR => "error",
        _ => "building",
    };
    let task = server.task.as_deref();
    let attachments: Vec<Value> = ports
        .iter()
        .filter(|port| port.state == nics::ACTIVE)
        .map(attachment)
        .collect();
    let metadata: Map<String, Value> = rows
        .metadata(server.id)
        .iter()
        .map(|entry| (entry.name.clone(), json!(entry.value)))
        .collect();
    let volumes = rows.volumes(server.id);
    json!({
        "id": server.id.to_string(),
        "name": server.name,
        "links": links::of(caller, &format!("/compute/v2.0/servers/{}", server.id)),
        "status": status(server, dialect),
        "progress": progress(server),
        "user_id": server.user_id,
        "tenant_id": server.project_id,
        "shared_to_project": false,
        "created": moment::iso(server.created_at),
        "updated": moment::iso(server.updated_at),
        "hostId": host_id(server),
        "flavor": linked("flavors", &server.flavor_id.to_string()),
        "image": linked("images", &server.image_id),
        "addresses": addresses(ports, rows, dialect),
        "attachments": attachments,
        "metadata": metadata,
        "volumes": volumes,
        "os-extended-volumes:volumes_attached":
            volumes.iter().map(|id| json!({"id": id.to_string()})).collect::<Vec<_>>(),
        "security_groups": [{"name": "default"}],
        "key_name": server.key_name,
        "config_drive": "",
        "accessIPv4": "",
        "accessIPv6": "",
        "suspended": server.suspended,
        "deleted": server.deleted_at.is_some(),
        "tags": rows.tags(server.id),
        "SNF:task_state": task.unwrap_or_default(),
        "SNF:fqdn": "",
        "SNF:port_forwarding": {},
        "SNF:rescue": server.rescue,
        "OS-EXT-STS:task_state": task.map(str::to_lowercase),
        "OS-EXT-STS:vm_state": vm_state,
        "OS-EXT-STS:power_state": power,
        "OS-EXT-AZ:availability_zone": "nova",
        "OS-DCF:diskConfig": "MANUAL",
    })
}

/// Tells servers on the same cluster from others, and nothing about the cluster.
fn host_id(server: &server::Model) -> String {
    let text = format!("{}:{}", server.project_id, server.backend_id);
    hex(&Sha256::digest(text.as_bytes()))
        .get(..56)
        .unwrap_or_default()
        .to_owned()
}

fn attachment(port: &port::Model) -> Value {
    json!({
        "id": port.id,
        "network_id": port.network_id.to_string(),
        "mac_address": port.mac.clone().unwrap_or_default(),
        "ipv4": port.ipv4.clone().unwrap_or_default(),
        "ipv6": port.ipv6.clone().unwrap_or_default(),
        "firewallProfile": port.firewall.as_deref().unwrap_or("DISABLED"),
        "OS-EXT-IPS:type": kind(port),
    })
}

fn kind(port: &port::Model) -> &'static str {
    if port.floating { "floating" } else { "fixed" }
}

/// The addresses of the NICs that are up, by network: by its name for OpenStack, its id for
/// Cyclades.
pub fn addresses(ports: &[port::Model], rows: &Rows, dialect: Dialect) -> Map<String, Value> {
    let mut map = Map::new();
    for port in ports.iter().filter(|port| port.state == nics::ACTIVE) {
        let label = match (dialect, rows.network(port.network_id)) {
            (Dialect::OpenStack, Some(network)) if !network.name.is_empty() => network.name.clone(),
            _ => port.network_id.to_string(),
        };
        let list = map.entry(label).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.extend(entries(port));
        }
    }
    map
}

/// The addresses of one NIC.
pub fn entries(port: &port::Model) -> Vec<Value> {
    [(4, &port.ipv4), (6, &port.ipv6)]
        .into_iter()
        .filter_map(|(version, address)| {
            address.as_ref().map(|address| {
                json!({
                    "version": version,
                    "addr": address,
                    "OS-EXT-IPS:type": kind(port),
                    "OS-EXT-IPS-MAC:mac_addr": port.mac,
                })
            })
        })
        .collect()
}
