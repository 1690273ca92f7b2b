//! The Debian packages in a Debian 12 system without a service manager: what their scripts do
//! when all is well and when it is not, and what they leave behind.

#![allow(clippy::unwrap_used)] // its helpers are outside of #[test] functions

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use harness::debian::{Chroot, Packages};

/// The daemons, and the most that systemd may find exposed of each, in tenths.
const SERVICES: [(&str, u32); 5] = [
    ("nfdhcpd", 20),
    ("snf-ganeti-eventd", 20),
    ("snf-central", 20),
    ("snf-ifup-monitor", 25),
    ("snf-ifup-restore", 25),
];

/// What is installed: the packages themselves, and nothing that they only recommend.
const INSTALL: &str = "apt-get install -y -q --no-install-recommends --allow-downgrades";

/// A system, with the packages at `/mnt/now`.
fn system() -> Chroot {
    let chroot = Chroot::new().unwrap();
    chroot.add("now", &Packages::build(None).unwrap()).unwrap();
    chroot
}

fn write_script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A package of somebody else's, with one file and the scripts of none.
fn foreign(folder: &Path, name: &str, version: &str, file: &str) {
    let tree = folder.join(format!("{name}.tree"));
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
         Description: stand-in\n"
    );
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::write(tree.join("DEBIAN/conffiles"), format!("/{file}\n")).unwrap();
    write_script(&tree.join(file), "theirs\n");
    let mut build = std::process::Command::new("dpkg-deb");
    build
        .args(["--root-owner-group", "-b"])
        .arg(&tree)
        .arg(folder.join(format!("{name}_{version}.deb")));
    harness::process::check(&mut build, harness::debian::STEP).unwrap();
}

#[test]
fn install_remove_and_purge_leave_what_they_should() {
    let chroot = system();
    let before = chroot.files().unwrap();
    let printed = chroot.sh(&format!("{INSTALL} /mnt/now/*.deb")).unwrap();
    assert!(!printed.contains("local file"), "{printed}");

    // Ganeti's three layouts find their scripts
    for link in [
        "kvm-vif-bridge",
        "network/bridged/up",
        "network/routed/down",
    ] {
        let target = chroot
            .sh(&format!("readlink -f /etc/ganeti/{link}"))
            .unwrap();
        assert_eq!(target, "/usr/sbin/snf-ifup\n", "{link}");
    }
    let target = chroot
        .sh("readlink -f /etc/ganeti/hooks/instance-start-post.d/snf-ganeti-hook")
        .unwrap();
    assert_eq!(target, "/usr/sbin/snf-ganeti-hook\n");

    // who may read what has passwords, who owns what
    let owners = chroot
        .sh(
            "stat -c '%n %a %U:%G' /etc/snf-agents/eventd.toml /etc/snf-central/central.toml \
             /var/spool/snf-agents /var/lib/nfdhcpd /var/lib/snf-ifup",
        )
        .unwrap();
    assert_eq!(
        owners,
        "/etc/snf-agents/eventd.toml 640 root:root\n\
         /etc/snf-central/central.toml 640 root:snf-central\n\
         /var/spool/snf-agents 700 snf-eventd:snf-eventd\n\
         /var/lib/nfdhcpd 750 root:nfdhcpd\n\
         /var/lib/snf-ifup 700 root:root\n"
    );

    // every program starts, every page can be read, every completion can be loaded
    for program in ["snf-ganeti-eventd", "snf-ifup", "nfdhcpd", "snf-central"] {
        chroot.sh(&format!("{program} --help")).unwrap();
        chroot
            .sh(&format!(
                "bash -n /usr/share/bash-completion/completions/{program}"
            ))
            .unwrap();
    }
    let faults = chroot
        .sh("for page in $(dpkg -L nfdhcpd snf-ganeti-eventd snf-ganeti-hooks snf-ifup snf-central | grep /share/man/.*gz); do \
               MANROFFSEQ= man --warnings -E UTF-8 -l -Tutf8 -Z $page 2>&1 > /dev/null | sed \"s|^|$page: |\"; \
             done")
        .unwrap();
    assert_eq!(faults, "");

    // systemd understands the units and finds them tight
    chroot.sh("systemd-analyze verify /usr/lib/systemd/system/snf-*.service /usr/lib/systemd/system/nfdhcpd.service").unwrap();
    for (service, most) in SERVICES {
        let unit = format!("/usr/lib/systemd/system/{service}.service");
        chroot
            .sh(&format!(
                "systemd-analyze security --offline=true --threshold={most} {unit}"
            ))
            .unwrap();
        chroot
            .sh(&format!("systemctl is-enabled {service}"))
            .unwrap();
    }

    // removed: what it did for guests and what the operator wrote stay, links do not
    chroot
        .sh("touch /var/lib/nfdhcpd/tap0 /var/lib/snf-ifup/tap0; echo '# mine' >> /etc/nfdhcpd/nfdhcpd.toml
             dpkg -r snf-ganeti-node snf-ganeti-eventd snf-ganeti-hooks snf-ifup nfdhcpd snf-central
             test -e /var/lib/nfdhcpd/tap0; test -e /var/lib/snf-ifup/tap0
             grep -q mine /etc/nfdhcpd/nfdhcpd.toml
             ! find /etc/ganeti -name 'snf-*' -o -name up -o -name down -o -name kvm-vif-bridge | grep .")
        .unwrap();
    // and back again
    chroot
        .sh(&format!("{INSTALL} /mnt/now/*.deb; grep -q mine /etc/nfdhcpd/nfdhcpd.toml; test -x /etc/ganeti/kvm-vif-bridge"))
        .unwrap();

    // purged: as if they had never been there, but for the users, whose numbers nobody else may get
    chroot
        .sh("dpkg -P snf-ganeti-node snf-ganeti-eventd snf-ganeti-hooks snf-ifup nfdhcpd snf-central")
        .unwrap();
    let after = chroot.files().unwrap();
    let users = [
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
    ];
    let differs = |a: &[String], b: &[String]| -> Vec<String> {
        let changed = a.iter().filter(|line| !b.contains(line));
        changed
            .filter(|line| !users.iter().any(|user| line.contains(user)))
            .cloned()
            .collect()
    };
    assert_eq!(
        differs(&after, &before),
        Vec::<String>::new(),
        "left behind"
    );
    assert_eq!(differs(&before, &after), Vec::<String>::new(), "taken away");
}

#[test]
fn local_scripts_are_kept_and_said_and_removed_links_stay_removed() {
    let chroot = system();
    chroot
        .sh("mkdir -p /etc/ganeti/network/routed; printf '#!/bin/sh\\n# mine\\n' > /etc/ganeti/kvm-vif-bridge
             chmod 755 /etc/ganeti/kvm-vif-bridge; ln -s /nowhere /etc/ganeti/network/routed/up")
        .unwrap();
    let printed = chroot
        .sh(&format!("{INSTALL} /mnt/now/snf-ifup_*.deb"))
        .unwrap();
    assert!(
        printed.contains("/etc/ganeti/kvm-vif-bridge is a local file: kept"),
        "{printed}"
    );
    assert!(
        printed.contains("/etc/ganeti/network/routed/up led to /nowhere"),
        "{printed}"
    );
    chroot
        .sh("grep -q mine /etc/ganeti/kvm-vif-bridge")
        .unwrap();
    let shown = chroot.sh("/usr/lib/snf-ifup/ganeti-links show").unwrap();
    assert!(
        shown.contains("local /etc/ganeti/kvm-vif-bridge"),
        "{shown}"
    );
    assert!(
        shown.contains("ours /etc/ganeti/network/routed/up"),
        "{shown}"
    );

    // the operator takes a link away: it does not come back with the next version
    chroot
        .sh("rm /etc/ganeti/network/bridged/up; dpkg -i /mnt/now/snf-ifup_*.deb")
        .unwrap();
    chroot
        .sh("! test -e /etc/ganeti/network/bridged/up; test -e /etc/ganeti/network/bridged/down")
        .unwrap();

    chroot.sh("dpkg -P snf-ifup; grep -q mine /etc/ganeti/kvm-vif-bridge; ! test -e /etc/ganeti/network").unwrap();
}

#[test]
fn upgrade_and_downgrade_keep_what_the_operator_wrote() {
    let chroot = system();
    let packages = Packages::build(Some("0.1.0+later")).unwrap();
    chroot.add("later", &packages).unwrap();
    chroot
        .sh(&format!(
            "{INSTALL} /mnt/now/*.deb
             echo '# mine' >> /etc/snf-agents/eventd.toml; chgrp adm /etc/snf-agents/eventd.toml
             touch /var/lib/nfdhcpd/tap0"
        ))
        .unwrap();
    for (folder, version) in [("later", "0.1.0+later"), ("now", "0.1.0")] {
        chroot
            .sh(&format!("{INSTALL} /mnt/{folder}/*.deb"))
            .unwrap();
        let versions = chroot
            .sh("dpkg-query -W -f '${Version}\\n' snf-ifup nfdhcpd")
            .unwrap();
        assert_eq!(versions, format!("1:{version}\n{version}\n"));
        chroot
            .sh("grep -q mine /etc/snf-agents/eventd.toml; test -e /var/lib/nfdhcpd/tap0
                 test $(stat -c %G /etc/snf-agents/eventd.toml) = adm; test -x /etc/ganeti/kvm-vif-bridge")
            .unwrap();
    }
}

#[test]
fn a_user_of_that_name_is_taken_as_it_is() {
    let chroot = system();
    chroot
        .sh("useradd --system --uid 777 --home-dir /srv --shell /bin/sh nfdhcpd")
        .unwrap();
    chroot
        .sh(&format!("{INSTALL} /mnt/now/nfdhcpd_*.deb"))
        .unwrap();
    let user = chroot.sh("getent passwd nfdhcpd").unwrap();
    assert!(
        user.starts_with("nfdhcpd:x:777:") && user.trim().ends_with(":/srv:/bin/sh"),
        "{user}"
    );
}

#[test]
fn no_room_for_the_notes_fails_in_one_line_and_is_mended_by_configuring_again() {
    let chroot = system();
    let output = chroot
        .try_sh(&format!(
            "mkdir -p /var/lib/snf-agents
             mount -t tmpfs -o size=4k tmpfs /var/lib/snf-agents
             dd if=/dev/zero of=/var/lib/snf-agents/full bs=4096 count=1 2> /dev/null
             {INSTALL} /mnt/now/snf-ifup_*.deb"
        ))
        .unwrap();
    let printed = output.stdout + &output.stderr;
    assert!(!output.status.success(), "{printed}");
    assert!(
        printed.contains("snf-ifup: cannot write /var/lib/snf-agents/snf-ifup.links"),
        "{printed}"
    );
    chroot.sh("! test -e /etc/ganeti/kvm-vif-bridge; dpkg --configure -a; test -x /etc/ganeti/kvm-vif-bridge").unwrap();
}

#[test]
fn the_originals_give_way() {
    let chroot = system();
    let share = chroot.share();
    foreign(&share, "nfdhcpd", "0.13.1", "etc/nfdhcpd/nfdhcpd.conf");
    foreign(
        &share,
        "gnt-networking",
        "0.3",
        "etc/default/gnt-networking",
    );
    foreign(
        &share,
        "snf-cyclades-gtools",
        "0.21",
        "etc/synnefo/20-snf-cyclades-gtools-backend.conf",
    );
    chroot.sh("dpkg -i /mnt/nfdhcpd_0.13.1.deb /mnt/gnt-networking_0.3.deb /mnt/snf-cyclades-gtools_0.21.deb").unwrap();
    chroot.sh(&format!("{INSTALL} /mnt/now/*.deb")).unwrap();
    let state = chroot
        .sh("dpkg-query -W -f '${Package} ${db:Status-Status} ${Version}\\n' nfdhcpd gnt-networking snf-cyclades-gtools")
        .unwrap();
    assert!(state.contains("nfdhcpd installed 1:0.1.0"), "{state}");
    assert!(state.contains("gnt-networking config-files"), "{state}");
    assert!(
        state.contains("snf-cyclades-gtools config-files"),
        "{state}"
    );
    // their configuration is still there to be read
    chroot
        .sh(
            "test -e /etc/nfdhcpd/nfdhcpd.conf; test -e /etc/default/gnt-networking
             test -e /etc/synnefo/20-snf-cyclades-gtools-backend.conf",
        )
        .unwrap();
}
