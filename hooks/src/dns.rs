//! What the DNS should say of an instance after an operation.

use std::net::IpAddr;

use agents::ganeti::hook_environment::{HookEnvironment, HookError, HookInstance};
use agents::outbox::DnsChange;

/// A network with this tag has its instances' names in the DNS.
const TAG: &str = "dns";

/// The changes that the operation makes; none if no NIC of the instance is, or was, in a
/// network that has names.
///
/// # Errors
/// The environment lacks something that an operation of this kind has.
pub fn changes(environment: &HookEnvironment) -> Result<Vec<DnsChange>, HookError> {
    let changes = match environment.path.as_str() {
        "instance-add" | "instance-start" | "instance-modify" => {
            let now = environment.instance()?;
            let before = environment.instance_before()?;
            vec![change(&now.name, addresses(&now), addresses(&before))]
        }
        "instance-remove" => {
            let before = environment.instance_before()?;
            vec![change(&before.name, Vec::new(), addresses(&before))]
        }
        "instance-rename" => {
            let before = environment.instance_before()?;
            let all = addresses(&before);
            let new = environment
                .get("INSTANCE_NEW_NAME")
                .ok_or_else(|| HookError::Missing("GANETI_INSTANCE_NEW_NAME".to_owned()))?;
            vec![
                change(&before.name, Vec::new(), all.clone()),
                change(new, all, Vec::new()),
            ]
        }
        _ => Vec::new(),
    };
    let means_something =
        |change: &DnsChange| !change.addresses.is_empty() || !change.gone.is_empty();
    Ok(changes.into_iter().filter(means_something).collect())
}

fn change(name: &str, now: Vec<IpAddr>, before: Vec<IpAddr>) -> DnsChange {
    let gone = before
        .into_iter()
        .filter(|address| !now.contains(address))
        .collect();
    DnsChange {
        name: name.to_owned(),
        addresses: now,
        gone,
    }
}

fn addresses(instance: &HookInstance) -> Vec<IpAddr> {
    instance
        .nics
        .iter()
        .filter(|nic| nic.network_tags.iter().any(|tag| tag == TAG))
        .flat_map(|nic| [nic.ip, nic.ipv6().map(IpAddr::V6)])
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn of(path: &str, more: &[(&str, &str)]) -> Vec<DnsChange> {
        let json = include_str!("../../agents/testdata/hook-instance-modify-post.json");
        let mut variables: HashMap<String, String> = serde_json::from_str(json).unwrap();
        variables.insert("GANETI_HOOKS_PATH".to_owned(), path.to_owned());
        for (name, value) in more {
            variables.insert((*name).to_owned(), (*value).to_owned());
        }
        changes(&HookEnvironment::new(variables).unwrap()).unwrap()
    }

    /// The second NIC's network has names, before and after.
    const TAGGED: [(&str, &str); 2] = [
        ("GANETI_INSTANCE_NIC1_NETWORK_TAGS", "nfdhcpd dns"),
        ("GANETI_POST_INSTANCE_NIC1_NETWORK_TAGS", "dns nfdhcpd"),
    ];

    fn list(addresses: &[&str]) -> Vec<IpAddr> {
        addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect()
    }

    #[test]
    fn only_networks_with_the_tag_have_names() {
        for path in ["instance-add", "instance-modify", "instance-remove"] {
            assert_eq!(of(path, &[]), [], "{path}");
        }
        let all = list(&["10.66.2.10", "fd66:2::a800:ff:fe7e:d70d"]);
        let set = DnsChange {
            name: "snf-1".to_owned(),
            addresses: all.clone(),
            gone: Vec::new(),
        };
        for path in ["instance-add", "instance-start", "instance-modify"] {
            assert_eq!(of(path, &TAGGED), std::slice::from_ref(&set), "{path}");
        }
        for path in ["instance-stop", "instance-migrate", "network-add"] {
            assert_eq!(of(path, &TAGGED), [], "{path}");
        }
    }

    #[test]
    fn what_an_instance_no_longer_has_is_taken_away() {
        let moved = ("GANETI_INSTANCE_NIC1_IP", "10.66.2.9");
        let changes = of("instance-modify", &[TAGGED[0], TAGGED[1], moved]);
        assert_eq!(changes[0].gone, list(&["10.66.2.9"]));
        let out = ("GANETI_POST_INSTANCE_NIC1_NETWORK_TAGS", "nfdhcpd");
        let changes = of("instance-modify", &[TAGGED[0], out]);
        assert!(changes[0].addresses.is_empty());
        assert_eq!(changes[0].gone.len(), 2);
        let changes = of("instance-remove", &TAGGED);
        assert!(changes[0].addresses.is_empty());
        assert_eq!(changes[0].gone.len(), 2);
    }

    #[test]
    fn a_rename_takes_the_old_name_away_and_gives_the_new_one() {
        let name = ("GANETI_INSTANCE_NEW_NAME", "web");
        let changes = of("instance-rename", &[TAGGED[0], TAGGED[1], name]);
        let said: Vec<_> = changes
            .iter()
            .map(|change| {
                (
                    change.name.as_str(),
                    change.addresses.len(),
                    change.gone.len(),
                )
            })
            .collect();
        assert_eq!(said, [("snf-1", 0, 2), ("web", 2, 0)]);
    }
}
