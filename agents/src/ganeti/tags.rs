//! What the tags of networks and instances say about NICs.

use std::net::IpAddr;

use crate::addr::IpNet;

/// Tags of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkTags {
    /// `nfdhcpd`: nfdhcpd serves its guests.
    pub nfdhcpd: bool,
    /// `private-filtered`: several networks share a bridge, told apart by their MAC prefix.
    pub private_filtered: bool,
    /// `ip-less-routed`: the nodes have no address in it.
    pub ip_less_routed: bool,
    /// `masq`: its guests speak to the outside in their host's name.
    pub masq: bool,
}

impl NetworkTags {
    /// Reads the tags; unknown ones are ignored.
    pub fn new<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut read = Self::default();
        for tag in tags {
            match tag {
                "nfdhcpd" => read.nfdhcpd = true,
                "private-filtered" => read.private_filtered = true,
                "ip-less-routed" => read.ip_less_routed = true,
                "masq" => read.masq = true,
                _ => {}
            }
        }
        read
    }
}

/// Tags of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstanceTags {
    /// `disable_ipv4`: it has no IPv4.
    pub disable_ipv4: bool,
    /// `disable_ipv6`: it has no IPv6.
    pub disable_ipv6: bool,
}

impl InstanceTags {
    /// Reads the tags; unknown ones are ignored.
    pub fn new<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut read = Self::default();
        for tag in tags {
            match tag {
                "disable_ipv4" => read.disable_ipv4 = true,
                "disable_ipv6" => read.disable_ipv6 = true,
                _ => {}
            }
        }
        read
    }
}

/// What an instance's tags say of one of its NICs: `snf:nic:<NIC>:<what>`, with the NIC's name,
/// UUID or index, or `*` for all.
///
/// | what | |
/// |---|---|
/// | `address:<address or prefix>` | it has this address too, or the whole prefix |
/// | `any-ip` | its IP addresses are not checked |
/// | `any-mac` | its MAC addresses are not checked either |
/// | `vrrp:<1 to 255>` | it is a router of this VRRP group (RFC 9568): its `address`es move |
/// | `rate-in:<bits>` | so many bits a second to it at most; `k`, `M` and `G` multiply |
/// | `rate-out:<bits>` | so many bits a second from it at most; what is beyond is dropped |
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NicTags {
    /// More addresses.
    pub addresses: Vec<IpAddr>,
    /// Whole prefixes, without host bits.
    pub nets: Vec<IpNet>,
    /// Any IP address is its own.
    pub any_ip: bool,
    /// Any MAC address is its own.
    pub any_mac: bool,
    /// VRRP groups that it is a router of, 1 to 255.
    pub vrrp: Vec<u8>,
    /// Bits a second to it.
    pub rate_in: Option<u64>,
    /// Bits a second from it.
    pub rate_out: Option<u64>,
}

/// A tag that is for a NIC, but means nothing. The text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tag {0:?}: not one of snf:nic:<NIC>:address:<address or prefix>, any-ip, any-mac, \
     vrrp:<1 to 255>, rate-in:<bits>, rate-out:<bits>"
)]
pub struct NicTagError(pub String);

impl NicTags {
    /// Reads the tags that are for the NIC with one of these names.
    ///
    /// # Errors
    /// The first of them that means nothing.
    pub fn new<'a>(
        tags: impl IntoIterator<Item = &'a str>,
        names: &[&str],
    ) -> Result<Self, NicTagError> {
        let mut read = Self::default();
        for tag in tags {
            let Some((of, what)) = tag
                .strip_prefix("snf:nic:")
                .and_then(|rest| rest.split_once(':'))
            else {
                continue;
            };
            let ours = of == "*" || (!of.is_empty() && names.contains(&of));
            if !ours {
                continue;
            }
            let bad = || NicTagError(tag.to_owned());
            match what {
                "any-ip" => read.any_ip = true,
                "any-mac" => read.any_mac = true,
                _ if what.starts_with("vrrp:") => {
                    let group = what.strip_prefix("vrrp:").and_then(|id| id.parse().ok());
                    let group = group.filter(|id| *id > 0).ok_or_else(bad)?;
                    read.vrrp.push(group);
                }
                _ if what.starts_with("rate-in:") => {
                    let rate = what.strip_prefix("rate-in:").and_then(bits);
                    read.rate_in = Some(rate.ok_or_else(bad)?);
                }
                _ if what.starts_with("rate-out:") => {
                    let rate = what.strip_prefix("rate-out:").and_then(bits);
                    read.rate_out = Some(rate.ok_or_else(bad)?);
                }
                _ => {
                    let address = what.strip_prefix("address:").ok_or_else(bad)?;
                    if let Ok(address) = address.parse() {
                        read.addresses.push(address);
                    } else {
                        let net: IpNet = address.parse().map_err(|_| bad())?;
                        read.nets.push(net.trunc());
                    }
                }
            }
        }
        Ok(read)
    }
}

/// `10M`: from 8 kbit/s, less than which is no connection, to 1 Tbit/s.
fn bits(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 'k') => (text.get(..at)?, 1_000),
        (at, 'M') => (text.get(..at)?, 1_000_000),
        (at, 'G') => (text.get(..at)?, 1_000_000_000),
        _ => (text, 1),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let rate = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (8_000..=1_000_000_000_000).contains(&rate).then_some(rate)
}

/// `gnt:isolate`: an instance that exchanges nothing but with the addresses that
/// `gnt:whitelist_ip:<address or prefix>` names. None if it is not isolated.
///
/// # Errors
/// The first `gnt:whitelist_ip:` that is no address and no prefix, even if it has no effect.
pub fn isolation<'a>(
    tags: impl IntoIterator<Item = &'a str>,
) -> Result<Option<Vec<IpNet>>, IsolationError> {
    let mut isolated = false;
    let mut allowed = Vec::new();
    for tag in tags {
        if tag == "gnt:isolate" {
            isolated = true;
        } else if let Some(net) = tag.strip_prefix("gnt:whitelist_ip:") {
            let address: Option<IpAddr> = net.parse().ok();
            let net = address.map(IpNet::from).or_else(|| net.parse().ok());
            allowed.push(net.ok_or_else(|| IsolationError(tag.to_owned()))?);
        }
    }
    Ok(isolated.then(|| IpNet::aggregate(&allowed)))
}

/// A `gnt:whitelist_ip:` that is neither an address nor a prefix. The text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tag {0:?}: not gnt:whitelist_ip:<address or prefix>")]
pub struct IsolationError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_groups_and_isolation_are_read() {
        let tags = [
            "snf:nic:0:rate-in:10M",
            "snf:nic:0:rate-out:2G",
            "snf:nic:0:vrrp:7",
            "gnt:isolate",
            "gnt:whitelist_ip:192.0.2.9",
            "gnt:whitelist_ip:192.0.2.0/24",
            "gnt:whitelist_ip:2001:db8::/32",
        ];
        let read = NicTags::new(tags, &["0"]).unwrap();
        assert_eq!(read.rate_in, Some(10_000_000));
        assert_eq!(read.rate_out, Some(2_000_000_000));
        assert_eq!(read.vrrp, [7]);
        let allowed = isolation(tags).unwrap().unwrap();
        let shown: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.0/24", "2001:db8::/32"]);
        assert_eq!(isolation(["gnt:whitelist_ip:192.0.2.9"]).unwrap(), None);
        assert!(isolation(["gnt:whitelist_ip:x"]).is_err());
        for bad in [
            "snf:nic:0:rate-in:",
            "snf:nic:0:rate-in:M",
            "snf:nic:0:rate-out:7999",
            "snf:nic:0:rate-in:7999",
            "snf:nic:0:rate-in:+9000",
            "snf:nic:0:rate-in:99999999999999999999G",
            "snf:nic:0:rate-up:1M",
            "snf:nic:0:vrrp:0",
            "snf:nic:0:vrrp:256",
        ] {
            assert!(NicTags::new([bad], &["0"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_nic_has_its_tags_and_those_of_all() {
        let tags = [
            "labtag",
            "snf:nic:*:address:192.0.2.9",
            "snf:nic:0:address:2001:db8::/56",
            "snf:nic:snf-nic-1:any-ip",
            "snf:nic:snf-nic-2:any-mac",
            "snf:nic:1:address:192.0.2.10",
        ];
        let read = NicTags::new(tags, &["snf-nic-1", "", "0"]).unwrap();
        assert_eq!(read.addresses, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(read.nets, ["2001:db8::/56".parse::<IpNet>().unwrap()]);
        assert!(read.any_ip && !read.any_mac);
        for bad in ["snf:nic:0:any", "snf:nic:0:address:x", "snf:nic:*:"] {
            let error = NicTags::new([bad], &["0"]).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
        assert_eq!(
            NicTags::new(["snf:nic:1:any"], &["0"]).unwrap(),
            NicTags::default()
        );
    }

    #[test]
    fn known_tags_are_read_and_others_ignored() {
        let network = NetworkTags::new(["bridged", "nfdhcpd", "private-filtered", "x:nfdhcpd"]);
        assert!(network.nfdhcpd && network.private_filtered && !network.ip_less_routed);
        let instance = InstanceTags::new(["labtag", "disable_ipv6"]);
        assert!(instance.disable_ipv6 && !instance.disable_ipv4);
    }
}
