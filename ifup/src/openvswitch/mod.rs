//! Ports of Open vSwitch, through its own programs: `ovs-vsctl` here, `ovs-ofctl` in
//! [`openflow`].

pub mod openflow;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};
use crate::vlan::Vlans;

/// It waits for the switch at most so long, in seconds: two calls, the second of which takes
/// back what the first may have done, are to be over before the deadline.
const PATIENCE: u8 = 4;
/// Its exit status if it was answered and did nothing; when time is over a signal ends it.
const REFUSED: i32 = 1;

/// Makes the interface a port of the bridge, of these VLANs and no others.
///
/// # Errors
/// The program is not there, or says so.
pub fn add_port(program: &Path, bridge: &str, port: &str, vlans: Option<&Vlans>) -> Result<()> {
    let mut changes = vec!["--", "clear", "Port", port, "tag", "trunks", "vlan_mode"];
    let values = settings(vlans);
    if !values.is_empty() {
        changes.extend(["--", "set", "Port", port]);
        changes.extend(values.iter().map(String::as_str));
    }
    let mut arguments = vec!["--", "--may-exist", "add-port", bridge, port];
    arguments.extend(&changes);
    let mut output = start(program, &arguments)?;
    if output.status.code() == Some(REFUSED) {
        // A port of that name on another bridge, perhaps of a NIC that is gone.
        let mut arguments = vec!["--", "--if-exists", "del-port", port];
        arguments.extend(["--", "add-port", bridge, port]);
        arguments.extend(&changes);
        output = start(program, &arguments)?;
    }
    text(program, &output).map(drop)
}

/// What is set of a port besides its bridge.
fn settings(vlans: Option<&Vlans>) -> Vec<String> {
    let Some(Vlans { untagged, tagged }) = vlans else {
        return Vec::new();
    };
    let tag = untagged.map(|vid| format!("tag={vid}"));
    let mut sorted = tagged.clone();
    sorted.sort_unstable();
    let all: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    let trunks = (!all.is_empty()).then(|| format!("trunks={}", all.join(",")));
    let mode = match (untagged, tagged.is_empty()) {
        (Some(_), true) => "access",
        (Some(_), false) => "native-untagged",
        (None, _) => "trunk",
    };
    let mode = Some(format!("vlan_mode={mode}"));
    [tag, trunks, mode].into_iter().flatten().collect()
}

/// Whether the interface is a port of the bridge, of these VLANs and no others.
///
/// # Errors
/// The program is not there, or the switch does not answer.
pub fn is_port(program: &Path, bridge: &str, port: &str, vlans: Option<&Vlans>) -> Result<bool> {
    // What is asked of a port that is not there fails: asked for alone, it is just not listed.
    let ports = run(program, &["--", "list-ports", bridge])?;
    if !ports.lines().any(|found| found == port) {
        return Ok(false);
    }
    let found = run(
        program,
        &["--", "get", "Port", port, "tag", "trunks", "vlan_mode"],
    )?;
    let wanted = settings(vlans);
    let wanted = ["tag", "trunks", "vlan_mode"].map(|column| {
        let mut all = wanted.iter();
        all.find_map(|setting| setting.strip_prefix(column)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    });
    // Of several values: in brackets, with blanks. Of none: brackets alone.
    let plain = |line: &str| -> String {
        line.chars()
            .filter(|character| !"[] ".contains(*character))
            .collect()
    };
    Ok(found.lines().map(plain).eq(wanted))
}

/// The port is no more.
///
/// # Errors
/// As for [`add_port`]; a port that is not there is a success.
pub fn delete_port(program: &Path, bridge: &str, port: &str) -> Result<()> {
    // The database takes it; a switch that does not answer follows when it can.
    run(
        program,
        &["--no-wait", "--", "--if-exists", "del-port", bridge, port],
    )
    .map(drop)
}

/// What it prints.
fn run(program: &Path, arguments: &[&str]) -> Result<String> {
    text(program, &start(program, arguments)?)
}

fn start(program: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(program)
        .arg(format!("--timeout={PATIENCE}"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::file(program, error))
}

fn text(program: &Path, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Record {
        path: program.to_owned(),
        reason: format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    })
}
