//! Recorded cases: packets that no client on this machine sends, and what they are answered.
//!
//! A case is a folder of `tests/cases`: `about.txt` says what it is; `binding` is the guest's;
//! `nfdhcpd.toml`, if it is there, the configuration; `attachment` `bridged` (as without it) or
//! `routed`; `packet.hex` the frame, with comments; `answer.txt` what becomes of it, in words.
//! With `UPDATE_CASES=1` the answers are written anew, to be read before they are committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use agents::addr::MacAddr;
use agents::binding;
use nfdhcpd::client::{Client, Port};
use nfdhcpd::config::Config;
use nfdhcpd::packet::ip::Checksum;
use nfdhcpd::respond::{Action, Query, Scratch, respond};

#[test]
fn every_recorded_packet_is_answered_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(names.len() > 20, "where are the cases?");
    let mut wrong = Vec::new();
    for case in &names {
        let answer = run(case);
        let path = case.join("answer.txt");
        if update {
            fs::write(&path, &answer).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if answer != expected {
            wrong.push(format!(
                "{}\nis answered:\n{answer}\nrecorded:\n{expected}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(case: &Path) -> String {
    let optional = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
    let binding = binding::load(&case.join("binding")).unwrap();
    let config = Config::parse(&case.join("nfdhcpd.toml"), &optional("nfdhcpd.toml")).unwrap();
    let bridged = optional("attachment").trim() != "routed";
    let host_mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let client = Client {
        interface: "tap0".to_owned(),
        port: Port {
            index: 7,
            bridged,
            host_mac,
            host_link_local: agents::addr::link_local(host_mac),
            host_has_gateway6: bridged,
        },
        profile: config.profile(&binding),
        binding,
    };
    let frame = read_hex(&optional("packet.hex"));
    let query = Query {
        packet: &frame[14..],
        source_mac: Some(MacAddr::try_from(&frame[6..12]).unwrap()),
        checksum: Checksum::Present,
    };
    let mut reply = Vec::new();
    let (kind, action) = respond(query, &client, &mut Scratch::default(), &mut reply);
    let mut text = format!("{}: ", kind.name());
    match action {
        Action::Reply(answer) => write!(text, "answered with {}", answer.name()),
        Action::ReplyAndPass(answer) => write!(text, "answered with {}, passed on", answer.name()),
        Action::Drop(reason) => write!(text, "dropped, {reason}"),
        Action::Pass => write!(text, "passed on"),
    }
    .unwrap();
    text.push('\n');
    if matches!(action, Action::Reply(_) | Action::ReplyAndPass(_)) {
        describe(&reply, &mut text);
    }
    text
}

/// Hexadecimal digits; what follows `#` is a comment.
fn read_hex(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap().trim())
        .collect();
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// The frame in words, by its bytes alone.
fn describe(frame: &[u8], out: &mut String) {
    let mac = |at: usize| MacAddr::try_from(&frame[at..at + 6]).unwrap();
    writeln!(out, "{} -> {}, {} bytes", mac(6), mac(0), frame.len()).unwrap();
    if frame[12..14] == [8, 0] {
        let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        writeln!(out, "{} -> {}", ip(26), ip(30)).unwrap();
        let message = &frame[42..];
        let address =
            |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&message[at..at + 4]).unwrap());
        writeln!(
            out,
            "xid {} flags {} ciaddr {} yiaddr {} siaddr {} chaddr {}",
            hex(&message[4..8]),
            hex(&message[10..12]),
            address(12),
            address(16),
            address(20),
            hex(&message[28..34])
        )
        .unwrap();
        let text = |field: &[u8]| {
            String::from_utf8_lossy(field)
                .trim_end_matches('\0')
                .to_owned()
        };
        writeln!(
            out,
            "sname {:?} file {:?}",
            text(&message[44..108]),
            text(&message[108..236])
        )
        .unwrap();
        let mut rest = &message[240..];
        while rest[0] != 255 {
            let (value, tail) = rest[2..].split_at(rest[1].into());
            writeln!(out, "option {}: {}", rest[0], show(value)).unwrap();
            rest = tail;
        }
        return;
    }
    let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    writeln!(out, "{} -> {}, hop limit {}", ip(22), ip(38), frame[21]).unwrap();
    if frame[20] == 17 {
        let message = &frame[62..];
        writeln!(
            out,
            "message {} transaction {}",
            message[0],
            hex(&message[1..4])
        )
        .unwrap();
        describe_options6(&message[4..], 0, out);
        return;
    }
    let message = &frame[54..];
    let fixed = if message[0] == 134 { 16 } else { 24 };
    writeln!(out, "ICMPv6 {}: {}", message[0], hex(&message[4..fixed])).unwrap();
    let mut rest = &message[fixed..];
    while !rest.is_empty() {
        let (option, tail) = rest.split_at(usize::from(rest[1]) * 8);
        writeln!(out, "option {}: {}", option[0], show(&option[2..])).unwrap();
        rest = tail;
    }
}

fn describe_options6(mut rest: &[u8], depth: usize, out: &mut String) {
    while !rest.is_empty() {
        let code = u16::from_be_bytes([rest[0], rest[1]]);
        let length = u16::from_be_bytes([rest[2], rest[3]]);
        let (value, tail) = rest[4..].split_at(length.into());
        let indent = "  ".repeat(depth);
        // IA_NA, IA_PD: fixed fields, then options.
        if matches!(code, 3 | 25) {
            writeln!(out, "{indent}option {code}: {}", hex(&value[..12])).unwrap();
            describe_options6(&value[12..], depth + 1, out);
        } else {
            writeln!(out, "{indent}option {code}: {}", show(value)).unwrap();
        }
        rest = tail;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text where it is text, else hexadecimal digits.
fn show(bytes: &[u8]) -> String {
    let is_text = bytes.len() > 3 && bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    if is_text {
        format!("{:?}", String::from_utf8_lossy(bytes))
    } else {
        hex(bytes)
    }
}
