//! The configuration file of the original nfdhcpd → the text of ours.
//!
//! The file is of the ConfigObj kind: sections in brackets, `key = value`, comments from `#` on,
//! values in quotes or not, lists with commas. Who has one has rules of his own that queue, to a
//! queue for each kind of packet: so the rules are external, and the queues are the file's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use agents::service::config::ConfigError;

/// Turns the text of an `nfdhcpd.conf`, read from `path`, into the text of an `nfdhcpd.toml`.
///
/// # Errors
/// A line that is none of this kind, an unknown key, or a value that its key cannot have.
pub fn to_toml(path: &Path, text: &str) -> Result<String, ConfigError> {
    let file = Reader {
        path,
        values: read(path, text)?,
    };
    file.check_keys()?;
    file.convert()
}

/// The keys that the original knows, and what we make of them.
const KEYS: [(&str, &[&str]); 3] = [
    ("general", &["pidfile", "datapath", "logdir", "user"]),
    (
        "dhcp",
        &[
            "enable_dhcp",
            "lease_lifetime",
            "lease_renewal",
            "server_ip",
            "server_on_link",
            "dhcp_queue",
            "nameservers",
            "domain",
        ],
    ),
    (
        "ipv6",
        &[
            "enable_ipv6",
            "enable_dhcpv6",
            "mode",
            "ra_period",
            "rs_queue",
            "ns_queue",
            "dhcpv6_queue",
            "nameservers",
            "domains",
        ],
    ),
];

struct Value {
    line: usize,
    text: String,
}

type Values = BTreeMap<(String, String), Value>;

fn read(path: &Path, text: &str) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    let mut section = String::new();
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let refuse = |what: &str| ConfigError::Parse {
            path: path.to_owned(),
            message: format!("line {line}: {what}: {:?}", raw.trim()),
        };
        let content = without_comment(raw).trim();
        if content.is_empty() {
            continue;
        }
        if let Some(name) = content.strip_prefix('[') {
            section = name
                .strip_suffix(']')
                .ok_or_else(|| refuse("no closing bracket"))?
                .trim()
                .to_owned();
            continue;
        }
        let (key, value) = content
            .split_once('=')
            .ok_or_else(|| refuse("neither [section] nor key = value"))?;
        let place = (section.clone(), key.trim().to_owned());
        let value = Value {
            line,
            text: value.trim().to_owned(),
        };
        if values.insert(place, value).is_some() {
            return Err(refuse("this key is there twice"));
        }
    }
    Ok(values)
}

/// What is before a `#` that is not in quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') => return line.get(..at).unwrap_or_default(),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    line
}

struct Reader<'a> {
    path: &'a Path,
    values: Values,
}

impl Reader<'_> {
    fn check_keys(&self) -> Result<(), ConfigError> {
        for ((section, key), value) in &self.values {
            let known = KEYS.iter().find(|(name, _)| name == section);
            if !known.is_some_and(|(_, keys)| keys.contains(&key.as_str())) {
                return Err(self.refuse(section, key, value, "unknown key"));
            }
        }
        Ok(())
    }

    fn refuse(&self, section: &str, key: &str, value: &Value, reason: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            key: format!("line {}: [{section}] {key}", value.line),
            value: value.text.clone(),
            reason: reason.to_owned(),
        }
    }

    /// A value that is there and not empty, without quotes.
    fn text(&self, section: &str, key: &str) -> Option<&str> {
        let value = self.values.get(&(section.to_owned(), key.to_owned()))?;
        Some(unquote(&value.text)).filter(|text| !text.is_empty())
    }

    fn parsed<T>(
        &self,
        section: &str,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(section, key) else {
            return Ok(None);
        };
        match (
            parse(text),
            self.values.get(&(section.to_owned(), key.to_owned())),
        ) {
            (None, Some(value)) => Err(self.refuse(section, key, value, wanted)),
            (parsed, _) => Ok(parsed),
        }
    }

    fn number(&self, section: &str, key: &str) -> Result<Option<u32>, ConfigError> {
        self.parsed(section, key, "not a number", |text| text.parse().ok())
    }

    fn flag(&self, section: &str, key: &str) -> Result<Option<bool>, ConfigError> {
        self.parsed(section, key, "neither yes nor no", |text| {
            match text.to_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => Some(true),
                "no" | "false" | "off" | "0" => Some(false),
                _ => None,
            }
        })
    }

    fn list(&self, section: &str, key: &str) -> Vec<String> {
        let text = self.text(section, key).unwrap_or_default();
        text.split(',')
            .map(|item| unquote(item).to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    }

    fn convert(&self) -> Result<String, ConfigError> {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}");
        };
        line(format!("# Made from {}.", self.path.display()));
        if let Some(folder) = self.text("general", "datapath") {
            line(format!("bindings = {}", quote(folder)));
        }
        if let Some(user) = self.text("general", "user") {
            line(format!("user = {}", quote(user)));
        }
        for (key, instead) in [
            ("pidfile", "the service manager knows the process"),
            ("logdir", "the log goes to the journal or to standard error"),
        ] {
            if let Some(value) = self.text("general", key) {
                line(format!("# {key} = {value}: not needed, {instead}."));
            }
        }
        let dhcp = self.flag("dhcp", "enable_dhcp")?.unwrap_or(true);
        let ipv6 = self.flag("ipv6", "enable_ipv6")?.unwrap_or(true);
        let dhcp_queue = self.number("dhcp", "dhcp_queue")?.filter(|_| dhcp);
        let rs_queue = self.number("ipv6", "rs_queue")?.filter(|_| ipv6);
        let ns_queue = self.number("ipv6", "ns_queue")?.filter(|_| ipv6);
        let dhcpv6_queue = self.number("ipv6", "dhcpv6_queue")?.filter(|_| ipv6);
        let mut queues: Vec<u32> = [dhcp_queue, rs_queue, ns_queue, dhcpv6_queue]
            .into_iter()
            .flatten()
            .collect();
        queues.sort_unstable();
        queues.dedup();
        line("\n[queue]\n# Rules of your own queue to these.\nrules = \"external\"".to_owned());
        if !queues.is_empty() {
            line(format!("numbers = {queues:?}"));
        }

        line(format!("\n[dhcp]\nenabled = {dhcp}"));
        let server = match (
            self.flag("dhcp", "server_on_link")?,
            self.text("dhcp", "server_ip"),
        ) {
            (Some(true), _) | (_, None) => "on-link",
            (_, Some(address)) => address,
        };
        line(format!("server = {}", quote(server)));
        for (key, ours) in [
            ("lease_lifetime", "lease_seconds"),
            ("lease_renewal", "renew_seconds"),
        ] {
            if let Some(seconds) = self.number("dhcp", key)? {
                line(format!("{ours} = {seconds}"));
            }
        }
        line(format!(
            "nameservers = {:?}",
            self.list("dhcp", "nameservers")
        ));
        if let Some(domain) = self.text("dhcp", "domain") {
            line(format!("domain = {}", quote(domain)));
        }

        line(format!("\n[ipv6]\nenabled = {ipv6}"));
        let has_dhcpv6 =
            dhcpv6_queue.is_some() && self.flag("ipv6", "enable_dhcpv6")?.unwrap_or(true);
        // The original's "auto" looks at which queues there are.
        let mode = match self.text("ipv6", "mode") {
            None | Some("auto") if has_dhcpv6 => "slaac+dhcpv6",
            None | Some("auto") => "slaac",
            Some(mode) => mode,
        };
        line(format!("mode = {}", quote(mode)));
        if let Some(seconds) = self.number("ipv6", "ra_period")? {
            line(format!("ra_interval_seconds = {seconds}"));
        }
        line(format!(
            "nameservers = {:?}",
            self.list("ipv6", "nameservers")
        ));
        line(format!("search = {:?}", self.list("ipv6", "domains")));
        Ok(out)
    }
}

fn unquote(text: &str) -> &str {
    let text = text.trim();
    ['"', '\'']
        .into_iter()
        .find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark))
        .unwrap_or(text)
}

/// A string as TOML has it.
fn quote(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RulesBy};
    use crate::profile::{Mode, ServerId};
    use agents::binding::Binding;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const SAMPLE: &str = "\
# general
[general]
pidfile = /var/run/nfdhcpd/nfdhcpd.pid
datapath = /srv/bindings   # where they are
user = nobody
[dhcp]
enable_dhcp = yes
lease_lifetime = 86400 # a day
lease_renewal = 600
server_ip = \"192.0.2.1\"
server_on_link = no
dhcp_queue = 42
nameservers = 192.0.2.2, 192.0.2.3
domain = example.com
[ipv6]
enable_ipv6 = yes
ra_period = 300
rs_queue = 43
ns_queue = 44
dhcpv6_queue = 45
nameservers = 2001:db8::1,
domains = example.com
";

    fn convert(text: &str) -> Result<Config, String> {
        let path = Path::new("nfdhcpd.conf");
        let toml = to_toml(path, text).map_err(|error| error.to_string())?;
        Config::parse(path, &toml).map_err(|error| format!("{error}\n{toml}"))
    }

    #[test]
    fn every_key_of_the_original_has_its_effect() {
        let config = convert(SAMPLE).unwrap();
        assert_eq!(config.bindings, Path::new("/srv/bindings"));
        assert_eq!(config.user.as_deref(), Some("nobody"));
        assert_eq!(config.queues, [42, 43, 44, 45]);
        assert_eq!(config.rules, RulesBy::External);
        let profile = config.profile(&Binding::new("aa:00:00:00:00:01".parse().unwrap(), "h"));
        assert_eq!(
            profile.dhcp.server,
            ServerId::Fixed(Ipv4Addr::new(192, 0, 2, 1))
        );
        assert_eq!(profile.dhcp.lease, Duration::from_secs(86_400));
        assert_eq!(profile.dhcp.renew, Duration::from_secs(600));
        assert_eq!(profile.dhcp.nameservers.len(), 2);
        assert_eq!(
            profile.dhcp.domain.as_ref().unwrap().as_str(),
            "example.com"
        );
        assert_eq!(profile.ipv6.mode, Mode::SlaacDhcp6);
        assert_eq!(profile.ipv6.nameservers.len(), 1);
        assert_eq!(profile.ipv6.search.len(), 1);
    }

    #[test]
    fn auto_is_slaac_without_the_third_queue_and_on_link_is_the_gateway() {
        let text = SAMPLE
            .replace("dhcpv6_queue = 45\n", "")
            .replace("on_link = no", "on_link = yes");
        let config = convert(&text).unwrap();
        assert_eq!(config.queues, [42, 43, 44]);
        let profile = config.profile(&Binding::new("aa:00:00:00:00:01".parse().unwrap(), "h"));
        assert_eq!(profile.ipv6.mode, Mode::Slaac);
        assert_eq!(profile.dhcp.server, ServerId::OnLink);
        let config = convert(&text.replace("enable_ipv6 = yes", "enable_ipv6 = no")).unwrap();
        assert_eq!(config.queues, [42]);
    }

    #[test]
    fn what_is_wrong_is_refused_with_line_and_value() {
        for (from, to, what) in [
            (
                "lease_renewal = 600",
                "lease_renewal = ten",
                "line 9: [dhcp] lease_renewal = ten",
            ),
            ("enable_dhcp = yes", "enable_dhcp = maybe", "maybe"),
            ("domain = example.com\n[", "domian = x\n[", "domian"),
            ("[ipv6]", "[ipv6", "line 15"),
            ("user = nobody", "user nobody", "line 5"),
            ("user = nobody", "datapath = /x", "twice"),
            ("server_ip = \"192.0.2.1\"", "server_ip = \"x\"", "x"),
        ] {
            assert!(SAMPLE.contains(from), "{from}");
            let error = convert(&SAMPLE.replace(from, to)).unwrap_err();
            assert!(
                error.contains(what) && error.contains("nfdhcpd.conf"),
                "{to}: {error}"
            );
        }
    }

    #[test]
    fn an_empty_file_is_the_defaults_with_external_rules() {
        assert_eq!(convert("").unwrap().rules, RulesBy::External);
    }
}
