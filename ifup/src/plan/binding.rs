//! What nfdhcpd is told of the NIC.

use agents::addr;
use agents::binding::Binding;

use crate::binding_keys;
use crate::config::Config;
use crate::facts::Facts;
use crate::request::{Connection, Request};

pub(super) fn text(request: &Request, facts: &Facts, config: &Config) -> String {
    let nic = &request.nic;
    let mut binding = Binding::new(nic.mac, nic.instance.clone());
    let mtu = match &request.connection {
        Connection::Bridged { bridge, .. } | Connection::OpenVSwitch { bridge, .. } => {
            binding.indev = Some(bridge.clone());
            facts.bridge_mtu
        }
        Connection::External => {
            binding.indev = Some(nic.interface.clone());
            None
        }
        Connection::Routed { .. } => {
            binding.indev = Some(nic.interface.clone());
            let uplinks = [facts.uplink.as_ref(), facts.uplink6.as_ref()];
            uplinks.iter().flatten().map(|uplink| uplink.mtu).min()
        }
    };
    binding.mtu = mtu
        .and_then(|mtu| u16::try_from(mtu).ok())
        .filter(|mtu| *mtu >= 68);
    binding.ip = request.ipv4;
    binding.gateway = request.gateway;
    binding.gateway6 = request.gateway6;
    if let Some(network) = &nic.network {
        binding.subnet = network.subnet.filter(|_| request.ipv4.is_some());
        binding.subnet6 = network.subnet6.filter(|_| !request.ipv6.is_empty());
    }
    binding.eui64 = binding
        .subnet6
        .and_then(|subnet| addr::in_prefix(subnet, nic.mac));
    // An address of the NIC's own, other than the one it makes itself.
    binding.ip6 = request
        .ipv6
        .iter()
        .copied()
        .find(|address| Some(*address) != binding.eui64);
    binding.macspoof = request.tags.any_mac;
    binding.tags.clone_from(&nic.tags);
    binding.nameservers.clone_from(&config.nfdhcpd.nameservers);
    binding.domain = config
        .nfdhcpd
        .domain
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    let keys = &config.nfdhcpd.keys;
    let of_network = nic
        .network
        .as_ref()
        .and_then(|network| config.nfdhcpd.networks.get(&network.name));
    format!("{binding}{}", binding_keys::lines(keys, of_network))
}
