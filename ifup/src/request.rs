//! What is asked for: Ganeti's environment, understood with the configuration and the tags.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use agents::addr;
use agents::addr::{IpNet, Ipv4Net};
use agents::ganeti::nic_environment::{Mode, NicEnvironment, NicError};
use agents::ganeti::tags::{self, InstanceTags, NetworkTags, NicTags};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::vlan::Vlans;

/// The main table: the host's own.
pub const MAIN_TABLE: u32 = 254;

/// The variables that Ganeti sets; the rest of an environment is none of ours.
const VARIABLES: [&str; 22] = [
    "ACTION",
    "BRIDGE",
    "INSTANCE",
    "INTERFACE",
    "INTERFACE_INDEX",
    "INTERFACE_NAME",
    "INTERFACE_UUID",
    "IP",
    "LINK",
    "MAC",
    "MIGRATION_PHASE",
    "MODE",
    "NETWORK_GATEWAY",
    "NETWORK_GATEWAY6",
    "NETWORK_MAC_PREFIX",
    "NETWORK_NAME",
    "NETWORK_SUBNET",
    "NETWORK_SUBNET6",
    "NETWORK_TAGS",
    "NETWORK_UUID",
    "TAGS",
    "VLAN",
];

/// Returns whether a variable is one of those that are read.
pub fn is_variable(name: &str) -> bool {
    VARIABLES.contains(&name)
}

/// Ganeti's variables among these.
pub fn variables(
    environment: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    environment
        .into_iter()
        .filter(|(name, _)| is_variable(name))
        .collect()
}

/// Reads a file of `NAME=value` lines; values may be quoted as a shell's `env` or `export -p`
/// has them. Blank lines and `#` comments are skipped.
///
/// # Errors
/// The file cannot be read, or a line is none of these; the text names it.
pub fn read_environment(path: &PathBuf) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    let mut found = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(Error::Record {
                path: path.clone(),
                reason: format!("line {}: {line:?} is not NAME=value", number + 1),
            });
        };
        let quoted = |mark: char| value.strip_prefix(mark)?.strip_suffix(mark);
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        found.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables(found))
}

/// How the NIC is to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// As a port of this bridge.
    Bridged {
        /// The bridge's name.
        bridge: String,
        /// The VLANs of the port; the bridge's default if none.
        vlans: Option<Vlans>,
    },
    /// As a port of this bridge of Open vSwitch.
    OpenVSwitch {
        /// The bridge's name.
        bridge: String,
        /// The VLANs of the port; all if none.
        vlans: Option<Vlans>,
    },
    /// By scripts of the site: nothing but what every NIC gets.
    External,
    /// Routed, with its routes in this table.
    Routed {
        /// The table's number.
        table: u32,
    },
}

/// A NIC to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What Ganeti says.
    pub nic: NicEnvironment,
    /// How it is to be connected.
    pub connection: Connection,
    /// The guest's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Further IPv4 addresses of the guest, by tag.
    pub more4: Vec<Ipv4Addr>,
    /// The guest has IPv6, if only on its link.
    pub use_ipv6: bool,
    /// The guest's IPv6 addresses: that of its NIC, that it takes by EUI-64.
    pub ipv6: Vec<Ipv6Addr>,
    /// The gateway of IPv4.
    pub gateway: Option<Ipv4Addr>,
    /// The gateway of IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// nfdhcpd serves it.
    pub nfdhcpd: bool,
    /// Guests of this network speak to the outside in the host's name.
    pub masquerade: Option<Ipv4Net>,
    /// The firewall profile that its tags give it.
    pub profile: Option<String>,
    /// What else its tags say.
    pub tags: NicTags,
    /// Of a private network on a bridge of several: what its MAC addresses begin with.
    pub mac_prefix: Option<[u8; 3]>,
    /// If it is isolated: what it exchanges packets with.
    pub isolated: Option<Vec<IpNet>>,
}

impl Request {
    /// Understands Ganeti's variables.
    ///
    /// # Errors
    /// A variable is missing or has a value that cannot be.
    pub fn new(variables: &BTreeMap<String, String>, config: &Config) -> Result<Self> {
        let pairs = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let nic = NicEnvironment::parse(pairs)?;
        let connection = match nic.mode {
            Mode::Bridged => Connection::Bridged {
                bridge: nic.link.clone(),
                vlans: Vlans::parse(&nic.vlan)?,
            },
            Mode::Routed => Connection::Routed {
                table: table_number(&nic.link, &config.routed.table_names)?,
            },
            Mode::OpenVSwitch => Connection::OpenVSwitch {
                bridge: nic.link.clone(),
                vlans: Vlans::parse(&nic.vlan)?,
            },
            Mode::Ext => Connection::External,
        };
        let network_tags = nic
            .network
            .iter()
            .flat_map(|network| network.tags.iter().map(String::as_str));
        let network_tags = NetworkTags::new(network_tags);
        let instance_tags = InstanceTags::new(nic.tags.iter().map(String::as_str));
        let (use4, use6) = (!instance_tags.disable_ipv4, !instance_tags.disable_ipv6);
        let mut ipv6 = Vec::new();
        let mut ipv4 = None;
        let mut more4 = Vec::new();
        match nic.ip {
            Some(IpAddr::V4(address)) if use4 => ipv4 = Some(address),
            Some(IpAddr::V6(address)) if use6 => ipv6.push(address),
            _ => {}
        }
        let tags = nic_tags(&nic, &connection)?;
        for address in &tags.addresses {
            match address {
                IpAddr::V4(address) if use4 && ipv4 != Some(*address) => more4.push(*address),
                IpAddr::V6(address) if use6 && !ipv6.contains(address) => ipv6.push(*address),
                _ => {}
            }
        }
        let network = nic.network.as_ref();
        if use6
            && let Some(prefix) = network.and_then(|network| network.subnet6)
            && let Some(address) = addr::in_prefix(prefix, nic.mac)
            && !ipv6.contains(&address)
        {
            ipv6.push(address);
        }
        let isolated = tags::isolation(nic.tags.iter().map(String::as_str))
            .map_err(|error| NicError::value("TAGS", nic.tags.join(" "), error.to_string()))?;
        let profile = profile(&nic, config)?;
        let filtered = matches!(
            connection,
            Connection::Bridged { .. } | Connection::Routed { .. }
        );
        if !filtered && (profile.is_some() || isolated.is_some() || tags.rate_out.is_some()) {
            let reason = "no packet of this mode passes our filters: no profile, no isolation and \
                          no rate-out";
            return Err(NicError::value("MODE", nic.mode.name(), reason).into());
        }
        let mac_prefix = mac_prefix(&nic, network_tags.private_filtered)?;
        let gateway = network.and_then(|network| network.gateway).filter(|_| use4);
        let gateway6 = network
            .and_then(|network| network.gateway6)
            .filter(|_| use6);
        Ok(Self {
            connection,
            ipv4,
            more4,
            use_ipv6: use6,
            ipv6,
            gateway,
            gateway6,
            nfdhcpd: network_tags.nfdhcpd,
            masquerade: network
                .and_then(|network| network.subnet)
                .filter(|_| use4 && network_tags.masq),
            profile,
            mac_prefix,
            isolated,
            tags,
            nic,
        })
    }

    /// The TAP.
    pub fn interface(&self) -> &str {
        &self.nic.interface
    }
}

/// What the MAC addresses of a private network begin with: those of its NICs do, at least.
fn mac_prefix(nic: &NicEnvironment, private: bool) -> Result<Option<[u8; 3]>> {
    if !private {
        return Ok(None);
    }
    let [a, b, c, ..] = nic.mac.octets();
    let own = [a, b, c];
    let network = nic.network.as_ref();
    match network.and_then(|network| network.mac_prefix) {
        Some(prefix) if prefix != own => {
            let [a, b, c] = prefix;
            let reason = format!("not of its private network, {a:02x}:{b:02x}:{c:02x}");
            Err(NicError::value("MAC", nic.mac, reason).into())
        }
        _ => Ok(Some(own)),
    }
}

fn nic_tags(nic: &NicEnvironment, connection: &Connection) -> Result<NicTags> {
    let index = nic.index.to_string();
    let names = [nic.name.as_deref().unwrap_or_default(), &nic.uuid, &index];
    let wrong = |reason: String| NicError::value("TAGS", nic.tags.join(" "), reason);
    let tags = NicTags::new(nic.tags.iter().map(String::as_str), &names)
        .map_err(|error| wrong(error.to_string()))?;
    if let (Connection::Routed { .. }, Some(net)) = (connection, tags.nets.first()) {
        let reason = format!("{net}: a routed NIC can have single addresses only");
        return Err(wrong(reason).into());
    }
    Ok(tags)
}

/// The profile that the instance's tags give a NIC, by its name, its UUID or its index, the
/// first of them that a tag is for.
fn profile(nic: &NicEnvironment, config: &Config) -> Result<Option<String>> {
    let index = nic.index.to_string();
    let names = [nic.name.as_deref(), Some(nic.uuid.as_str()), Some(&index)];
    for name in names.into_iter().flatten().filter(|name| !name.is_empty()) {
        for tag in &nic.tags {
            let profile = tag
                .strip_prefix("synnefo:network:")
                .and_then(|rest| rest.rsplit_once(':'))
                .filter(|(of, _)| *of == name)
                .map(|(_, profile)| profile);
            match profile {
                Some(profile) if config.profiles.contains_key(profile) => {
                    return Ok(Some(profile.to_owned()));
                }
                Some(_) => {
                    let reason = "no profile of this name is configured";
                    return Err(NicError::value("TAGS", tag, reason).into());
                }
                None => {}
            }
        }
    }
    Ok(None)
}

/// The number of the table that LINK names.
fn table_number(link: &str, name_files: &[PathBuf]) -> Result<u32> {
    let number = match link.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => name_files.iter().find_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            named_table(&text, link)
        }),
    };
    match number {
        Some(number) if !matches!(number, 0 | 253 | 255) => Ok(number),
        Some(_) => {
            let reason = "not a table for guests (0, 253 and 255 are the kernel's own)";
            Err(NicError::value("LINK", link, reason).into())
        }
        None => {
            let reason = "neither a routing table's number nor a name in rt_tables";
            Err(NicError::value("LINK", link, reason).into())
        }
    }
}

fn named_table(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let mut words = line.split_whitespace();
        let number = words.next()?;
        (words.next()? == name).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
        let routed = [
            ("INSTANCE", "snf-2"),
            ("MAC", "aa:00:00:5b:5f:d8"),
            ("MODE", "routed"),
            ("INTERFACE", "tap1"),
            ("IP", "10.66.2.7"),
            ("LINK", "100"),
            ("NETWORK_NAME", "net-rt"),
            ("NETWORK_TAGS", "nfdhcpd ip-less-routed"),
            ("NETWORK_SUBNET", "10.66.2.0/24"),
            ("NETWORK_GATEWAY", "10.66.2.1"),
            ("NETWORK_SUBNET6", "fd66:2::/64"),
            ("NETWORK_GATEWAY6", "fd66:2::1"),
        ];
        routed
            .iter()
            .chain(changes)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn request(changes: &[(&str, &str)]) -> Result<Request> {
        Request::new(&environment(changes), &Config::default())
    }

    #[test]
    fn a_routed_nic_has_a_table_and_both_addresses() {
        let request = request(&[]).unwrap();
        assert_eq!(request.connection, Connection::Routed { table: 100 });
        assert_eq!(request.ipv4, Some("10.66.2.7".parse().unwrap()));
        assert_eq!(
            request.ipv6,
            ["fd66:2::a800:ff:fe5b:5fd8".parse::<Ipv6Addr>().unwrap()]
        );
        assert!(request.nfdhcpd);
    }

    #[test]
    fn a_family_that_is_disabled_is_not_there() {
        let four = request(&[("TAGS", "disable_ipv6")]).unwrap();
        assert_eq!((four.ipv6, four.gateway6), (Vec::new(), None));
        let six = request(&[("TAGS", "x disable_ipv4")]).unwrap();
        assert_eq!((six.ipv4, six.gateway), (None, None));
        assert_eq!(six.ipv6.len(), 1);
    }

    #[test]
    fn a_profile_is_of_a_nic_by_its_name_or_uuid_or_index() {
        let uuid = "21efaed6-059d-4f5a-b6a8-5c6848166c7b";
        let names = [
            ("INTERFACE_NAME", "snf-nic-2"),
            ("INTERFACE_UUID", uuid),
            ("INTERFACE_INDEX", "3"),
        ];
        let profile = |tags: &str| {
            let mut changes = names.to_vec();
            changes.push(("TAGS", tags));
            request(&changes).unwrap().profile
        };
        for name in ["snf-nic-2", uuid, "3"] {
            let tag = format!("x synnefo:network:{name}:limited");
            assert_eq!(profile(&tag).as_deref(), Some("limited"), "{tag}");
        }
        for other in ["snf-nic-3", "0", "", "*"] {
            let tag = format!("synnefo:network:{other}:limited");
            assert_eq!(profile(&tag), None, "{tag}");
        }
        let both = "synnefo:network:3:limited synnefo:network:snf-nic-2:protected";
        assert_eq!(
            profile(both).as_deref(),
            Some("protected"),
            "the name counts first"
        );
    }

    #[test]
    fn the_address_of_the_nic_may_be_ipv6() {
        let both = request(&[("IP", "fd66:2::7")]).unwrap();
        assert_eq!(both.ipv4, None);
        assert_eq!(both.ipv6.len(), 2);
    }

    #[test]
    fn a_table_is_a_number_or_a_name() {
        let names = "255 local\n# comment\n0x1 x\n 200\tguests # ours\n";
        assert_eq!(named_table(names, "guests"), Some(200));
        assert_eq!(named_table(names, "ours"), None);
        for link in ["0", "255", "253", "no-such-table", "4294967296", "-1"] {
            let error = request(&[("LINK", link)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("LINK={link:?}: ")), "{error}");
        }
    }

    #[test]
    fn only_ganetis_variables_are_kept() {
        let all = [("PATH", "/bin"), ("MAC", "x"), ("HOME", "/root")];
        let kept = variables(all.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn a_file_of_variables_is_read_as_shells_write_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        fs::write(
            &path,
            "# a call\nMAC=aa:00:00:00:00:01\nexport TAGS=\"a b\"\nLINK='br0'\n\nPATH=/bin\n",
        )
        .unwrap();
        let found = read_environment(&path).unwrap();
        assert_eq!(found.get("TAGS").unwrap(), "a b");
        assert_eq!(found.get("LINK").unwrap(), "br0");
        assert_eq!(found.len(), 3);
        fs::write(&path, "MAC=x\nnonsense\n").unwrap();
        let error = read_environment(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: \"nonsense\""), "{error}");
    }
}
