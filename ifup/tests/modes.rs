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

use harness::tap::Tap;
use node::{Node, bridged, difference, switched, with};

#[test]
fn what_our_filters_cannot_do_is_refused_not_left_out() {
    // No program is asked: the one that is configured is not there.
    let node = Node::with_config("[openvswitch]\nprogram = \"/nonexistent/ovs-vsctl\"\n");
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    for tags in ["synnefo:network:0:protected", "gnt:isolate"] {
        let error = node.refused(&with(switched(""), &[("TAGS", tags)]), 65);
        assert!(error.contains("MODE=\"openvswitch\""), "{error}");
    }
    for vlan in [".0", "x", ".10:10"] {
        let error = node.refused(&switched(vlan), 65);
        assert!(error.contains(&format!("VLAN={vlan:?}")), "{error}");
    }
    assert_eq!(difference(&bare, &node.dump()), "");
}

#[test]
fn without_its_program_the_error_names_it() {
    let node = Node::with_config("[openvswitch]\nprogram = \"/nonexistent/ovs-vsctl\"\n");
    let _tap = Tap::new(&node.namespace, "tap0").unwrap();
    let bare = node.dump();
    let output = node.run(&["up"], &switched(""));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // The lines before are what could not be undone.
    let error = output.stderr.lines().next_back().unwrap();
    assert!(error.contains("/nonexistent/ovs-vsctl"), "{error}");
    assert_eq!(difference(&bare, &node.dump()), "");
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
