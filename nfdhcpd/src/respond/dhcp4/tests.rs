//! Requests are made, and replies read, by another implementation of DHCP (dhcproto).

use super::*;
use crate::respond::testing::{GUEST, HOST, ask, ask_from, client, dhcp4_packet, set};
use dhcproto::v4::{self, DhcpOption, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use std::time::Duration;

const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

struct Question {
    message: v4::Message,
    /// Options that the other implementation cannot write as they are meant.
    extra: Vec<u8>,
}

impl Question {
    fn new(kind: v4::MessageType) -> Self {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = v4::Message::new(zero, zero, zero, zero, &GUEST.octets());
        message.set_xid(0x0102_0304);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        Self {
            message,
            extra: Vec::new(),
        }
    }

    fn with(mut self, option: DhcpOption) -> Self {
        self.message.opts_mut().insert(option);
        self
    }

    fn wanting(self, codes: &[u8]) -> Self {
        let codes = codes.iter().map(|code| OptionCode::from(*code)).collect();
        self.with(DhcpOption::ParameterRequestList(codes))
    }

    fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.message.set_ciaddr(address);
        self
    }

    fn flags(mut self, flags: v4::Flags) -> Self {
        self.message.set_flags(flags);
        self
    }

    fn packet(&self) -> Vec<u8> {
        let mut bytes = self.message.to_vec().unwrap();
        assert_eq!(bytes.pop(), Some(255));
        bytes.extend(&self.extra);
        dhcp4_packet(&bytes)
    }

    fn reason(&self, client: &Client) -> Reason {
        match ask(client, &self.packet()).0 {
            Action::Drop(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, client: &Client) -> Heard {
        let (action, frame) = ask(client, &self.packet());
        assert!(
            matches!(action, Action::Reply(Answer::Dhcp4(_))),
            "{action:?}"
        );
        let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else {
            panic!()
        };
        let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else {
            panic!()
        };
        let message = v4::Message::decode(&mut Decoder::new(udp.payload())).unwrap();
        assert_eq!(message.xid(), 0x0102_0304);
        assert_eq!(message.chaddr(), GUEST.octets());
        assert!(udp.payload().len() >= 300);
        assert_eq!(frame[6..12], HOST.octets());
        Heard {
            to_mac: MacAddr::try_from(&frame[..6]).unwrap(),
            to: ip.header().destination_addr(),
            from: ip.header().source_addr(),
            message,
            raw: udp.payload().to_vec(),
        }
    }
}

struct Heard {
    to_mac: MacAddr,
    to: Ipv4Addr,
    from: Ipv4Addr,
    message: v4::Message,
    raw: Vec<u8>,
}

impl Heard {
    fn kind(&self) -> v4::MessageType {
        self.message.opts().msg_type().unwrap()
    }

    /// The value of an option, as it is on the wire.
    fn option(&self, code: u8) -> Option<Vec<u8>> {
        let mut rest = &self.raw[240..];
        let mut value = None;
        while let [found, length, tail @ ..] = rest
            && *found != 255
        {
            let (bytes, tail) = tail.split_at(usize::from(*length));
            if *found == code {
                value = Some(bytes.to_vec());
            }
            rest = tail;
        }
        value
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code)
            .map(|bytes| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()))
    }
}

#[test]
fn discover_is_offered_the_bindings_address() {
    let heard = Question::new(v4::MessageType::Discover).ask(&client());
    assert_eq!(heard.kind(), v4::MessageType::Offer);
    assert_eq!(heard.message.yiaddr(), IP);
    assert_eq!(heard.message.ciaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!((heard.from, heard.to, heard.to_mac), (GATEWAY, IP, GUEST));
    assert_eq!(heard.address(54), Some(GATEWAY));
    assert_eq!(heard.address(1), Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!(heard.address(3), Some(GATEWAY));
    assert_eq!(heard.address(28), Some(Ipv4Addr::new(10, 0, 0, 255)));
    assert_eq!(heard.option(51), Some(604_800_u32.to_be_bytes().to_vec()));
    assert_eq!(heard.option(58), Some(3600_u32.to_be_bytes().to_vec()));
    assert_eq!(heard.option(59), Some(529_200_u32.to_be_bytes().to_vec()));
    assert_eq!(heard.option(12), Some(b"snf-1".to_vec()));
    assert_eq!(heard.option(15), None, "no domain is known");
}

#[test]
fn a_client_that_cannot_take_unicast_gets_broadcast() {
    let question =
        Question::new(v4::MessageType::Discover).flags(v4::Flags::default().set_broadcast());
    let heard = question.ask(&client());
    assert_eq!(
        (heard.to, heard.to_mac),
        (Ipv4Addr::BROADCAST, MacAddr::BROADCAST)
    );
    assert!(heard.message.flags().broadcast());
}

#[test]
fn a_request_is_confirmed_or_refused_by_the_state_it_comes_from() {
    let request = || Question::new(v4::MessageType::Request);
    let server = || DhcpOption::ServerIdentifier(GATEWAY);
    let wants = DhcpOption::RequestedIpAddress;
    let (ack, nak) = (v4::MessageType::Ack, v4::MessageType::Nak);
    for (state, question, kind) in [
        ("selecting", request().with(server()).with(wants(IP)), ack),
        (
            "selecting another address",
            request().with(server()).with(wants(OTHER)),
            nak,
        ),
        ("init-reboot", request().with(wants(IP)), ack),
        (
            "init-reboot, other address",
            request().with(wants(OTHER)),
            nak,
        ),
        ("renewing", request().ciaddr(IP), ack),
        ("renewing another address", request().ciaddr(OTHER), nak),
        (
            "renewing, with server id",
            request().ciaddr(IP).with(server()),
            ack,
        ),
        ("both, the same", request().ciaddr(IP).with(wants(IP)), ack),
        (
            "both, another wanted",
            request().ciaddr(IP).with(wants(OTHER)),
            nak,
        ),
        (
            "both, another held",
            request().ciaddr(OTHER).with(wants(IP)),
            nak,
        ),
    ] {
        let heard = question.ask(&client());
        assert_eq!(heard.kind(), kind, "{state}");
        if kind == nak {
            // RFC 2131, table 3, and broadcast, since the client's address is not good.
            assert_eq!(heard.message.yiaddr(), Ipv4Addr::UNSPECIFIED, "{state}");
            assert_eq!(heard.message.ciaddr(), Ipv4Addr::UNSPECIFIED, "{state}");
            assert_eq!(
                (heard.to, heard.to_mac),
                (Ipv4Addr::BROADCAST, MacAddr::BROADCAST),
                "{state}"
            );
            assert_eq!(heard.address(54), Some(GATEWAY), "{state}");
            assert_eq!(heard.option(51), None, "{state}");
        } else {
            assert_eq!(heard.message.yiaddr(), IP, "{state}");
            assert_eq!(heard.to, IP, "{state}");
        }
    }
    let elsewhere = request()
        .with(DhcpOption::ServerIdentifier(OTHER))
        .with(wants(IP));
    assert_eq!(elsewhere.reason(&client()), Reason::OtherServer);
    assert_eq!(
        request().reason(&client()),
        Reason::MalformedDhcp4,
        "names no address"
    );
}

#[test]
fn inform_gets_the_rest_without_a_lease() {
    let heard = Question::new(v4::MessageType::Inform)
        .ciaddr(OTHER)
        .ask(&client());
    assert_eq!(heard.kind(), v4::MessageType::Ack);
    assert_eq!(heard.message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!((heard.to, heard.to_mac), (OTHER, GUEST));
    for code in [51, 58, 59] {
        assert_eq!(heard.option(code), None, "RFC 2131, section 4.3.5");
    }
    assert_eq!(heard.address(3), Some(GATEWAY));
    let nobody = Question::new(v4::MessageType::Inform);
    assert_eq!(nobody.reason(&client()), Reason::MalformedDhcp4);
}

#[test]
fn what_is_not_answered_has_its_reason() {
    let client = client();
    let discover = || Question::new(v4::MessageType::Discover);
    assert_eq!(
        Question::new(v4::MessageType::Release)
            .ciaddr(IP)
            .reason(&client),
        Reason::NoReply
    );
    assert_eq!(
        Question::new(v4::MessageType::Decline).reason(&client),
        Reason::NoReply
    );
    assert_eq!(
        Question::new(v4::MessageType::Offer).reason(&client),
        Reason::NotAClient
    );

    let mut bootp = discover();
    bootp.message.opts_mut().remove(OptionCode::MessageType);
    bootp
        .message
        .opts_mut()
        .insert(DhcpOption::Hostname("x".to_owned()));
    assert_eq!(bootp.reason(&client), Reason::Bootp);

    let mut relayed = discover();
    relayed.message.set_giaddr(OTHER);
    assert_eq!(relayed.reason(&client), Reason::Relayed);

    let mut other = client.clone();
    other.binding.mac = MacAddr::new([0xaa, 0, 0, 0, 0, 2]);
    assert_eq!(discover().reason(&other), Reason::SpoofedMac);
    // The frame is the guest's own, but it asks for another's.
    let mut foreign = discover();
    foreign.message.set_chaddr(&[0xaa, 0, 0, 0, 0, 3]);
    assert_eq!(foreign.reason(&client), Reason::SpoofedChaddr);

    let mut bare = client.clone();
    bare.binding.ip = None;
    assert_eq!(discover().reason(&bare), Reason::NoAddress);
    let mut off = client.clone();
    set(&mut off, |profile| profile.dhcp.enabled = false);
    assert_eq!(
        ask(&off, &discover().packet()).0,
        Action::Pass,
        "another server may answer"
    );
}

#[test]
fn with_macspoof_any_address_is_the_guests() {
    let mut client = client();
    client.binding.macspoof = true;
    let inner = MacAddr::new([0xaa, 0, 0, 0, 0, 3]);
    let mut question = Question::new(v4::MessageType::Discover);
    question.message.set_chaddr(&inner.octets());
    let (action, frame) = ask_from(&client, &question.packet(), inner);
    assert!(matches!(action, Action::Reply(_)));
    assert_eq!(frame[..6], inner.octets());
}

#[test]
fn the_client_gets_what_it_asks_for_in_its_own_order() {
    let mut client = client();
    client.binding.domain = vec!["a.example".parse().unwrap(), "b.example".parse().unwrap()];
    client.binding.nameservers = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    client.binding.mtu = Some(1450);
    set(&mut client, |profile| {
        profile.dhcp.ntp = vec![OTHER];
        profile.dhcp.nameservers = vec![OTHER];
        profile.dhcp.ipv6_only_wait = Some(Duration::from_secs(1800));
        profile.dhcp.captive_portal = Some("https://x.example/".to_owned());
    });
    let asked = Question::new(v4::MessageType::Discover).wanting(&[42, 6, 119, 15, 108, 114]);
    let heard = asked.ask(&client);
    assert_eq!(
        heard.option(6),
        Some(vec![192, 0, 2, 1]),
        "the binding's come first"
    );
    assert_eq!(heard.option(15), Some(b"a.example".to_vec()));
    assert_eq!(
        heard.option(119),
        Some(b"\x01a\x07example\0\x01b\x07example\0".to_vec())
    );
    assert_eq!(heard.option(42), Some(OTHER.octets().to_vec()));
    assert_eq!(heard.option(108), Some(1800_u32.to_be_bytes().to_vec()));
    assert_eq!(heard.option(114), Some(b"https://x.example/".to_vec()));
    assert_eq!(
        heard.option(26),
        Some(1450_u16.to_be_bytes().to_vec()),
        "asked or not"
    );
    assert_eq!(heard.option(12), None, "not asked for");
    let (_, frame) = ask(&client, &asked.packet());
    let at = |code| {
        let mut rest = &frame[frame::DHCP4_OFFSET + 240..];
        let mut codes = Vec::new();
        while rest[0] != 255 {
            codes.push(rest[0]);
            rest = &rest[2 + usize::from(rest[1])..];
        }
        codes.iter().position(|found| *found == code).unwrap()
    };
    assert_eq!(at(53), 0);
    assert!(at(42) < at(6) && at(6) < at(119) && at(119) < at(15));
    // 108 and 114 are for those alone who ask.
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!((heard.option(108), heard.option(114)), (None, None));
}

#[test]
fn the_domain_follows_the_name_where_nothing_else_is_said() {
    let mut client = client();
    client.binding.hostname = "web.corp.example".to_owned();
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(heard.option(12), Some(b"web".to_vec()));
    assert_eq!(heard.option(15), Some(b"corp.example".to_vec()));
    set(&mut client, |profile| {
        profile.dhcp.domain = Some("conf.example".parse().unwrap())
    });
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(heard.option(15), Some(b"conf.example".to_vec()));
}

#[test]
fn a_gateway_outside_the_prefix_comes_with_a_route_to_it() {
    let mut client = client();
    client.binding.subnet = Some("10.0.0.5/32".parse().unwrap());
    client.binding.gateway = Some("192.0.2.1".parse().unwrap());
    let heard = Question::new(v4::MessageType::Discover)
        .wanting(&[1, 3])
        .ask(&client);
    assert_eq!(heard.address(1), Some(Ipv4Addr::BROADCAST));
    assert_eq!(heard.address(3), Some(Ipv4Addr::new(192, 0, 2, 1)));
    // 192.0.2.1/32 directly, then 0.0.0.0/0 by way of it.
    let routes = vec![32, 192, 0, 2, 1, 0, 0, 0, 0, 0, 192, 0, 2, 1];
    assert_eq!(heard.option(121), Some(routes.clone()));
    assert_eq!(heard.option(249), Some(routes));
    // No broadcast address in a prefix of one.
    let heard = Question::new(v4::MessageType::Discover)
        .wanting(&[28])
        .ask(&client);
    assert_eq!(heard.option(28), None);
    // A Windows guest is shown a prefix in which the gateway is.
    client.binding.gateway = Some("10.0.1.1".parse().unwrap());
    client.binding.no_onlink32 = true;
    let heard = Question::new(v4::MessageType::Discover)
        .wanting(&[1, 3, 121, 249])
        .ask(&client);
    assert_eq!(heard.address(1), Some(Ipv4Addr::new(255, 255, 254, 0)));
    assert_eq!(heard.address(3), Some(Ipv4Addr::new(10, 0, 1, 1)));
    assert_eq!(heard.option(121), None);
}

#[test]
fn routes_of_the_binding_come_with_the_default_one() {
    let mut client = client();
    let route = |destination: &str, via| agents::binding::Route {
        destination: destination.parse().unwrap(),
        via,
    };
    client.binding.routes = vec![route("192.0.2.0/25", OTHER), route("172.16.0.0/12", OTHER)];
    let heard = Question::new(v4::MessageType::Discover)
        .wanting(&[3, 121])
        .ask(&client);
    let default = [0, 10, 0, 0, 1];
    let first = [25, 192, 0, 2, 0, 10, 0, 0, 9];
    let second = [12, 172, 16, 10, 0, 0, 9];
    let all = [&default[..], &first, &second].concat();
    assert_eq!(heard.option(121), Some(all));
    assert_eq!(heard.option(249), None, "not asked for");
    // One that brings its own default route replaces the gateway's.
    client.binding.routes = vec![route("0.0.0.0/0", OTHER)];
    let heard = Question::new(v4::MessageType::Discover)
        .wanting(&[121])
        .ask(&client);
    assert_eq!(heard.option(121), Some(vec![0, 10, 0, 0, 9]));
}

#[test]
fn a_private_network_has_no_router() {
    let mut client = client();
    client.binding.private = true;
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(heard.option(3), None);
    assert_eq!(
        heard.address(54),
        Some(GATEWAY),
        "the server is still there"
    );
}

#[test]
fn the_server_is_the_same_on_every_node() {
    let fixed = Ipv4Addr::new(192, 0, 2, 67);
    let mut client = client();
    set(&mut client, |profile| {
        profile.dhcp.server = ServerId::Fixed(fixed)
    });
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!((heard.from, heard.address(54)), (fixed, Some(fixed)));
    set(&mut client, |profile| {
        profile.dhcp.server = ServerId::OnLink
    });
    client.binding.gateway = None;
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(
        heard.address(54),
        Some(GATEWAY),
        "the first address of the prefix"
    );
    client.binding.ip = Some(GATEWAY);
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(
        heard.address(54),
        Some(Ipv4Addr::new(10, 0, 0, 2)),
        "but not the guest's own"
    );
    client.binding.subnet = None;
    let heard = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(heard.address(54), Some(Ipv4Addr::new(192, 0, 0, 8)));
}

#[test]
fn client_id_and_relay_information_come_back() {
    let mut question = Question::new(v4::MessageType::Discover)
        .with(DhcpOption::ClientIdentifier(vec![255, 1, 2, 3]));
    question.extra = vec![82, 3, 1, 1, 9];
    let heard = question.ask(&client());
    assert_eq!(heard.option(61), Some(vec![255, 1, 2, 3]));
    assert_eq!(heard.option(82), Some(vec![1, 1, 9]));
    let heard = Question::new(v4::MessageType::Request)
        .with(DhcpOption::ClientIdentifier(vec![7]))
        .ciaddr(OTHER)
        .ask(&client());
    assert_eq!(
        (heard.kind(), heard.option(61)),
        (v4::MessageType::Nak, Some(vec![7]))
    );
}

#[test]
fn network_boot_by_architecture_and_class() {
    let mut client = client();
    let entry = |architecture, class: &str, user_class: &str, file: &str| Boot {
        architecture,
        class: class.to_owned(),
        user_class: user_class.to_owned(),
        next_server: Some(OTHER),
        server_name: "boot.example".to_owned(),
        file: file.to_owned(),
    };
    set(&mut client, |profile| {
        profile.dhcp.boot = vec![
            entry(None, "", "iPXE", "http://boot.example/script"),
            entry(Some(7), "PXEClient", "", "uefi.efi"),
            entry(Some(0), "", "", "bios.0"),
        ];
    });
    let option = |code: u8, bytes: &[u8]| {
        DhcpOption::Unknown(v4::UnknownOption::new(
            OptionCode::from(code),
            bytes.to_vec(),
        ))
    };
    let pxe = |architecture: u8| {
        Question::new(v4::MessageType::Discover)
            .with(option(60, b"PXEClient:Arch:00007:UNDI:003016"))
            .with(option(93, &[0, architecture]))
    };
    let heard = pxe(7).ask(&client);
    assert_eq!(heard.message.siaddr(), OTHER);
    assert_eq!(name(heard.message.fname()), Some(&b"uefi.efi"[..]));
    assert_eq!(name(heard.message.sname()), Some(&b"boot.example"[..]));
    assert_eq!(heard.option(60), Some(b"PXEClient".to_vec()));
    assert_eq!(heard.option(67), Some(b"uefi.efi".to_vec()));
    assert_eq!(
        name(pxe(0).ask(&client).message.fname()),
        Some(&b"bios.0"[..])
    );
    let again = pxe(7).with(option(77, b"iPXE")).ask(&client);
    assert_eq!(
        name(again.message.fname()),
        Some(&b"http://boot.example/script"[..])
    );
    // An architecture without entry, and a client that does not boot, hear nothing of it.
    assert_eq!(name(pxe(11).ask(&client).message.fname()), None);
    let plain = Question::new(v4::MessageType::Discover).ask(&client);
    assert_eq!(
        (plain.message.siaddr(), name(plain.message.fname())),
        (Ipv4Addr::UNSPECIFIED, None)
    );
}

/// A name in its field of fixed length, without the zero behind it.
fn name(field: Option<&[u8]>) -> Option<&[u8]> {
    field.map(|field| field.strip_suffix(&[0]).unwrap_or(field))
}

impl Heard {
    /// The pieces of an option in the order of RFC 3396, section 5: options, `file`, `sname`.
    fn pieces(&self, code: u8) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut overload = 0;
        let read = |mut rest: &[u8], found: &mut Vec<Vec<u8>>, overload: &mut u8| {
            while let [at, tail @ ..] = rest
                && *at != 255
            {
                if *at == 0 {
                    rest = tail;
                    continue;
                }
                let (length, tail) = tail.split_first().unwrap();
                let (bytes, tail) = tail.split_at(usize::from(*length));
                if *at == code {
                    found.push(bytes.to_vec());
                }
                if *at == 52 {
                    *overload = bytes[0];
                }
                rest = tail;
            }
            assert!(rest.first() == Some(&255), "no end option");
        };
        read(&self.raw[240..], &mut found, &mut overload);
        if overload & 1 != 0 {
            read(&self.raw[108..236], &mut found, &mut 0);
        }
        if overload & 2 != 0 {
            read(&self.raw[44..108], &mut found, &mut 0);
        }
        found
    }
}

/// Routes of an option 121; `None` if it does not end where a route does.
fn routes(mut bytes: &[u8]) -> Option<Vec<(Ipv4Net, Ipv4Addr)>> {
    let mut found = Vec::new();
    while let [length, rest @ ..] = bytes {
        let significant = usize::from(length.div_ceil(8));
        let (shown, rest) = rest.split_at_checked(significant)?;
        let (via, rest) = rest.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets.get_mut(..significant)?.copy_from_slice(shown);
        let destination = Ipv4Net::new(octets.into(), *length).ok()?;
        found.push((destination, Ipv4Addr::from(*via)));
        bytes = rest;
    }
    Some(found)
}

/// With so many routes of nine bytes, and the default one.
fn with_routes(count: u8) -> Client {
    let mut client = client();
    client.binding.routes = (0..count)
        .map(|number| agents::binding::Route {
            destination: Ipv4Net::new(Ipv4Addr::new(172, 16, number, 0), 32).unwrap(),
            via: OTHER,
        })
        .collect();
    client
}

#[test]
fn a_long_list_of_routes_goes_out_in_pieces_of_whole_routes() {
    for size in [None, Some(576_u16), Some(700), Some(1500)] {
        for count in [1, 20, 27, 28, 29, 45, 60, 120, 200] {
            for codes in [&[121][..], &[249], &[121, 249, 6, 15]] {
                let client = with_routes(count);
                let mut question = Question::new(v4::MessageType::Discover).wanting(codes);
                if let Some(size) = size {
                    question = question.with(DhcpOption::MaxMessageSize(size));
                }
                let heard = question.ask(&client);
                let told = codes[0];
                let mut all = Vec::new();
                let pieces = heard.pieces(told);
                assert!(!pieces.is_empty(), "{size:?} {count} {codes:?}");
                for piece in &pieces {
                    // Some clients read each piece by itself.
                    let whole = routes(piece);
                    all.extend(whole.unwrap_or_else(|| panic!("{size:?} {count}: {piece:?}")));
                }
                assert_eq!(all[0], (Ipv4Net::default(), GATEWAY));
                for (own, told) in client.binding.routes.iter().zip(&all[1..]) {
                    assert_eq!((own.destination, own.via), *told);
                }
                let most = usize::from(size.unwrap_or(576)).max(576);
                assert!(heard.raw.len() + 28 <= most);
                // As another implementation reads it.
                let joined: usize = pieces.iter().map(Vec::len).sum();
                assert!(joined == all.len() * 9 - 4, "{joined}");
                let complete = all.len() == usize::from(count) + 1;
                if size == Some(1500) && count <= 120 {
                    assert!(complete, "{} of {count} {codes:?}", all.len());
                }
                if !complete {
                    // No room is left that one more route would fit into.
                    assert!(all.len() * 9 + 60 > most - 28 - 240 || codes.len() > 1);
                    assert!(all.len() > 40, "{size:?} {count}: {}", all.len());
                }
            }
        }
    }
}

#[test]
fn lists_of_addresses_and_names_are_cut_between_items_and_do_not_starve_others() {
    let mut client = with_routes(200);
    let server = |number: u8| Ipv4Addr::new(192, 0, 2, number);
    client.binding.nameservers = (0..150).map(|number| server(number).into()).collect();
    set(&mut client, |profile| {
        profile.dhcp.ntp = (0..100).map(server).collect();
        profile.dhcp.search = (0..60)
            .map(|number| {
                format!("a-rather-long-label-{number}.example.com")
                    .parse()
                    .unwrap()
            })
            .collect();
        profile.dhcp.domain = Some("example.com".parse().unwrap());
    });
    for size in [576_u16, 1000, 1500] {
        let heard = Question::new(v4::MessageType::Request)
            .with(DhcpOption::RequestedIpAddress(IP))
            .with(DhcpOption::MaxMessageSize(size))
            .wanting(&[1, 3, 121, 119, 6, 42, 12, 15, 28])
            .ask(&client);
        assert!(heard.raw.len() + 28 <= usize::from(size));
        for code in [1, 3, 12, 15, 28, 51, 54] {
            assert_eq!(heard.pieces(code).len(), 1, "{size}: option {code}");
        }
        for piece in heard.pieces(6).iter().chain(&heard.pieces(42)) {
            assert_eq!(piece.len() % 4, 0);
        }
        for piece in heard.pieces(119) {
            assert_eq!(piece.last(), Some(&0), "a name is cut");
        }
        for piece in heard.pieces(121) {
            assert!(routes(&piece).is_some());
        }
        // Each list has at least its first item.
        for code in [121, 119, 6, 42] {
            assert!(!heard.pieces(code).is_empty(), "{size}: option {code}");
        }
    }
}

#[test]
fn the_route_to_a_gateway_outside_the_prefix_is_never_left_out() {
    let mut client = with_routes(200);
    client.binding.gateway = Some("192.0.2.1".parse().unwrap());
    client.binding.nameservers = (0..150)
        .map(|number| Ipv4Addr::new(192, 0, 2, number).into())
        .collect();
    for codes in [&[6][..], &[1, 3, 6, 249], &[1, 3, 6, 121], &[1, 121, 249]] {
        let heard = Question::new(v4::MessageType::Discover)
            .wanting(codes)
            .ask(&client);
        let wanted = if codes.contains(&249) && !codes.contains(&121) {
            249
        } else {
            121
        };
        let told = heard.pieces(wanted);
        let told = routes(told.first().expect("routes")).unwrap();
        let gateway = client.binding.gateway.unwrap();
        assert_eq!(
            told[0],
            (gateway.into(), Ipv4Addr::UNSPECIFIED),
            "{codes:?}"
        );
        assert_eq!(told[1], (Ipv4Net::default(), gateway), "{codes:?}");
    }
}
