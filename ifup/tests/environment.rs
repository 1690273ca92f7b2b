//! An environment that is not all text.
#![allow(clippy::unwrap_used, missing_docs)] // a test

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

/// Runs the program without rights to change anything: it must refuse before it wants to.
fn run(name: &str, arguments: &[&str], odd: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snf-ifup"));
    command
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs([
            ("INTERFACE", "snf-no-such"),
            ("MODE", "bridged"),
            ("LINK", "br0"),
            ("MAC", "aa:00:00:00:00:01"),
            ("INSTANCE", "snf-1"),
        ])
        .uid(65534);
    for name in odd {
        command.env(name, OsStr::from_bytes(b"10.0.0.\xff"));
    }
    command.output().unwrap()
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_by_name() {
    let script = "/etc/ganeti/kvm-vif-bridge";
    let dry_run: &[&str] = &["up", "--dry-run"];
    for variable in ["IP", "TAGS", "NETWORK_TAGS", "NETWORK_SUBNET6", "MAC"] {
        for (name, arguments) in [(script, &[][..]), ("snf-ifup", dry_run)] {
            let output = run(name, arguments, &[variable]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{variable}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(
                said.contains(&format!(r#"{variable}="10.0.0.\xff": not UTF-8"#)),
                "{said}"
            );
        }
    }
    // The instance is in the text, though it is no text itself.
    let output = run(script, &[], &["INSTANCE"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("INSTANCE=") && said.contains("snf-no-such"),
        "{said}"
    );
    // Another program's variable is not looked at.
    let output = run(script, &[], &["OTHER"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("UTF-8"), "{said}");
}
