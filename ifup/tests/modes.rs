//! The modes besides bridged and routed, and VLANs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod node;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use harness::tap::Tap;
use node::{Node, bridged, difference, switched, with};

/// A node whose ovs-vsctl is a script that writes down how it is called, since not every kernel
/// and machine has the switch; it fails if there is a file `fails`.
fn node_with_stand_in() -> Node {
    let node = Node::new();
    let folder = node.folder.path();
    let script = folder.join("ovs-vsctl");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\necho \"$@\" >> {0}/calls\n\
             if [ -e {0}/fails ]; then echo 'ovs-vsctl: no bridge named ovs0' >&2; exit 1; fi\n",
            folder.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = fs::read_to_string(node.config()).unwrap();
    config.push_str(&format!("[openvswitch]\nprogram = {script:?}\n"));
    fs::write(node.config(), config).unwrap();
    node
}

fn calls(node: &Node) -> Vec<String> {
    let path = node.folder.path().join("calls");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(str::to_owned).collect()
}

/// The last line of a call that fails; those before are what could not be undone.
fn failed(node: &Node) -> String {
    let output = node.run(&["up"], &switched(""));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    output.stderr.lines().next_back().unwrap().to_owned()
}

#[test]
fn a_port_of_open_vswitch_is_asked_of_its_own_program() {
    let node = node_with_stand_in();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    let add =
        "--timeout=5 -- --may-exist add-port ovs0 tap0 -- clear Port tap0 tag trunks vlan_mode";
    for (vlan, set) in [
        ("", ""),
        (".10", " -- set Port tap0 tag=10 vlan_mode=access"),
        (":10:20", " -- set Port tap0 trunks=10,20 vlan_mode=trunk"),
        (
            ".10:20",
            " -- set Port tap0 tag=10 trunks=20 vlan_mode=native-untagged",
        ),
    ] {
        node.up(&switched(vlan));
        assert_eq!(calls(&node), [format!("{add}{set}")]);
    }
    let link = node.namespace.ip("link show tap0").unwrap();
    assert!(link.contains(",UP"), "{link}");
    node.down("tap0");
    assert_eq!(
        calls(&node),
        ["--timeout=5 -- --if-exists del-port ovs0 tap0"]
    );
    let ours = |text: String| -> String {
        let lines = text
            .lines()
            .filter(|line| !line.contains("/calls") && !line.contains("/fails"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(difference(&bare, &ours(node.dump())), "");

    fs::write(node.folder.path().join("fails"), "").unwrap();
    let error = failed(&node);
    assert!(error.contains("no bridge named ovs0"), "{error}");
    assert_eq!(difference(&bare, &ours(node.dump())), "");
}

#[test]
fn what_our_filters_cannot_do_is_refused_not_left_out() {
    let node = node_with_stand_in();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    for tags in ["synnefo:network:0:protected", "gnt:isolate"] {
        let error = node.refused(&with(switched(""), &[("TAGS", tags)]), 65);
        assert!(error.contains("MODE=\"openvswitch\""), "{error}");
    }
    for vlan in [".0", "x", ".10:10"] {
        let error = node.refused(&switched(vlan), 65);
        assert!(error.contains(&format!("VLAN={vlan:?}")), "{error}");
    }
    assert_eq!(calls(&node), Vec::<String>::new());
}

#[test]
fn without_its_program_the_error_names_it() {
    let node = Node::with_config("[openvswitch]\nprogram = \"/nonexistent/ovs-vsctl\"\n");
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let error = failed(&node);
    assert!(error.contains("/nonexistent/ovs-vsctl"), "{error}");
}

#[test]
fn an_external_nic_gets_what_every_nic_gets() {
    let node = Node::new();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    let nic = with(bridged(), &[("MODE", "ext"), ("LINK", ""), ("TAGS", "")]);
    node.up(&nic);
    node.up(&with(nic, &[("ACTION", "up"), ("MIGRATION_PHASE", "post")]));
    let binding = fs::read_to_string(node.bindings().join("tap0")).unwrap();
    assert!(
        binding.contains("INDEV=tap0") && binding.contains("IP=10.66.1.7"),
        "{binding}"
    );
    let link = node.namespace.ip("link show tap0").unwrap();
    assert!(link.contains(",UP"), "{link}");
    node.down("tap0");
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn a_vlan_needs_a_bridge_that_knows_vlans() {
    let node = Node::new();
    node.namespace.ip("link add br0 type bridge").unwrap();
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    let error = node.refused(&with(bridged(), &[("VLAN", ".10")]), 1);
    assert!(
        error.contains("VLAN=.10: the bridge br0 has no vlan_filtering"),
        "{error}"
    );
    assert_eq!(difference(&bare, &node.dump()), "");
}
