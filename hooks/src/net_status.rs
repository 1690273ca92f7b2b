//! The message with an instance's NICs.

use agents::ganeti::hook_environment::{HookEnvironment, HookInstance, HookNic};
use agents::ganeti::ssconf::is_same_node;
use agents::message::{EventId, EventTime, Message, NetMessage, NetNic};

/// The operations after which an instance's NICs are told: those that give it new ones, or
/// start it with them.
const PATHS: [&str; 4] = [
    "instance-add",
    "instance-start",
    "instance-reboot",
    "instance-modify",
];

/// Whether this hook, on the node of this name, is the one that tells. Ganeti runs a post
/// hook on the master and on the instance's node; the master's tells.
pub fn is_ours(environment: &HookEnvironment, node: &str) -> bool {
    PATHS.contains(&environment.path.as_str()) && is_same_node(node, &environment.master)
}

/// The message, and its identity.
pub fn message(
    environment: &HookEnvironment,
    instance: &HookInstance,
    now: EventTime,
) -> (EventId, Message) {
    let id = EventId::of_parts(&[
        "net-status",
        &environment.cluster,
        &environment.path,
        &instance.name,
        &now.seconds().to_string(),
        &now.microseconds().to_string(),
    ]);
    let message = Message::Net(NetMessage {
        event_time: now,
        instance: instance.name.clone(),
        nics: instance.nics.iter().map(nic).collect(),
    });
    (id, message)
}

fn nic(nic: &HookNic) -> NetNic {
    NetNic {
        name: nic.name.clone(),
        ip: nic.ip.map(|ip| ip.to_string()),
        ipv6: nic.ipv6().map(|ip| ip.to_string()),
        mac: nic.mac.to_string(),
        link: nic.link.clone(),
        network: nic.network.clone(),
        firewall: nic.firewall.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashMap;

    fn environment(path: Option<&str>) -> HookEnvironment {
        let json = include_str!("../../agents/testdata/hook-instance-modify-post.json");
        let mut variables: HashMap<String, String> = serde_json::from_str(json).unwrap();
        if let Some(path) = path {
            variables.insert("GANETI_HOOKS_PATH".to_owned(), path.to_owned());
        }
        HookEnvironment::new(variables).unwrap()
    }

    #[test]
    fn a_real_modify_tells_all_nics() {
        let environment = environment(None);
        let now = EventTime::new(1_795_364_213, 5).unwrap();
        let instance = environment.instance().unwrap();
        let (id, message) = message(&environment, &instance, now);
        assert_eq!(message.routing_key().as_str(), "ganeti.snf.event.net");
        let body: serde_json::Value = serde_json::from_slice(&message.to_body()).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "ganeti-net-status",
                "event_time": [1_795_364_213, 5],
                "instance": "snf-1",
                "nics": [
                    {"name": "snf-nic-1", "ip": "10.66.1.7", "ipv6": "fd66:1::a800:ff:fee1:87fc",
                     "mac": "aa:00:00:e1:87:fc", "link": "br0", "network": "net-br",
                     "firewall": "unprotected"},
                    {"name": "snf-nic-10", "ip": "10.66.2.10", "ipv6": "fd66:2::a800:ff:fe7e:d70d",
                     "mac": "aa:00:00:7e:d7:0d", "link": "100", "network": "net-rt"},
                    {"name": "snf-nic-11", "ip": "10.66.1.3", "ipv6": "fd66:1::a800:ff:fe14:577d",
                     "mac": "aa:00:00:14:57:7d", "link": "br0", "network": "net-br"},
                ]
            })
        );
        let later = EventTime::new(1_795_364_213, 6).unwrap();
        assert_ne!(self::message(&environment, &instance, later).0, id);
    }

    #[test]
    fn only_the_master_tells_and_only_where_nics_can_be_new() {
        assert!(is_ours(&environment(None), "node1.gnt.lab"));
        assert!(is_ours(&environment(None), "node1"));
        assert!(!is_ours(&environment(None), "node2.gnt.lab"));
        for path in [
            "instance-stop",
            "instance-remove",
            "instance-migrate",
            "network-add",
        ] {
            assert!(
                !is_ours(&environment(Some(path)), "node1.gnt.lab"),
                "{path}"
            );
        }
    }
}
