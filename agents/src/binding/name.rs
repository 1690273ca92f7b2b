//! Names inside a binding: of interfaces and of domains.

use std::fmt;
use std::str::FromStr;

/// Whether the kernel takes `name` as an interface's: 1 to 15 bytes, not `.` or `..`, without
/// `/`, `:`, blanks and control characters. It is also safe as a file's name.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}

/// A domain name: labels of letters, digits, `-` and `_`, at most 63 bytes each and 253
/// together (RFC 1035, section 2.3.4), without a final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainName(String);

/// The text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a domain name (labels of letters, digits, - and _, 63 bytes each, 253 together)")]
pub struct DomainNameError;

impl DomainName {
    /// The name, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, from the first to the last.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The name as DNS has it on the wire, uncompressed (RFC 1035, section 3.1).
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.0.len() + 2);
        for label in self.labels() {
            // A label has at most 63 bytes, by construction.
            wire.push(u8::try_from(label.len()).unwrap_or(0));
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        wire
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label_is_good = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() <= 253 && name.split('.').all(label_is_good) {
            Ok(Self(name.to_owned()))
        } else {
            Err(DomainNameError)
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        assert!(is_interface_name("tap0"));
        assert!(is_interface_name("snf-nic-12345-1"));
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "sixteen-bytes-xx",
            "tap\n",
            "täp",
        ] {
            assert!(!is_interface_name(name), "{name:?}");
        }
    }

    #[test]
    fn domain_names() {
        let name: DomainName = "Example.com.".parse().unwrap();
        assert_eq!(name.as_str(), "Example.com");
        assert_eq!(name.to_wire(), b"\x07Example\x03com\x00");
        let label = "a".repeat(63);
        assert!(label.parse::<DomainName>().is_ok());
        for bad in [
            String::new(),
            ".".to_owned(),
            "a..b".to_owned(),
            "a b".to_owned(),
            "a\n".to_owned(),
            format!("{label}a"),
            [label.as_str(); 4].join("."),
        ] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }
}
