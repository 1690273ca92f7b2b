//! The environment in which Ganeti runs the script of a KVM NIC.
//!
//! Ganeti 3.0 and 3.1 run `/etc/ganeti/kvm-vif-bridge` when a NIC comes up; 3.2 runs
//! `/etc/ganeti/network/<mode>/{up,down}` and adds `ACTION` and `MIGRATION_PHASE`. The rest is
//! the same.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::addr::{Ipv4Net, Ipv6Net, MacAddr};
use crate::binding::is_interface_name;

/// No variable that Ganeti sets comes near; a longer value is refused.
const VALUE_LIMIT: usize = 64 * 1024;
/// An instance's name is a host name: at most 253 bytes.
const NAME_LIMIT: usize = 253;

/// Why an environment cannot be used. The text names the variable and its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NicError {
    /// The variable is not there, or empty.
    #[error("{0} is not set: is this run by Ganeti for a NIC?")]
    Missing(&'static str),
    /// The variable has a value that cannot be.
    #[error("{name}={value:?}: {reason}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value, at most its first 100 characters.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl NicError {
    /// A value that cannot be.
    pub fn value(name: &'static str, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Value {
            name,
            value: value.to_string().chars().take(100).collect(),
            reason: reason.into(),
        }
    }
}

/// Which way the interface goes. Ganeti 3.2 says it; before, there was only up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is about to be used.
    Up,
    /// It is no longer used.
    Down,
}

/// How the NIC is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A port of a Linux bridge.
    Bridged,
    /// Routed by the host.
    Routed,
    /// A port of an Open vSwitch bridge.
    OpenVSwitch,
    /// By scripts of the site (Ganeti 3.2).
    Ext,
}

impl Mode {
    /// Ganeti's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridged => "bridged",
            Self::Routed => "routed",
            Self::OpenVSwitch => "openvswitch",
            Self::Ext => "ext",
        }
    }
}

/// When, in a migration, the script runs (Ganeti 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPhase {
    /// Before the guest moves.
    Pre,
    /// After it has.
    Post,
}

/// The network that a NIC is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicNetwork {
    /// `NETWORK_NAME`.
    pub name: String,
    /// `NETWORK_UUID`; empty if not given.
    pub uuid: String,
    /// `NETWORK_TAGS`, sorted: Ganeti's order varies from call to call.
    pub tags: Vec<String>,
    /// `NETWORK_SUBNET`, without host bits.
    pub subnet: Option<Ipv4Net>,
    /// `NETWORK_GATEWAY`.
    pub gateway: Option<Ipv4Addr>,
    /// `NETWORK_SUBNET6`, without host bits.
    pub subnet6: Option<Ipv6Net>,
    /// `NETWORK_GATEWAY6`.
    pub gateway6: Option<Ipv6Addr>,
    /// `NETWORK_MAC_PREFIX`: the first three bytes of the MAC addresses in it.
    pub mac_prefix: Option<[u8; 3]>,
}

/// What Ganeti says of a NIC, each value checked by itself and against the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicEnvironment {
    /// `ACTION`, if given.
    pub action: Option<Action>,
    /// `INSTANCE`: the instance's name.
    pub instance: String,
    /// `MAC`: the guest's address.
    pub mac: MacAddr,
    /// `MODE`.
    pub mode: Mode,
    /// `INTERFACE`: the TAP.
    pub interface: String,
    /// `INTERFACE_INDEX`: the NIC's place in the instance, from 0.
    pub index: usize,
    /// `INTERFACE_UUID`; empty if not given.
    pub uuid: String,
    /// `INTERFACE_NAME`: the NIC's name, if it has one.
    pub name: Option<String>,
    /// `TAGS`: the instance's tags, sorted.
    pub tags: Vec<String>,
    /// `IP`: the guest's address, if it has one.
    pub ip: Option<IpAddr>,
    /// `LINK`: a bridge, or a routing table's number or name.
    pub link: String,
    /// `VLAN`: as Ganeti passes it (`.10`, `:10:20`, `.10:20`), empty if none.
    pub vlan: String,
    /// The network, if the NIC is in one.
    pub network: Option<NicNetwork>,
    /// `MIGRATION_PHASE`, if given.
    pub migration_phase: Option<MigrationPhase>,
}

impl NicEnvironment {
    /// Reads the variables; those that are not Ganeti's are ignored.
    ///
    /// # Errors
    /// The first variable that is missing or has a value that cannot be.
    pub fn parse<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Result<Self, NicError>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let variables = Variables(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        );
        let interface = variables.required("INTERFACE")?;
        if !is_interface_name(interface) || interface.starts_with('.') {
            return Err(NicError::value(
                "INTERFACE",
                interface,
                "not an interface's name (1 to 15 bytes, without / : and blanks)",
            ));
        }
        let mode = variables.required("MODE")?;
        let mode = match mode {
            "bridged" => Mode::Bridged,
            "routed" => Mode::Routed,
            "openvswitch" => Mode::OpenVSwitch,
            "ext" => Mode::Ext,
            _ => {
                let reason = "not a mode (bridged, routed, openvswitch, ext)";
                return Err(NicError::value("MODE", mode, reason));
            }
        };
        let mac: MacAddr = variables.required_as("MAC")?;
        if mac.is_multicast() || mac.is_zero() {
            let reason = "an interface cannot have a group's address or none";
            return Err(NicError::value("MAC", mac, reason));
        }
        let link = if mode == Mode::Ext {
            variables.optional("LINK")?.unwrap_or_default()
        } else {
            variables.required("LINK")?
        };
        let environment = Self {
            action: variables.one_of("ACTION", &[("up", Action::Up), ("down", Action::Down)])?,
            instance: variables.name("INSTANCE")?,
            mac,
            mode,
            interface: interface.to_owned(),
            index: variables.optional_as("INTERFACE_INDEX")?.unwrap_or(0),
            uuid: variables.word("INTERFACE_UUID")?,
            name: Some(variables.word("INTERFACE_NAME")?).filter(|name| !name.is_empty()),
            tags: variables.words("TAGS")?,
            ip: variables.optional_as("IP")?,
            link: clean("LINK", link)?.to_owned(),
            vlan: variables.word("VLAN")?,
            network: variables.network()?,
            migration_phase: variables.one_of(
                "MIGRATION_PHASE",
                &[("pre", MigrationPhase::Pre), ("post", MigrationPhase::Post)],
            )?,
        };
        environment.check()?;
        Ok(environment)
    }

    /// Values that are good each, but not together.
    fn check(&self) -> Result<(), NicError> {
        let Some(network) = &self.network else {
            return Ok(());
        };
        let outside = |name, address: IpAddr, net: &dyn fmt::Display| {
            NicError::value(name, address, format!("not in the network {net}"))
        };
        match (self.ip, network.subnet, network.subnet6) {
            (Some(IpAddr::V4(ip)), Some(subnet), _) if !subnet.contains(&ip) => {
                return Err(outside("IP", ip.into(), &subnet));
            }
            (Some(IpAddr::V6(ip)), _, Some(subnet)) if !subnet.contains(&ip) => {
                return Err(outside("IP", ip.into(), &subnet));
            }
            _ => {}
        }
        if let (Some(gateway), Some(subnet)) = (network.gateway, network.subnet)
            && !subnet.contains(&gateway)
        {
            return Err(outside("NETWORK_GATEWAY", gateway.into(), &subnet));
        }
        // A router of IPv6 may well be a link-local address.
        if let (Some(gateway), Some(subnet)) = (network.gateway6, network.subnet6)
            && !subnet.contains(&gateway)
            && !crate::addr::is_link_local(gateway)
        {
            return Err(outside("NETWORK_GATEWAY6", gateway.into(), &subnet));
        }
        if self.ip.is_some() && self.ip == network.gateway.map(IpAddr::V4) {
            let reason = "the address of the gateway cannot be a guest's";
            return Err(NicError::value(
                "IP",
                self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                reason,
            ));
        }
        Ok(())
    }
}

struct Variables(BTreeMap<String, String>);

impl Variables {
    fn optional(&self, name: &'static str) -> Result<Option<&str>, NicError> {
        match self.0.get(name).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(value) if value.len() > VALUE_LIMIT => {
                let reason = format!("longer than {VALUE_LIMIT} bytes");
                Err(NicError::value(name, value, reason))
            }
            Some(value) => Ok(Some(value)),
        }
    }

    fn required(&self, name: &'static str) -> Result<&str, NicError> {
        self.optional(name)?.ok_or(NicError::Missing(name))
    }

    fn optional_as<T>(&self, name: &'static str) -> Result<Option<T>, NicError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional(name)?
            .map(|value| {
                value
                    .parse()
                    .map_err(|error: T::Err| NicError::value(name, value, error.to_string()))
            })
            .transpose()
    }

    fn required_as<T>(&self, name: &'static str) -> Result<T, NicError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional_as(name)?.ok_or(NicError::Missing(name))
    }

    /// A value that may be empty, of one line.
    fn word(&self, name: &'static str) -> Result<String, NicError> {
        Ok(clean(name, self.optional(name)?.unwrap_or_default())?.to_owned())
    }

    fn name(&self, name: &'static str) -> Result<String, NicError> {
        let value = clean(name, self.required(name)?)?;
        if value.len() > NAME_LIMIT || value.contains(['/', ' ']) || value.starts_with('.') {
            return Err(NicError::value(name, value, "not a host name"));
        }
        Ok(value.to_owned())
    }

    fn words(&self, name: &'static str) -> Result<Vec<String>, NicError> {
        let value = clean(name, self.optional(name)?.unwrap_or_default())?;
        let mut words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
        words.sort_unstable();
        words.dedup();
        Ok(words)
    }

    fn one_of<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, NicError> {
        let Some(value) = self.optional(name)? else {
            return Ok(None);
        };
        let choice = choices.iter().find(|(word, _)| *word == value);
        choice.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            NicError::value(name, value, format!("not one of {}", words.join(", ")))
        })
    }

    fn network(&self) -> Result<Option<NicNetwork>, NicError> {
        let Some(name) = self.optional("NETWORK_NAME")? else {
            return Ok(None);
        };
        Ok(Some(NicNetwork {
            name: clean("NETWORK_NAME", name)?.to_owned(),
            uuid: self.word("NETWORK_UUID")?,
            tags: self.words("NETWORK_TAGS")?,
            subnet: self
                .optional_as::<Ipv4Net>("NETWORK_SUBNET")?
                .map(|net| net.trunc()),
            gateway: self.optional_as("NETWORK_GATEWAY")?,
            subnet6: self
                .optional_as::<Ipv6Net>("NETWORK_SUBNET6")?
                .map(|net| net.trunc()),
            gateway6: self.optional_as("NETWORK_GATEWAY6")?,
            mac_prefix: self
                .optional("NETWORK_MAC_PREFIX")?
                .map(mac_prefix)
                .transpose()?,
        }))
    }
}

/// `aa:00:01`
fn mac_prefix(value: &str) -> Result<[u8; 3], NicError> {
    let whole: Result<MacAddr, _> = format!("{value}:00:00:00").parse();
    match whole {
        Ok(mac) => {
            let [a, b, c, ..] = mac.octets();
            Ok([a, b, c])
        }
        Err(_) => Err(NicError::value(
            "NETWORK_MAC_PREFIX",
            value,
            "not a MAC prefix such as aa:00:01",
        )),
    }
}

/// The value, if it has no control characters: they would break a log line or a file's.
fn clean<'a>(name: &'static str, value: &'a str) -> Result<&'a str, NicError> {
    if value.chars().any(char::is_control) {
        return Err(NicError::value(name, value, "has a control character"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The environment of a real call, less what is not Ganeti's.
    const BRIDGED: &[(&str, &str)] = &[
        ("INSTANCE", "snf-1"),
        ("MAC", "aa:00:00:e1:87:fc"),
        ("MODE", "bridged"),
        ("INTERFACE", "tap0"),
        ("INTERFACE_INDEX", "0"),
        ("INTERFACE_UUID", "55ef7b59-0918-45ef-b63d-c4266f7ab9bc"),
        ("TAGS", "synnefo:network:snf-nic-1:unprotected labtag"),
        ("IP", "10.66.1.7"),
        ("INTERFACE_NAME", "snf-nic-1"),
        ("LINK", "br0"),
        ("VLAN", ""),
        ("NETWORK_NAME", "net-br"),
        ("NETWORK_UUID", "3471be7d-0fa3-4fd3-a994-7758b2df3938"),
        ("NETWORK_TAGS", "nfdhcpd bridged"),
        ("NETWORK_SUBNET", "10.66.1.0/24"),
        ("NETWORK_GATEWAY", "10.66.1.1"),
        ("NETWORK_SUBNET6", "fd66:1::/64"),
        ("NETWORK_GATEWAY6", "fd66:1::1"),
        ("BRIDGE", "br0"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<NicEnvironment, NicError> {
        let all = BRIDGED.iter().chain(changes);
        NicEnvironment::parse(all.map(|(name, value)| (*name, *value)))
    }

    #[test]
    fn a_real_environment_is_understood() {
        let nic = with(&[]).unwrap();
        assert_eq!(nic.mode, Mode::Bridged);
        assert_eq!(nic.interface, "tap0");
        assert_eq!(nic.ip, Some("10.66.1.7".parse().unwrap()));
        assert_eq!(nic.name.as_deref(), Some("snf-nic-1"));
        assert_eq!(
            nic.tags,
            ["labtag", "synnefo:network:snf-nic-1:unprotected"]
        );
        let network = nic.network.unwrap();
        assert_eq!(network.tags, ["bridged", "nfdhcpd"]);
        assert_eq!(network.gateway6, Some("fd66:1::1".parse().unwrap()));
        assert_eq!(nic.action, None);
        assert_eq!(nic.migration_phase, None);
    }

    #[test]
    fn empty_values_are_as_good_as_none() {
        let nic = with(&[("IP", ""), ("NETWORK_NAME", ""), ("INTERFACE_NAME", "")]).unwrap();
        assert_eq!((nic.ip, nic.network, nic.name), (None, None, None));
    }

    #[test]
    fn ganeti_3_2_says_which_way_and_when() {
        let nic = with(&[("ACTION", "down"), ("MIGRATION_PHASE", "post")]).unwrap();
        assert_eq!(nic.action, Some(Action::Down));
        assert_eq!(nic.migration_phase, Some(MigrationPhase::Post));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_value() {
        for (name, value, reason) in [
            ("MODE", "bridge", "not a mode"),
            ("MAC", "aa:00:00:e1:87", "MAC"),
            ("MAC", "01:00:5e:00:00:01", "group"),
            ("MAC", "00:00:00:00:00:00", "group's address or none"),
            ("INTERFACE", "../../etc/passwd", "not an interface's name"),
            ("INTERFACE", "a-tap-with-16-by", "not an interface's name"),
            ("INTERFACE", ".tap0", "not an interface's name"),
            ("INTERFACE_INDEX", "first", "invalid digit"),
            ("IP", "10.66.2.7", "not in the network 10.66.1.0/24"),
            ("IP", "fd66:2::7", "not in the network fd66:1::/64"),
            ("IP", "10.66.1.1", "gateway"),
            ("IP", "pool", "invalid IP address"),
            ("LINK", "br0\nbr1", "control character"),
            ("INSTANCE", "a/b", "not a host name"),
            ("NETWORK_SUBNET", "10.66.1.0", "address"),
            ("NETWORK_GATEWAY", "10.66.2.1", "not in the network"),
            ("NETWORK_GATEWAY6", "fd66:2::1", "not in the network"),
            ("NETWORK_MAC_PREFIX", "aa:00", "MAC prefix"),
            ("ACTION", "sideways", "not one of up, down"),
        ] {
            let error = with(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}={value:?}: ")), "{error}");
            assert!(error.contains(reason), "{error}: {reason}");
            assert!(!error.contains('\n'), "{error}");
        }
        for name in ["INTERFACE", "MODE", "MAC", "LINK", "INSTANCE"] {
            let error = with(&[(name, "")]).unwrap_err();
            assert_eq!(error, NicError::Missing(name));
        }
    }

    #[test]
    fn a_link_local_gateway_and_an_ipv6_address_are_good() {
        let nic = with(&[("IP", "fd66:1::7"), ("NETWORK_GATEWAY6", "fe80::1")]).unwrap();
        assert_eq!(nic.ip, Some("fd66:1::7".parse().unwrap()));
    }
}
