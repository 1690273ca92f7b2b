//! `config.data`: Ganeti's configuration, of which we read an instance's NICs and disks and
//! what it boots from.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::firewall;
use crate::message::{InstanceDisk, InstanceHvparams, InstanceNic};

/// The longest configuration that is read, in bytes. A cluster of 2000 instances has about
/// one mebibyte.
pub const FILE_LIMIT: usize = 256 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDataError {
    /// More than [`FILE_LIMIT`] bytes.
    #[error("{0} bytes: more than {FILE_LIMIT}")]
    TooLong(usize),
    /// Not JSON, or a field has the wrong type; the text names it.
    #[error("not Ganeti's configuration: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// What an instance is made of, by the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceParts {
    /// Its NICs, in their order.
    pub nics: Vec<InstanceNic>,
    /// Its disks, in their order.
    pub disks: Vec<InstanceDisk>,
    /// What it boots from.
    pub hvparams: InstanceHvparams,
}

/// The parts of the configuration that we read.
#[derive(Debug, Default, Deserialize)]
pub struct ConfigData {
    #[serde(default)]
    cluster: Cluster,
    #[serde(default)]
    instances: HashMap<String, Instance>,
    #[serde(default)]
    networks: HashMap<String, Network>,
    #[serde(default)]
    disks: HashMap<String, Disk>,
}

#[derive(Debug, Default, Deserialize)]
struct Cluster {
    #[serde(default)]
    hvparams: HashMap<String, BootParams>,
    #[serde(default)]
    os_hvp: HashMap<String, HashMap<String, BootParams>>,
    #[serde(default)]
    nicparams: HashMap<String, NicParams>,
}

#[derive(Debug, Default, Deserialize)]
struct Instance {
    #[serde(default)]
    name: String,
    #[serde(default)]
    hypervisor: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    hvparams: BootParams,
    #[serde(default)]
    nics: Vec<Nic>,
    #[serde(default)]
    disks: Vec<DiskReference>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct BootParams {
    boot_order: Option<Value>,
    cdrom_image_path: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Nic {
    #[serde(default)]
    mac: String,
    ip: Option<String>,
    #[serde(default)]
    nicparams: NicParams,
    network: Option<String>,
    name: Option<String>,
    uuid: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct NicParams {
    mode: Option<String>,
    link: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Network {
    name: String,
}

/// An instance names its disks by their identity; before Ganeti 2.15 it had them inside.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DiskReference {
    Uuid(String),
    Inside(Disk),
}

#[derive(Debug, Default, Deserialize)]
struct Disk {
    name: Option<String>,
    #[serde(default)]
    size: Value,
    uuid: Option<String>,
}

impl ConfigData {
    /// Parses the content of `config.data`.
    ///
    /// # Errors
    /// See [`ConfigDataError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigDataError> {
        if bytes.len() > FILE_LIMIT {
            return Err(ConfigDataError::TooLong(bytes.len()));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The instance with this name (or identity), if the cluster has it.
    pub fn instance(&self, name: &str) -> Option<InstanceParts> {
        let instance = self
            .instances
            .get(name)
            .or_else(|| self.instances.values().find(|other| other.name == name))?;
        Some(InstanceParts {
            nics: self.nics(instance),
            disks: self.disks(instance),
            hvparams: self.hvparams(instance),
        })
    }

    fn nics(&self, instance: &Instance) -> Vec<InstanceNic> {
        let defaults = self.cluster.nicparams.get("default");
        let tags = || instance.tags.iter().map(String::as_str);
        instance
            .nics
            .iter()
            .enumerate()
            .map(|(index, nic)| {
                let effective = |of: fn(&NicParams) -> &Option<String>| {
                    of(&nic.nicparams).clone().or_else(|| of(defaults?).clone())
                };
                let network = nic.network.as_ref().map(|uuid| {
                    let network = self.networks.get(uuid);
                    network.map_or_else(|| uuid.clone(), |network| network.name.clone())
                });
                InstanceNic {
                    ip: nic.ip.clone(),
                    name: nic.name.clone(),
                    mac: nic.mac.clone(),
                    mode: effective(|params| &params.mode),
                    network,
                    link: effective(|params| &params.link),
                    uuid: nic.uuid.clone(),
                    firewall: firewall::profile(tags(), nic.name.as_deref(), index)
                        .map(str::to_owned),
                }
            })
            .collect()
    }

    fn disks(&self, instance: &Instance) -> Vec<InstanceDisk> {
        instance
            .disks
            .iter()
            .filter_map(|reference| match reference {
                DiskReference::Uuid(uuid) => {
                    let disk = self.disks.get(uuid)?;
                    Some((disk, Some(uuid.clone())))
                }
                DiskReference::Inside(disk) => Some((disk, disk.uuid.clone())),
            })
            .map(|(disk, uuid)| InstanceDisk {
                name: disk.name.clone(),
                size: disk.size.as_u64().unwrap_or_default(),
                uuid,
            })
            .collect()
    }

    /// The instance's own parameters go before those of its OS, and those before the
    /// cluster's.
    fn hvparams(&self, instance: &Instance) -> InstanceHvparams {
        let of_os = self
            .cluster
            .os_hvp
            .get(&instance.os)
            .and_then(|hypervisors| hypervisors.get(&instance.hypervisor));
        let of_cluster = self.cluster.hvparams.get(&instance.hypervisor);
        let levels = [Some(&instance.hvparams), of_os, of_cluster];
        let effective = |of: fn(&BootParams) -> &Option<Value>| {
            levels
                .into_iter()
                .flatten()
                .find_map(|level| of(level).as_ref())
                .map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
        };
        InstanceHvparams {
            boot_order: effective(|params| &params.boot_order),
            cdrom_image_path: effective(|params| &params.cdrom_image_path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const REAL: &[u8] = include_bytes!("../../testdata/config.data");

    #[test]
    fn an_instance_of_a_real_cluster() {
        let config = ConfigData::parse(REAL).unwrap();
        let parts = config.instance("snf-1").unwrap();
        let names: Vec<_> = parts.nics.iter().map(|nic| nic.name.as_deref()).collect();
        assert_eq!(names, [Some("snf-nic-1"), Some("snf-nic-12")]);
        let first = &parts.nics[0];
        assert_eq!(first.ip.as_deref(), Some("10.66.1.7"));
        assert_eq!(first.mac, "aa:00:00:e1:87:fc");
        assert_eq!(first.mode.as_deref(), Some("bridged"));
        assert_eq!(first.link.as_deref(), Some("br0"));
        assert_eq!(first.network.as_deref(), Some("net-br"));
        assert_eq!(first.firewall.as_deref(), Some("protected"));
        assert_eq!(parts.nics[1].firewall, None);
        assert_eq!(parts.disks.len(), 1);
        assert_eq!(parts.disks[0].size, 80); // 64, and grown by 16
        assert_eq!(parts.disks[0].name.as_deref(), Some("snf-1-vol0"));
        assert_eq!(parts.hvparams.boot_order.as_deref(), Some("network"));
        // not set for the instance: the cluster's
        let other = config.instance("snf-4").unwrap();
        assert_eq!(other.hvparams.boot_order.as_deref(), Some("disk"));
        assert_eq!(other.hvparams.cdrom_image_path.as_deref(), Some(""));
        assert_eq!(other.nics[0].name, None);
        // found by its identity as well, and no other is
        let uuid = "7485b669-816f-463f-9b01-825101896f5b";
        assert_eq!(config.instance(uuid), Some(parts));
        assert_eq!(config.instance("snf-99"), None);
    }

    #[test]
    fn parameters_come_from_the_nearest_level_that_has_them() {
        let config = json!({
            "cluster": {
                "hvparams": {"kvm": {"boot_order": "disk", "cdrom_image_path": "/cluster"}},
                "os_hvp": {"img+default": {"kvm": {"boot_order": "cdrom"}}},
                "nicparams": {"default": {"mode": "routed", "link": "100"}}
            },
            "instances": {"u": {
                "name": "i", "hypervisor": "kvm", "os": "img+default",
                "nics": [{"mac": "m", "nicparams": {"link": "7"}, "network": "gone"}],
                "disks": [{"size": 5, "uuid": "inside"}, "missing"]
            }}
        });
        let parts = ConfigData::parse(config.to_string().as_bytes())
            .unwrap()
            .instance("i")
            .unwrap();
        assert_eq!(parts.hvparams.boot_order.as_deref(), Some("cdrom"));
        assert_eq!(parts.hvparams.cdrom_image_path.as_deref(), Some("/cluster"));
        assert_eq!(parts.nics[0].mode.as_deref(), Some("routed"));
        assert_eq!(parts.nics[0].link.as_deref(), Some("7"));
        assert_eq!(parts.nics[0].network.as_deref(), Some("gone"));
        assert_eq!(parts.disks.len(), 1);
        assert_eq!(parts.disks[0].uuid.as_deref(), Some("inside"));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for content in [
            "",
            "[]x",
            "{\"instances\": 7}",
            "{\"instances\": {\"u\": 7}}",
        ] {
            assert!(ConfigData::parse(content.as_bytes()).is_err(), "{content}");
        }
        assert!(ConfigData::parse(b"{}").unwrap().instance("i").is_none());
    }
}
