//! Names of instances in a real name server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

mod rig;

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use agents::outbox::{DNS_FOLDER, DnsChange, Outbox, Producer};
use harness::process::Daemon;
use harness::wait;
use rig::Node;

const SECRET: &str = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdCBmb3IgdHNpZyE=";

/// BIND with a zone and its reverse zones, which take updates signed with the key alone.
fn name_server(node: &Node) -> Daemon {
    let folder = node.scratch.folder("named").unwrap();
    let root = folder.display();
    let mut config = format!(
        "options {{ directory \"{root}\"; listen-on port 53 {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
           recursion no; notify no; pid-file none; session-keyfile none; dnssec-validation no; }};
         controls {{ }};
         key \"snf-eventd\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n"
    );
    for zone in [
        "vms.example.com",
        "2.0.192.in-addr.arpa",
        "8.b.d.0.1.0.0.2.ip6.arpa",
    ] {
        fs::write(
            folder.join(zone),
            "$TTL 300\n@ SOA ns.example.com. admin.example.com. 1 3600 600 86400 300\n@ NS ns.example.com.\n",
        )
        .unwrap();
        config += &format!(
            "zone \"{zone}\" {{ type primary; file \"{zone}\"; allow-update {{ key \"snf-eventd\"; }}; }};\n"
        );
    }
    fs::write(folder.join("named.conf"), config).unwrap();
    let mut command = node.netns.command("named");
    command
        .args(["-g", "-c", "named.conf"])
        .current_dir(&folder);
    let mut daemon = Daemon::spawn("named", &mut command, &node.path("named.log")).unwrap();
    daemon.wait_for_log("running", wait::USUAL).unwrap();
    daemon
}

fn ask(node: &Node, question: &str) -> Vec<String> {
    let answer = node
        .netns
        .sh(&format!(
            "dig +short +time=2 +tries=1 @127.0.0.1 {question}"
        ))
        .unwrap_or_default();
    answer.lines().map(str::to_owned).collect()
}

fn until_answer(node: &Node, question: &str, expected: &[&str]) {
    wait::until(&format!("{question}: {expected:?}"), wait::USUAL, || {
        let answer = ask(node, question);
        if answer == expected {
            wait::Look::Done(())
        } else {
            wait::Look::NotYet(format!("{answer:?}"))
        }
    })
    .unwrap();
}

fn change(name: &str, addresses: &[&str], gone: &[&str]) -> DnsChange {
    let list = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .collect()
    };
    DnsChange {
        name: name.to_owned(),
        addresses: list(addresses),
        gone: list(gone),
    }
}

#[test]
fn names_come_change_and_go_and_a_server_that_is_away_is_waited_for() {
    let node = Node::new("dns");
    fs::write(node.path("dns.key"), format!("{SECRET}\n")).unwrap();
    node.configure(&format!(
        "[dns]\nserver = \"127.0.0.1:53\"\nzone = \"vms.example.com\"\n\
         reverse_zones = [\"2.0.192.in-addr.arpa\", \"8.b.d.0.1.0.0.2.ip6.arpa\"]\n\
         key_name = \"snf-eventd\"\nkey_file = \"{}\"\n",
        node.path("dns.key").display()
    ));
    let daemon = node.start();
    let folder = node.outbox().join(DNS_FOLDER);
    let mut producer = Producer::new(&folder).unwrap();
    // a server that is not there yet
    producer
        .put_json(&change("snf-1", &["192.0.2.7", "2001:db8::7"], &[]))
        .unwrap();
    wait::until_true("it to say so", wait::USUAL, || {
        daemon.log().contains("dns: ")
    })
    .unwrap();
    let _server = name_server(&node);
    until_answer(&node, "snf-1.vms.example.com A", &["192.0.2.7"]);
    until_answer(&node, "snf-1.vms.example.com AAAA", &["2001:db8::7"]);
    until_answer(&node, "-x 192.0.2.7", &["snf-1.vms.example.com."]);
    until_answer(&node, "-x 2001:db8::7", &["snf-1.vms.example.com."]);

    // another address; and the old one goes to another instance before it is taken away
    producer
        .put_json(&change("snf-2", &["192.0.2.7"], &[]))
        .unwrap();
    producer
        .put_json(&change(
            "snf-1",
            &["192.0.2.8"],
            &["192.0.2.7", "2001:db8::7"],
        ))
        .unwrap();
    until_answer(&node, "snf-1.vms.example.com A", &["192.0.2.8"]);
    until_answer(&node, "snf-1.vms.example.com AAAA", &[]);
    until_answer(&node, "-x 192.0.2.8", &["snf-1.vms.example.com."]);
    until_answer(&node, "-x 2001:db8::7", &[]);
    until_answer(&node, "-x 192.0.2.7", &["snf-2.vms.example.com."]);

    // a name that cannot be, and a file that is none, stop nothing
    producer
        .put_json(&change("other.example.org", &["192.0.2.9"], &[]))
        .unwrap();
    let bad = producer.put_json(&"no change").unwrap();
    producer
        .put_json(&change("snf-1", &[], &["192.0.2.8"]))
        .unwrap();
    until_answer(&node, "snf-1.vms.example.com A", &[]);
    until_answer(&node, "-x 192.0.2.8", &[]);
    assert!(folder.join("bad").join(bad.to_string()).exists());
    let outbox = Outbox::existing(&folder);
    wait::until_true("the folder to be empty", wait::USUAL, || {
        outbox.list().unwrap().is_empty()
    })
    .unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}

#[test]
fn a_wrong_key_is_told_and_nothing_is_lost() {
    let node = Node::new("dns-key");
    fs::write(node.path("dns.key"), "AAAABBBBCCCCDDDDEEEEFFFF\n").unwrap();
    node.configure(&format!(
        "[dns]\nserver = \"127.0.0.1:53\"\nzone = \"vms.example.com\"\n\
         key_name = \"snf-eventd\"\nkey_file = \"{}\"\n",
        node.path("dns.key").display()
    ));
    let _server = name_server(&node);
    let daemon = node.start();
    let folder = node.outbox().join(DNS_FOLDER);
    Producer::new(&folder)
        .unwrap()
        .put_json(&change("snf-1", &["192.0.2.7"], &[]))
        .unwrap();
    wait::until_true("it to say so", wait::USUAL, || {
        daemon.log().contains("dns: the server says")
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.log().matches("dns: ").count(), 1, "{}", daemon.log());
    assert_eq!(Outbox::existing(&folder).list().unwrap().len(), 1);
    assert!(ask(&node, "snf-1.vms.example.com A").is_empty());
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}
