//! `nfdhcpd.toml`: what the file says, checked, as the daemon uses it.

mod legacy;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agents::addr::{IpNet, Ipv6Net};
use agents::binding::{Binding, DomainName};
use agents::service::config::{self, ConfigError};
use agents::service::log::LogFilter;
use serde::Deserialize;

use crate::limit::Rate;
use crate::profile::{Boot, Dhcp, Ipv6, Mode, OnLink, Preference, Profile, Router, ServerId};

pub use legacy::to_toml;

/// Where the configuration is looked for if nothing else is said: ours first, then the original's.
const DEFAULT_PATHS: [&str; 2] = ["/etc/nfdhcpd/nfdhcpd.toml", "/etc/nfdhcpd/nfdhcpd.conf"];

/// Where the configuration comes from, to be read at the start and again at a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(Option<PathBuf>);

impl Source {
    /// The file that was named, or else one of the default ones, or else none: the defaults.
    pub fn find(named: Option<PathBuf>) -> Self {
        let default = || {
            DEFAULT_PATHS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
        };
        Self(named.or_else(default))
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Reads the file. A name that ends in `.conf` is the original's kind of file.
    ///
    /// # Errors
    /// The file, the line or the key, and what is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let Some(path) = self.path() else {
            return Config::parse(Path::new(""), "");
        };
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            Config::parse(path, &to_toml(path, &text)?)
        } else {
            Config::parse(path, &text)
        }
    }
}

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The folder of binding files.
    pub bindings: PathBuf,
    /// The records that are logged.
    pub log: LogFilter,
    /// The netfilter queues that are read.
    pub queues: Vec<u16>,
    /// How many packets may wait in a queue.
    pub queue_length: u32,
    /// Who makes the rules that queue.
    pub rules: RulesBy,
    /// The mark of packets between bridge and inet family.
    pub mark: u32,
    /// How often one guest may ask; more is dropped.
    pub guest_rate: Option<Rate>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The socket on which `nfdhcpd clients` asks.
    pub control: PathBuf,
    /// The user that the daemon becomes.
    pub user: Option<String>,
    /// The settings of networks that have none of their own.
    default: Arc<Profile>,
    networks: Vec<Network>,
}

/// Who makes the rules that queue packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesBy {
    /// We do, as the kernel can.
    Auto,
    /// The operator does.
    External,
}

#[derive(Debug, Clone, PartialEq)]
struct Network {
    subnet: Option<IpNet>,
    indev: Option<String>,
    tag: Option<String>,
    profile: Arc<Profile>,
}

impl Config {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The file, the line or the key, and what is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::check(path, config::parse::<File>(path, text)?)
    }

    /// The settings for an interface with this binding: of the first network that fits, or else
    /// the general ones.
    pub fn profile(&self, binding: &Binding) -> Arc<Profile> {
        let fits = |network: &&Network| {
            let subnet = network.subnet.is_none_or(|subnet| {
                binding
                    .subnet
                    .is_some_and(|own| subnet.contains(&IpNet::V4(own)))
                    || binding
                        .subnet6
                        .is_some_and(|own| subnet.contains(&IpNet::V6(own)))
            });
            let indev = network.indev.is_none() || network.indev == binding.indev;
            let tag = network
                .tag
                .as_ref()
                .is_none_or(|tag| binding.tags.contains(tag));
            subnet && indev && tag
        };
        let network = self.networks.iter().find(fits);
        Arc::clone(network.map_or(&self.default, |network| &network.profile))
    }

    fn check(path: &Path, file: File) -> Result<Self, ConfigError> {
        let checker = Checker { path };
        let dhcp = checker.dhcp("dhcp", &file.dhcp, &Dhcp::default())?;
        let ipv6 = checker.ipv6("ipv6", &file.ipv6, &Ipv6::default())?;
        let default = Profile { dhcp, ipv6 };
        let mut networks = Vec::new();
        for (index, network) in file.network.iter().enumerate() {
            let name = format!("network[{index}]");
            if network.subnet.is_none() && network.indev.is_none() && network.tag.is_none() {
                return Err(checker.refuse(
                    &name,
                    "",
                    "needs subnet, indev or tag, to say which interfaces it is for",
                ));
            }
            let dhcp = checker.dhcp(&format!("{name}.dhcp"), &network.dhcp, &default.dhcp)?;
            let ipv6 = checker.ipv6(&format!("{name}.ipv6"), &network.ipv6, &default.ipv6)?;
            networks.push(Network {
                subnet: network.subnet.map(|subnet| subnet.trunc()),
                indev: network.indev.clone(),
                tag: network.tag.clone(),
                profile: Arc::new(Profile { dhcp, ipv6 }),
            });
        }
        let numbers = &file.queue.numbers;
        if numbers.is_empty() || (file.queue.rules == RulesBy::Auto && numbers.len() > 1) {
            return Err(checker.refuse(
                "queue.numbers",
                &format!("{numbers:?}"),
                "needs one number, or with rules = \"external\" one or more",
            ));
        }
        if file.queue.length == 0 {
            return Err(checker.refuse("queue.length", "0", "must be at least 1"));
        }
        if file.queue.mark == 0 {
            return Err(checker.refuse("queue.mark", "0", "must not be 0, which every packet has"));
        }
        Ok(Self {
            bindings: file.bindings,
            log: file.log,
            queues: file.queue.numbers,
            queue_length: file.queue.length,
            rules: file.queue.rules,
            mark: file.queue.mark,
            guest_rate: Rate::new(
                file.queue.guest_packets_per_second,
                Duration::from_secs(1),
                file.queue.guest_burst,
            ),
            metrics: file.metrics,
            control: file.control,
            user: Some(file.user).filter(|user| !user.is_empty()),
            default: Arc::new(default),
            networks,
        })
    }
}

/// What the file may say. Every key has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    bindings: PathBuf,
    log: LogFilter,
    user: String,
    control: PathBuf,
    metrics: Option<SocketAddr>,
    queue: Queue,
    dhcp: DhcpKeys,
    ipv6: Ipv6Keys,
    network: Vec<NetworkKeys>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            bindings: "/var/lib/nfdhcpd".into(),
            log: LogFilter::info(),
            user: String::new(),
            control: "/run/nfdhcpd/control".into(),
            metrics: None,
            queue: Queue::default(),
            dhcp: DhcpKeys::default(),
            ipv6: Ipv6Keys::default(),
            network: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Queue {
    numbers: Vec<u16>,
    length: u32,
    rules: RulesBy,
    mark: u32,
    guest_packets_per_second: u32,
    guest_burst: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            numbers: vec![42],
            length: 8192,
            rules: RulesBy::Auto,
            guest_packets_per_second: 500,
            guest_burst: 1000,
            mark: 0x6e66_6471,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NetworkKeys {
    subnet: Option<IpNet>,
    indev: Option<String>,
    tag: Option<String>,
    dhcp: DhcpKeys,
    ipv6: Ipv6Keys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DhcpKeys {
    enabled: Option<bool>,
    server: Option<String>,
    lease_seconds: Option<u32>,
    renew_seconds: Option<u32>,
    rebind_seconds: Option<u32>,
    nameservers: Option<Vec<Ipv4Addr>>,
    domain: Option<String>,
    search: Option<Vec<String>>,
    ntp: Option<Vec<Ipv4Addr>>,
    ipv6_only_wait_seconds: Option<u32>,
    captive_portal: Option<String>,
    boot: Option<Vec<BootKeys>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootKeys {
    architecture: Option<u16>,
    #[serde(default)]
    class: String,
    #[serde(default)]
    user_class: String,
    next_server: Option<Ipv4Addr>,
    #[serde(default)]
    server_name: String,
    file: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ipv6Keys {
    enabled: Option<bool>,
    mode: Option<ModeName>,
    ra_interval_seconds: Option<u32>,
    router: Option<String>,
    router_lifetime_seconds: Option<u32>,
    router_preference: Option<PreferenceName>,
    prefix_valid_seconds: Option<u32>,
    prefix_preferred_seconds: Option<u32>,
    prefix_on_link: Option<OnLinkName>,
    nameservers: Option<Vec<Ipv6Addr>>,
    search: Option<Vec<String>>,
    routes: Option<Vec<Ipv6Net>>,
    pref64: Option<Ipv6Net>,
    ntp: Option<Vec<Ipv6Addr>>,
    boot_file_url: Option<String>,
    server_duid: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum ModeName {
    #[serde(rename = "slaac")]
    Slaac,
    #[serde(rename = "slaac+dhcpv6")]
    SlaacDhcp6,
    #[serde(rename = "dhcpv6")]
    Dhcp6,
    #[serde(rename = "auto")]
    Auto,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PreferenceName {
    High,
    Medium,
    Low,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnLinkName {
    Auto,
    Yes,
    No,
}

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            enabled: true,
            server: ServerId::OnLink,
            lease: Duration::from_secs(604_800),
            renew: Duration::from_secs(3600),
            rebind: Duration::from_secs(529_200),
            nameservers: Vec::new(),
            domain: None,
            search: Vec::new(),
            ntp: Vec::new(),
            ipv6_only_wait: None,
            captive_portal: None,
            boot: Vec::new(),
        }
    }
}

/// A DUID of the form of RFC 6355 (a UUID), for all servers that are given no other: each answers
/// for its own guests alone, so that they may share it.
const SERVER_DUID: [u8; 18] = [
    0x00, 0x04, 0x6d, 0x1f, 0x3c, 0x52, 0x8e, 0x0b, 0x4f, 0x7a, 0x9d, 0x26, 0xe1, 0x58, 0x0c, 0x93,
    0xb7, 0x4a,
];

impl Default for Ipv6 {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: Mode::Auto,
            interval: Duration::from_secs(300),
            router_lifetime: Duration::from_secs(1800),
            router: Router::Auto,
            preference: Preference::Medium,
            valid_lifetime: Duration::from_secs(86_400),
            preferred_lifetime: Duration::from_secs(14_400),
            on_link: OnLink::Auto,
            nameservers: Vec::new(),
            search: Vec::new(),
            routes: Vec::new(),
            pref64: None,
            ntp: Vec::new(),
            boot_file_url: None,
            server_duid: SERVER_DUID.to_vec(),
        }
    }
}

/// RFC 8415, section 11.1: a type of two bytes, and at most 128 more.
fn duid(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    bytes.filter(|bytes| (3..=130).contains(&bytes.len()))
}

/// Turns what was read into what is used, and refuses by key and value.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn refuse(&self, key: &str, value: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            reason: reason.into(),
        }
    }

    fn dhcp(&self, table: &str, keys: &DhcpKeys, base: &Dhcp) -> Result<Dhcp, ConfigError> {
        let seconds =
            |value: Option<u32>, base| value.map_or(base, |s| Duration::from_secs(s.into()));
        let lease = seconds(keys.lease_seconds, base.lease);
        let rebind = match keys.rebind_seconds {
            Some(given) => Duration::from_secs(given.into()),
            None if keys.lease_seconds.is_some() => lease * 7 / 8,
            None => base.rebind,
        };
        let renew = match keys.renew_seconds {
            Some(given) => Duration::from_secs(given.into()),
            None if keys.lease_seconds.is_some() => base.renew.min(lease / 2),
            None => base.renew,
        };
        // RFC 2131, section 4.4.5: T1 < T2 < the lease.
        if renew.is_zero() || renew >= rebind || rebind >= lease {
            return Err(self.refuse(
                &format!("{table}.renew_seconds, rebind_seconds, lease_seconds"),
                &format!(
                    "{}, {}, {}",
                    renew.as_secs(),
                    rebind.as_secs(),
                    lease.as_secs()
                ),
                "each must be more than the one before, and the first more than 0",
            ));
        }
        let server = match keys.server.as_deref() {
            None => base.server,
            Some("on-link") => ServerId::OnLink,
            Some(text) => match text.parse::<Ipv4Addr>() {
                Ok(address)
                    if !address.is_unspecified()
                        && !address.is_multicast()
                        && !address.is_broadcast() =>
                {
                    ServerId::Fixed(address)
                }
                _ => {
                    let key = format!("{table}.server");
                    return Err(self.refuse(&key, text, "neither \"on-link\" nor an IPv4 address"));
                }
            },
        };
        let domain = match &keys.domain {
            None => base.domain.clone(),
            Some(text) if text.is_empty() => None,
            Some(text) => Some(self.domain(&format!("{table}.domain"), text)?),
        };
        let boot = match &keys.boot {
            None => base.boot.clone(),
            Some(entries) => entries
                .iter()
                .map(|entry| Boot {
                    architecture: entry.architecture,
                    class: entry.class.clone(),
                    user_class: entry.user_class.clone(),
                    next_server: entry.next_server,
                    server_name: entry.server_name.clone(),
                    file: entry.file.clone(),
                })
                .collect(),
        };
        for entry in &boot {
            let key = |name: &str| format!("{table}.boot.{name}");
            if entry.file.is_empty() || entry.file.len() > 255 {
                return Err(self.refuse(&key("file"), &entry.file, "must have 1 to 255 bytes"));
            }
            if entry.server_name.len() > 63 {
                return Err(self.refuse(
                    &key("server_name"),
                    &entry.server_name,
                    "must have at most 63 bytes",
                ));
            }
        }
        Ok(Dhcp {
            enabled: keys.enabled.unwrap_or(base.enabled),
            server,
            lease,
            renew,
            rebind,
            nameservers: keys
                .nameservers
                .clone()
                .unwrap_or_else(|| base.nameservers.clone()),
            domain,
            search: self.domains(
                &format!("{table}.search"),
                keys.search.as_deref(),
                &base.search,
            )?,
            ntp: keys.ntp.clone().unwrap_or_else(|| base.ntp.clone()),
            ipv6_only_wait: match keys.ipv6_only_wait_seconds {
                None => base.ipv6_only_wait,
                Some(0) => None,
                Some(wait) => Some(Duration::from_secs(wait.into())),
            },
            captive_portal: self.text(
                &format!("{table}.captive_portal"),
                keys.captive_portal.as_deref(),
                base.captive_portal.as_ref(),
            )?,
            boot,
        })
    }

    fn ipv6(&self, table: &str, keys: &Ipv6Keys, base: &Ipv6) -> Result<Ipv6, ConfigError> {
        let seconds =
            |value: Option<u32>, base| value.map_or(base, |s| Duration::from_secs(s.into()));
        let key = |name: &str| format!("{table}.{name}");
        let interval = seconds(keys.ra_interval_seconds, base.interval);
        // RFC 4861, section 6.2.1.
        if !(4..=1800).contains(&interval.as_secs()) {
            return Err(self.refuse(
                &key("ra_interval_seconds"),
                &interval.as_secs().to_string(),
                "must be 4 to 1800",
            ));
        }
        let router_lifetime = match keys.router_lifetime_seconds {
            Some(given) => Duration::from_secs(given.into()),
            None => base.router_lifetime.max(interval * 3),
        };
        if router_lifetime < interval * 3 || router_lifetime.as_secs() > 9000 {
            return Err(self.refuse(
                &key("router_lifetime_seconds"),
                &router_lifetime.as_secs().to_string(),
                "must be at least 3 times ra_interval_seconds, so that one lost advertisement does \
                 no harm, and at most 9000",
            ));
        }
        let valid = seconds(keys.prefix_valid_seconds, base.valid_lifetime);
        let preferred = seconds(keys.prefix_preferred_seconds, base.preferred_lifetime);
        if preferred > valid || preferred < interval * 3 {
            return Err(self.refuse(
                &key("prefix_preferred_seconds"),
                &preferred.as_secs().to_string(),
                "must be at least 3 times ra_interval_seconds, and at most prefix_valid_seconds",
            ));
        }
        let router = match keys.router.as_deref() {
            None => base.router,
            Some("auto") => Router::Auto,
            Some("host") => Router::Host,
            Some("none") => Router::Nobody,
            Some(text) => match text.parse::<Ipv6Addr>() {
                Ok(address) if agents::addr::is_link_local(address) => Router::Address(address),
                _ => {
                    return Err(self.refuse(
                        &key("router"),
                        text,
                        "neither \"auto\", \"host\", \"none\" nor a link-local address",
                    ));
                }
            },
        };
        let pref64 = match keys.pref64 {
            None => base.pref64,
            Some(prefix) if matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) => {
                Some(prefix.trunc())
            }
            Some(prefix) => {
                return Err(self.refuse(
                    &key("pref64"),
                    &prefix.to_string(),
                    "a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits",
                ));
            }
        };
        let server_duid = match keys.server_duid.as_deref() {
            None => base.server_duid.clone(),
            Some(text) => duid(text).ok_or_else(|| {
                self.refuse(
                    &key("server_duid"),
                    text,
                    "a DUID is 3 to 130 bytes in pairs of hexadecimal digits, with or without colons",
                )
            })?,
        };
        Ok(Ipv6 {
            server_duid,
            enabled: keys.enabled.unwrap_or(base.enabled),
            mode: keys.mode.map_or(base.mode, |mode| match mode {
                ModeName::Slaac => Mode::Slaac,
                ModeName::SlaacDhcp6 => Mode::SlaacDhcp6,
                ModeName::Dhcp6 => Mode::Dhcp6,
                ModeName::Auto => Mode::Auto,
            }),
            interval,
            router_lifetime,
            router,
            preference: keys
                .router_preference
                .map_or(base.preference, |name| match name {
                    PreferenceName::High => Preference::High,
                    PreferenceName::Medium => Preference::Medium,
                    PreferenceName::Low => Preference::Low,
                }),
            valid_lifetime: valid,
            preferred_lifetime: preferred,
            on_link: keys.prefix_on_link.map_or(base.on_link, |name| match name {
                OnLinkName::Auto => OnLink::Auto,
                OnLinkName::Yes => OnLink::Always(true),
                OnLinkName::No => OnLink::Always(false),
            }),
            nameservers: keys
                .nameservers
                .clone()
                .unwrap_or_else(|| base.nameservers.clone()),
            search: self.domains(&key("search"), keys.search.as_deref(), &base.search)?,
            routes: match &keys.routes {
                None => base.routes.clone(),
                Some(routes) => routes.iter().map(Ipv6Net::trunc).collect(),
            },
            pref64,
            ntp: keys.ntp.clone().unwrap_or_else(|| base.ntp.clone()),
            boot_file_url: self.text(
                &key("boot_file_url"),
                keys.boot_file_url.as_deref(),
                base.boot_file_url.as_ref(),
            )?,
        })
    }

    fn domain(&self, key: &str, text: &str) -> Result<DomainName, ConfigError> {
        text.parse()
            .map_err(|error| self.refuse(key, text, format!("{error}")))
    }

    fn domains(
        &self,
        key: &str,
        given: Option<&[String]>,
        base: &[DomainName],
    ) -> Result<Vec<DomainName>, ConfigError> {
        match given {
            None => Ok(base.to_vec()),
            Some(names) => names.iter().map(|name| self.domain(key, name)).collect(),
        }
    }

    fn text(
        &self,
        key: &str,
        given: Option<&str>,
        base: Option<&String>,
    ) -> Result<Option<String>, ConfigError> {
        match given {
            None => Ok(base.cloned()),
            Some("") => Ok(None),
            Some(text) if text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(text.to_owned()))
            }
            Some(text) => Err(self.refuse(
                key,
                text,
                "must be at most 255 printable bytes without blanks",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("nfdhcpd.toml"), text).map_err(|error| error.to_string())
    }

    /// The file that is installed, with its defaults in force, or its examples instead.
    fn shipped(with_examples: bool) -> String {
        let key = |line: &str| {
            line.split(" = ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let mut lines: Vec<&str> = Vec::new();
        for line in include_str!("../../../packaging/defaults/nfdhcpd.toml").lines() {
            match line.strip_prefix('#') {
                Some(example) if example.starts_with("    ") => {
                    if with_examples {
                        lines.pop_if(|default| {
                            key(default) == key(example) && !key(example).contains('[')
                        });
                        lines.push(example);
                    }
                }
                Some(comment) if comment.starts_with(' ') || comment.is_empty() => {}
                Some(default) => lines.push(default),
                None => lines.push(line),
            }
        }
        lines.join("\n")
    }

    #[test]
    fn the_shipped_file_says_the_defaults_and_good_examples() {
        assert_eq!(parse(&shipped(false)).unwrap(), parse("").unwrap());
        let text = shipped(true);
        let config = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(config.networks.len(), 1);
        assert_eq!(config.default.dhcp.boot.len(), 2);
        assert_eq!(config.default.dhcp.nameservers.len(), 1);
        assert!(config.default.ipv6.pref64.is_some());
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_key_and_value() {
        for (text, key, value) in [
            ("[dhcp]\nserver = \"x\"", "dhcp.server", "x"),
            (
                "[dhcp]\nserver = \"255.255.255.255\"",
                "dhcp.server",
                "255.255.255.255",
            ),
            (
                "[dhcp]\nlease_seconds = 100\nrenew_seconds = 90",
                "renew_seconds",
                "90, 87, 100",
            ),
            ("[dhcp]\ndomain = \"a b\"", "dhcp.domain", "a b"),
            ("[dhcp]\nnameservers = [\"::1\"]", "nameservers", "::1"),
            (
                "[ipv6]\nra_interval_seconds = 3",
                "ipv6.ra_interval_seconds",
                "3",
            ),
            (
                "[ipv6]\nrouter_lifetime_seconds = 0",
                "ipv6.router_lifetime_seconds",
                "0",
            ),
            (
                "[ipv6]\nrouter = \"2001:db8::1\"",
                "ipv6.router",
                "2001:db8::1",
            ),
            (
                "[ipv6]\npref64 = \"64:ff9b::/95\"",
                "ipv6.pref64",
                "64:ff9b::/95",
            ),
            (
                "[ipv6]\nserver_duid = \"0003zz\"",
                "ipv6.server_duid",
                "0003zz",
            ),
            ("[ipv6]\nserver_duid = \"0003\"", "ipv6.server_duid", "0003"),
            ("[ipv6]\nmode = \"dhcp\"", "mode", "dhcp"),
            ("[[network]]\n", "network[0]", "subnet, indev or tag"),
            (
                "[[network]]\nindev = \"br0\"\nipv6.router = \"x\"",
                "network[0].ipv6.router",
                "x",
            ),
            ("[queue]\nlength = 0", "queue.length", "0"),
            ("[queue]\nnumbers = [70000]", "numbers", "70000"),
            ("[queue]\nnumbers = [1, 2]", "queue.numbers", "[1, 2]"),
            ("typo = 1", "typo", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(key) && error.contains(value),
                "{text}: {error}"
            );
            assert!(error.contains("nfdhcpd.toml"), "{error}");
        }
    }

    #[test]
    fn a_network_has_its_own_settings_over_the_general_ones() {
        let config = parse(
            "[dhcp]\nnameservers = [\"192.0.2.1\"]\nlease_seconds = 1000\n\
             [[network]]\nsubnet = \"10.66.0.0/16\"\ntag = \"t\"\n\
             dhcp.nameservers = [\"192.0.2.2\"]\n\
             [[network]]\nindev = \"br1\"\ndhcp.enabled = false\n",
        )
        .unwrap();
        let mut binding = Binding::new("aa:00:00:00:00:01".parse().unwrap(), "h");
        binding.subnet = Some("10.66.1.0/24".parse().unwrap());
        let servers = |binding: &Binding| config.profile(binding).dhcp.nameservers.clone();
        assert_eq!(servers(&binding), [Ipv4Addr::new(192, 0, 2, 1)]);
        binding.tags = vec!["t".to_owned()];
        assert_eq!(servers(&binding), [Ipv4Addr::new(192, 0, 2, 2)]);
        assert_eq!(
            config.profile(&binding).dhcp.lease,
            Duration::from_secs(1000)
        );
        binding.tags.clear();
        binding.indev = Some("br1".to_owned());
        assert!(!config.profile(&binding).dhcp.enabled);
    }
}
