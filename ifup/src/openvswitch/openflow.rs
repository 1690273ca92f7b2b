//! The source address of a port of Open vSwitch, limited by flows through `ovs-ofctl`.
//!
//! A flow cannot match "any address but this one", so there is one for each bit of an address: it
//! drops the frames whose source differs in that bit. Such flows only drop: frames with the right
//! source take the way that the bridge's other flows give them, whoever made these.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use agents::addr::MacAddr;

use super::text;
use crate::error::{Error, Result};

/// Seconds that the program waits for the switch.
const PATIENCE: u8 = 2;
/// The highest priority of a flow (OpenFlow 1.0, section 5.3.3).
const PRIORITY: u16 = u16::MAX;
/// The first two bytes of the cookies of our flows; the guest's MAC address follows.
const COOKIE: u16 = 0x534e;
/// The words of the program where no such bridge, or no switch, is there.
const NOBODY: [&str; 2] = ["is not a bridge or a socket", "Connection refused"];
/// Bits of a MAC address.
const BITS: u32 = 48;

/// Drops the frames of the port from any source but `mac`, in one change of the bridge.
///
/// # Errors
/// The program is not there, or the switch refuses or does not answer.
pub fn limit_source(program: &Path, bridge: &str, port: &str, mac: MacAddr) -> Result<()> {
    let flows = flows(port, mac);
    let arguments = ["--bundle", "add-flows", bridge, "-"];
    text(program, &start(program, &arguments, &flows)?).map(drop)
}

/// Deletes the flows of [`limit_source`]. A bridge that is gone, or a switch that does not run,
/// has none.
///
/// # Errors
/// The program is not there, or the switch refuses or does not answer.
pub fn lift_limit(program: &Path, bridge: &str, mac: MacAddr) -> Result<()> {
    let cookie = format!("cookie={:#018x}/-1", cookie(mac));
    let output = start(program, &["del-flows", bridge, &cookie], "")?;
    let reason = String::from_utf8_lossy(&output.stderr);
    if NOBODY.iter().any(|sign| reason.contains(sign)) {
        return Ok(());
    }
    text(program, &output).map(drop)
}

/// Returns whether the flows of [`limit_source`] are there, and all are for this port.
///
/// # Errors
/// The program is not there, or the switch does not answer.
pub fn is_limited(program: &Path, bridge: &str, port: &str, mac: MacAddr) -> Result<bool> {
    let ours = format!("cookie={:#018x}/-1", cookie(mac));
    let dump = |filter: &str| -> Result<usize> {
        let arguments = ["--no-stats", "dump-flows", bridge, filter];
        let found = text(program, &start(program, &arguments, "")?)?;
        Ok(found.lines().filter(|line| line.contains("drop")).count())
    };
    let wanted = usize::try_from(BITS).unwrap_or(usize::MAX);
    let of_port = format!("{ours},in_port={port}");
    Ok(dump(&ours)? == wanted && dump(&of_port).is_ok_and(|found| found == wanted))
}

fn cookie(mac: MacAddr) -> u64 {
    u64::from(COOKIE) << BITS | number(mac)
}

fn number(mac: MacAddr) -> u64 {
    let octets = mac.octets();
    octets
        .iter()
        .fold(0, |number, octet| number << 8 | u64::from(*octet))
}

fn address(number: u64) -> MacAddr {
    let [_, _, octets @ ..] = number.to_be_bytes();
    MacAddr::new(octets)
}

/// The changes, one a line, as `add-flows` reads them.
fn flows(port: &str, mac: MacAddr) -> String {
    let cookie = cookie(mac);
    // What was left of another guest that had the number of this port is deleted as well.
    let any = u64::from(COOKIE) << BITS;
    let mask = u64::from(u16::MAX) << BITS;
    let mut flows = format!(
        "delete cookie={cookie:#018x}/-1\ndelete cookie={any:#018x}/{mask:#018x},in_port={port}\n"
    );
    for bit in 0..BITS {
        let mask = 1_u64 << bit;
        let (other, mask) = (address(!number(mac) & mask), address(mask));
        let _ = writeln!(
            flows,
            "add cookie={cookie:#018x},priority={PRIORITY},in_port={port},\
             dl_src={other}/{mask},actions=drop"
        );
    }
    flows
}

fn start(program: &Path, arguments: &[&str], input: &str) -> Result<Output> {
    let failed = |error| Error::file(program, error);
    let mut child = Command::new(program)
        .arg(format!("--timeout={PATIENCE}"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended without reading says why in its output.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_source_differs_in_a_bit_that_has_a_flow() {
        let mac = MacAddr::new([0xaa, 0, 0, 0xe1, 0x87, 0xfc]);
        let flows = flows("tap0", mac);
        let rules: Vec<(u64, u64)> = flows
            .lines()
            .filter_map(|line| line.split("dl_src=").nth(1)?.split(',').next())
            .map(|source| {
                let (value, mask) = source.split_once('/').unwrap();
                (
                    number(value.parse().unwrap()),
                    number(mask.parse().unwrap()),
                )
            })
            .collect();
        let dropped = |source: u64| rules.iter().any(|(value, mask)| source & mask == *value);
        assert_eq!(rules.len(), 48);
        assert!(!dropped(number(mac)));
        for bit in 0..48 {
            assert!(dropped(number(mac) ^ (1 << bit)), "{bit}");
        }
        assert!(flows.starts_with("delete cookie=0x534eaa0000e187fc/-1\n"));
    }
}
