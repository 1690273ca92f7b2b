//! `nfdhcpd explain`: what would be answered to a frame, and why.

use std::fmt::Write as _;
use std::net::IpAddr;

use agents::addr::MacAddr;
use agents::binding;
use agents::netlink::Rtnetlink;
use anyhow::{Context, bail};

use crate::client::Client;
use crate::config::Config;
use crate::host::Host;
use crate::packet::ip::Checksum;
use crate::respond::{Action, Query, Scratch, respond};

/// Says what would be answered to the frame, given as hexadecimal digits, on the interface.
///
/// # Errors
/// There is no such interface, its binding is missing or wrong, or the frame is none.
pub fn explain(config: &Config, interface: &str, hex: &str) -> anyhow::Result<String> {
    let frame = parse_hex(hex).context("the frame is not pairs of hexadecimal digits")?;
    let binding = binding::load(&config.bindings.join(interface))?;
    let mut routes = Rtnetlink::open()?;
    let addresses = routes.addresses()?.into_iter();
    let addresses = addresses.filter_map(|(index, address)| match address {
        IpAddr::V6(address) => Some((index, address)),
        IpAddr::V4(_) => None,
    });
    let mut host = Host::default();
    host.replace(routes.links()?, addresses);
    let Some(port) = host.port(interface, &binding) else {
        bail!("there is no interface {interface} here: nothing is answered on it");
    };
    let profile = config.profile(&binding);
    let client = Client {
        interface: interface.to_owned(),
        binding,
        port,
        profile,
    };
    tell(&client, &frame)
}

fn tell(client: &Client, frame: &[u8]) -> anyhow::Result<String> {
    let (header, packet) = frame
        .split_first_chunk::<14>()
        .context("the frame is shorter than an Ethernet header")?;
    let source = MacAddr::try_from(header.get(6..12).unwrap_or_default())?;
    let query = Query {
        packet,
        source_mac: Some(source),
        checksum: Checksum::Present,
    };
    let mut reply = Vec::new();
    let mut scratch = Scratch::default();
    let (kind, action) = respond(query, client, &mut scratch, &mut reply);
    let mut out = String::new();
    let attachment = if client.port.bridged {
        "bridged"
    } else {
        "routed"
    };
    writeln!(
        out,
        "{} from {source} on {} ({attachment}; {}, {})",
        kind.name(),
        client.interface,
        client.binding.hostname,
        client.binding.mac
    )?;
    match action {
        Action::Reply(answer) => writeln!(out, "answered with {}:", answer.name())?,
        Action::ReplyAndPass(answer) => {
            writeln!(
                out,
                "answered with {}, and passed on to the bridge:",
                answer.name()
            )?;
        }
        Action::Drop(reason) => writeln!(out, "dropped: {reason}: {}", reason.explanation())?,
        Action::Pass => writeln!(out, "passed on: not ours to answer")?,
    }
    if matches!(action, Action::Reply(_) | Action::ReplyAndPass(_)) {
        for omission in &scratch.omissions {
            writeln!(out, "no room: {omission}")?;
        }
        for byte in &reply {
            write!(out, "{byte:02x}")?;
        }
        out.push('\n');
    }
    Ok(out)
}

/// Pairs of hexadecimal digits, with blanks, colons or line breaks anywhere between.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|character| !character.is_whitespace() && *character != ':')
        .map(|character| {
            character
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::testing::{GUEST, GUEST_LINK_LOCAL, client, icmp6_packet};

    fn frame() -> Vec<u8> {
        let to = "ff02::2".parse().unwrap();
        let packet = icmp6_packet(GUEST_LINK_LOCAL, to, 255, &[133, 0, 0, 0, 0, 0, 0, 0]);
        let mut frame = vec![0x33, 0x33, 0, 0, 0, 2];
        frame.extend(GUEST.octets());
        frame.extend([0x86, 0xdd]);
        frame.extend(packet);
        frame
    }

    #[test]
    fn an_answer_is_shown_as_it_would_be_sent() {
        let text = tell(&client(), &frame()).unwrap();
        assert!(
            text.contains("RS from aa:00:00:00:00:01 on tap0 (bridged; snf-1"),
            "{text}"
        );
        assert!(
            text.contains("answered with RA:\naa00000000010200000000ff86dd6c"),
            "{text}"
        );
    }

    #[test]
    fn a_drop_is_shown_with_its_reason() {
        let mut frame = frame();
        frame[11] = 2;
        let text = tell(&client(), &frame).unwrap();
        assert!(
            text.contains("dropped: spoofed-mac: The source MAC address is not"),
            "{text}"
        );
        assert!(tell(&client(), &frame[..13]).is_err());
    }

    #[test]
    fn hexadecimal_digits_may_be_spaced() {
        assert_eq!(parse_hex("0a0B:0c 0d\n"), Some(vec![10, 11, 12, 13]));
        assert_eq!(parse_hex("abc"), None);
        assert_eq!(parse_hex("zz"), None);
        assert_eq!(parse_hex(""), Some(Vec::new()));
    }
}
