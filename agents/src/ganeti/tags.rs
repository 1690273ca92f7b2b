//! What the tags of networks and instances say about NICs.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tags_are_read_and_others_ignored() {
        let network = NetworkTags::new(["bridged", "nfdhcpd", "private-filtered", "x:nfdhcpd"]);
        assert!(network.nfdhcpd && network.private_filtered && !network.ip_less_routed);
        let instance = InstanceTags::new(["labtag", "disable_ipv6"]);
        assert!(instance.disable_ipv6 && !instance.disable_ipv4);
    }
}
