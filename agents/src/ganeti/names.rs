//! The names that our objects have in Ganeti: `snf-<id>` for an instance, `snf-net-<id>` for a
//! network, `snf-nic-<id>` for a NIC, `snf-vol-<id>` for a disk.
//!
//! `snf` is the prefix of one installation; several may share a cluster and a broker, each
//! with its own, and see only their own messages (the prefix is in the routing key).

use std::fmt;

/// Why a prefix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name prefix {0:?}: must be 1 to 32 letters, digits or underscores")]
pub struct BadPrefix(String);

/// The longest prefix: what follows it still has to fit a host name label.
const PREFIX_LIMIT: usize = 32;

/// The naming scheme of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Default for Names {
    /// The prefix `snf`.
    fn default() -> Self {
        Self {
            prefix: "snf".to_owned(),
        }
    }
}

impl Names {
    /// A scheme with another prefix than `snf`.
    ///
    /// # Errors
    /// The prefix is empty, longer than 32 characters, or has other characters than ASCII
    /// letters, digits and `_`; in particular `-`, which ends it.
    pub fn new(prefix: &str) -> Result<Self, BadPrefix> {
        let good = !prefix.is_empty()
            && prefix.len() <= PREFIX_LIMIT
            && prefix
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !good {
            return Err(BadPrefix(prefix.to_owned()));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
        })
    }

    /// The prefix, as it stands in routing keys.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The instance with this id: `snf-42`.
    pub fn instance(&self, id: u64) -> String {
        self.name("", id)
    }

    /// The network with this id: `snf-net-42`.
    pub fn network(&self, id: u64) -> String {
        self.name("net-", id)
    }

    /// The NIC with this id: `snf-nic-42`.
    pub fn nic(&self, id: u64) -> String {
        self.name("nic-", id)
    }

    /// The disk with this id: `snf-vol-42`.
    pub fn volume(&self, id: u64) -> String {
        self.name("vol-", id)
    }

    /// The id in an instance's name, if the name is one of ours.
    pub fn instance_id(&self, name: &str) -> Option<u64> {
        self.id("", name)
    }

    /// The id in a network's name, if the name is one of ours.
    pub fn network_id(&self, name: &str) -> Option<u64> {
        self.id("net-", name)
    }

    /// The id in a NIC's name, if the name is one of ours.
    pub fn nic_id(&self, name: &str) -> Option<u64> {
        self.id("nic-", name)
    }

    /// The id in a disk's name, if the name is one of ours.
    pub fn volume_id(&self, name: &str) -> Option<u64> {
        self.id("vol-", name)
    }

    fn name(&self, kind: impl fmt::Display, id: u64) -> String {
        format!("{}-{kind}{id}", self.prefix)
    }

    fn id(&self, kind: &str, name: &str) -> Option<u64> {
        let digits = name
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix('-')?
            .strip_prefix(kind)?;
        // `parse` also takes "+1" and "01", which no object of ours is called.
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits.len() == 1 || !digits.starts_with('0'));
        if canonical { digits.parse().ok() } else { None }
    }
}

/// The part of an instance's or a network's name up to the first `-` (all of it without one):
/// what stands in the routing key of its messages.
pub fn prefix_of(name: &str) -> &str {
    name.split_once('-').map_or(name, |(prefix, _)| prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_id_back() {
        let names = Names::default();
        for id in [0, 1, 42, u64::MAX] {
            assert_eq!(names.instance_id(&names.instance(id)), Some(id));
            assert_eq!(names.network_id(&names.network(id)), Some(id));
            assert_eq!(names.nic_id(&names.nic(id)), Some(id));
            assert_eq!(names.volume_id(&names.volume(id)), Some(id));
        }
        assert_eq!(names.network(5), "snf-net-5");
    }

    #[test]
    fn what_is_not_ours_has_no_id() {
        let names = Names::default();
        for name in [
            "",
            "snf",
            "snf-",
            "snf-net-5",
            "snf--1",
            "snf-+1",
            "snf-01",
            "snf-1x",
            "prod-1",
            "snf-18446744073709551616",
            "snf-٣",
        ] {
            assert_eq!(names.instance_id(name), None, "{name:?}");
        }
        assert_eq!(names.network_id("snf-5"), None);
    }

    #[test]
    fn a_prefix_that_would_break_names_is_refused() {
        for prefix in ["", "a-b", "a.b", "é", &"x".repeat(33)] {
            let error = Names::new(prefix).unwrap_err().to_string();
            assert!(error.contains(prefix), "{error}");
        }
        assert_eq!(Names::new("prod").unwrap().instance(7), "prod-7");
    }

    #[test]
    fn the_prefix_ends_at_the_first_dash() {
        assert_eq!(prefix_of("snf-net-5"), "snf");
        assert_eq!(prefix_of("web.example.com"), "web.example.com");
        assert_eq!(prefix_of("-x"), "");
    }
}
