//! What an operator does: look, change, check, migrate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::fs;
use std::process::Command;

use harness::process;
use harness::wait;
use nix::sys::signal::Signal;
use scene::{Scene, mac};

fn nfdhcpd(arguments: &[&str]) -> process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nfdhcpd"));
    process::run(command.args(arguments), wait::USUAL).unwrap()
}

#[test]
fn clients_metrics_and_the_table_in_the_log_tell_of_an_exchange() {
    let mut scene = Scene::new("operation");
    scene.start("metrics = \"127.0.0.1:9642\"\n");
    scene.bind("tap0", &Scene::bridged_binding(5));
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    scene.udhcpc(&client, "").unwrap();

    let table = scene.nfdhcpd(&["clients"]).unwrap();
    let row = table.lines().find(|line| line.starts_with("tap0")).unwrap();
    for text in ["snf-5", "aa:00:00:00:00:05", "10.66.1.5", "bridged"] {
        assert!(row.contains(text), "{text} is not in\n{table}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&scene.nfdhcpd(&["clients", "--json"]).unwrap()).unwrap();
    assert_eq!(json[0]["interface"], "tap0");
    assert!(json[0]["answered"].as_u64().unwrap() >= 2, "{json}");

    let page = scene.metrics();
    for line in [
        "nfdhcpd_messages_total{type=\"DHCPDISCOVER\",outcome=\"answered\"} 1",
        "nfdhcpd_interfaces 1",
        "nfdhcpd_queue_waiting{queue=\"42\"} 0",
        "nfdhcpd_queue_full_total{queue=\"42\"} 0",
    ] {
        assert!(
            page.lines().any(|have| have == line),
            "{line} is not in\n{page}"
        );
    }
    scene.daemon().signal(Signal::SIGUSR1).unwrap();
    scene.wait_for("INTERFACE");
}

#[test]
fn a_reload_takes_effect_and_a_bad_one_changes_nothing() {
    let mut scene = Scene::new("reload");
    scene.start("");
    scene.bind("tap0", &Scene::bridged_binding(5));
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    assert!(
        scene
            .udhcpc(&client, "")
            .unwrap()
            .contains("told: lease=604800")
    );

    let path = scene.scratch.join("nfdhcpd.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}\n[dhcp]\nlease_seconds = 7200\n")).unwrap();
    scene.daemon().signal(Signal::SIGHUP).unwrap();
    scene.wait_for("configuration read again");
    assert!(
        scene
            .udhcpc(&client, "")
            .unwrap()
            .contains("told: lease=7200")
    );

    fs::write(&path, format!("{good}\n[dhcp]\nlease_seconds = \"long\"\n")).unwrap();
    scene.daemon().signal(Signal::SIGHUP).unwrap();
    scene.wait_for("reload refused");
    assert!(
        scene
            .udhcpc(&client, "")
            .unwrap()
            .contains("told: lease=7200")
    );
}

#[test]
fn explain_says_what_would_be_answered() {
    let mut scene = Scene::new("explain");
    let _tap = scene.bridged("tap0");
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.start("");
    // A router solicitation of aa:00:00:00:00:05 from the unspecified address.
    let frame = "333300000002 aa0000000005 86dd 6000000000083aff \
                 00000000000000000000000000000000 ff020000000000000000000000000002 85007bb800000000";
    let text = scene.nfdhcpd(&["explain", "tap0", frame]).unwrap();
    assert!(text.contains("answered with RA"), "{text}");
    let spoofed = frame.replace("aa0000000005", "aa0000000006");
    let text = scene.nfdhcpd(&["explain", "tap0", &spoofed]).unwrap();
    assert!(text.contains("dropped: spoofed-mac"), "{text}");
    let error = scene
        .nfdhcpd(&["explain", "tap9", frame])
        .unwrap_err()
        .to_string();
    assert!(error.contains("tap9"), "{error}");
}

#[test]
fn check_names_each_wrong_binding_and_ends_with_1() {
    let scene = Scene::new("check");
    scene.bind("tap0", &Scene::bridged_binding(5));
    fs::write(
        scene.bindings.join("tap1"),
        "MAC=aa:00:00:00:00:06\nHOSTNAME=h\nIP=10.0.0.256\n",
    )
    .unwrap();
    let path = scene
        .scratch
        .write("c.toml", &format!("bindings = {:?}", scene.bindings))
        .unwrap();
    let output = nfdhcpd(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let line = output.stdout.lines().next().unwrap();
    for text in ["tap1", "line 3", "10.0.0.256"] {
        assert!(line.contains(text), "{line}");
    }
    fs::remove_file(scene.bindings.join("tap1")).unwrap();
    let output = nfdhcpd(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
}

#[test]
fn the_originals_configuration_is_read_and_migrated() {
    let scene = Scene::new("legacy");
    let text = format!(
        "[general]\ndatapath = {} # here\n[dhcp]\ndhcp_queue = 42\nlease_lifetime = 86400\n\
         [ipv6]\nrs_queue = 43\nns_queue = 44\n",
        scene.bindings.display()
    );
    let legacy = scene.scratch.write("nfdhcpd.conf", &text).unwrap();
    let output = nfdhcpd(&["migrate-config", legacy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert!(
        output.stdout.contains("numbers = [42, 43, 44]"),
        "{}",
        output.stdout
    );
    let migrated = scene
        .scratch
        .write("migrated.toml", &output.stdout)
        .unwrap();
    for path in [&legacy, &migrated] {
        let output = nfdhcpd(&["--config", path.to_str().unwrap(), "check"]);
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    }
    let bad = scene
        .scratch
        .write("bad.conf", "[dhcp]\nlease_lifetime = soon\n")
        .unwrap();
    let output = nfdhcpd(&["--config", bad.to_str().unwrap(), "check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        output.stderr.contains("line 2") && output.stderr.contains("soon"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_wrong_configuration_or_command_line_has_its_own_exit_status() {
    let scene = Scene::new("exit");
    let path = scene.scratch.write("c.toml", "bindngs = \"/x\"\n").unwrap();
    let output = nfdhcpd(&["--config", path.to_str().unwrap(), "run"]);
    assert_eq!(output.status.code(), Some(78));
    for text in ["c.toml", "line 1", "bindngs"] {
        assert!(output.stderr.contains(text), "{}", output.stderr);
    }
    assert_eq!(nfdhcpd(&["frobnicate"]).status.code(), Some(2));
    let output = nfdhcpd(&["--config", "/nonexistent.toml", "run"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stderr.contains("/nonexistent.toml"));
}

#[test]
fn the_running_daemon_has_two_capabilities_and_sees_its_own_folders_alone() {
    let mut scene = Scene::new("privileges");
    let elsewhere = harness::scratch::Scratch::new("elsewhere").unwrap();
    let secret = elsewhere
        .write("secret", "MAC=aa:00:00:00:00:09\nHOSTNAME=secret\n")
        .unwrap();
    scene.start("user = \"nobody\"\nmetrics = \"127.0.0.1:9642\"\n");
    let client = scene.bridged("tap0").into_client(&mac(5)).unwrap();
    scene.bind("tap0", &Scene::bridged_binding(5));
    scene.udhcpc(&client, "").unwrap();

    let pid = scene.daemon().pid();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        // CAP_NET_ADMIN is 12, CAP_NET_RAW 13.
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set), "0000000000003000", "{set}\n{status}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}\n{status}");
        }
        assert_eq!(field("Uid:"), nobody.to_string());
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
    }
    // A file that anybody may read, named by a link in the folder of bindings: the daemon reads
    // what is there, and gets no further than its folder.
    std::os::unix::fs::symlink(&secret, scene.bindings.join("tap1.new")).unwrap();
    fs::rename(scene.bindings.join("tap1.new"), scene.bindings.join("tap1")).unwrap();
    scene.wait_for("binding refused");
    let log = scene.daemon().log();
    assert!(
        log.contains("tap1: Permission denied") && !log.contains("secret"),
        "{log}"
    );
    // What it could do at the start, it still can: reload, tell, count, and end cleanly.
    scene.daemon().signal(Signal::SIGHUP).unwrap();
    scene.wait_for("configuration read again");
    assert!(scene.nfdhcpd(&["clients"]).unwrap().contains("tap0"));
    let table = scene.host.sh("nft list ruleset").unwrap();
    assert!(table.contains("tap0"), "{table}");
    let daemon = scene.daemon.take().unwrap();
    assert!(daemon.stop(wait::USUAL).unwrap().success());
}
