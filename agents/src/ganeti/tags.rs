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
}

/// A tag that is for a NIC, but means nothing. The text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tag {0:?}: not one of snf:nic:<NIC>:address:<address or prefix>, any-ip, any-mac")]
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

#[cfg(test)]
mod tests {
    use super::*;

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
