//! The hook in every environment that Ganeti 3.0 was seen to give a post hook of an instance.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use agents::outbox::{DNS_FOLDER, DnsChange, Entry, Outbox};
use serde_json::{Value, json};

type Environment = HashMap<String, String>;

/// The captured environments, by the hook's path.
fn captured() -> HashMap<String, Environment> {
    include_str!("captured/post-hooks.jsonl")
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let environment: Environment =
                serde_json::from_value(line["environment"].clone()).unwrap();
            (environment["GANETI_HOOKS_PATH"].clone(), environment)
        })
        .collect()
}

/// What is left by the hook on a node.
fn left(environment: &Environment, node: &str) -> (Vec<Entry>, Vec<DnsChange>) {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("hooks.toml");
    let folder = scratch.path().join("outbox");
    let text = format!(
        "outbox_dir = {:?}\nnode_name = {node:?}\nend_proxies = false\ndns = true\n",
        folder.display().to_string()
    );
    fs::write(&config, text).unwrap();
    // as Ganeti finds it: a link in a folder of hooks
    let link = scratch.path().join("snf-ganeti-hook");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_snf-ganeti-hook"), &link).unwrap();
    let output = Command::new(link)
        .arg("--config")
        .arg(&config)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    (all(&folder), all(&folder.join(DNS_FOLDER)))
}

fn all<T: serde::de::DeserializeOwned>(folder: &Path) -> Vec<T> {
    let outbox = Outbox::existing(folder);
    let names = outbox.list().unwrap_or_default();
    names
        .iter()
        .flat_map(|name| outbox.read_json(name).unwrap())
        .collect()
}

/// What the message should say of the NICs, read from the environment in the plainest way.
fn nics(environment: &Environment) -> Vec<Value> {
    let count: usize = environment["GANETI_POST_INSTANCE_NIC_COUNT"]
        .parse()
        .unwrap();
    (0..count)
        .map(|index| {
            let of = |field: &str| {
                let name = format!("GANETI_POST_INSTANCE_NIC{index}_{field}");
                environment.get(&name).filter(|value| !value.is_empty())
            };
            let mut nic = json!({"mac": of("MAC").unwrap()});
            for (ours, ganetis) in [
                ("name", "NAME"),
                ("ip", "IP"),
                ("link", "LINK"),
                ("network", "NETWORK_NAME"),
            ] {
                if let Some(value) = of(ganetis) {
                    nic[ours] = json!(value);
                }
            }
            nic
        })
        .collect()
}

#[test]
fn those_that_give_an_instance_its_nics_tell_them() {
    let captured = captured();
    for path in ["add", "start", "reboot", "modify"] {
        let environment = &captured[&format!("instance-{path}")];
        let (entries, _) = left(environment, "node1.gnt.lab");
        let [entry] = &entries[..] else {
            panic!("{path}: {entries:?}");
        };
        let body: Value = serde_json::from_str(entry.body.get()).unwrap();
        assert_eq!(body["type"], "ganeti-net-status", "{path}");
        assert_eq!(body["instance"], environment["GANETI_INSTANCE_NAME"]);
        let expected = nics(environment);
        let told = body["nics"].as_array().unwrap();
        assert_eq!(told.len(), expected.len(), "{path}");
        for (told, expected) in told.iter().zip(expected) {
            let mut plain = told.clone();
            let fields = plain.as_object_mut().unwrap();
            // these two are made of several variables
            fields.remove("firewall");
            let ipv6 = fields.remove("ipv6");
            assert_eq!(plain, expected, "{path}");
            let prefixed = environment.iter().any(|(name, value)| {
                name.starts_with("GANETI_POST_INSTANCE_NIC")
                    && name.ends_with("_NETWORK_SUBNET6")
                    && ipv6.as_ref().is_some_and(|ip| {
                        let prefix = value.split("::/").next().unwrap();
                        ip.as_str().unwrap().starts_with(prefix)
                    })
            });
            assert!(ipv6.is_none() || prefixed, "{path}: {ipv6:?}");
        }
        let (elsewhere, _) = left(environment, "node2.gnt.lab");
        assert!(elsewhere.is_empty(), "the master's tells, no other");
    }
}

#[test]
fn those_that_take_it_away_tell_nothing() {
    let captured = captured();
    for path in ["stop", "remove"] {
        let environment = &captured[&format!("instance-{path}")];
        let (entries, changes) = left(environment, "node1.gnt.lab");
        assert!(entries.is_empty() && changes.is_empty(), "{path}");
    }
}

#[test]
fn in_a_network_with_names_they_come_and_go() {
    let captured = captured();
    let tagged = |path: &str| {
        let mut environment = captured[path].clone();
        for (name, value) in &mut environment {
            if name.ends_with("NIC0_NETWORK_TAGS") {
                value.push_str(" dns");
            }
        }
        environment
    };
    for path in ["instance-add", "instance-start", "instance-modify"] {
        let (_, changes) = left(&tagged(path), "node1.gnt.lab");
        let [change] = &changes[..] else {
            panic!("{path}: {changes:?}");
        };
        let ip = captured[path]["GANETI_POST_INSTANCE_NIC0_IP"]
            .parse()
            .unwrap();
        assert!(change.addresses.contains(&ip), "{path}: {change:?}");
    }
    let (_, changes) = left(&tagged("instance-remove"), "node1.gnt.lab");
    let [change] = &changes[..] else {
        panic!("{changes:?}");
    };
    let ip = captured["instance-remove"]["GANETI_POST_INSTANCE_NIC0_IP"]
        .parse()
        .unwrap();
    assert!(change.addresses.is_empty() && change.gone.contains(&ip));
    let (_, changes) = left(&tagged("instance-reboot"), "node1.gnt.lab");
    assert!(changes.is_empty(), "a reboot changes no address");
}
