//! `VLAN`, as Ganeti writes it for ports of bridges that know VLANs.

use std::fmt;

use agents::ganeti::nic_environment::NicError;
use serde::{Deserialize, Serialize};

/// The VLANs of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vlans {
    /// Of frames without a tag, 1 to 4094.
    pub untagged: Option<u16>,
    /// Of frames with one.
    pub tagged: Vec<u16>,
}

impl Vlans {
    /// Reads `VLAN`: `.10` (or `10`) untagged, `:10:20` tagged, `.10:20:30` both. None if empty.
    ///
    /// # Errors
    /// It is none of these, or a number is not from 1 to 4094 or is there twice.
    pub fn parse(text: &str) -> Result<Option<Self>, NicError> {
        let wrong = |reason: &str| NicError::value("VLAN", text, reason);
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.split(':');
        let first = parts.next().unwrap_or_default();
        let mut vlans = Self::default();
        let number = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_digit());
            let number = part
                .parse()
                .ok()
                .filter(|n| plain && (1..=4094).contains(n));
            number.ok_or_else(|| wrong("not .VID, :VID:VID or .VID:VID with VIDs of 1 to 4094"))
        };
        if !first.is_empty() {
            let first = first.strip_prefix('.').unwrap_or(first);
            vlans.untagged = Some(number(first)?);
        }
        for part in parts {
            let vid = number(part)?;
            if vlans.tagged.contains(&vid) || vlans.untagged == Some(vid) {
                return Err(wrong("a VID is there twice"));
            }
            vlans.tagged.push(vid);
        }
        Ok(Some(vlans))
    }

    /// Each VLAN, and whether its frames have no tag.
    pub fn all(&self) -> impl Iterator<Item = (u16, bool)> {
        let untagged = self.untagged.map(|vid| (vid, true));
        let tagged = self.tagged.iter().map(|vid| (*vid, false));
        untagged.into_iter().chain(tagged)
    }

    /// All other VLANs, as ranges from the first to the last.
    pub fn gaps(&self) -> Vec<(u16, u16)> {
        let mut own: Vec<u16> = self.all().map(|(vid, _)| vid).collect();
        own.sort_unstable();
        let mut gaps = Vec::new();
        let mut next = 1;
        for vid in own.into_iter().chain([4095]) {
            if next < vid {
                gaps.push((next, vid - 1));
            }
            next = vid + 1;
        }
        gaps
    }
}

impl fmt::Display for Vlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vid) = self.untagged {
            write!(f, ".{vid}")?;
        }
        self.tagged.iter().try_for_each(|vid| write!(f, ":{vid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_ganeti_are_read_and_others_refused() {
        for (text, untagged, tagged) in [
            (".10", Some(10), &[][..]),
            ("10", Some(10), &[]),
            (":10:20", None, &[10, 20]),
            (".1:4094:2", Some(1), &[4094, 2]),
        ] {
            let vlans = Vlans::parse(text).unwrap().unwrap();
            assert_eq!(vlans.untagged, untagged, "{text}");
            assert_eq!(vlans.tagged, tagged, "{text}");
            assert_eq!(Vlans::parse(&vlans.to_string()).unwrap(), Some(vlans));
        }
        assert_eq!(Vlans::parse("").unwrap(), None);
        let gaps = |text| Vlans::parse(text).unwrap().unwrap().gaps();
        assert_eq!(gaps(".10:1:11"), [(2, 9), (12, 4094)]);
        assert_eq!(gaps(".4094"), [(1, 4093)]);
        for text in [
            ".", ":", "..1", ".0", ".4095", ":1:", ".1:1", ":2:2", "x", ".+1", "1.2", ": 1",
        ] {
            let error = Vlans::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("VLAN={text:?}: ")), "{error}");
        }
    }
}
