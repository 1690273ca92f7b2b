//! One guest's interface: all that an answer depends on.

use std::net::Ipv6Addr;
use std::sync::Arc;

use agents::addr::MacAddr;
use agents::binding::Binding;

use crate::profile::Profile;

/// One guest's interface: its binding, its place in the host, the settings of its network.
#[derive(Debug, Clone)]
pub struct Client {
    /// The interface's name, which is the binding file's.
    pub interface: String,
    /// What the binding file says.
    pub binding: Binding,
    /// Where the interface is in the host.
    pub port: Port,
    /// The settings of its network.
    pub profile: Arc<Profile>,
}

/// Where a guest's interface is in the host, as far as answers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The kernel's number of the interface.
    pub index: u32,
    /// Whether it is a port of a bridge.
    pub bridged: bool,
    /// The MAC address by which the guest reaches the host: the bridge's, or the interface's own.
    pub host_mac: MacAddr,
    /// The link-local address by which the guest reaches the host.
    pub host_link_local: Ipv6Addr,
    /// Whether the host itself has the binding's IPv6 gateway address on this link.
    pub host_has_gateway6: bool,
}

impl Client {
    /// Whether a packet from this MAC address is from this guest.
    pub fn owns(&self, mac: MacAddr) -> bool {
        mac == self.binding.mac || (self.binding.macspoof && !mac.is_multicast())
    }
}
