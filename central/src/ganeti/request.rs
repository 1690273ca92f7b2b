//! What is asked of Ganeti, as data: made when the user asks, sent when it is committed, and sent
//! again if nobody knows whether it arrived.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::image::{ImageError, check_parameters};
use super::naming::Naming;
use crate::model::entity::{backend, flavor, image, network, subnet};

/// One RAPI call that submits a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// `GET` is not among them: every call makes a job.
    pub method: Verb,
    pub path: String,
    #[serde(default)]
    pub query: Vec<(String, String)>,
    #[serde(default)]
    pub body: Option<Value>,
    /// The networks that must exist in the cluster before.
    #[serde(default)]
    pub networks: Vec<i64>,
    /// Whether the job may only start when the server's earlier jobs have ended.
    #[serde(default)]
    pub after_earlier: bool,
    /// The firewall profile that a NIC must have before.
    #[serde(default)]
    pub firewall: Option<Firewall>,
}

/// Which firewall profile a NIC is to have: a tag of its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The instance's name.
    pub instance: String,
    /// The NIC's name.
    pub nic: String,
    /// `protected` or `limited`; none: no tag.
    pub profile: Option<String>,
}

impl Firewall {
    /// What is to change in the tags of the instance: those that go, and the one that comes.
    pub fn change<'a>(&self, tags: &[&'a str]) -> (Vec<&'a str>, Option<String>) {
        let start = format!("synnefo:network:{}:", self.nic);
        let wanted = self
            .profile
            .as_ref()
            .map(|profile| format!("{start}{profile}"));
        let gone = tags
            .iter()
            .copied()
            .filter(|tag| tag.starts_with(&start) && Some(*tag) != wanted.as_deref())
            .collect();
        let new = wanted.filter(|wanted| !tags.contains(&wanted.as_str()));
        (gone, new)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    Post,
    Put,
    Delete,
}

impl From<Verb> for reqwest::Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Delete => Self::DELETE,
        }
    }
}

impl Request {
    fn new(method: Verb, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            networks: Vec::new(),
            after_earlier: false,
            firewall: None,
        }
    }

    /// The body with `depends` on jobs having ended, in whatever way.
    pub fn body_after(&self, jobs: &[i64]) -> Option<Value> {
        if jobs.is_empty() {
            return self.body.clone();
        }
        let mut body = match self.body.clone() {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let depends = jobs
            .iter()
            .map(|job| json!([job, ["canceled", "success", "error"]]))
            .collect();
        body.insert("depends".to_owned(), Value::Array(depends));
        Some(Value::Object(body))
    }
}

/// A NIC as it goes into a create or a modify.
#[derive(Debug, Clone)]
pub struct Nic {
    pub port_id: i64,
    pub network_id: i64,
    pub address: Option<String>,
}

impl Nic {
    fn body(&self, naming: &Naming) -> Value {
        let mut nic = json!({
            "name": naming.nic(self.port_id),
            "network": naming.network(self.network_id),
        });
        if let (Some(address), Some(map)) = (&self.address, nic.as_object_mut()) {
            map.insert("ip".to_owned(), json!(address));
        }
        nic
    }
}

/// What a create is made from.
pub struct Creation<'a> {
    pub server_id: i64,
    pub backend: &'a backend::Model,
    pub flavor: &'a flavor::Model,
    pub image: &'a image::Model,
    pub volume_id: Option<i64>,
    pub nics: &'a [Nic],
    pub tags: &'a [String],
    /// Where the OS definition finds what is told once.
    pub config_url: Option<&'a str>,
}

/// Creates and starts an instance.
///
/// # Errors
/// The image has a source or a disk format that no node may get.
pub fn create(naming: &Naming, creation: &Creation<'_>) -> Result<Request, ImageError> {
    let Creation {
        flavor,
        image,
        backend,
        ..
    } = creation;
    let mut disks = Vec::new();
    if let Some(volume) = creation.volume_id {
        let mut disk = json!({
            "name": naming.volume(volume),
            "size": flavor.disk.saturating_mul(1024),
        });
        if let (Some(provider), Some(map)) = (&flavor.disk_provider, disk.as_object_mut()) {
            map.insert("provider".to_owned(), json!(provider));
        }
        disks.push(disk);
    }
    let mut body = json!({
        "__version__": 1,
        "mode": "create",
        "name": naming.instance(creation.server_id),
        "os": image.os,
        "disk_template": flavor.disk_template,
        "disks": disks,
        "nics": creation.nics.iter().map(|nic| nic.body(naming)).collect::<Vec<_>>(),
        "beparams": {
            "auto_balance": true,
            "vcpus": flavor.vcpus,
            "minmem": flavor.ram,
            "maxmem": flavor.ram,
        },
        "osparams": os_params(backend, image, creation.config_url)?,
        "ip_check": false,
        "name_check": false,
        "wait_for_sync": false,
        "opportunistic_locking": true,
    });
    if let Some(map) = body.as_object_mut() {
        if backend
            .hvparams
            .as_object()
            .is_some_and(|params| !params.is_empty())
        {
            map.insert("hvparams".to_owned(), backend.hvparams.clone());
        }
        if !creation.tags.is_empty() {
            map.insert("tags".to_owned(), json!(creation.tags));
        }
    }
    Ok(Request {
        body: Some(body),
        networks: creation.nics.iter().map(|nic| nic.network_id).collect(),
        ..Request::new(Verb::Post, "/2/instances".to_owned())
    })
}

/// The OS parameters: the backend's, then the image's; `img_id` and `img_format` for an image
/// that says where it is and what it is; `config_url` unless an operator has set another one.
fn os_params(
    backend: &backend::Model,
    image: &image::Model,
    config_url: Option<&str>,
) -> Result<Value, ImageError> {
    check_parameters(&image.source, &image.format)?;
    let mut params = Map::new();
    for source in [&backend.os_params, &image.os_params] {
        if let Some(map) = source.as_object() {
            params.extend(map.clone());
        }
    }
    for (name, value) in [("img_id", &image.source), ("img_format", &image.format)] {
        if !value.is_empty() {
            params.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(url) = config_url {
        params
            .entry("config_url".to_owned())
            .or_insert_with(|| json!(url));
    }
    Ok(Value::Object(params))
}

fn instance(naming: &Naming, server_id: i64, rest: &str) -> String {
    format!("/2/instances/{}{rest}", naming.instance(server_id))
}

/// Starts an instance.
pub fn start(naming: &Naming, server_id: i64) -> Request {
    Request::new(Verb::Put, instance(naming, server_id, "/startup"))
}

/// Shuts an instance down; Ganeti gives the guest its default time.
pub fn stop(naming: &Naming, server_id: i64) -> Request {
    Request {
        body: Some(json!({})),
        ..Request::new(Verb::Put, instance(naming, server_id, "/shutdown"))
    }
}

/// Reboots an instance: `hard` cuts its power.
pub fn reboot(naming: &Naming, server_id: i64, hard: bool) -> Request {
    // A soft reboot of KVM under Ganeti is a shutdown and a start as well; what differs is
    // the time that the guest gets.
    let body = if hard {
        json!({"shutdown_timeout": 0})
    } else {
        json!({})
    };
    Request {
        query: vec![("type".to_owned(), "hard".to_owned())],
        body: Some(body),
        ..Request::new(Verb::Post, instance(naming, server_id, "/reboot"))
    }
}

/// Removes an instance and its disks, cutting its power.
pub fn remove(naming: &Naming, server_id: i64) -> Request {
    Request {
        body: Some(json!({"shutdown_timeout": 0})),
        after_earlier: true,
        ..Request::new(Verb::Delete, instance(naming, server_id, ""))
    }
}

/// Gives an instance other processors and memory.
pub fn resize(naming: &Naming, server_id: i64, flavor: &flavor::Model) -> Request {
    Request {
        body: Some(json!({"beparams": {
            "vcpus": flavor.vcpus,
            "minmem": flavor.ram,
            "maxmem": flavor.ram,
        }})),
        ..Request::new(Verb::Put, instance(naming, server_id, "/modify"))
    }
}

/// Gives a NIC another firewall profile, and changes nothing else: so that the nodes' hooks run,
/// and a message with the new state goes round.
pub fn firewall(
    naming: &Naming,
    server_id: i64,
    os: &str,
    port_id: i64,
    profile: Option<&str>,
) -> Request {
    Request {
        body: Some(json!({"os_name": os})),
        firewall: Some(Firewall {
            instance: naming.instance(server_id),
            nic: naming.nic(port_id),
            profile: profile.map(str::to_owned),
        }),
        ..Request::new(Verb::Put, instance(naming, server_id, "/modify"))
    }
}

/// The most tags in one call: they are in its URL, of which Ganeti reads 8 KiB.
const TAGS_PER_CALL: usize = 12;

/// Gives an instance tags, or takes them from it.
pub fn tags(naming: &Naming, server_id: i64, give: bool, tags: &[String]) -> Vec<Request> {
    let method = if give { Verb::Put } else { Verb::Delete };
    tags.chunks(TAGS_PER_CALL)
        .map(|some| Request {
            query: some
                .iter()
                .map(|tag| ("tag".to_owned(), tag.clone()))
                .collect(),
            ..Request::new(method, instance(naming, server_id, "/tags"))
        })
        .collect()
}

/// Has an instance boot from an image in its CD drive; none: from its disk, as it did before.
pub fn rescue(naming: &Naming, server_id: i64, image: Option<&str>) -> Request {
    let order = image.map_or("default", |_| "cdrom");
    Request {
        body: Some(json!({"hvparams": {
            "boot_order": order,
            "cdrom_image_path": image.unwrap_or("default"),
        }})),
        ..Request::new(Verb::Put, instance(naming, server_id, "/modify"))
    }
}

/// Plugs a NIC in: at once into a guest that runs, else for its next start.
pub fn connect(naming: &Naming, server_id: i64, nic: &Nic, running: bool) -> Request {
    Request {
        body: Some(modify_nics(&json!(["add", -1, nic.body(naming)]), running)),
        networks: vec![nic.network_id],
        ..Request::new(Verb::Put, instance(naming, server_id, "/modify"))
    }
}

/// Unplugs a NIC.
pub fn disconnect(naming: &Naming, server_id: i64, port_id: i64, running: bool) -> Request {
    let change = json!(["remove", naming.nic(port_id), {}]);
    Request {
        body: Some(modify_nics(&change, running)),
        ..Request::new(Verb::Put, instance(naming, server_id, "/modify"))
    }
}

fn modify_nics(change: &Value, running: bool) -> Value {
    // Ganeti 3.0 fails if it is to hotplug into a guest that does not run.
    if running {
        json!({"nics": [change], "hotplug": true})
    } else {
        json!({"nics": [change]})
    }
}

/// The IPv4 range that a network without one gets, since Ganeti insists: it is never used.
const UNUSED_RANGE: &str = "10.0.0.0/29";

/// Makes a network known to a cluster.
pub fn network_add(
    naming: &Naming,
    network: &network::Model,
    subnets: &[subnet::Model],
    mac_index: i32,
) -> Request {
    let family = |version| subnets.iter().find(|subnet| subnet.ip_version == version);
    let mut body = json!({
        "network_name": naming.network(network.id),
        "network": UNUSED_RANGE,
        "mac_prefix": format!("{}{:x}", network.mac_prefix, mac_index.rem_euclid(16)),
        "conflicts_check": false,
        "tags": network_tags(network, subnets),
    });
    if let Some(map) = body.as_object_mut() {
        if let Some(v4) = family(4) {
            map.insert("network".to_owned(), json!(v4.cidr));
            if let Some(gateway) = &v4.gateway {
                map.insert("gateway".to_owned(), json!(gateway));
            }
        }
        if let Some(v6) = family(6) {
            map.insert("network6".to_owned(), json!(v6.cidr));
            if let Some(gateway) = &v6.gateway {
                map.insert("gateway6".to_owned(), json!(gateway));
            }
        }
    }
    Request {
        body: Some(body),
        ..Request::new(Verb::Post, "/2/networks".to_owned())
    }
}

fn network_tags(network: &network::Model, subnets: &[subnet::Model]) -> Vec<String> {
    let mut tags: Vec<String> = network
        .tags
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tag| Some(tag.as_str()?.to_owned()))
        .collect();
    let kind = match network.kind.as_str() {
        "IP_LESS_ROUTED" => "ip-less-routed",
        "MAC_FILTERED" => "private-filtered",
        "PHYSICAL_VLAN" => "physical-vlan",
        _ if network.mode == "bridged" => "bridged",
        _ => "routed",
    };
    tags.push(kind.to_owned());
    if subnets.iter().any(|subnet| subnet.dhcp || subnet.slaac) {
        tags.push("nfdhcpd".to_owned());
    }
    tags.push(if network.public { "public" } else { "private" }.to_owned());
    tags.sort();
    tags.dedup();
    tags
}

/// Connects a network to a node group; the job waits for the one that adds the network.
pub fn network_connect(
    naming: &Naming,
    network: &network::Model,
    group: &str,
    add_job: Option<i64>,
) -> Request {
    let mut body = json!({
        "group_name": group,
        "network_mode": network.mode,
        "network_link": network.link,
        "conflicts_check": false,
    });
    if let (Some(job), Some(map)) = (add_job, body.as_object_mut()) {
        map.insert("depends".to_owned(), json!([[job, ["success"]]]));
    }
    Request {
        body: Some(body),
        ..Request::new(
            Verb::Put,
            format!("/2/networks/{}/connect", naming.network(network.id)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_of_that_nic_change() {
        let firewall = |profile: Option<&str>| Firewall {
            instance: "snf-1".to_owned(),
            nic: "snf-nic-1".to_owned(),
            profile: profile.map(str::to_owned),
        };
        let tags = [
            "disable_ipv6",
            "synnefo:network:snf-nic-1:protected",
            "synnefo:network:snf-nic-12:protected",
        ];
        let old = vec!["synnefo:network:snf-nic-1:protected"];
        assert_eq!(firewall(None).change(&tags), (old.clone(), None));
        assert_eq!(firewall(Some("protected")).change(&tags), (vec![], None));
        let new = Some("synnefo:network:snf-nic-1:limited".to_owned());
        assert_eq!(firewall(Some("limited")).change(&tags), (old, new.clone()));
        assert_eq!(firewall(Some("limited")).change(&[]), (vec![], new));
    }

    #[test]
    fn an_intent_of_an_older_version_is_read() {
        let text = r#"{"method": "PUT", "path": "/2/instances/snf-1/startup"}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request.firewall, None);
    }
}
