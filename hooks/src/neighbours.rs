//! A node that an instance has left no longer answers for its addresses.
//!
//! For a routed NIC its node answers neighbour solicitations on the uplink (a neighbour
//! proxy). If the old node went on after a migration, the network would still send there.

use std::net::IpAddr;

use agents::ganeti::hook_environment::{HookEnvironment, HookInstance};
use agents::ganeti::ssconf::is_same_node;
use agents::netlink::{self, Rtnetlink};

/// Whether the instance has left the node of this name with the operation.
pub fn has_left(environment: &HookEnvironment, instance: &HookInstance, node: &str) -> bool {
    let is_here = |name: Option<&str>| name.is_some_and(|name| is_same_node(node, name));
    match environment.path.as_str() {
        "instance-stop" | "instance-remove" => is_here(Some(&instance.primary)),
        "instance-migrate" | "instance-failover" => {
            // after the operation Ganeti calls the new one GANETI_POST_OLD_PRIMARY: not that
            is_here(environment.get("OLD_PRIMARY")) && !is_here(environment.get("NEW_PRIMARY"))
        }
        _ => false,
    }
}

/// The addresses that its node answered for.
pub fn addresses(instance: &HookInstance) -> Vec<IpAddr> {
    instance
        .nics
        .iter()
        .filter(|nic| nic.mode == "routed")
        .flat_map(|nic| [nic.ip, nic.ipv6().map(IpAddr::V6)])
        .flatten()
        .collect()
}

/// Ends all neighbour proxies for these addresses, on whatever interface; returns how many
/// there were.
///
/// # Errors
/// What the kernel says.
pub fn end_proxies(addresses: &[IpAddr]) -> netlink::Result<usize> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let mut rtnetlink = Rtnetlink::open()?;
    let mut ended = 0usize;
    for ipv4 in [true, false] {
        if !addresses.iter().any(|address| address.is_ipv4() == ipv4) {
            continue;
        }
        for proxy in rtnetlink.neighbours(ipv4, true)? {
            if let Some(address) = proxy.address
                && addresses.contains(&address)
            {
                rtnetlink.delete_proxy(proxy.interface, address)?;
                ended = ended.saturating_add(1);
            }
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn environment(path: &str, more: &[(&str, &str)]) -> HookEnvironment {
        let json = include_str!("../../agents/testdata/hook-instance-modify-post.json");
        let mut variables: HashMap<String, String> = serde_json::from_str(json).unwrap();
        variables.insert("GANETI_HOOKS_PATH".to_owned(), path.to_owned());
        for (name, value) in more {
            variables.insert((*name).to_owned(), (*value).to_owned());
        }
        HookEnvironment::new(variables).unwrap()
    }

    fn left(path: &str, more: &[(&str, &str)], node: &str) -> bool {
        let environment = environment(path, more);
        has_left(&environment, &environment.instance().unwrap(), node)
    }

    #[test]
    fn only_the_node_that_it_has_left_forgets_it() {
        let node1 = "node1.gnt.lab";
        let node2 = "node2.gnt.lab";
        for path in ["instance-stop", "instance-remove"] {
            assert!(left(path, &[], node1), "{path}");
            assert!(!left(path, &[], node2), "{path}");
        }
        for path in ["instance-migrate", "instance-failover"] {
            let moved = [
                ("GANETI_OLD_PRIMARY", node1),
                ("GANETI_NEW_PRIMARY", node2),
                ("GANETI_POST_OLD_PRIMARY", node2),
            ];
            assert!(left(path, &moved, node1), "{path}");
            assert!(!left(path, &moved, node2), "{path}");
            let stayed = [("GANETI_OLD_PRIMARY", node1), ("GANETI_NEW_PRIMARY", node1)];
            assert!(!left(path, &stayed, node1), "{path}");
            assert!(!left(path, &[], node1), "{path}");
        }
        for path in ["instance-start", "instance-reboot", "instance-modify"] {
            assert!(!left(path, &[], node1), "{path}");
        }
    }

    #[test]
    fn only_routed_nics_have_proxies() {
        let instance = environment("instance-stop", &[]).instance().unwrap();
        let addresses: Vec<_> = addresses(&instance)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, ["10.66.2.10", "fd66:2::a800:ff:fe7e:d70d"]);
    }
}
