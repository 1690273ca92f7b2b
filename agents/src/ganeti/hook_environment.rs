//! The environment in which Ganeti runs a hook (`GANETI_*`, hooks version 2).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::firewall;
use crate::addr::{self, Ipv6Net, MacAddr};

/// A variable is at most this long; more than any of Ganeti's own.
const VALUE_LIMIT: usize = 1 << 20;

/// More NICs than Ganeti gives an instance (8) and than a hypervisor takes (32).
const NIC_LIMIT: usize = 64;

/// Why an environment cannot be used. The text names the variable and its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The variable is not there.
    #[error("{0} is not set: is this run by Ganeti as a hook?")]
    Missing(String),
    /// The variable has a value that cannot be.
    #[error("{name}={value:?}: {reason}")]
    Value {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the operation; a failure aborts it.
    Pre,
    /// After the operation; a failure is only logged.
    Post,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pre => "pre",
            Self::Post => "post",
        })
    }
}

/// What a hook is told.
#[derive(Debug, Clone)]
pub struct HookEnvironment {
    variables: HashMap<String, String>,
    /// Whether it is before or after the operation.
    pub phase: Phase,
    /// What happens: `instance-start`.
    pub path: String,
    /// The opcode: `OP_INSTANCE_STARTUP`.
    pub opcode: String,
    /// The cluster's name.
    pub cluster: String,
    /// The master's host name.
    pub master: String,
}

/// What a hook is told of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookInstance {
    /// Its name.
    pub name: String,
    /// Its primary node.
    pub primary: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its NICs, in their order.
    pub nics: Vec<HookNic>,
}

/// What a hook is told of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookNic {
    /// Its place among the instance's NICs, from 0.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its address, if it has one.
    pub ip: Option<IpAddr>,
    /// Its MAC address.
    pub mac: MacAddr,
    /// `bridged`, `routed`, …
    pub mode: String,
    /// The bridge or routing table.
    pub link: Option<String>,
    /// The name of its network, if it is in one.
    pub network: Option<String>,
    /// Its network's tags.
    pub network_tags: Vec<String>,
    /// Its network's IPv6 prefix, if it has one.
    pub subnet6: Option<Ipv6Net>,
    /// `protected`, `limited` or `unprotected`, if a tag of the instance says.
    pub firewall: Option<String>,
}

impl HookNic {
    /// The address that the guest makes itself from the prefix and its MAC address (EUI-64).
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        addr::in_prefix(self.subnet6?, self.mac)
    }
}

impl HookEnvironment {
    /// Returns whether a variable is one that Ganeti sets for hooks.
    pub fn is_variable(name: &str) -> bool {
        name.starts_with("GANETI_")
    }

    /// Reads the common variables out of an environment.
    ///
    /// # Errors
    /// One that every hook has is missing or cannot be.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, HookError> {
        let variables: HashMap<_, _> = variables
            .into_iter()
            .filter(|(name, _)| Self::is_variable(name))
            .collect();
        if let Some((name, value)) = variables
            .iter()
            .find(|(_, value)| value.len() > VALUE_LIMIT)
        {
            let reason = format!("{} bytes: more than {VALUE_LIMIT}", value.len());
            return Err(wrong(name, value, &reason));
        }
        let get = |name: &str| required(&variables, name).map(str::to_owned);
        let version = get("GANETI_HOOKS_VERSION")?;
        if version != "2" {
            let reason = "only version 2 is known";
            return Err(wrong("GANETI_HOOKS_VERSION", &version, reason));
        }
        let phase = match get("GANETI_HOOKS_PHASE")?.as_str() {
            "pre" => Phase::Pre,
            "post" => Phase::Post,
            other => return Err(wrong("GANETI_HOOKS_PHASE", other, "must be pre or post")),
        };
        Ok(Self {
            phase,
            path: get("GANETI_HOOKS_PATH")?,
            opcode: get("GANETI_OP_CODE")?,
            cluster: get("GANETI_CLUSTER")?,
            master: get("GANETI_MASTER")?,
            variables,
        })
    }

    /// A variable that is set and not empty, by its name without `GANETI_`.
    pub fn get(&self, name: &str) -> Option<&str> {
        optional(&self.variables, &format!("GANETI_{name}"))
    }

    /// The instance as it is now: after the operation in a post hook of one that changes it,
    /// else before.
    ///
    /// # Errors
    /// A variable of an instance is missing or cannot be.
    pub fn instance(&self) -> Result<HookInstance, HookError> {
        let after = "GANETI_POST_INSTANCE_";
        let has_after = self.variables.contains_key(&format!("{after}NAME"));
        let prefix = if self.phase == Phase::Post && has_after {
            after
        } else {
            "GANETI_INSTANCE_"
        };
        self.instance_at(prefix)
    }

    /// The instance as it was before the operation.
    ///
    /// # Errors
    /// As for [`HookEnvironment::instance`].
    pub fn instance_before(&self) -> Result<HookInstance, HookError> {
        self.instance_at("GANETI_INSTANCE_")
    }

    fn instance_at(&self, prefix: &str) -> Result<HookInstance, HookError> {
        let need = |name: &str| required(&self.variables, &format!("{prefix}{name}"));
        let name = need("NAME")?.to_owned();
        let primary = need("PRIMARY")?.to_owned();
        let tags = words(self.variables.get(&format!("{prefix}TAGS")));
        let count_name = format!("{prefix}NIC_COUNT");
        let count = required(&self.variables, &count_name)?;
        let count: usize = count
            .parse()
            .ok()
            .filter(|count| *count <= NIC_LIMIT)
            .ok_or_else(|| wrong(&count_name, count, "not a number of NICs"))?;
        let nics = (0..count)
            .map(|index| self.nic(&format!("{prefix}NIC{index}_"), index, &tags))
            .collect::<Result<_, _>>()?;
        Ok(HookInstance {
            name,
            primary,
            tags,
            nics,
        })
    }

    fn nic(&self, prefix: &str, index: usize, tags: &[String]) -> Result<HookNic, HookError> {
        let get = |name: &str| optional(&self.variables, &format!("{prefix}{name}"));
        let owned = |name: &str| get(name).map(str::to_owned);
        let mac_name = format!("{prefix}MAC");
        let mac = required(&self.variables, &mac_name)?;
        let mac = mac
            .parse()
            .map_err(|error| wrong(&mac_name, mac, &format!("{error}")))?;
        let ip = get("IP")
            .map(|ip| {
                ip.parse()
                    .map_err(|error| wrong(&format!("{prefix}IP"), ip, &format!("{error}")))
            })
            .transpose()?;
        let subnet6 = get("NETWORK_SUBNET6")
            .map(|subnet| {
                subnet.parse().map_err(|error| {
                    wrong(
                        &format!("{prefix}NETWORK_SUBNET6"),
                        subnet,
                        &format!("{error}"),
                    )
                })
            })
            .transpose()?;
        let name = owned("NAME");
        let tags = tags.iter().map(String::as_str);
        Ok(HookNic {
            index,
            ip,
            mac,
            mode: get("MODE").unwrap_or_default().to_owned(),
            link: owned("LINK"),
            network: owned("NETWORK_NAME"),
            network_tags: words(self.variables.get(&format!("{prefix}NETWORK_TAGS"))),
            subnet6,
            firewall: firewall::profile(tags, name.as_deref(), index).map(str::to_owned),
            name,
        })
    }
}

fn optional<'a>(variables: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    variables
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

fn required<'a>(variables: &'a HashMap<String, String>, name: &str) -> Result<&'a str, HookError> {
    match variables.get(name) {
        None => Err(HookError::Missing(name.to_owned())),
        Some(value) if value.is_empty() => Err(wrong(name, value, "is empty")),
        Some(value) => Ok(value),
    }
}

fn wrong(name: &str, value: &str, reason: &str) -> HookError {
    HookError::Value {
        name: name.to_owned(),
        value: value.chars().take(200).collect(),
        reason: reason.to_owned(),
    }
}

fn words(text: Option<&String>) -> Vec<String> {
    text.map(|text| text.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &str = include_str!("../../testdata/hook-instance-add-post.json");
    const MODIFY: &str = include_str!("../../testdata/hook-instance-modify-post.json");

    fn variables(json: &str) -> HashMap<String, String> {
        serde_json::from_str(json).unwrap()
    }

    fn changed(json: &str, name: &str, value: Option<&str>) -> Result<HookInstance, HookError> {
        let mut variables = variables(json);
        match value {
            Some(value) => variables.insert(name.to_owned(), value.to_owned()),
            None => variables.remove(name),
        };
        HookEnvironment::new(variables)?.instance()
    }

    #[test]
    fn a_real_create() {
        let environment = HookEnvironment::new(variables(ADD)).unwrap();
        assert_eq!(environment.phase, Phase::Post);
        assert_eq!(environment.path, "instance-add");
        assert_eq!(environment.opcode, "OP_INSTANCE_CREATE");
        assert_eq!(environment.cluster, "cluster.gnt.lab");
        assert_eq!(environment.master, "node1.gnt.lab");
        assert_eq!(environment.get("ADD_MODE"), Some("create"));
        assert_eq!(environment.get("INSTANCE_SECONDARIES"), None);
        let instance = environment.instance().unwrap();
        assert_eq!(instance.name, "snf-1");
        assert_eq!(instance.primary, "node1.gnt.lab");
        let [nic] = &instance.nics[..] else { panic!() };
        assert_eq!(nic.ip.unwrap().to_string(), "10.66.1.7");
        assert_eq!(nic.mac.to_string(), "aa:00:00:e1:87:fc");
        assert_eq!(nic.network_tags, ["nfdhcpd", "bridged"]);
        assert_eq!(nic.firewall.as_deref(), Some("unprotected"));
        assert_eq!(nic.ipv6().unwrap().to_string(), "fd66:1::a800:ff:fee1:87fc");
    }

    #[test]
    fn a_real_modify_shows_the_nics_as_they_are_afterwards() {
        let instance = HookEnvironment::new(variables(MODIFY))
            .unwrap()
            .instance()
            .unwrap();
        let modes: Vec<_> = instance.nics.iter().map(|nic| nic.mode.as_str()).collect();
        assert_eq!(modes, ["bridged", "routed", "bridged"]);
        assert_eq!(instance.nics[1].ip.unwrap().to_string(), "10.66.2.10");
        let before = "GANETI_INSTANCE_NIC1_IP";
        let same = changed(MODIFY, before, Some("10.66.2.9")).unwrap();
        assert_eq!(same, instance);
    }

    #[test]
    fn what_may_be_missing_may_be_missing() {
        let prefix = "GANETI_POST_INSTANCE_NIC0_";
        for name in [
            "IP",
            "NAME",
            "LINK",
            "NETWORK_NAME",
            "NETWORK_SUBNET6",
            "NETWORK_TAGS",
        ] {
            let name = format!("{prefix}{name}");
            assert!(changed(ADD, &name, None).is_ok());
            assert!(changed(ADD, &name, Some("")).is_ok());
        }
    }

    #[test]
    fn a_wrong_environment_is_refused_with_name_and_value() {
        for (name, value) in [
            ("GANETI_HOOKS_VERSION", "3"),
            ("GANETI_HOOKS_PHASE", "during"),
            ("GANETI_POST_INSTANCE_NIC_COUNT", "-1"),
            ("GANETI_POST_INSTANCE_NIC_COUNT", "65"),
            ("GANETI_POST_INSTANCE_NIC_COUNT", "99999999999999999999"),
            ("GANETI_POST_INSTANCE_NIC0_MAC", "aa:00"),
            ("GANETI_POST_INSTANCE_NIC0_IP", "10.66.1"),
            ("GANETI_POST_INSTANCE_NIC0_NETWORK_SUBNET6", "fd66::/200"),
        ] {
            let error = changed(ADD, name, Some(value)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let long = "x".repeat(VALUE_LIMIT + 1);
        let error = changed(ADD, "GANETI_POST_INSTANCE_NIC0_IP", Some(&long)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("NIC0_IP") && error.len() < 400, "{error}");
        for name in [
            "GANETI_HOOKS_PATH",
            "GANETI_MASTER",
            "GANETI_POST_INSTANCE_PRIMARY",
            "GANETI_POST_INSTANCE_NIC_COUNT",
            "GANETI_POST_INSTANCE_NIC0_MAC",
        ] {
            let error = changed(ADD, name, None).unwrap_err();
            assert_eq!(error, HookError::Missing(name.to_owned()));
        }
        // one NIC more than there is
        let count = "GANETI_POST_INSTANCE_NIC_COUNT";
        assert!(changed(ADD, count, Some("2")).is_err());
    }
}
