//! Keys of bindings that an operator sets, besides what Ganeti says of the NIC.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agents::binding;

/// Keys as nfdhcpd-binding(5) has them, with their values.
pub type Keys = BTreeMap<String, String>;

/// What follows from the NIC, and what it must not contradict.
const OF_THE_NIC: [&str; 12] = [
    "INDEV", "MAC", "HOSTNAME", "IP", "SUBNET", "GATEWAY", "SUBNET6", "GATEWAY6", "EUI64", "IP6",
    "MACSPOOF", "TAGS",
];

/// Why a key cannot have this value, or cannot be set at all.
///
/// # Errors
/// The reason, without key and value.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    if OF_THE_NIC.contains(&key) {
        return Err("follows from what Ganeti says of the NIC".to_owned());
    }
    let shaped = key.starts_with(|first: char| first.is_ascii_uppercase())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if !shaped {
        return Err("not a key of a binding: capital letters, digits and _".to_owned());
    }
    if value.contains(|character: char| character.is_control() || "\"'\\$`".contains(character)) {
        // Shell scripts of others source these files.
        return Err("has a control character or one that means something to a shell".to_owned());
    }
    let text = format!("MAC=02:00:00:00:00:01\nHOSTNAME=guest\n{key}=\"{value}\"\n");
    match binding::parse(&text) {
        Ok(_) => Ok(()),
        Err(binding::BindingError::Value { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// The lines of a binding for them: those of the network count where both have a key.
pub fn lines(of_all: &Keys, of_network: Option<&Keys>) -> String {
    let mut keys = of_all.clone();
    keys.extend(of_network.cloned().unwrap_or_default());
    let mut text = String::new();
    for (key, value) in keys {
        let _ = writeln!(text, "{key}=\"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_nic_and_values_that_cannot_be_are_refused() {
        for (key, value) in [
            ("NO_ONLINK32", "yes"),
            ("ROUTES", "192.0.2.0/24 via 10.66.1.2"),
            ("NAMESERVERS", "192.0.2.1 2001:db8::1"),
            ("MTU", "1400"),
            ("SITE", "anything, of others"),
        ] {
            check(key, value).unwrap();
        }
        for (key, value, part) in [
            ("IP", "10.0.0.1", "Ganeti"),
            ("MTU", "20", "68"),
            ("ROUTES", "everywhere", "route"),
            ("SITE", "$(reboot)", "shell"),
            ("SITE", "a\nIP=10.0.0.1", "control"),
            ("# SITE", "x", "capital"),
            ("S=T", "x", "capital"),
        ] {
            let reason = check(key, value).unwrap_err();
            assert!(reason.contains(part), "{key}={value}: {reason}");
        }
    }

    #[test]
    fn the_keys_of_the_network_count() {
        let keys = |pairs: &[(&str, &str)]| -> Keys {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        let all = keys(&[("MTU", "1400"), ("NO_ONLINK32", "yes")]);
        let network = keys(&[("MTU", "1300")]);
        assert_eq!(
            lines(&all, Some(&network)),
            "MTU=\"1300\"\nNO_ONLINK32=\"yes\"\n"
        );
        assert_eq!(lines(&all, None), "MTU=\"1400\"\nNO_ONLINK32=\"yes\"\n");
    }
}
