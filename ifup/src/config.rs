//! The configuration, `/etc/snf-agents/ifup.toml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use agents::addr::MacAddr;
use agents::service::config::{ConfigError, load, load_or_default};
use agents::service::log::LogFilter;
use serde::Deserialize;

use crate::binding_keys::{self, Keys};
use crate::guard::profile::{self, Named, Profile};

/// Where the configuration is if nothing else is said; it need not be there.
pub const DEFAULT_PATH: &str = "/etc/snf-agents/ifup.toml";

/// The configuration; what is not said is as [`Config::default`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the records: what was done for each interface.
    pub state: PathBuf,
    /// Folder of nfdhcpd's bindings.
    pub bindings: PathBuf,
    /// After so many seconds an unfinished call undoes what it did, and fails.
    pub deadline_seconds: u64,
    /// The records that are logged.
    pub log: LogFilter,
    /// What guests may send.
    pub guard: GuardConfig,
    /// What may come to guests, by the profile that an instance's tag gives a NIC.
    pub profiles: BTreeMap<String, Profile>,
    /// Bridged NICs.
    pub bridged: Bridged,
    /// Routed NICs.
    pub routed: Routed,
    /// NICs of Open vSwitch.
    pub openvswitch: OpenVSwitch,
    /// What goes into each binding besides what Ganeti says.
    pub nfdhcpd: Nfdhcpd,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/snf-ifup".into(),
            bindings: "/var/lib/nfdhcpd".into(),
            deadline_seconds: 10,
            log: LogFilter::warn(),
            guard: GuardConfig::default(),
            profiles: default_profiles(),
            bridged: Bridged::default(),
            routed: Routed::default(),
            openvswitch: OpenVSwitch::default(),
            nfdhcpd: Nfdhcpd::default(),
        }
    }
}

/// The profiles of Synnefo's tags.
fn default_profiles() -> BTreeMap<String, Profile> {
    let limited = Profile {
        ping: true,
        tcp: vec![22, 3389],
        ..Profile::default()
    };
    let unprotected = Profile {
        all: true,
        ..Profile::default()
    };
    [
        ("protected", Profile::default()),
        ("limited", limited),
        ("unprotected", unprotected),
    ]
    .map(|(name, profile)| (name.to_owned(), profile))
    .into()
}

/// What guests may send.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// A NIC with an address or in a network with a prefix sends only from its own addresses.
    pub enabled: bool,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Bridged NICs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bridged {
    /// Guests on the same bridge do not see each other, only the ports that are not isolated.
    pub isolated: bool,
}

/// Routed NICs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routed {
    /// Priority of the rules that lead to a NIC's table: before main's 32766.
    pub rule_priority: u32,
    /// MAC address of every routed TAP: the guests' router keeps it when they migrate.
    pub mac: String,
    /// Files with the names of tables.
    pub table_names: Vec<PathBuf>,
    /// A packet of a guest that its table has no route for is looked up in main too.
    pub fall_through: bool,
    /// Set on the uplink what forwarding needs: forwarding, `proxy_ndp`, no reverse-path filter.
    pub uplink_sysctls: bool,
}

impl Default for Routed {
    fn default() -> Self {
        Self {
            rule_priority: 30_000,
            mac: "fe:53:4e:46:00:01".to_owned(),
            table_names: ["/etc/iproute2/rt_tables", "/usr/share/iproute2/rt_tables"]
                .map(PathBuf::from)
                .into(),
            fall_through: false,
            uplink_sysctls: true,
        }
    }
}

/// NICs of Open vSwitch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenVSwitch {
    /// Its program for changes of the database.
    pub program: PathBuf,
    /// Its program for changes of flows.
    pub flow_program: PathBuf,
}

impl Default for OpenVSwitch {
    fn default() -> Self {
        Self {
            program: "/usr/bin/ovs-vsctl".into(),
            flow_program: "/usr/bin/ovs-ofctl".into(),
        }
    }
}

/// What goes into each binding besides what Ganeti says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nfdhcpd {
    /// Name servers, instead of those that nfdhcpd is configured with.
    pub nameservers: Vec<IpAddr>,
    /// Domain and search domains.
    pub domain: Vec<String>,
    /// Other keys.
    pub keys: Keys,
    /// Other keys for the NICs of one network, by its name in Ganeti.
    pub networks: BTreeMap<String, Keys>,
}

impl Config {
    /// Reads the file; the default path need not be there.
    ///
    /// # Errors
    /// The file is not there or not readable, has an unknown key or a value that cannot be.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, config) = match path {
            Some(path) => (path, load::<Self>(path)?),
            None => {
                let path = Path::new(DEFAULT_PATH);
                (path, load_or_default::<Self>(path)?)
            }
        };
        config.check(path)?;
        Ok(config)
    }

    /// Reads the text of such a file; `path` is for messages alone.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = agents::service::config::parse(path, text)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: String, reason: &str| ConfigError::Value {
            path: path.to_owned(),
            key: key.to_owned(),
            value,
            reason: reason.to_owned(),
        };
        if !(1..=3600).contains(&self.deadline_seconds) {
            let value = self.deadline_seconds.to_string();
            return Err(wrong("deadline_seconds", value, "not from 1 to 3600"));
        }
        if !(1..32_766).contains(&self.routed.rule_priority) {
            let value = self.routed.rule_priority.to_string();
            let reason = "not from 1 to 32765 (main's is 32766)";
            return Err(wrong("routed.rule_priority", value, reason));
        }
        match self.routed.mac.parse::<MacAddr>() {
            Ok(mac) if !mac.is_multicast() && !mac.is_zero() => {}
            _ => {
                let value = self.routed.mac.clone();
                return Err(wrong("routed.mac", value, "not an interface's MAC address"));
            }
        }
        for name in self.profiles.keys() {
            if !profile::is_name(name) {
                let reason = "not a name of 1 to 32 letters, digits, - and _";
                return Err(wrong("profiles", name.clone(), reason));
            }
        }
        for name in &self.nfdhcpd.domain {
            if let Err(error) = name.parse::<agents::binding::DomainName>() {
                return Err(wrong("nfdhcpd.domain", name.clone(), &error.to_string()));
            }
        }
        let of_all = ("nfdhcpd.keys".to_owned(), &self.nfdhcpd.keys);
        let of_networks = self.nfdhcpd.networks.iter();
        let of_networks =
            of_networks.map(|(name, keys)| (format!("nfdhcpd.networks.{name:?}"), keys));
        for (place, keys) in std::iter::once(of_all).chain(of_networks) {
            for (key, value) in keys {
                if let Err(reason) = binding_keys::check(key, value) {
                    return Err(wrong(&format!("{place}.{key}"), value.clone(), &reason));
                }
            }
        }
        Ok(())
    }

    /// The profiles with their names, sorted.
    pub fn named_profiles(&self) -> Vec<Named> {
        self.profiles
            .iter()
            .map(|(name, profile)| Named {
                name: name.clone(),
                profile: profile.clone(),
            })
            .collect()
    }

    /// The MAC address of routed TAPs.
    pub fn routed_mac(&self) -> MacAddr {
        self.routed
            .mac
            .parse()
            .unwrap_or(MacAddr::new([0xfe, 0x53, 0x4e, 0x46, 0, 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let path = Path::new("ifup.toml");
        let config: Config =
            agents::service::config::parse(path, text).map_err(|error| error.to_string())?;
        config.check(path).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_packaged_file_says_the_defaults() {
        let text = include_str!("../../packaging/defaults/ifup.toml");
        let commented = parse(text).unwrap();
        assert_eq!(format!("{commented:?}"), format!("{:?}", Config::default()));
        // Each line that is commented out is a default, spelt out.
        let mut section = String::new();
        let mut spelt = String::new();
        for line in text.lines() {
            let line = line.strip_prefix('#').unwrap_or(line);
            if line.starts_with('[') || (!line.starts_with(' ') && line.contains(" = ")) {
                spelt.push_str(line);
                spelt.push('\n');
                section.push('.');
            }
        }
        let spelt = parse(&spelt).unwrap();
        assert_eq!(format!("{spelt:?}"), format!("{:?}", Config::default()));
        assert!(section.len() > 10);
    }

    #[test]
    fn what_cannot_be_is_refused_by_key_and_value() {
        for (text, part) in [
            ("deadline_seconds = 0", "deadline_seconds = 0: not from"),
            (
                "[routed]\nrule_priority = 40000",
                "routed.rule_priority = 40000",
            ),
            ("[routed]\nmac = \"01:00:5e:00:00:01\"", "routed.mac = 01:"),
            ("[routd]\n", "routd"),
            ("[nfdhcpd]\ndomain = [\"a b\"]", "nfdhcpd.domain = a b"),
            (
                "[nfdhcpd.keys]\nMTU = \"12\"",
                "nfdhcpd.keys.MTU = 12: the smallest",
            ),
            (
                "[nfdhcpd.networks.\"net a\"]\nIP = \"10.0.0.1\"",
                "nfdhcpd.networks.\"net a\".IP = 10.0.0.1: follows",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
