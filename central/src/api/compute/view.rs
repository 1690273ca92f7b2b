//! A server as JSON.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::detail::{Detail, Nic};
use crate::api::caller::{Caller, hex};
use crate::api::dialect::Dialect;
use crate::api::links::{self, Link, Linked, Text};
use crate::api::task as server_task;
use crate::dispatch::machine;
use crate::model::moment;

/// The status that users see.
fn status(server: &Detail, dialect: Dialect) -> &'static str {
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
fn progress(server: &Detail) -> i32 {
    match server.state.as_str() {
        _ if server.deleted_at.is_some() => 0,
        machine::BUILD => server.progress,
        machine::ERROR => 0,
        _ => 100,
    }
}

#[derive(Serialize)]
struct Id<'a> {
    id: Text<'a>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
}

#[derive(Serialize)]
struct Nothing {}

/// Where servers are.
const SERVERS: &str = "/compute/v2.0/servers";

/// Id, name and links.
#[derive(Serialize)]
pub struct Brief<'a> {
    id: Text<'a>,
    name: &'a str,
    links: [Link<'a>; 2],
}

impl<'a> Brief<'a> {
    pub fn new(caller: &'a Caller, id: &'a i64, name: &'a str) -> Self {
        Self {
            id: Text(id),
            name,
            links: links::of(caller, SERVERS, id),
        }
    }
}

/// Everything.
#[derive(Serialize)]
pub struct Full<'a> {
    id: Text<'a>,
    name: &'a str,
    links: [Link<'a>; 2],
    status: &'static str,
    progress: i32,
    user_id: &'a str,
    tenant_id: &'a str,
    shared_to_project: bool,
    created: String,
    updated: String,
    #[serde(rename = "hostId")]
    host_id: String,
    flavor: Linked<'a>,
    image: Linked<'a>,
    addresses: Addresses<'a>,
    attachments: Vec<Attachment<'a>>,
    metadata: Metadata<'a>,
    volumes: &'a [i64],
    #[serde(rename = "os-extended-volumes:volumes_attached")]
    volumes_attached: Vec<Id<'a>>,
    security_groups: [Named; 1],
    key_name: Option<&'a str>,
    config_drive: &'static str,
    #[serde(rename = "accessIPv4")]
    access_ipv4: &'static str,
    #[serde(rename = "accessIPv6")]
    access_ipv6: &'static str,
    suspended: bool,
    deleted: bool,
    tags: &'a [String],
    #[serde(rename = "SNF:task_state")]
    snf_task_state: &'a str,
    #[serde(rename = "SNF:fqdn")]
    fqdn: &'static str,
    #[serde(rename = "SNF:port_forwarding")]
    port_forwarding: Nothing,
    #[serde(rename = "SNF:rescue")]
    rescue: bool,
    #[serde(rename = "OS-EXT-STS:task_state")]
    task_state: Option<String>,
    #[serde(rename = "OS-EXT-STS:vm_state")]
    vm_state: &'static str,
    #[serde(rename = "OS-EXT-STS:power_state")]
    power_state: u8,
    #[serde(rename = "OS-EXT-AZ:availability_zone")]
    availability_zone: &'static str,
    #[serde(rename = "OS-DCF:diskConfig")]
    disk_config: &'static str,
    /// Told once, to who made the server.
    #[serde(rename = "adminPass", skip_serializing_if = "Option::is_none")]
    pub admin_pass: Option<String>,
}

/// What surrounds one server.
#[derive(Serialize)]
pub struct One<'a> {
    pub server: Full<'a>,
}

impl<'a> Full<'a> {
    pub fn new(caller: &'a Caller, server: &'a Detail) -> Self {
        let deleted = server.deleted_at.is_some();
        let task = server.task.as_deref();
        Self {
            id: Text(&server.id),
            name: &server.name,
            links: links::of(caller, SERVERS, &server.id),
            status: status(server, caller.dialect),
            progress: progress(server),
            user_id: &server.user_id,
            tenant_id: &server.project_id,
            shared_to_project: false,
            created: moment::iso(server.created_at),
            updated: moment::iso(server.updated_at),
            host_id: host_id(server),
            flavor: Linked::new(caller, "/compute/v2.0/flavors", &server.flavor_id),
            image: Linked::new(caller, "/compute/v2.0/images", &server.image_id),
            addresses: Addresses::new(server, caller.dialect),
            attachments: server.nics.iter().map(Attachment::new).collect(),
            metadata: Metadata(&server.metadata),
            volumes: &server.volumes,
            volumes_attached: server
                .volumes
                .iter()
                .map(|id| Id { id: Text(id) })
                .collect(),
            security_groups: [Named { name: "default" }],
            key_name: server.key_name.as_deref(),
            config_drive: "",
            access_ipv4: "",
            access_ipv6: "",
            suspended: server.suspended,
            deleted,
            tags: &server.tags,
            snf_task_state: task.unwrap_or_default(),
            fqdn: "",
            port_forwarding: Nothing {},
            rescue: server.rescue,
            task_state: task.map(str::to_lowercase),
            vm_state: match server.state.as_str() {
                _ if deleted => "deleted",
                machine::STARTED => "active",
                machine::STOPPED => "stopped",
                machine::ERROR => "error",
                _ => "building",
            },
            power_state: match server.state.as_str() {
                machine::STARTED => 1,
                machine::STOPPED => 4,
                _ => 0,
            },
            availability_zone: "nova",
            disk_config: "MANUAL",
            admin_pass: None,
        }
    }
}

/// Tells servers on the same cluster from others, and nothing about the cluster.
fn host_id(server: &Detail) -> String {
    let text = format!("{}:{}", server.project_id, server.backend_id);
    let mut digits = hex(&Sha256::digest(text.as_bytes()));
    digits.truncate(56);
    digits
}

/// Names and values.
struct Metadata<'a>(&'a [(String, String)]);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
struct Attachment<'a> {
    id: i64,
    network_id: Text<'a>,
    mac_address: &'a str,
    ipv4: &'a str,
    ipv6: &'a str,
    #[serde(rename = "firewallProfile")]
    firewall: &'a str,
    #[serde(rename = "OS-EXT-IPS:type")]
    kind: &'static str,
}

impl<'a> Attachment<'a> {
    fn new(nic: &'a Nic) -> Self {
        Self {
            id: nic.id,
            network_id: Text(&nic.network_id),
            mac_address: nic.mac.as_deref().unwrap_or_default(),
            ipv4: nic.ipv4.as_deref().unwrap_or_default(),
            ipv6: nic.ipv6.as_deref().unwrap_or_default(),
            firewall: nic.firewall.as_deref().unwrap_or("DISABLED"),
            kind: kind(nic),
        }
    }
}

fn kind(nic: &Nic) -> &'static str {
    if nic.floating { "floating" } else { "fixed" }
}

/// An address of a NIC.
#[derive(Serialize)]
pub struct Address<'a> {
    version: u8,
    addr: &'a str,
    #[serde(rename = "OS-EXT-IPS:type")]
    kind: &'static str,
    #[serde(rename = "OS-EXT-IPS-MAC:mac_addr")]
    mac: Option<&'a str>,
}

/// The addresses of the NICs that are up, by network: by its name for OpenStack, its id for
/// Cyclades.
pub struct Addresses<'a>(Vec<(Cow<'a, str>, Vec<Address<'a>>)>);

impl<'a> Addresses<'a> {
    pub fn new(server: &'a Detail, dialect: Dialect) -> Self {
        let mut networks: Vec<(Cow<'a, str>, Vec<Address<'a>>)> = Vec::new();
        for nic in &server.nics {
            let label = match (dialect, &nic.network) {
                (Dialect::OpenStack, Some(name)) if !name.is_empty() => Cow::Borrowed(&**name),
                _ => Cow::Owned(nic.network_id.to_string()),
            };
            let addresses = of_nic(nic);
            match networks.iter_mut().find(|(known, _)| *known == label) {
                Some((_, list)) => list.extend(addresses),
                None => networks.push((label, addresses.collect())),
            }
        }
        Self(networks)
    }

    /// Those in the network that is called `label`.
    pub fn of(&self, label: &str) -> Option<&[Address<'a>]> {
        let found = self.0.iter().find(|(known, _)| known == label);
        found.map(|(_, list)| list.as_slice())
    }
}

impl Serialize for Addresses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(label, list)| (label, list)))
    }
}

fn of_nic(nic: &Nic) -> impl Iterator<Item = Address<'_>> {
    [(4, &nic.ipv4), (6, &nic.ipv6)]
        .into_iter()
        .filter_map(|(version, address)| {
            Some(Address {
                version,
                addr: address.as_deref()?,
                kind: kind(nic),
                mac: nic.mac.as_deref(),
            })
        })
}
