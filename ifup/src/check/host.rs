//! Whether this host is fit for its NICs: said before a guest finds out.

use agents::netlink::Rtnetlink;
use agents::netlink::nftables::Nftables;

use crate::config::Config;
use crate::error::Result;
use crate::sysctl;

/// What is wrong with the host, one line each; none if nothing is.
///
/// # Errors
/// The kernel does not say.
pub fn unfit(config: &Config) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if let Err(error) = Rtnetlink::open() {
        found.push(error.to_string());
    }
    if let Err(error) = Nftables::open() {
        found.push(error.to_string());
    }
    if sysctl::read("net/ipv4/conf/all/rp_filter")?.as_deref() == Some("1") {
        found.push(
            "net.ipv4.conf.all.rp_filter is 1: packets of routed guests are dropped; set it to 0"
                .to_owned(),
        );
    }
    let forwarding = sysctl::read("net/ipv6/conf/all/forwarding")?;
    let by_interface = sysctl::read("net/ipv6/conf/all/force_forwarding")?;
    if forwarding.as_deref() == Some("0") && by_interface.is_none() {
        found.push(
            "net.ipv6.conf.all.forwarding is 0: IPv6 of routed guests is not forwarded; set it \
             to 1, and accept_ra to 2 where the node itself needs router advertisements"
                .to_owned(),
        );
    }
    for folder in [&config.state, &config.bindings] {
        if !folder.is_dir() {
            found.push(format!("{} is not there yet", folder.display()));
        }
    }
    Ok(found)
}
