//! The harness: real hosts, guests and services, in namespaces that vanish with the test.
//!
//! Everything that a test starts is inside a PID namespace of its own ([`process`]), so that
//! it ends with the test even if the test is killed; everything that touches the network is
//! in a network namespace held by a file descriptor ([`netns`]), which the kernel frees.
//! Every wait has a deadline and says what it waited for ([`wait`]).
//!
//! - [`netns`]: a network namespace, commands and threads in it, veth pairs between two
//! - [`host`]: a host of its own (network, mount, PID and UTS namespaces), for Ganeti nodes
//! - [`tap`]: a TAP interface whose guest side is a file descriptor or another namespace
//! - [`process`]: a child that cannot outlive the test, its log
//! - [`guest`]: a QEMU guest of Debian's cloud kernel and busybox, its console
//! - [`node_image`]: a node in such a guest, with programs and modules of its own
//! - [`rabbitmq`], [`postgres`], [`mariadb`], [`ganeti`]: the real services
//! - [`debian`]: Debian systems to install the packages in, a chroot and a machine
//! - [`corpus`]: the inputs that a fuzzer found
//! - [`chain`]: all of it together: what `make demo` shows and the end-to-end test checks

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod chain;
pub mod corpus;
pub mod debian;
pub mod ganeti;
pub mod guest;
pub mod host;
pub mod mariadb;
pub mod netns;
pub mod node_image;
pub mod postgres;
pub mod process;
pub mod python;
pub mod rabbitmq;
pub mod scratch;
pub mod tap;
pub mod wait;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Says by name that a test does not run on this machine, and why. The line is what the
/// test runner's report is searched for: `SKIPPED name: reason`.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Some(file) = std::env::var_os("SNF_SKIP_LOG") {
        use std::io::Write as _;
        if let Ok(mut log) = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
        {
            let _ = writeln!(log, "SKIPPED {test}: {reason}");
        }
    }
}

/// The root of the source tree.
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the tree")
        .to_owned()
}

/// The folder of build products (`target/`).
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source_root().join("target"), PathBuf::from)
}

/// One of the programs of this workspace, as built in the same profile as the caller.
///
/// # Errors
/// It has not been built: the message says how.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("path of the running program")?;
    // target/<profile>/deps/<test> or target/<profile>/<binary>
    for folder in here.ancestors().skip(1).take(2) {
        let candidate = folder.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "{name} is not beside {}: build it first (cargo build --workspace --bins)",
        here.display()
    )
}
