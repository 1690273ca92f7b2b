//! The journal's view of nfdhcpd, with systemd's real journald in a host of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::host::Host;
use harness::scratch::Scratch;
use harness::wait;

#[test]
fn journalctl_shows_and_finds_a_refused_binding_by_its_interface() {
    let scratch = Scratch::new("journald").unwrap();
    let host = Host::start("node1", &scratch.join("host.log")).unwrap();
    // journald asks for the control group of each sender.
    host.sh(
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup; mkdir -p /run/systemd/journal /run/log/journal",
    )
    .unwrap();
    let mut journald = host.command("/lib/systemd/systemd-journald");
    let _journald = host
        .daemon("journald", &mut journald, &scratch.join("journald.log"))
        .unwrap();
    wait::until_ok("journald", wait::USUAL, || {
        host.sh("systemd-cat -t test echo begun; journalctl -t test -g begun")
    })
    .unwrap();

    host.write("/run/bindings/tap3", "INDEV=tap3\nMAC=bad\n")
        .unwrap();
    host.write(
        "/run/nfdhcpd.toml",
        "bindings = \"/run/bindings\"\ncontrol = \"/run/nfdhcpd/control\"\n",
    )
    .unwrap();
    let program = host.path("/run/nfdhcpd-program");
    std::fs::copy(env!("CARGO_BIN_EXE_nfdhcpd"), &program).unwrap();
    let mut nfdhcpd = host.command("/run/nfdhcpd-program");
    nfdhcpd
        .env("JOURNAL_STREAM", "1:1")
        .args(["--config", "/run/nfdhcpd.toml", "run"]);
    let _nfdhcpd = host
        .daemon("nfdhcpd", &mut nfdhcpd, &scratch.join("nfdhcpd.log"))
        .unwrap();

    let journalctl = |arguments: &str| {
        host.sh(&format!(
            "journalctl --no-pager -o cat -t nfdhcpd-program {arguments} || true"
        ))
        .unwrap()
    };
    wait::until_true("the refused binding", wait::USUAL, || {
        !journalctl("-g tap3").is_empty()
    })
    .unwrap();
    let refused = journalctl("-g tap3");
    assert!(refused.contains("binding refused"), "{refused}");
    assert!(refused.contains("bad"), "{refused}");
    assert_eq!(journalctl("-p warning SNF_INTERFACE=tap3"), refused);
}
