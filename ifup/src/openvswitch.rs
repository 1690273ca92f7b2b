//! Ports of Open vSwitch, through its own `ovs-vsctl`: the one program that is started.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::vlan::Vlans;

/// It waits for the switch at most so long, in seconds.
const PATIENCE: u8 = 5;

/// Makes the interface a port of the bridge, of these VLANs and no others.
///
/// # Errors
/// The program is not there, or says so.
pub fn add_port(program: &Path, bridge: &str, port: &str, vlans: Option<&Vlans>) -> Result<()> {
    let mut settings = vec!["--", "clear", "Port", port, "tag", "trunks", "vlan_mode"];
    let values: Vec<String> = match vlans {
        None => Vec::new(),
        Some(Vlans { untagged, tagged }) => {
            let tag = untagged.map(|vid| format!("tag={vid}"));
            let all: Vec<String> = tagged.iter().map(ToString::to_string).collect();
            let trunks = (!all.is_empty()).then(|| format!("trunks={}", all.join(",")));
            let mode = match (untagged, tagged.is_empty()) {
                (Some(_), true) => "access",
                (Some(_), false) => "native-untagged",
                (None, _) => "trunk",
            };
            let mode = Some(format!("vlan_mode={mode}"));
            [tag, trunks, mode].into_iter().flatten().collect()
        }
    };
    if !values.is_empty() {
        settings.extend(["--", "set", "Port", port]);
        settings.extend(values.iter().map(String::as_str));
    }
    let mut arguments = vec!["--", "--may-exist", "add-port", bridge, port];
    arguments.extend(&settings);
    run(program, &arguments).or_else(|_| {
        // A port of that name on another bridge, perhaps of a NIC that is gone.
        let mut arguments = vec!["--", "--if-exists", "del-port", port];
        arguments.extend(["--", "add-port", bridge, port]);
        arguments.extend(&settings);
        run(program, &arguments)
    })
}

/// The port is no more.
///
/// # Errors
/// As for [`add_port`]; a port that is not there is a success.
pub fn delete_port(program: &Path, bridge: &str, port: &str) -> Result<()> {
    run(program, &["--", "--if-exists", "del-port", bridge, port])
}

fn run(program: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .arg(format!("--timeout={PATIENCE}"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::file(program, error))?;
    if output.status.success() {
        return Ok(());
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
