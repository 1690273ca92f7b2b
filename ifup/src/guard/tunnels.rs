//! Packets that come out of a tunnel where a host ends it: no guest is a server or a router there
//! either.
//!
//! IPv4 and IPv6 in either, GRE with any of its options (RFC 2784, RFC 2890) and Ethernet in
//! GRE or EtherIP (RFC 3378) have the inner packet at one of a few places, so that there is a
//! chain of rules for each. What cannot be looked into is dropped: a tunnel in a tunnel, IPv4
//! options before UDP, IPv6 extension headers but those of multicast listeners and fragments.
//! Tunnels over UDP have an endpoint that the receiver has configured with its peer.

use agents::netlink::nftables::{Field, Operator, Statement};

use super::chains::{Builder, GuardChain, TRANSPORT, is, known, present};
use super::sets;

/// The chain for GRE.
const GRE: &str = "gre";
/// The chain for Ethernet in IP.
const ETHER_IP: &str = "ether-ip";
const ETHERNET: u32 = 14;

fn inner(kind: u8, offset: u32) -> String {
    format!("inner{kind}-{offset}")
}

/// Adds the rules that send a tunnel's packet to its chain.
pub(super) fn dispatch(chain: Builder) -> Builder {
    let [four, six] = [inner(4, 0), inner(6, 0)];
    chain
        .goto("a tunnel of IPv4", vec![is(TRANSPORT, &[4])], &four)
        .goto("a tunnel of IPv6", vec![is(TRANSPORT, &[41])], &six)
        .goto("GRE", vec![is(TRANSPORT, &[47])], GRE)
        .goto("EtherIP", vec![is(TRANSPORT, &[97])], ETHER_IP)
}

/// The chains, those that are gone to first.
pub(super) fn all() -> Vec<GuardChain> {
    let mut offsets = vec![0, 2 + ETHERNET];
    for (_, length) in gre_forms() {
        offsets.extend([length, length + ETHERNET]);
    }
    offsets.sort_unstable();
    offsets.dedup();
    let mut chains: Vec<GuardChain> = offsets
        .iter()
        .flat_map(|offset| [inner4(*offset), inner6(*offset)])
        .collect();
    chains.push(gre());
    let chain = Builder::new(ETHER_IP);
    chains.push(
        ethernet(chain, 2, Vec::new()).end("a tunnel of Ethernet that cannot be looked into"),
    );
    chains
}

/// The flags that say which options a GRE header has, and its length with them.
fn gre_forms() -> Vec<(u8, u32)> {
    (0..8_u8)
        .map(|number| {
            // Checksum, key, sequence number: four bytes each.
            let flags = (number & 4) << 5 | (number & 2) << 4 | (number & 1) << 4;
            (flags, 4 + 4 * number.count_ones())
        })
        .collect()
}

fn gre() -> GuardChain {
    let mut chain = Builder::new(GRE).accept(
        // RFC 2637; what is in it, PPP, belongs to a session.
        "PPTP",
        vec![
            Statement::masked(Field::transport(0, 2), &[0, 7], Operator::Equal, &[0, 1]),
            is(Field::transport(2, 2), &[0x88, 0x0b]),
        ],
    );
    for (flags, length) in gre_forms() {
        let head = |kind: [u8; 2]| vec![is(Field::transport(0, 4), &[flags, 0, kind[0], kind[1]])];
        chain = chain
            .goto("GRE of IPv4", head([0x08, 0x00]), &inner(4, length))
            .goto("GRE of IPv6", head([0x86, 0xdd]), &inner(6, length));
        chain = ethernet(chain, length, head([0x65, 0x58]));
        // Keepalives, NHRP, mirrored frames.
        for kind in [[0, 0], [0x20, 0x01], [0x88, 0xbe]] {
            chain = chain.accept("GRE without IP", head(kind));
        }
    }
    chain.end("GRE that cannot be looked into")
}

/// Ethernet at an offset: IP is looked into, ARP and the protocols of bridges are let be.
fn ethernet(mut chain: Builder, offset: u32, head: Vec<Statement>) -> Builder {
    let kind = |kind: &[u8; 2]| {
        let mut conditions = head.clone();
        conditions.push(is(Field::transport(offset + 12, 2), kind));
        conditions
    };
    for (family, number) in [(4, [0x08, 0x00]), (6, [0x86, 0xdd])] {
        chain = chain.goto(
            "a tunnel of Ethernet",
            kind(&number),
            &inner(family, offset + ETHERNET),
        );
    }
    chain = chain.accept("ARP in a tunnel of Ethernet", kind(&[0x08, 0x06]));
    let mut length = head;
    length.push(Statement::compare(
        Field::transport(offset + 12, 2),
        Operator::Less,
        &[0x06, 0x00],
    ));
    chain.accept("LLC in a tunnel of Ethernet", length)
}

const SERVER: &str = "a server's message in a tunnel";

/// The packet of a tunnel begins at this offset of the outer payload.
fn inner4(offset: u32) -> GuardChain {
    let field = |at: u32, length: u32| Field::transport(offset + at, length);
    let udp = is(field(9, 1), &[17]);
    let icmp = is(field(9, 1), &[1]);
    let mut chain = Builder::new(&inner(4, offset))
        .drop(
            "a tunnel with a packet of another version",
            vec![Statement::masked(
                field(0, 1),
                &[0xf0],
                Operator::NotEqual,
                &[0x40],
            )],
        )
        .accept(
            "a further fragment in a tunnel",
            vec![Statement::masked(
                field(6, 2),
                &[0x1f, 0xff],
                Operator::NotEqual,
                &[0, 0],
            )],
        )
        .drop(
            "a tunnel in a tunnel",
            vec![known(&[field(9, 1)], sets::TUNNELS)],
        );
    for protocol in [&udp, &icmp] {
        chain = chain.drop(
            "options in a tunnel",
            vec![protocol.clone(), Statement::not_equal(field(0, 1), &[0x45])],
        );
    }
    for (at, port) in [(22, 68_u16), (20, 67)] {
        chain = chain.drop(
            SERVER,
            vec![udp.clone(), is(field(at, 2), &port.to_be_bytes())],
        );
    }
    for kind in [5, 9] {
        chain = chain.drop(SERVER, vec![icmp.clone(), is(field(20, 1), &[kind])]);
    }
    for protocol in [udp, icmp] {
        chain = chain
            .accept(
                "UDP or ICMP in a tunnel",
                vec![
                    protocol.clone(),
                    present(field(22, 2)),
                    Statement::compare(field(2, 2), Operator::AtLeast, &[0, 28]),
                ],
            )
            .drop("UDP or ICMP without its header in a tunnel", vec![protocol]);
    }
    cut_off(
        chain.accept("IPv4 in a tunnel", vec![present(field(20, 1))]),
        field(9, 1),
    )
}

fn inner6(offset: u32) -> GuardChain {
    let field = |at: u32, length: u32| Field::transport(offset + at, length);
    let is_next = |at: u32, number: u8| is(field(at, 1), &[number]);
    let mut chain = Builder::new(&inner(6, offset))
        .drop(
            "a tunnel with a packet of another version",
            vec![Statement::masked(
                field(0, 1),
                &[0xf0],
                Operator::NotEqual,
                &[0x60],
            )],
        )
        .accept(
            "a protocol that guests use, in a tunnel",
            vec![known(&[field(6, 1)], sets::UPPER6)],
        );
    let is_fragment = is_next(6, 44);
    chain = chain.accept(
        "a further fragment in a tunnel",
        vec![
            is_fragment.clone(),
            Statement::masked(field(42, 2), &[0xff, 0xf8], Operator::NotEqual, &[0, 0]),
        ],
    );
    chain = chain.accept(
        "a protocol that guests use, in a tunnel",
        vec![is_fragment.clone(), known(&[field(40, 1)], sets::UPPER6)],
    );
    // Directly behind the IP header, or behind a fragment header.
    for (first, next_at, at) in [(None, 6, 40), (Some(is_fragment), 40, 48)] {
        let with = |number: u8, more: Vec<Statement>| {
            let mut conditions: Vec<Statement> = first.clone().into_iter().collect();
            conditions.push(is_next(next_at, number));
            conditions.extend(more);
            conditions
        };
        let long_enough = Statement::compare(
            field(4, 2),
            Operator::AtLeast,
            &u16::try_from(at - 32).unwrap_or(u16::MAX).to_be_bytes(),
        );
        for (port_at, port) in [(2, 546_u16), (0, 547)] {
            let port = is(field(at + port_at, 2), &port.to_be_bytes());
            chain = chain.drop(SERVER, with(17, vec![port]));
        }
        chain = chain
            .accept(
                "UDP in a tunnel",
                with(17, vec![present(field(at + 2, 2)), long_enough.clone()]),
            )
            .drop(
                SERVER,
                with(58, vec![known(&[field(at, 1)], sets::ICMP6_ROUTER)]),
            )
            .accept(
                "ICMPv6 in a tunnel",
                with(58, vec![present(field(at, 1)), long_enough]),
            );
    }
    let chain = chain.accept(
        "a multicast listener in a tunnel",
        vec![
            is_next(6, 0),
            is(field(40, 2), &[58, 0]),
            known(&[field(48, 1)], sets::ICMP6_LISTENER),
        ],
    );
    cut_off(chain, field(6, 1))
}

/// Ends a chain: a packet that ends before its protocol is nothing to anybody. In fragments
/// there is none (see [`super::headers`]).
fn cut_off(chain: Builder, protocol: Field) -> GuardChain {
    chain
        .drop(
            "a tunnel that cannot be looked into",
            vec![present(protocol)],
        )
        .accept("a tunnel without a whole packet", Vec::new())
        .chain
}
