//! The variables of gnt-networking (`/etc/default/gnt-networking`, `/etc/default/snf-network`)
//! → the text of our configuration. What has no meaning here is said in comments.

use std::fmt::Write as _;
use std::path::Path;

use agents::service::config::{self, ConfigError};

use crate::config::Config;

/// The names that the tags of networks have here, which are not changeable.
const TAGS: [(&str, &str); 5] = [
    ("IP_LESS_ROUTED_TAG", "ip-less-routed"),
    ("MAC_FILTERED_TAG", "private-filtered"),
    ("NFDHCPD_TAG", "nfdhcpd"),
    ("PUBLIC_TAG", "public"),
    ("DNS_TAG", "dns"),
];

/// What is not needed here, and why.
const NOT_NEEDED: [(&str, &str); 8] = [
    ("STATE_DIR", "records are in a folder of our own"),
    ("LOGFILE", "the log goes to the journal"),
    (
        "MAC2EUI64",
        "addresses are computed without another program",
    ),
    (
        "RUNLOCKED_OPTS",
        "rules are changed in one step, without a lock",
    ),
    ("GANETI_NIC_DIR", "it is for Xen"),
    ("IFUP_EXTRA_SCRIPT", "no script of others is run"),
    ("INFRA", "nothing is sent through other tools"),
    (
        "MAC_MASK",
        "the prefix that is compared is the network's MAC_PREFIX",
    ),
];

/// What the hooks do, with a name server that eventd asks.
const DNS: [(&str, &str); 4] = [
    ("SERVER", "server"),
    ("FZONE", "zone"),
    ("TTL", "ttl"),
    ("KEYFILE", "key_file"),
];

/// Reads such a file; what is returned is checked by the way that it will be read.
///
/// # Errors
/// The file cannot be read, or see [`to_toml`], or a value cannot be one of ours.
pub fn migrate(path: &Path) -> Result<String, ConfigError> {
    config::migrate(path, to_toml, Config::parse)
}

/// Turns the text of such a file, read from `path`, into the text of an `ifup.toml`.
///
/// # Errors
/// A line that is no assignment of a plain value: such a file is a script, and is for a person
/// to read.
pub fn to_toml(path: &Path, text: &str) -> Result<String, ConfigError> {
    let mut top = format!("# Made from {}.\n", path.display());
    let (mut routed, mut notes) = (String::new(), String::new());
    for (index, raw) in text.lines().enumerate() {
        let content = raw.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let line = index + 1;
        let (name, value) = assignment(content).ok_or_else(|| ConfigError::Parse {
            path: path.to_owned(),
            message: format!("line {line}: not NAME=value: {content:?}"),
        })?;
        if value.is_empty() {
            continue;
        }
        let find = |table: &[(&'static str, &'static str)]| {
            let found = table.iter().find(|(known, _)| *known == name);
            found.map(|(_, what)| *what)
        };
        // Writing into a string cannot fail.
        let _ = if name == "NFDHCPD_STATE_DIR" {
            writeln!(top, "bindings = {value:?}")
        } else if name == "TAP_CONSTANT_MAC" {
            writeln!(routed, "mac = {value:?}")
        } else if let Some(fixed) = find(&TAGS) {
            if fixed == value {
                Ok(())
            } else {
                writeln!(
                    notes,
                    "# {name} = {value}: NOT TAKEN OVER. Here the tag is {fixed}: tag the networks with it \
                     (gnt-network add-tags)."
                )
            }
        } else if let Some(why) = find(&NOT_NEEDED) {
            writeln!(notes, "# {name} = {value}: not needed, {why}.")
        } else if let Some(key) = find(&DNS) {
            writeln!(
                notes,
                "# {name} = {value}: belongs into /etc/snf-agents/eventd.toml, [dns] {key}."
            )
        } else {
            writeln!(notes, "# {name} = {value}: NOT TAKEN OVER, unknown.")
        };
    }
    if !routed.is_empty() {
        routed.insert_str(0, "\n[routed]\n");
    }
    if !notes.is_empty() {
        notes.insert(0, '\n');
    }
    Ok(top + &routed + &notes)
}

/// `NAME=value`, the value in quotes or not, maybe with `export` before or a comment behind.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_name) {
        return None;
    }
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (value, behind) = rest.split_once(quote)?;
            let behind = behind.trim();
            let plain = behind.is_empty() || behind.starts_with('#');
            return (plain && !is_script(value)).then_some((name, value));
        }
    }
    let value = value.split(" #").next().unwrap_or_default().trim();
    let plain = !value.contains(char::is_whitespace) && !is_script(value);
    plain.then_some((name, value))
}

/// Whether a shell would make something else of it.
fn is_script(value: &str) -> bool {
    value.contains(['$', '`', ';', '&', '|', '"', '\'', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# Default values
STATE_DIR=/var/lib/snf-network
LOGFILE=/var/log/snf-network.log

MAC_MASK=ff:ff:f0:00:00:00
TAP_CONSTANT_MAC=cc:47:52:4e:45:54 # GRNET in hex
NFDHCPD_STATE_DIR=\"/srv/nfdhcpd\"
IP_LESS_ROUTED_TAG=ip-less-routed
DNS_TAG=name-me
#RUNLOCKED_OPTS=\"--id 10001 --retry-sec 0.5\"
export SERVER=192.0.2.1
SOMETHING='else here'
";

    fn convert(text: &str) -> Result<String, String> {
        to_toml(Path::new("gnt-networking"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_has_a_meaning_here_is_taken_over_and_the_rest_is_said() {
        let toml = convert(SAMPLE).unwrap();
        let config: Config = Config::parse(Path::new("ifup.toml"), &toml).unwrap();
        assert_eq!(config.bindings, Path::new("/srv/nfdhcpd"));
        assert_eq!(config.routed.mac, "cc:47:52:4e:45:54");
        for line in [
            "# STATE_DIR = /var/lib/snf-network: not needed",
            "# MAC_MASK = ff:ff:f0:00:00:00: not needed",
            "# DNS_TAG = name-me: NOT TAKEN OVER. Here the tag is dns",
            "# SERVER = 192.0.2.1: belongs into /etc/snf-agents/eventd.toml, [dns] server",
            "# SOMETHING = else here: NOT TAKEN OVER, unknown",
        ] {
            assert!(toml.contains(line), "{line} is not in\n{toml}");
        }
        assert!(!toml.contains("IP_LESS_ROUTED_TAG"), "{toml}");
    }

    #[test]
    fn a_script_is_refused_by_its_line() {
        for line in [
            "STATE_DIR=$HOME/x",
            "STATE_DIR=`pwd`",
            "if true; then",
            "LOGFILE=a b",
            "LOGFILE=\"a\"b",
            "LOGFILE=\"a",
            "=x",
            "A-B=x",
        ] {
            let error = convert(&format!("# first\n{line}\n")).unwrap_err();
            assert!(
                error.starts_with("gnt-networking: line 2: not NAME=value"),
                "{error}"
            );
        }
    }
}
