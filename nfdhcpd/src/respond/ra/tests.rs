//! Advertisements, byte by byte as their RFCs have them.

use super::*;
use crate::respond::testing::{
    GUEST, GUEST_LINK_LOCAL, HOST, HOST_LINK_LOCAL, ask, client, icmp6_packet, set,
};

const RS: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];

fn all_routers() -> Ipv6Addr {
    "ff02::2".parse().unwrap()
}

fn solicitation() -> Vec<u8> {
    let slla = [&[1, 1][..], &GUEST.octets()].concat();
    icmp6_packet(
        GUEST_LINK_LOCAL,
        all_routers(),
        255,
        &[&RS[..], &slla].concat(),
    )
}

struct Heard {
    action: Action,
    to_mac: MacAddr,
    from: Ipv6Addr,
    to: Ipv6Addr,
    flags: u8,
    lifetime: u16,
    options: Vec<(u8, Vec<u8>)>,
}

impl Heard {
    fn option(&self, kind: u8) -> Option<&[u8]> {
        self.options
            .iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value.as_slice())
    }
}

fn hear(client: &Client) -> Heard {
    let (action, frame) = ask(client, &solicitation());
    assert!(
        matches!(action, Action::Reply(_) | Action::ReplyAndPass(_)),
        "{action:?}"
    );
    read(action, &frame)
}

fn read(action: Action, frame: &[u8]) -> Heard {
    assert_eq!(frame[6..12], HOST.octets());
    let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::NetSlice::Ipv6(ip)) = packet.net else {
        panic!()
    };
    assert_eq!(ip.header().hop_limit(), 255);
    let Some(etherparse::TransportSlice::Icmpv6(icmp)) = packet.transport else {
        panic!()
    };
    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    let message = icmp.slice();
    assert_eq!(message[..2], [134, 0]);
    assert_eq!(message[4], 64, "hop limit for the guest");
    let mut options = Vec::new();
    let mut rest = &message[16..];
    while !rest.is_empty() {
        let (option, tail) = rest.split_at(usize::from(rest[1]) * 8);
        options.push((option[0], option[2..].to_vec()));
        rest = tail;
    }
    Heard {
        action,
        to_mac: MacAddr::try_from(&frame[..6]).unwrap(),
        from: ip.header().source_addr(),
        to: ip.header().destination_addr(),
        flags: message[5],
        lifetime: u16::from_be_bytes([message[6], message[7]]),
        options,
    }
}

#[test]
fn the_host_advertises_itself_where_it_is_the_gateway() {
    let heard = hear(&client());
    assert_eq!(heard.action, Action::Reply(Answer::RouterAdvertisement));
    assert_eq!(
        (heard.from, heard.to, heard.to_mac),
        (HOST_LINK_LOCAL, GUEST_LINK_LOCAL, GUEST)
    );
    assert_eq!(heard.lifetime, 1800);
    assert_eq!(
        heard.flags, OTHER,
        "mode auto without IP6: SLAAC, the rest by DHCPv6"
    );
    assert_eq!(heard.option(1), Some(&HOST.octets()[..]));
    let prefix: Ipv6Addr = "fd66:1::".parse().unwrap();
    let expected = [
        &[64, ON_LINK | AUTONOMOUS][..],
        &86_400_u32.to_be_bytes(),
        &14_400_u32.to_be_bytes(),
        &[0; 4],
        &prefix.octets(),
    ]
    .concat();
    assert_eq!(heard.option(3), Some(&expected[..]));
    assert_eq!(heard.options.len(), 2, "nothing that nobody configured");
}

#[test]
fn who_asks_from_nowhere_is_answered_to_all() {
    let packet = icmp6_packet(Ipv6Addr::UNSPECIFIED, all_routers(), 255, &RS);
    let (action, frame) = ask(&client(), &packet);
    let heard = read(action, &frame);
    assert_eq!(heard.to, ALL_NODES);
    assert_eq!(heard.to_mac, MacAddr::new([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn a_router_somewhere_else_on_the_bridge_is_not_replaced() {
    let mut client = client();
    client.port.host_has_gateway6 = false;
    let heard = hear(&client);
    assert_eq!(
        heard.action,
        Action::ReplyAndPass(Answer::RouterAdvertisement)
    );
    assert_eq!((heard.lifetime, heard.from), (0, HOST_LINK_LOCAL));
    assert!(heard.option(3).is_some());
    // If its link-local address is known, it is announced in its own name.
    let gateway: Ipv6Addr = "fe80::1".parse().unwrap();
    client.binding.gateway6 = Some(gateway);
    let heard = hear(&client);
    assert_eq!((heard.lifetime, heard.from), (1800, gateway));
    assert_eq!(heard.option(1), None, "its MAC address is not ours to tell");
    set(&mut client, |profile| {
        profile.ipv6.router = Router::Address("fe80::2".parse().unwrap())
    });
    assert_eq!(hear(&client).from, "fe80::2".parse::<Ipv6Addr>().unwrap());
    set(&mut client, |profile| profile.ipv6.router = Router::Host);
    assert_eq!(
        (hear(&client).from, hear(&client).lifetime),
        (HOST_LINK_LOCAL, 1800)
    );
    set(&mut client, |profile| profile.ipv6.router = Router::Nobody);
    assert_eq!(hear(&client).lifetime, 0);
}

#[test]
fn on_a_routed_interface_the_host_is_the_router_and_no_neighbour_is_near() {
    let mut client = client();
    client.port.bridged = false;
    client.port.host_has_gateway6 = false;
    let heard = hear(&client);
    assert_eq!(heard.lifetime, 1800);
    assert_eq!(heard.option(3).unwrap()[1], AUTONOMOUS);
    set(&mut client, |profile| {
        profile.ipv6.on_link = OnLink::Always(true)
    });
    assert_eq!(hear(&client).option(3).unwrap()[1], ON_LINK | AUTONOMOUS);
}

#[test]
fn modes_are_flags() {
    let mut client = client();
    let mut flags = |mode, ip6: Option<&str>| {
        set(&mut client, |profile| profile.ipv6.mode = mode);
        client.binding.ip6 = ip6.map(|text| text.parse().unwrap());
        let heard = hear(&client);
        (heard.flags, heard.option(3).unwrap()[1] & AUTONOMOUS)
    };
    assert_eq!(flags(Mode::Slaac, None), (0, AUTONOMOUS));
    assert_eq!(flags(Mode::SlaacDhcp6, None), (OTHER, AUTONOMOUS));
    assert_eq!(flags(Mode::Dhcp6, Some("fd66:1::5")), (MANAGED | OTHER, 0));
    assert_eq!(
        flags(Mode::Auto, Some("fd66:1::5")),
        (MANAGED | OTHER, AUTONOMOUS)
    );
}

#[test]
fn all_options_have_the_form_of_their_rfcs() {
    let mut client = client();
    client.binding.mtu = Some(1450);
    client.binding.domain = vec!["a.example".parse().unwrap()];
    let server: Ipv6Addr = "2001:db8::53".parse().unwrap();
    set(&mut client, |profile| {
        profile.ipv6.nameservers = vec![server, server];
        profile.ipv6.routes = vec![
            "2001:db8:1::/48".parse().unwrap(),
            "2001:db8::/96".parse().unwrap(),
        ];
        profile.ipv6.pref64 = Some("64:ff9b::/96".parse().unwrap());
        profile.ipv6.preference = Preference::High;
    });
    let heard = hear(&client);
    assert_eq!(heard.flags & 0x18, 0x08);
    assert_eq!(heard.option(5), Some(&[0, 0, 0, 0, 0x05, 0xaa][..]));
    // RFC 8106: reserved, lifetime of three intervals, addresses.
    let expected = [
        &[0, 0, 0, 0, 3, 132][..],
        &server.octets(),
        &server.octets(),
    ]
    .concat();
    assert_eq!(heard.option(25), Some(&expected[..]));
    let expected = [&[0, 0, 0, 0, 3, 132][..], b"\x01a\x07example\0", &[0; 5]].concat();
    assert_eq!(heard.option(31), Some(&expected[..]));
    // RFC 4191: length, preference, lifetime, as much of the prefix as it needs.
    let routes: Vec<_> = heard
        .options
        .iter()
        .filter(|(kind, _)| *kind == 24)
        .collect();
    assert_eq!(
        routes[0].1,
        [48, 0x08, 0, 0, 7, 8, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 0]
    );
    assert_eq!(routes[1].1[..6], [96, 0x08, 0, 0, 7, 8]);
    assert_eq!(routes[1].1.len(), 22);
    // RFC 8781: 900 s in units of 8, rounded up, and code 0 for /96; twelve bytes of prefix.
    let scaled = (113_u16 << 3).to_be_bytes();
    let expected = [&scaled[..], &[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(heard.option(38), Some(&expected[..]));
}

#[test]
fn a_small_mtu_is_not_announced_and_a_longer_prefix_is_not_for_slaac() {
    let mut client = client();
    client.binding.mtu = Some(1279);
    client.binding.subnet6 = Some("fd66:1::/96".parse().unwrap());
    let heard = hear(&client);
    assert_eq!(heard.option(5), None);
    assert_eq!(heard.option(3).unwrap()[..2], [96, ON_LINK]);
}

#[test]
fn options_that_are_too_long_are_cut_and_not_the_packet() {
    let mut client = client();
    set(&mut client, |profile| {
        profile.ipv6.nameservers = vec![HOST_LINK_LOCAL; 300];
        let label = "a".repeat(60);
        profile.ipv6.search = vec![[label.as_str(); 4].join(".").parse().unwrap(); 20];
    });
    let heard = hear(&client);
    let (servers, names) = (heard.option(25).unwrap(), heard.option(31).unwrap());
    assert_eq!((servers.len() - 6) % 16, 0);
    // One name has its room, whatever else there is; with the advertisement's header, prefix and
    // link-layer address all of it is a packet of 1500 bytes.
    assert_eq!(names.len() + 2, 256);
    assert!(servers.len() + 2 + 256 + 40 + 16 + 8 + 32 <= 1500);
    assert!(servers.len() + 2 + 256 + 40 + 16 + 8 + 32 > 1500 - 16);
}

#[test]
fn what_is_not_to_be_advertised_is_not() {
    let mut client = client();
    client.binding.subnet6 = None;
    assert_eq!(
        ask(&client, &solicitation()).0,
        Action::Pass,
        "a router on the bridge may"
    );
    client.port.bridged = false;
    assert_eq!(
        ask(&client, &solicitation()).0,
        Action::Drop(Reason::NoAddress)
    );
    set(&mut client, |profile| profile.ipv6.enabled = false);
    assert_eq!(ask(&client, &solicitation()).0, Action::Pass);
    assert_eq!(
        unsolicited(&client, &mut Vec::new(), &mut Vec::new()),
        Err(Reason::Disabled)
    );
}

#[test]
fn a_solicitation_through_a_router_is_dropped() {
    let far = icmp6_packet(GUEST_LINK_LOCAL, all_routers(), 254, &RS);
    assert_eq!(ask(&client(), &far).0, Action::Drop(Reason::HopLimit));
    let mut wrong = solicitation();
    wrong[42] ^= 1;
    assert_eq!(ask(&client(), &wrong).0, Action::Drop(Reason::Checksum));
}

#[test]
fn an_unsolicited_one_goes_to_all() {
    let mut frame = Vec::new();
    unsolicited(&client(), &mut Vec::new(), &mut frame).unwrap();
    let heard = read(Action::Pass, &frame);
    assert_eq!((heard.to, heard.lifetime), (ALL_NODES, 1800));
}

#[test]
fn lists_that_do_not_fit_are_cut_between_items_and_the_advertisement_is_sent() {
    for mtu in [None, Some(1280), Some(9000)] {
        let mut client = client();
        client.binding.mtu = mtu;
        let server = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
        set(&mut client, |profile| {
            profile.ipv6.nameservers = (0..200).map(server).collect();
            profile.ipv6.routes = (0..100)
                .map(|number| Ipv6Net::new(server(number), 128).unwrap())
                .collect();
            profile.ipv6.search = (0..200)
                .map(|number| {
                    format!("a-rather-long-label-{number}.example.com")
                        .parse()
                        .unwrap()
                })
                .collect();
            profile.ipv6.pref64 = Some("64:ff9b::/96".parse().unwrap());
        });
        let (_, frame) = ask(&client, &solicitation());
        let most = usize::from(mtu.unwrap_or(1500).min(1500));
        assert!(frame.len() - 14 <= most, "{} of {most}", frame.len() - 14);
        let heard = hear(&client);
        // Each list has something, and what is no list is there.
        for kind in [3, 24, 25, 31, 38] {
            assert!(heard.option(kind).is_some(), "option {kind}");
        }
        for (kind, value) in &heard.options {
            match kind {
                24 => assert_eq!(value.len() + 2, 24),
                25 => assert_eq!((value.len() + 2 - 8) % 16, 0),
                31 => {
                    let names = value[6..].to_vec();
                    let text = String::from_utf8_lossy(&names).into_owned();
                    let whole = text.matches("\u{7}example\u{3}com\0").count();
                    assert_eq!(text.matches("a-rather-long").count(), whole);
                    assert!(whole > 0);
                }
                _ => {}
            }
        }
    }
}
