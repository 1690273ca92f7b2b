//! Requests are made, and replies read, by another implementation of DHCPv6 (dhcproto).

use super::*;
use crate::respond::testing::{
    GUEST, GUEST_LINK_LOCAL, HOST, HOST_LINK_LOCAL, ask, client, dhcp6_packet, set,
};
use dhcproto::v6::{self, DhcpOption, MessageType as M};
use dhcproto::{Decodable as _, Decoder, Encodable as _};

const DUID: [u8; 10] = [0, 3, 0, 1, 0xaa, 0, 0, 0, 0, 1];

fn all_servers() -> Ipv6Addr {
    "ff02::1:2".parse().unwrap()
}

fn address() -> Ipv6Addr {
    "fd66:1::5".parse().unwrap()
}

fn stateful() -> Client {
    let mut client = client();
    client.binding.ip6 = Some(address());
    client
}

fn our_duid() -> Vec<u8> {
    client().profile.ipv6.server_duid.clone()
}

struct Question(v6::Message);

impl Question {
    fn new(kind: M) -> Self {
        let mut message = v6::Message::new_with_id(kind, [1, 2, 3]);
        message
            .opts_mut()
            .insert(DhcpOption::ClientId(DUID.to_vec()));
        Self(message)
    }

    fn with(mut self, option: DhcpOption) -> Self {
        self.0.opts_mut().insert(option);
        self
    }

    fn meant_for_us(self) -> Self {
        self.with(DhcpOption::ServerId(our_duid()))
    }

    fn ia(self, id: u32, addresses: &[Ipv6Addr]) -> Self {
        let mut opts = v6::DhcpOptions::new();
        for addr in addresses {
            let inner = v6::IAAddr {
                addr: *addr,
                preferred_life: 0,
                valid_life: 0,
                opts: v6::DhcpOptions::new(),
            };
            opts.insert(DhcpOption::IAAddr(inner));
        }
        self.with(DhcpOption::IANA(v6::IANA {
            id,
            t1: 0,
            t2: 0,
            opts,
        }))
    }

    fn wanting(self, codes: &[u16]) -> Self {
        let opts = codes
            .iter()
            .map(|code| v6::OptionCode::from(*code))
            .collect();
        self.with(DhcpOption::ORO(v6::ORO { opts }))
    }

    fn packet(&self) -> Vec<u8> {
        dhcp6_packet(GUEST_LINK_LOCAL, all_servers(), &self.0.to_vec().unwrap())
    }

    fn action(&self, client: &Client) -> Action {
        ask(client, &self.packet()).0
    }

    fn ask(&self, client: &Client) -> v6::Message {
        let (action, frame) = ask(client, &self.packet());
        assert!(
            matches!(action, Action::Reply(Answer::Dhcp6(_))),
            "{action:?}"
        );
        assert_eq!(frame[..6], GUEST.octets());
        assert_eq!(frame[6..12], HOST.octets());
        let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv6(ip)) = packet.net else {
            panic!()
        };
        assert_eq!(ip.header().source_addr(), HOST_LINK_LOCAL);
        assert_eq!(ip.header().destination_addr(), GUEST_LINK_LOCAL);
        let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else {
            panic!()
        };
        assert_eq!((udp.source_port(), udp.destination_port()), (547, 546));
        let message = v6::Message::decode(&mut Decoder::new(udp.payload())).unwrap();
        assert_eq!(message.xid(), [1, 2, 3]);
        assert_eq!(
            message.opts().get(v6::OptionCode::ClientId),
            Some(&DhcpOption::ClientId(DUID.to_vec()))
        );
        assert_eq!(
            message.opts().get(v6::OptionCode::ServerId),
            Some(&DhcpOption::ServerId(our_duid()))
        );
        message
    }
}

fn iana(message: &v6::Message, index: usize) -> &v6::IANA {
    let all = message.opts().get_all(v6::OptionCode::IANA).unwrap();
    let Some(DhcpOption::IANA(iana)) = all.get(index) else {
        panic!("{all:?}")
    };
    iana
}

fn addresses(iana: &v6::IANA) -> Vec<(Ipv6Addr, u32, u32)> {
    let all = iana
        .opts
        .get_all(v6::OptionCode::IAAddr)
        .unwrap_or_default();
    all.iter()
        .map(|option| match option {
            DhcpOption::IAAddr(inner) => (inner.addr, inner.preferred_life, inner.valid_life),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn status(opts: &v6::DhcpOptions) -> Option<v6::Status> {
    match opts.get(v6::OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(code)) => Some(code.status),
        _ => None,
    }
}

#[test]
fn the_four_messages_of_an_address() {
    let client = stateful();
    let offer = Question::new(M::Solicit).ia(7, &[]).ask(&client);
    assert_eq!(offer.msg_type(), M::Advertise);
    assert_eq!(
        offer.opts().get(v6::OptionCode::Preference),
        Some(&DhcpOption::Preference(255))
    );
    let ia = iana(&offer, 0);
    assert_eq!((ia.id, ia.t1, ia.t2), (7, 7200, 11_520));
    assert_eq!(addresses(ia), [(address(), 14_400, 86_400)]);

    let reply = Question::new(M::Request)
        .meant_for_us()
        .ia(7, &[address()])
        .ask(&client);
    assert_eq!(reply.msg_type(), M::Reply);
    assert_eq!(addresses(iana(&reply, 0)), [(address(), 14_400, 86_400)]);
    for kind in [M::Renew, M::Rebind] {
        let question = Question::new(kind).ia(7, &[address()]);
        let question = if kind == M::Renew {
            question.meant_for_us()
        } else {
            question
        };
        assert_eq!(addresses(iana(&question.ask(&client), 0)).len(), 1);
    }
}

#[test]
fn rapid_commit_is_a_reply_at_once() {
    let question = Question::new(M::Solicit)
        .ia(7, &[])
        .with(DhcpOption::RapidCommit);
    let reply = question.ask(&stateful());
    assert_eq!(reply.msg_type(), M::Reply);
    assert!(reply.opts().get(v6::OptionCode::RapidCommit).is_some());
    assert_eq!(addresses(iana(&reply, 0)).len(), 1);
}

#[test]
fn an_address_that_is_not_the_guests_is_taken_back() {
    let other: Ipv6Addr = "fd66:1::9".parse().unwrap();
    let reply = Question::new(M::Rebind).ia(7, &[other]).ask(&stateful());
    assert_eq!(
        addresses(iana(&reply, 0)),
        [(address(), 14_400, 86_400), (other, 0, 0)]
    );
}

#[test]
fn one_address_goes_to_one_association_and_other_kinds_get_none() {
    let question = Question::new(M::Request)
        .meant_for_us()
        .ia(1, &[])
        .ia(2, &[])
        .with(DhcpOption::IAPD(v6::IAPD {
            id: 3,
            t1: 0,
            t2: 0,
            opts: v6::DhcpOptions::new(),
        }));
    let reply = question.ask(&stateful());
    assert_eq!(addresses(iana(&reply, 0)).len(), 1);
    assert_eq!(addresses(iana(&reply, 1)).len(), 0);
    assert_eq!(
        status(&iana(&reply, 1).opts),
        Some(v6::Status::NoAddrsAvail)
    );
    let Some(DhcpOption::IAPD(prefix)) = reply.opts().get(v6::OptionCode::IAPD) else {
        panic!()
    };
    assert_eq!(status(&prefix.opts), Some(v6::Status::NoPrefixAvail));
}

#[test]
fn without_an_address_the_client_is_told_so() {
    let offer = Question::new(M::Solicit).ia(7, &[]).ask(&client());
    assert_eq!(offer.msg_type(), M::Advertise);
    assert_eq!(status(offer.opts()), Some(v6::Status::NoAddrsAvail));
    assert_eq!(
        status(&iana(&offer, 0).opts),
        Some(v6::Status::NoAddrsAvail)
    );
}

#[test]
fn confirm_release_and_decline() {
    let client = stateful();
    let slaac: Ipv6Addr = "fd66:1::1:2:3".parse().unwrap();
    let reply = Question::new(M::Confirm)
        .ia(7, &[address(), slaac])
        .ask(&client);
    assert_eq!(status(reply.opts()), Some(v6::Status::Success));
    let elsewhere = "2001:db8::1".parse().unwrap();
    let reply = Question::new(M::Confirm)
        .ia(7, &[address(), elsewhere])
        .ask(&client);
    assert_eq!(status(reply.opts()), Some(v6::Status::NotOnLink));
    let nothing = Question::new(M::Confirm).ia(7, &[]);
    assert_eq!(nothing.action(&client), Action::Drop(Reason::NoReply));
    for kind in [M::Release, M::Decline] {
        let reply = Question::new(kind)
            .meant_for_us()
            .ia(7, &[address()])
            .ask(&client);
        assert_eq!(reply.msg_type(), M::Reply);
        assert_eq!(status(reply.opts()), Some(v6::Status::Success));
    }
}

#[test]
fn information_is_given_as_asked_for() {
    let mut client = client();
    client.binding.domain = vec!["a.example".parse().unwrap()];
    let server: Ipv6Addr = "2001:db8::53".parse().unwrap();
    set(&mut client, |profile| {
        profile.ipv6.nameservers = vec![server];
        profile.ipv6.ntp = vec![server];
        profile.ipv6.boot_file_url = Some("http://x/".to_owned());
    });
    let all = [23, 24, 31, 32, 39, 56, 59];
    let reply = Question::new(M::InformationRequest)
        .wanting(&all)
        .ask(&client);
    assert_eq!(reply.msg_type(), M::Reply);
    let option = |code: u16| {
        reply
            .opts()
            .get(v6::OptionCode::from(code))
            .map(|o| o.to_vec().unwrap())
    };
    let expected = |code: u8, value: &[u8]| {
        Some([&[0, code, 0, u8::try_from(value.len()).unwrap()], value].concat())
    };
    assert_eq!(option(23), expected(23, &server.octets()));
    assert_eq!(option(24), expected(24, b"\x01a\x07example\0"));
    assert_eq!(option(31), expected(31, &server.octets()));
    assert_eq!(option(32), expected(32, &[0, 0, 14, 16]));
    assert_eq!(option(39), expected(39, b"\x04\x05snf-1\x01a\x07example\0"));
    assert_eq!(
        option(56),
        expected(56, &[&[0, 1, 0, 16][..], &server.octets()].concat())
    );
    assert_eq!(option(59), expected(59, b"http://x/"));
    // A client that says nothing gets what everybody needs.
    let reply = Question::new(M::InformationRequest).ask(&client);
    let has = |code: u16| reply.opts().get(v6::OptionCode::from(code)).is_some();
    assert!(has(23) && has(24) && !has(56) && !has(59));
}

#[test]
fn what_rfc_8415_calls_invalid_is_dropped() {
    let client = stateful();
    let malformed = Action::Drop(Reason::MalformedDhcp6);
    let other = || DhcpOption::ServerId(vec![0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    assert_eq!(
        Question::new(M::Solicit).meant_for_us().action(&client),
        malformed
    );
    assert_eq!(Question::new(M::Request).action(&client), malformed);
    assert_eq!(
        Question::new(M::Renew).with(other()).action(&client),
        Action::Drop(Reason::OtherServer)
    );
    assert_eq!(
        Question::new(M::InformationRequest)
            .ia(1, &[])
            .action(&client),
        malformed
    );
    let mut nameless = Question::new(M::Solicit);
    nameless.0.opts_mut().remove(v6::OptionCode::ClientId);
    assert_eq!(nameless.action(&client), malformed);
    assert_eq!(
        Question::new(M::Reply).action(&client),
        Action::Drop(Reason::NotAClient)
    );

    let global: Ipv6Addr = "fd66:1::5".parse().unwrap();
    let message = Question::new(M::Solicit).0.to_vec().unwrap();
    let packet = dhcp6_packet(global, all_servers(), &message);
    assert_eq!(ask(&client, &packet).0, Action::Drop(Reason::NotLinkLocal));
}

#[test]
fn where_dhcpv6_is_off_the_packet_goes_on() {
    let mut slaac = client();
    set(&mut slaac, |profile| profile.ipv6.mode = Mode::Slaac);
    assert_eq!(Question::new(M::Solicit).action(&slaac), Action::Pass);
    let mut elsewhere = client();
    elsewhere.binding.subnet6 = None;
    assert_eq!(Question::new(M::Solicit).action(&elsewhere), Action::Pass);
    elsewhere.port.bridged = false;
    assert_eq!(
        Question::new(M::Solicit).action(&elsewhere),
        Action::Drop(Reason::NoAddress)
    );
}

/// The association with this number.
fn ia_of(message: &v6::Message, id: u32) -> &v6::IANA {
    let all = message.opts().get_all(v6::OptionCode::IANA).unwrap();
    let found = all.iter().find_map(|option| match option {
        DhcpOption::IANA(ia) if ia.id == id => Some(ia),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no association {id}: {all:?}"))
}

fn iapd(question: Question, id: u32) -> Question {
    question.with(DhcpOption::IAPD(v6::IAPD {
        id,
        t1: 0,
        t2: 0,
        opts: v6::DhcpOptions::new(),
    }))
}

fn prefix_status(message: &v6::Message) -> Option<v6::Status> {
    match message.opts().get(v6::OptionCode::IAPD) {
        Some(DhcpOption::IAPD(prefix)) => status(&prefix.opts),
        _ => None,
    }
}

#[test]
fn a_solicit_without_an_address_to_give_is_told_so_in_advertise_and_in_reply() {
    for client in [client(), {
        let mut stateless = stateful();
        set(&mut stateless, |profile| {
            profile.ipv6.mode = Mode::SlaacDhcp6
        });
        stateless
    }] {
        for (rapid, kind) in [(false, M::Advertise), (true, M::Reply)] {
            let mut question = Question::new(M::Solicit).ia(7, &[address()]).ia(8, &[]);
            if rapid {
                question = question.with(DhcpOption::RapidCommit);
            }
            let answer = question.ask(&client);
            assert_eq!(answer.msg_type(), kind);
            for id in [7, 8] {
                let ia = ia_of(&answer, id);
                assert_eq!(status(&ia.opts), Some(v6::Status::NoAddrsAvail));
                assert!(addresses(ia).is_empty());
                assert_eq!((ia.t1, ia.t2), (0, 0));
            }
            assert_eq!(status(answer.opts()), Some(v6::Status::NoAddrsAvail));
            let rapidly = answer.opts().get(v6::OptionCode::RapidCommit).is_some();
            assert_eq!(rapidly, rapid);

            let mut question = iapd(Question::new(M::Solicit), 3);
            if rapid {
                question = question.with(DhcpOption::RapidCommit);
            }
            let answer = question.ask(&client);
            assert_eq!(prefix_status(&answer), Some(v6::Status::NoPrefixAvail));
            assert_eq!(status(answer.opts()), Some(v6::Status::NoPrefixAvail));
        }
    }
}

#[test]
fn a_client_that_holds_what_it_was_not_given_is_told_that_there_is_no_binding() {
    let other: Ipv6Addr = "fd66:1::9".parse().unwrap();
    for client in [client(), stateful()] {
        for kind in [M::Renew, M::Rebind] {
            let question = Question::new(kind)
                .ia(7, &[other])
                .ia(8, &[other])
                .ia(9, &[]);
            let question = iapd(question, 3);
            let question = if kind == M::Renew {
                question.meant_for_us()
            } else {
                question
            };
            let reply = question.ask(&client);
            assert_eq!(reply.msg_type(), M::Reply);
            let mut given = 0;
            for id in [7, 8, 9] {
                let ia = ia_of(&reply, id);
                // What it holds is taken back.
                let held: &[_] = if id < 9 { &[(other, 0, 0)] } else { &[] };
                let told = addresses(ia);
                if status(&ia.opts).is_none() {
                    given += 1;
                    assert_eq!(told[0].0, address(), "{kind:?} {id}");
                    assert_eq!(&told[1..], held, "{kind:?} {id}");
                } else {
                    assert_eq!(status(&ia.opts), Some(v6::Status::NoBinding), "{kind:?}");
                    assert_eq!(told, held, "{kind:?} {id}");
                }
            }
            assert_eq!(given, usize::from(client.binding.ip6.is_some()));
            assert_eq!(prefix_status(&reply), Some(v6::Status::NoBinding));
        }
        for kind in [M::Release, M::Decline] {
            let question = Question::new(kind).meant_for_us();
            let question = iapd(question.ia(7, &[address()]).ia(8, &[other]), 3);
            let reply = question.ask(&client);
            assert_eq!(status(reply.opts()), Some(v6::Status::Success));
            let known = client.binding.ip6.is_some();
            let all = reply.opts().get_all(v6::OptionCode::IANA).unwrap();
            assert_eq!(all.len(), if known { 1 } else { 2 }, "{kind:?}");
            let ids: &[u32] = if known { &[8] } else { &[7, 8] };
            for id in ids {
                let ia = ia_of(&reply, *id);
                assert_eq!(status(&ia.opts), Some(v6::Status::NoBinding));
                assert!(addresses(ia).is_empty());
            }
            assert_eq!(prefix_status(&reply), Some(v6::Status::NoBinding));
        }
    }
}

#[test]
fn a_request_for_an_address_of_another_link_is_refused_in_its_association() {
    let elsewhere: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let reply = Question::new(M::Request)
        .meant_for_us()
        .ia(7, &[elsewhere])
        .ia(8, &["fd66:1::9".parse().unwrap()])
        .ask(&stateful());
    let ia = ia_of(&reply, 7);
    assert_eq!(status(&ia.opts), Some(v6::Status::NotOnLink));
    assert!(addresses(ia).is_empty());
    assert_eq!(addresses(ia_of(&reply, 8))[0].0, address());
    let reply = Question::new(M::Request)
        .meant_for_us()
        .ia(7, &[address()])
        .ask(&client());
    assert_eq!(
        status(&iana(&reply, 0).opts),
        Some(v6::Status::NoAddrsAvail)
    );
    // A Solicit only hints.
    let answer = Question::new(M::Solicit)
        .ia(7, &[elsewhere])
        .ask(&stateful());
    assert_eq!(addresses(iana(&answer, 0))[0].0, address());
}

#[test]
fn lists_that_do_not_fit_are_cut_between_items() {
    for mtu in [None, Some(1280), Some(9000)] {
        let mut client = stateful();
        client.binding.mtu = mtu;
        let server = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
        set(&mut client, |profile| {
            profile.ipv6.nameservers = (0..60).map(server).collect();
            profile.ipv6.ntp = (0..60).map(server).collect();
            profile.ipv6.search = (0..200)
                .map(|number| {
                    format!("a-rather-long-label-{number}.example.com")
                        .parse()
                        .unwrap()
                })
                .collect();
        });
        let question = Question::new(M::Request)
            .meant_for_us()
            .ia(7, &[address()])
            .wanting(&[23, 24, 31, 39, 56]);
        let (action, frame) = ask(&client, &question.packet());
        assert!(matches!(action, Action::Reply(_)), "{action:?}");
        let most = usize::from(mtu.unwrap_or(1500).min(1500));
        assert!(frame.len() - 14 <= most, "{} of {most}", frame.len() - 14);
        let reply = question.ask(&client);
        assert_eq!(addresses(iana(&reply, 0)).len(), 1);
        let length = |code: u16| {
            let option = reply.opts().get(v6::OptionCode::from(code));
            option.map(|option| option.to_vec().unwrap().len() - 4)
        };
        let servers = length(23).expect("name servers");
        assert!(servers >= 16 && servers % 16 == 0, "{servers}");
        let names = length(24).expect("search list");
        // Whole names only: dhcproto reads them, and all are of two lengths.
        assert!(names >= 35, "{names}");
        if let Some(DhcpOption::DomainSearchList(list)) = reply.opts().get(v6::OptionCode::from(24))
        {
            for (number, name) in list.iter().enumerate() {
                let name = name.to_string();
                assert!(
                    name.starts_with(&format!("a-rather-long-label-{number}.example.com")),
                    "{name}"
                );
            }
        }
        assert!(length(39).is_some());
        if let Some(length) = length(31) {
            assert_eq!(length % 16, 0);
        }
        if let Some(length) = length(56) {
            assert_eq!(length % 20, 0);
        }
    }
}
