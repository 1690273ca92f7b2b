//! Items that an answer had no room for.

use std::fmt;

/// Items of an option that were left out of an answer since the message has no room for them.
///
/// Items are whole: routes, addresses, names, and for what is no list the option itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Omission {
    /// The protocol, which says what the option's number means.
    pub protocol: Protocol,
    /// The option's number.
    pub option: u16,
    /// The number of items that were left out.
    pub left_out: usize,
    /// Of how many.
    pub of: usize,
}

/// The protocol of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// DHCPv4: RFC 2132.
    Dhcp4,
    /// DHCPv6: RFC 8415.
    Dhcp6,
    /// Router advertisements: RFC 4861.
    RouterAdvertisement,
}

impl fmt::Display for Omission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            option,
            left_out,
            of,
            ..
        } = self;
        let (protocol, name) = match self.protocol {
            Protocol::Dhcp4 => ("DHCPv4", dhcp4_name(*option)),
            Protocol::Dhcp6 => ("DHCPv6", dhcp6_name(*option)),
            Protocol::RouterAdvertisement => ("RA", nd_name(*option)),
        };
        write!(
            formatter,
            "{protocol} option {option}{name}: {left_out} of {of} items left out"
        )
    }
}

fn dhcp4_name(option: u16) -> &'static str {
    match option {
        6 => " (name servers)",
        42 => " (NTP servers)",
        119 => " (domain search)",
        121 | 249 => " (classless routes)",
        _ => "",
    }
}

fn dhcp6_name(option: u16) -> &'static str {
    match option {
        23 => " (name servers)",
        24 => " (domain search)",
        31 => " (SNTP servers)",
        56 => " (NTP servers)",
        59 => " (boot file URL)",
        _ => "",
    }
}

fn nd_name(option: u16) -> &'static str {
    match option {
        24 => " (routes)",
        25 => " (name servers)",
        31 => " (domain search)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_option_and_numbers() {
        let omission = Omission {
            protocol: Protocol::Dhcp4,
            option: 121,
            left_out: 12,
            of: 61,
        };
        assert_eq!(
            omission.to_string(),
            "DHCPv4 option 121 (classless routes): 12 of 61 items left out"
        );
    }
}
