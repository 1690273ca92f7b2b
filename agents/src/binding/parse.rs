//! The text of a binding file → [`Binding`].

use std::fmt::Display;
use std::str::FromStr;

use super::{Binding, Route, is_interface_name};
use crate::addr::{Ipv4Net, Ipv6Net, MacAddr};

/// Why the text is not a binding. The text of the error names line, key and value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// A line is neither blank, nor a comment, nor `KEY=value`.
    #[error("line {line}: {text:?} is not KEY=value")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A value is not what its key needs.
    #[error("line {line}: {key}={value:?}: {reason}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that every binding needs is missing or empty.
    #[error("{key} is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Values that are good alone do not fit together.
    #[error("{0}")]
    Conflict(String),
}

/// Errors quote at most this much of a line, so that a huge file gives no huge log line.
const QUOTE_LIMIT: usize = 100;

/// Reads the text of a binding file.
///
/// # Errors
/// The first line that cannot be used; then a required key that is missing.
pub fn parse(text: &str) -> Result<Binding, BindingError> {
    let mut mac = None;
    let mut hostname = None;
    // Both are replaced or refused below.
    let mut binding = Binding::new(MacAddr::ZERO, "");
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (key, written) = trimmed
            .split_once('=')
            .map(|(key, value)| (key.trim_end(), value.trim_start()))
            .filter(|(key, _)| is_key(key))
            .ok_or_else(|| BindingError::Line {
                line,
                text: quote(trimmed),
            })?;
        let value = unquote(written);
        let here = Entry { line, key, value };
        match key {
            "INDEV" => binding.indev = here.checked(is_interface_name, "not an interface name")?,
            "MAC" => mac = here.optional::<MacAddr>()?,
            "HOSTNAME" => hostname = here.checked(is_host_name, HOST_NAME_RULE)?,
            "IP" => binding.ip = here.optional()?,
            "SUBNET" => binding.subnet = here.optional()?.map(|net: Ipv4Net| net.trunc()),
            "GATEWAY" => binding.gateway = here.optional()?,
            "SUBNET6" => binding.subnet6 = here.optional()?.map(|net: Ipv6Net| net.trunc()),
            "GATEWAY6" => binding.gateway6 = here.optional()?,
            "EUI64" => binding.eui64 = here.optional()?,
            "IP6" => binding.ip6 = here.optional()?,
            "MTU" => binding.mtu = here.mtu()?,
            "TAGS" => binding.tags = value.split_whitespace().map(str::to_owned).collect(),
            "PRIVATE" => binding.private = !value.is_empty(),
            "MACSPOOF" => binding.macspoof = !value.is_empty(),
            "NAMESERVERS" => binding.nameservers = here.list()?,
            "DOMAIN" => binding.domain = here.list()?,
            "ROUTES" => binding.routes = here.routes()?,
            "NO_ONLINK32" => binding.no_onlink32 = !value.is_empty(),
            _ => {
                binding.other.retain(|(known, _)| known != key);
                binding.other.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    binding.mac = mac.ok_or(BindingError::Missing { key: "MAC" })?;
    binding.hostname = hostname.ok_or(BindingError::Missing { key: "HOSTNAME" })?;
    if binding.mac.is_multicast() || binding.mac.is_zero() {
        return Err(BindingError::Conflict(format!(
            "MAC={}: no interface can have this address",
            binding.mac
        )));
    }
    Ok(binding)
}

const HOST_NAME_RULE: &str = "not a host name (1 to 253 bytes, no blanks or control characters)";

/// Ganeti's instance names are host names; a looser check is enough for what is only logged.
fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The value without the quotes around it, if both are there.
fn unquote(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark))
        .unwrap_or(text)
        .trim()
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_LIMIT).collect()
}

struct Entry<'a> {
    line: usize,
    key: &'a str,
    value: &'a str,
}

impl Entry<'_> {
    fn refuse(&self, reason: impl Display) -> BindingError {
        BindingError::Value {
            line: self.line,
            key: self.key.to_owned(),
            value: quote(self.value),
            reason: reason.to_string(),
        }
    }

    fn optional<T: FromStr<Err: Display>>(&self) -> Result<Option<T>, BindingError> {
        if self.value.is_empty() {
            return Ok(None);
        }
        self.value
            .parse()
            .map(Some)
            .map_err(|error| self.refuse(error))
    }

    fn checked(
        &self,
        good: impl Fn(&str) -> bool,
        rule: &str,
    ) -> Result<Option<String>, BindingError> {
        match self.value {
            "" => Ok(None),
            value if good(value) => Ok(Some(value.to_owned())),
            _ => Err(self.refuse(rule)),
        }
    }

    /// RFC 2132, section 5.1: "The minimum value is 68".
    fn mtu(&self) -> Result<Option<u16>, BindingError> {
        match self.optional::<u16>()? {
            Some(mtu) if mtu < 68 => Err(self.refuse("the smallest MTU is 68")),
            other => Ok(other),
        }
    }

    fn list<T: FromStr<Err: Display>>(&self) -> Result<Vec<T>, BindingError> {
        self.value
            .split([',', ' ', '\t'])
            .filter(|item| !item.is_empty())
            .map(|item| {
                item.parse()
                    .map_err(|error| self.refuse(format!("{:?}: {error}", quote(item))))
            })
            .collect()
    }

    fn routes(&self) -> Result<Vec<Route>, BindingError> {
        self.value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| {
                route(item).ok_or_else(|| {
                    self.refuse(format!(
                        "{:?} is not a route such as 192.0.2.0/24 via 198.51.100.1",
                        quote(item)
                    ))
                })
            })
            .collect()
    }
}

fn route(text: &str) -> Option<Route> {
    let mut words = text.split_whitespace();
    let destination: Ipv4Net = words.next()?.parse().ok()?;
    if words.next()? != "via" {
        return None;
    }
    let via = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Route {
        destination: destination.trunc(),
        via,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
# written by ifup
INDEV=br0
IP=10.66.1.5
MAC=aa:00:00:12:34:56
HOSTNAME=snf-1
TAGS="synnefo:network:0:protected some-tag"
GATEWAY=10.66.1.1
SUBNET=10.66.1.0/24
GATEWAY6=fd66:1::1
SUBNET6=fd66:1::/64
EUI64=fd66:1::a800:ff:fe12:3456
MTU=1450
PRIVATE=
MACSPOOF='yes'
IP6=fd66:1::5
NAMESERVERS=192.0.2.1, 2001:db8::53
DOMAIN=example.com corp.example.com
ROUTES=192.0.2.0/24 via 10.66.1.2,198.51.100.9/24 via 10.66.1.3
NO_ONLINK32=1
INSTANCE=one=two
"#;

    #[test]
    fn every_key_is_read() {
        let binding = parse(FULL).unwrap();
        assert_eq!(binding.indev.as_deref(), Some("br0"));
        assert_eq!(binding.ip, Some("10.66.1.5".parse().unwrap()));
        assert_eq!(binding.mac.to_string(), "aa:00:00:12:34:56");
        assert_eq!(binding.hostname, "snf-1");
        assert_eq!(binding.tags, ["synnefo:network:0:protected", "some-tag"]);
        assert_eq!(binding.gateway, Some("10.66.1.1".parse().unwrap()));
        assert_eq!(binding.subnet, Some("10.66.1.0/24".parse().unwrap()));
        assert_eq!(binding.gateway6, Some("fd66:1::1".parse().unwrap()));
        assert_eq!(binding.subnet6, Some("fd66:1::/64".parse().unwrap()));
        assert_eq!(
            binding.eui64,
            Some("fd66:1::a800:ff:fe12:3456".parse().unwrap())
        );
        assert_eq!(binding.mtu, Some(1450));
        assert!(!binding.private);
        assert!(binding.macspoof);
        assert_eq!(binding.ip6, Some("fd66:1::5".parse().unwrap()));
        assert_eq!(binding.nameservers.len(), 2);
        assert_eq!(binding.domain.len(), 2);
        assert_eq!(binding.routes.len(), 2);
        assert_eq!(
            binding.routes[1].destination,
            "198.51.100.0/24".parse().unwrap()
        );
        assert!(binding.no_onlink32);
        // The value keeps a second equals sign.
        assert_eq!(
            binding.other,
            [("INSTANCE".to_owned(), "one=two".to_owned())]
        );
    }

    #[test]
    fn empty_values_are_the_same_as_missing_lines() {
        let text = "MAC=aa:00:00:00:00:01\nHOSTNAME=h\nIP=\nMTU=\nSUBNET6=\"\"\nINDEV=''\n";
        let binding = parse(text).unwrap();
        assert_eq!(binding, Binding::new(binding.mac, "h"));
    }

    #[test]
    fn the_last_of_a_repeated_key_counts_and_blanks_around_are_dropped() {
        let text = " MAC = aa:00:00:00:00:01 \r\nHOSTNAME=h\nIP=10.0.0.1\nIP=10.0.0.2\nX=1\nX=2\n";
        let binding = parse(text).unwrap();
        assert_eq!(binding.ip, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(binding.other, [("X".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn a_bad_value_is_refused_with_line_key_and_value() {
        let error = parse("HOSTNAME=h\nIP=10.0.0.256\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("IP=\"10.0.0.256\""), "{error}");
        for (line, value) in [
            ("MAC=aa:00", "aa:00"),
            ("MTU=67", "67"),
            ("MTU=70000", "70000"),
            ("SUBNET=10.0.0.0", "10.0.0.0"),
            ("SUBNET=10.0.0.0/33", "10.0.0.0/33"),
            ("SUBNET6=fd00::/129", "fd00::/129"),
            ("IP6=10.0.0.1", "10.0.0.1"),
            ("INDEV=a/b", "a/b"),
            ("HOSTNAME=a b", "a b"),
            ("NAMESERVERS=10.0.0.1 x", "x"),
            ("DOMAIN=a..b", "a..b"),
            ("ROUTES=10.0.0.0/8 10.0.0.1", "10.0.0.0/8 10.0.0.1"),
            ("ROUTES=10.0.0.0/8 via 10.0.0.1 dev x", "dev x"),
        ] {
            let error = parse(&format!("\n{line}\n")).unwrap_err().to_string();
            assert!(
                error.starts_with("line 2: ") && error.contains(value),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn what_is_no_line_of_ours_is_refused_and_quoted_in_part() {
        for line in ["no equals sign", "=x", "two words=x", "KÄY=x"] {
            assert!(
                matches!(parse(line), Err(BindingError::Line { line: 1, .. })),
                "{line}"
            );
        }
        let error = parse(&"x".repeat(1_000_000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{}", error.len());
    }

    #[test]
    fn mac_and_hostname_are_required() {
        let error = parse("HOSTNAME=h\nMAC=\n").unwrap_err();
        assert_eq!(error, BindingError::Missing { key: "MAC" });
        let error = parse("MAC=aa:00:00:00:00:01\n").unwrap_err();
        assert_eq!(error, BindingError::Missing { key: "HOSTNAME" });
        for mac in [
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            let error = parse(&format!("MAC={mac}\nHOSTNAME=h\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(mac), "{error}");
        }
    }
}
