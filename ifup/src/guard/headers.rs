//! Header chains: fragments whose first part is whole, and the upper-layer protocols that a
//! guest may send.
//!
//! The kernel's rules see a port or an ICMPv6 type only where the upper-layer header is in the
//! packet at hand. So a first fragment passes only with its whole header chain (RFC 7112,
//! RFC 3128), within the length that the packet states: what a receiver puts together later is
//! then what the rules have seen. IPv6 protocols are an allow-list, since a host may follow the
//! next header of a protocol that the kernel takes for an upper layer:
//!
//! | protocol | decision | reason |
//! |---|---|---|
//! | TCP, UDP, ICMPv6, SCTP, DCCP, UDP-Lite | pass | transport protocols |
//! | ESP, IPComp | pass | opaque without an association of the receiver's |
//! | OSPF, EIGRP, PIM, RSVP, L2TPv3 | pass | routers and tunnels that tenants run |
//! | AH | passes before TCP, ESP, SCTP | tunnel mode would hide a packet at no fixed place |
//! | IPv4, IPv6, GRE, EtherIP | pass by what is inside | [`super::tunnels`] |
//! | no next header (59) | passes empty | bytes behind it have no use (RFC 8200, section 4.7) |
//! | Mobility (135), HIP (139), shim6 (140) | dropped | extension headers to some hosts; no guest depends on them: HIP runs over UDP behind NAT, the others are not deployed |
//! | 253, 254, unassigned | dropped | for experiments (RFC 3692); not checkable |
//! | routing header with segments left | dropped | the frame goes on to a place that no rule has seen |

use agents::netlink::nftables::{Field, MetaKey, Operator, Statement};

use super::chains::{Builder, IPV4_FRAGMENT, IPV6_NEXT, TRANSPORT_TYPE};
use super::chains::{GuardChain, GuardRule, TRANSPORT, is, known, present};
use super::sets;

/// Checks the extension headers of an IPv6 packet, and returns if they are sound.
pub(super) const HEADERS6: &str = "headers6";
/// Checks a fragment of IPv4 from an address of its own: accepts further ones, and returns if a
/// first one is sound.
pub(super) const HEADERS4: &str = "headers4";
/// Judges what an IPv6 packet carries, once its headers are sound; ICMPv6 is not for it.
pub(super) const PAYLOAD6: &str = "payload6";

const FRAGMENT_NEXT: Field = Field::Extension {
    header: 44,
    offset: 0,
    length: 1,
};
const FRAGMENT_OFFSET: Field = Field::Extension {
    header: 44,
    offset: 2,
    length: 2,
};
const ROUTING_NEXT: Field = Field::Extension {
    header: 43,
    offset: 0,
    length: 1,
};
const SEGMENTS_LEFT: Field = Field::Extension {
    header: 43,
    offset: 3,
    length: 1,
};

/// The rules that send a packet with extension headers, or a protocol that is not plain, to
/// [`HEADERS6`]: most packets have none.
pub(super) fn check_headers6(plain: u8) -> GuardRule {
    GuardRule {
        comment: "with extension headers",
        statements: vec![
            Statement::not_equal(IPV6_NEXT, &[plain]),
            Statement::Jump(HEADERS6.to_owned()),
        ],
    }
}

/// The same of IPv4, for fragments.
pub(super) fn check_headers4() -> GuardRule {
    GuardRule {
        comment: "a fragment",
        statements: vec![
            Statement::masked(IPV4_FRAGMENT, &[0x3f, 0xff], Operator::NotEqual, &[0, 0]),
            Statement::Jump(HEADERS4.to_owned()),
        ],
    }
}

/// A fragment of IPv6 other than the first.
pub(super) fn later_fragment6() -> Statement {
    Statement::masked(FRAGMENT_OFFSET, &[0xff, 0xf8], Operator::NotEqual, &[0, 0])
}

/// A fragment of IPv4 other than the first.
pub(super) fn later_fragment4() -> Statement {
    Statement::masked(IPV4_FRAGMENT, &[0x1f, 0xff], Operator::NotEqual, &[0, 0])
}

fn back(comment: &'static str, mut statements: Vec<Statement>) -> GuardRule {
    statements.push(Statement::Return);
    GuardRule {
        comment,
        statements,
    }
}

/// Headers that may not follow a fragment header: another part of the chain would hide behind it.
fn no_upper_layer(field: Field) -> Statement {
    known(&[field], sets::EXTENSIONS)
}

/// Returns the chain for IPv6 extension headers.
pub(super) fn headers6() -> GuardChain {
    let mut chain = Builder::new(HEADERS6)
        .drop(
            "routing header with segments left",
            vec![Statement::not_equal(SEGMENTS_LEFT, &[0])],
        )
        .drop(
            "routing header before one that belongs before it",
            vec![known(&[ROUTING_NEXT], sets::NOT_AFTER_ROUTING)],
        )
        .add(back(
            "no fragment",
            vec![is(Field::ExtensionHeader(44), &[0])],
        ))
        .add(back(
            "a further fragment: the first was seen",
            vec![later_fragment6()],
        ))
        .drop(
            "fragment that begins with a header that hosts put before it",
            vec![no_upper_layer(FRAGMENT_NEXT)],
        )
        .drop(
            "fragment with options on both sides of its header",
            vec![
                is(FRAGMENT_NEXT, &[60]),
                Statement::not_equal(IPV6_NEXT, &[44]),
            ],
        );
    // Directly behind the IP header: the fragment header is at 40, the options at 48.
    for hidden in [
        no_upper_layer(Field::network(48, 1)),
        is(Field::network(48, 1), &[60]),
    ] {
        chain = chain.drop(
            "fragment with a second extension header",
            vec![is(FRAGMENT_NEXT, &[60]), hidden],
        );
    }
    chain = chain.drop(
        "first fragment with bytes behind its end",
        vec![
            Statement::masked(FRAGMENT_OFFSET, &[0xff, 0xf9], Operator::Equal, &[0, 1]),
            Statement::not_in_set(
                &[Field::Meta(MetaKey::Length), Field::network(4, 2)],
                sets::LENGTHS6,
            ),
        ],
    );
    // Of a tunnel up to where the rules look inside.
    for (protocols, last) in [
        (is(TRANSPORT, &[6]), 19),
        (is(TRANSPORT, &[132]), 11),
        (known(&[TRANSPORT], sets::TUNNELS), 95),
    ] {
        chain = chain.add(back(
            "with its whole header",
            vec![protocols, present(Field::transport(last, 1))],
        ));
    }
    chain
        .add(back(
            "with its whole header",
            vec![
                Statement::not_in_set(&[TRANSPORT], sets::LONG_HEADERS),
                present(Field::transport(7, 1)),
            ],
        ))
        .end("first fragment without its whole header chain (RFC 7112)")
}

/// Returns the chain for fragments of IPv4.
pub(super) fn headers4() -> GuardChain {
    Builder::new(HEADERS4)
        .drop(
            "second fragment with the rest of a TCP header (RFC 3128)",
            vec![
                Statement::masked(IPV4_FRAGMENT, &[0x1f, 0xff], Operator::Equal, &[0, 1]),
                is(TRANSPORT, &[6]),
            ],
        )
        .accept(
            // Some kernels read a header there, where none is.
            "a further fragment: the first was seen",
            vec![later_fragment4(), present(TRANSPORT)],
        )
        .add(back(
            "with its whole header",
            vec![known(
                &[
                    Field::network(0, 1),
                    Field::network(9, 1),
                    Field::network(2, 2),
                ],
                sets::WHOLE4,
            )],
        ))
        .end("first fragment without its whole header (RFC 3128)")
}

/// Ports that only servers send to.
pub(super) fn dhcp6(mut chain: Builder) -> Builder {
    for (comment, at, port) in [
        ("DHCPv6 server", 0, 547_u16),
        ("message to a DHCPv6 client", 2, 546),
    ] {
        chain = chain.drop(
            comment,
            vec![
                is(TRANSPORT, &[17]),
                is(Field::transport(at, 2), &port.to_be_bytes()),
            ],
        );
    }
    chain
}

/// The same of IPv4; other UDP passes.
pub(super) fn dhcp4(mut chain: Builder) -> Builder {
    for (comment, at, port) in [
        ("DHCP server", 0, 67_u16),
        ("message to a DHCP client", 2, 68),
    ] {
        chain = chain.drop(
            comment,
            vec![
                is(TRANSPORT, &[17]),
                is(Field::transport(at, 2), &port.to_be_bytes()),
            ],
        );
    }
    // Most of what is left: nothing further is looked at.
    chain.accept("its own address", vec![is(TRANSPORT, &[17])])
}

/// nftables looks no further than an authentication header; its first byte is what follows.
pub(super) fn behind_ah(chain: Builder) -> Builder {
    chain
        .accept(
            "behind an authentication header",
            vec![
                is(TRANSPORT, &[51]),
                known(&[TRANSPORT_TYPE], sets::BEHIND_AH),
            ],
        )
        .drop(
            "hidden behind an authentication header",
            vec![is(TRANSPORT, &[51])],
        )
}

/// Returns the chain for what an IPv6 packet carries.
pub(super) fn payload6() -> GuardChain {
    let mut chain = dhcp6(Builder::new(PAYLOAD6))
        .accept("UDP", vec![is(TRANSPORT, &[17])])
        .accept(
            "a protocol that guests use",
            vec![known(&[TRANSPORT], sets::UPPER6)],
        )
        .accept(
            "a further fragment: the first was seen",
            vec![later_fragment6(), present(TRANSPORT)],
        );
    chain = super::tunnels::dispatch(behind_ah(chain));
    chain
        .drop(
            // Less is what fills up a short frame.
            "bytes behind no next header",
            vec![present(Field::transport(6, 1)), is(TRANSPORT, &[59])],
        )
        .accept("no next header", vec![is(TRANSPORT, &[59])])
        .end("IPv6 protocol that guests do not use")
}
