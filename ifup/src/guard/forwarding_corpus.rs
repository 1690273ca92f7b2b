//! Frames that a guest might send to get another's address behind its own port in a bridge's forwarding
//! table, or to fill the table: for tests, and to try a node's bridges with. None of these frames
//! passes, but most of them do not pass a bridge without a guard either: what is judged is what
//! the bridge has learned.

use agents::addr::MacAddr;

use super::corpus::{Case, Cast};
use super::frame::{ethernet, tagged};

const LLDP: u16 = 0x88cc;
const MAC_CONTROL: u16 = 0x8808;
const SLOW_PROTOCOLS: u16 = 0x8809;
const EAPOL: u16 = 0x888e;
const MACSEC: u16 = 0x88e5;
const PTP: u16 = 0x88f7;
const CFM: u16 = 0x8902;
const MRP: u16 = 0x88e3;
const LOOPBACK: u16 = 0x9000;
const PROVIDER_TAG: u16 = 0x88a8;

/// The addresses that bridges do not forward (IEEE 802.1Q, table 8-1), by their last byte.
const RESERVED: [&str; 16] = [
    "a forged source to 01:80:c2:00:00:00",
    "a forged source to 01:80:c2:00:00:01",
    "a forged source to 01:80:c2:00:00:02",
    "a forged source to 01:80:c2:00:00:03",
    "a forged source to 01:80:c2:00:00:04",
    "a forged source to 01:80:c2:00:00:05",
    "a forged source to 01:80:c2:00:00:06",
    "a forged source to 01:80:c2:00:00:07",
    "a forged source to 01:80:c2:00:00:08",
    "a forged source to 01:80:c2:00:00:09",
    "a forged source to 01:80:c2:00:00:0a",
    "a forged source to 01:80:c2:00:00:0b",
    "a forged source to 01:80:c2:00:00:0c",
    "a forged source to 01:80:c2:00:00:0d",
    "a forged source to 01:80:c2:00:00:0e",
    "a forged source to 01:80:c2:00:00:0f",
];

/// The address of a group that bridges do not forward.
pub fn reserved(last: u8) -> MacAddr {
    MacAddr::new([1, 0x80, 0xc2, 0, 0, last])
}

/// All cases for this cast, for a port of a bridge.
pub fn all(cast: &Cast) -> Vec<Case> {
    let forged = cast.other_mac;
    let payload = [0; 46];
    let mut cases = Vec::new();
    let mut add = |name, frame| {
        cases.push(Case {
            name,
            frame,
            passes: false,
        });
    };
    for (last, name) in (0..).zip(RESERVED) {
        add(name, ethernet(reserved(last), forged, LLDP, &payload));
    }
    // IEEE 802.2: a length instead of an EtherType, then service access points.
    let mut bpdu = payload;
    bpdu.iter_mut()
        .zip([0x42, 0x42, 3])
        .for_each(|(to, from)| *to = from);
    add(
        "a spanning tree message from a forged source",
        ethernet(reserved(0), forged, 38, &bpdu),
    );
    add(
        "a pause frame from a forged source",
        ethernet(reserved(1), forged, MAC_CONTROL, &payload),
    );
    add(
        "LACP from a forged source",
        ethernet(reserved(2), forged, SLOW_PROTOCOLS, &payload),
    );
    add(
        "EAPOL from a forged source",
        ethernet(reserved(3), forged, EAPOL, &payload),
    );
    for (name, kind) in [
        ("MAC control to all from a forged source", MAC_CONTROL),
        ("slow protocols to all from a forged source", SLOW_PROTOCOLS),
        ("EAPOL to all from a forged source", EAPOL),
        ("MACsec from a forged source", MACSEC),
        ("PTP from a forged source", PTP),
        ("connectivity faults from a forged source", CFM),
        ("a media redundancy message from a forged source", MRP),
        ("a loop test from a forged source", LOOPBACK),
        ("ARP from a forged source", 0x0806),
        ("IPv4 from a forged source", 0x0800),
        ("IPv6 from a forged source", 0x86dd),
        ("RARP from a forged source", 0x8035),
    ] {
        add(name, ethernet(MacAddr::BROADCAST, forged, kind, &payload));
    }
    for (name, destination) in [
        ("a priority tag from a forged source", MacAddr::BROADCAST),
        (
            "a priority tag and LLDP from a forged source",
            reserved(0x0e),
        ),
    ] {
        let frame = ethernet(destination, forged, LLDP, &payload);
        add(name, tagged(frame, &[(0x8100, 0)]));
    }
    for (name, destination) in [
        ("a VLAN tag from a forged source", MacAddr::BROADCAST),
        ("a VLAN tag and LLDP from a forged source", reserved(0x0e)),
    ] {
        let frame = ethernet(destination, forged, LLDP, &payload);
        add(name, tagged(frame, &[(0x8100, 10)]));
    }
    for (name, destination) in [
        ("a provider's tag from a forged source", MacAddr::BROADCAST),
        (
            "a provider's tag and LLDP from a forged source",
            reserved(0x0e),
        ),
    ] {
        let frame = ethernet(destination, forged, LLDP, &payload);
        add(name, tagged(frame, &[(PROVIDER_TAG, 10)]));
    }
    add(
        "LLDP from the host's end of the guest's link",
        ethernet(reserved(0x0e), host_end(cast.mac), LLDP, &payload),
    );
    add(
        "LLDP to the group of all bridges' neighbours from a group",
        ethernet(reserved(0x0e), reserved(0x0e), LLDP, &payload),
    );
    cases
}

fn host_end(guest: MacAddr) -> MacAddr {
    let [_, rest @ ..] = guest.octets();
    let [b, c, d, e, f] = rest;
    MacAddr::new([0xfe, b, c, d, e, f])
}
