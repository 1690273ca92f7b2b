//! The rules: what a guest may send, and why a frame is dropped.
//!
//! A rule whose field is not there (the frame is too short, a fragment has no transport
//! header) does not match. So rules that accept say all they need, and each chain ends with a
//! drop; a rule that drops never stands for one that accepts.

use agents::netlink::nftables::{Family, Field, MetaKey, Operator, Statement};

use super::{headers, sets, tunnels};

/// A rule, with the reason why it drops or the words for what it lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRule {
    /// What the rule is for, as its comment says.
    pub comment: &'static str,
    /// Its statements.
    pub statements: Vec<Statement>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardChain {
    /// Name.
    pub name: String,
    /// Rules in order.
    pub rules: Vec<GuardRule>,
}

/// The chain that hangs at the hook.
pub const ENTRY: &str = "prerouting";

const UNSPECIFIED: [u8; 16] = [0; 16];
/// ff02::12, where routers of a VRRP group hear each other.
const VRRP6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12];
const MAC_PREFIX_MASK: [u8; 6] = [255, 255, 255, 0, 0, 0];
const SELF_ASSIGNED_MASK: [u8; 16] = [
    255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0,
];

const ARP_FIXED: Field = Field::network(0, 6);
const ARP_OPERATION: Field = Field::network(6, 2);
const ARP_SENDER_MAC: Field = Field::network(8, 6);
const ARP_SENDER_IP: Field = Field::network(14, 4);
const ARP_TARGET_MAC: Field = Field::network(18, 6);
const ARP_TARGET_IP: Field = Field::network(24, 4);
pub(super) const IPV4_FRAGMENT: Field = Field::network(6, 2);
const IPV6_LENGTH: Field = Field::network(4, 2);
pub(super) const IPV6_NEXT: Field = Field::network(6, 1);
const IPV6_HOPS: Field = Field::network(7, 1);
pub(super) const TRANSPORT: Field = Field::Meta(MetaKey::TransportProtocol);
pub(super) const TRANSPORT_TYPE: Field = Field::transport(0, 1);
/// Neighbour discovery without extension headers: type, code, and the target.
const ND_TYPE: Field = Field::network(40, 1);
const ND_CODE: Field = Field::network(41, 1);
const ND_TARGET: u32 = 48;

pub(super) fn is(field: Field, value: &[u8]) -> Statement {
    Statement::equal(field, value)
}

pub(super) fn known(parts: &[Field], set: &str) -> Statement {
    Statement::in_set(parts, set)
}

fn goto(chain: &str) -> Statement {
    Statement::Goto(chain.to_owned())
}

/// Matches whenever the field is there at all.
pub(super) fn present(field: Field) -> Statement {
    Statement::compare(field, Operator::AtLeast, &[0])
}

/// A chain that is being written.
pub(super) struct Builder {
    pub(super) chain: GuardChain,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            chain: GuardChain {
                name: name.to_owned(),
                rules: Vec::new(),
            },
        }
    }

    pub(super) fn rule(mut self, comment: &'static str, statements: Vec<Statement>) -> Self {
        self.chain.rules.push(GuardRule {
            comment,
            statements,
        });
        self
    }

    pub(super) fn add(mut self, rule: GuardRule) -> Self {
        self.chain.rules.push(rule);
        self
    }

    pub(super) fn accept(self, comment: &'static str, mut conditions: Vec<Statement>) -> Self {
        conditions.push(Statement::Accept);
        self.rule(comment, conditions)
    }

    pub(super) fn goto(
        self,
        comment: &'static str,
        mut conditions: Vec<Statement>,
        chain: &str,
    ) -> Self {
        conditions.push(goto(chain));
        self.rule(comment, conditions)
    }

    pub(super) fn drop(self, reason: &'static str, mut conditions: Vec<Statement>) -> Self {
        conditions.push(Statement::Counter);
        conditions.push(Statement::Drop);
        self.rule(reason, conditions)
    }

    pub(super) fn end(self, reason: &'static str) -> GuardChain {
        self.drop(reason, Vec::new()).chain
    }
}

/// The chains of a table; one that is jumped to comes before those that do.
pub fn all(family: Family) -> Vec<GuardChain> {
    if family == Family::Arp {
        return vec![arp("arp"), arp_entry()];
    }
    let mut chains = tunnels::all();
    chains.extend([
        headers::headers6(),
        headers::payload6(),
        headers::headers4(),
        ip4_own(),
        ip4(),
        listener(),
        advertisement(),
        sourced(),
        learn("learn-source", 8, &goto("nd-sourced")),
        learn("learn-target", ND_TARGET, &Statement::Accept),
        unspecified(),
        discovery(),
        icmp6(),
        ip6_own(),
        ip6(),
        servers4(),
        servers6(),
    ]);
    if family == Family::Bridge {
        chains.push(arp("arp"));
    }
    chains.push(servers());
    chains.push(clients());
    chains.push(any_ip(family));
    chains.push(guest(family));
    chains.push(isolated(FROM_ISOLATED, family, true));
    chains.push(isolated(TO_ISOLATED, family, false));
    chains.push(entry(family));
    if family == Family::Bridge {
        chains.push(to_bridges());
    }
    chains
}

/// The chain for frames that a bridge takes for itself, which never see prerouting.
pub const TO_BRIDGES: &str = "to-bridges";

/// Frames to the group that bridges speak to each other in (IEEE 802.1Q, table 8-1): a bridge
/// learns their source before anything else looks at them.
fn to_bridges() -> GuardChain {
    let mut chain = Builder::new(TO_BRIDGES);
    for set in [sets::GUARDED, sets::ANY_IP] {
        chain = chain.drop(
            "a protocol of bridges",
            vec![
                known(&[Field::INPUT_NAME], set),
                Statement::masked(
                    Field::ETHER_DESTINATION,
                    &[255, 255, 255, 255, 255, 0xf0],
                    Operator::Equal,
                    &[1, 0x80, 0xc2, 0, 0, 0],
                ),
            ],
        );
    }
    chain.chain
}

/// What an isolated guest may send.
const FROM_ISOLATED: &str = "from-isolated";
/// What may come to an isolated guest.
const TO_ISOLATED: &str = "to-isolated";

/// What comes before everything else, for what comes from or goes to a guest.
pub fn first_of(family: Family, from_guest: bool) -> Vec<GuardRule> {
    let (interface, chain) = if from_guest {
        (Field::INPUT_NAME, FROM_ISOLATED)
    } else {
        (Field::OUTPUT_NAME, TO_ISOLATED)
    };
    let mut rules = Vec::new();
    if from_guest {
        rules.push(GuardRule {
            comment: "more than its rate",
            statements: vec![
                known(&[interface], sets::TOO_FAST),
                Statement::Counter,
                Statement::Drop,
            ],
        });
    }
    rules.push(GuardRule {
        comment: "an isolated guest",
        statements: vec![
            known(&[interface], sets::ISOLATED),
            Statement::Jump(chain.to_owned()),
        ],
    });
    if family == Family::Bridge {
        rules.push(GuardRule {
            comment: "MAC address of another private network",
            statements: vec![
                known(&[interface], sets::FILTERED),
                Statement::Lookup {
                    key: vec![
                        (interface, None),
                        (Field::ETHER_SOURCE, Some(MAC_PREFIX_MASK.to_vec())),
                    ],
                    set: sets::MAC_PREFIX.to_owned(),
                    inverted: true,
                },
                Statement::Counter,
                Statement::Drop,
            ],
        });
    }
    rules
}

/// An isolated guest exchanges packets with the addresses that it may, and what a link needs:
/// ARP, neighbour discovery, leases. What passes here goes on to the other checks.
fn isolated(name: &'static str, family: Family, from_guest: bool) -> GuardChain {
    let back = |statements: Vec<Statement>| {
        let mut statements = statements;
        statements.push(Statement::Return);
        statements
    };
    let [(four, _), (six, _)] = families(family);
    let (interface, address4, address6) = if from_guest {
        (
            Field::INPUT_NAME,
            Field::IPV4_DESTINATION,
            Field::IPV6_DESTINATION,
        )
    } else {
        (Field::OUTPUT_NAME, Field::IPV4_SOURCE, Field::IPV6_SOURCE)
    };
    let ports = |from: u16, to: u16| {
        let (from, to) = if from_guest { (from, to) } else { (to, from) };
        let mut ports = from.to_be_bytes().to_vec();
        ports.extend(to.to_be_bytes());
        is(Field::transport(0, 4), &ports)
    };
    let mut chain = Builder::new(name);
    if family == Family::Bridge {
        chain = chain.rule("ARP", back(vec![is(Field::ETHER_TYPE, &[0x08, 0x06])]));
    }
    chain = chain
        .rule(
            "an address of its list",
            back(vec![
                four.clone(),
                known(&[interface, address4], sets::ALLOWED4),
            ]),
        )
        .rule(
            "an address of its list",
            back(vec![
                six.clone(),
                known(&[interface, address6], sets::ALLOWED6),
            ]),
        );
    // To a routed guest nfdhcpd's answers go past these rules, straight into the interface; what
    // comes from port 67 here comes from outside.
    if from_guest || family == Family::Bridge {
        chain = chain
            .rule(
                "leases",
                back(vec![four.clone(), is(TRANSPORT, &[17]), ports(68, 67)]),
            )
            .rule(
                "leases",
                back(vec![six.clone(), is(TRANSPORT, &[17]), ports(546, 547)]),
            );
    }
    // A bridge that listens to memberships sends a group's frames only to its members, and the
    // groups that neighbour discovery needs are such groups.
    let (igmp, listener) = if from_guest {
        (
            known(&[TRANSPORT_TYPE], sets::IGMP_HOST),
            known(&[TRANSPORT_TYPE], sets::ICMP6_LISTENER),
        )
    } else {
        (is(TRANSPORT_TYPE, &[0x11]), is(TRANSPORT_TYPE, &[130]))
    };
    chain = chain
        .rule(
            "group membership",
            back(vec![four.clone(), is(TRANSPORT, &[2]), igmp]),
        )
        .rule(
            "group membership",
            back(vec![six.clone(), is(TRANSPORT, &[58]), listener]),
        );
    if !from_guest {
        // Any router on the way to an address of the list sends these (RFC 1191, RFC 8201).
        chain = chain
            .rule(
                "fragmentation needed",
                back(vec![
                    four,
                    is(TRANSPORT, &[1]),
                    is(Field::transport(0, 2), &[3, 4]),
                ]),
            )
            .rule(
                "packet too big",
                back(vec![
                    six.clone(),
                    is(TRANSPORT, &[58]),
                    is(TRANSPORT_TYPE, &[2]),
                ]),
            );
    }
    chain = chain.rule(
        "neighbour discovery",
        back(vec![
            six,
            is(IPV6_NEXT, &[58]),
            is(IPV6_HOPS, &[255]),
            Statement::compare(ND_TYPE, Operator::AtLeast, &[133]),
            Statement::compare(ND_TYPE, Operator::AtMost, &[136]),
        ]),
    );
    chain.end("isolated")
}

fn entry(family: Family) -> GuardChain {
    let mut entry = Builder::new(ENTRY);
    entry.chain.rules = first_of(family, true);
    entry
        .goto(
            "a guarded guest",
            vec![known(&[Field::INPUT_NAME], sets::GUARDED)],
            "guest",
        )
        .goto(
            "a guest with any address",
            vec![known(&[Field::INPUT_NAME], sets::ANY_IP)],
            "any-ip",
        )
        .goto(
            "a guest with any MAC address",
            vec![known(&[Field::INPUT_NAME], sets::ANY_MAC)],
            "servers",
        )
        .goto(
            "a guest that gives no leases",
            vec![known(&[Field::INPUT_NAME], sets::NO_LEASES)],
            "clients",
        )
        .chain
}

/// What a frame is, by what no one can lie about. On a bridge the EtherType is the frame's, so
/// that a tagged one is not taken for what is behind its tag.
fn families(family: Family) -> [(Statement, &'static str); 2] {
    if family == Family::Bridge {
        [
            (is(Field::ETHER_TYPE, &[0x08, 0x00]), "ip4"),
            (is(Field::ETHER_TYPE, &[0x86, 0xdd]), "ip6"),
        ]
    } else {
        let protocol = Field::Meta(MetaKey::Family);
        [(is(protocol, &[2]), "ip4"), (is(protocol, &[10]), "ip6")]
    }
}

fn guest(family: Family) -> GuardChain {
    let mut chain = Builder::new("guest").drop(
        "source MAC address of another",
        vec![Statement::not_in_set(
            &[Field::INPUT_NAME, Field::ETHER_SOURCE],
            sets::MAC,
        )],
    );
    for (matches, to) in families(family) {
        chain = chain.goto("by family", vec![matches], to);
    }
    if family == Family::Bridge {
        chain = chain
            .goto("ARP", vec![is(Field::ETHER_TYPE, &[0x08, 0x06])], "arp")
            .goto(
                "tagged, into a network that the bridge lets it into",
                vec![
                    is(Field::ETHER_TYPE, &[0x81, 0x00]),
                    known(&[Field::INPUT_NAME], sets::TRUNK),
                ],
                "servers",
            )
            .accept(
                // What a hypervisor announces a guest with that has migrated.
                "RARP for its own MAC address",
                vec![
                    is(Field::ETHER_TYPE, &[0x80, 0x35]),
                    is(ARP_FIXED, &[0, 1, 8, 0, 6, 4]),
                    is(ARP_OPERATION, &[0, 3]),
                    known(&[Field::INPUT_NAME, ARP_SENDER_MAC], sets::MAC),
                    is(ARP_SENDER_IP, &[0; 4]),
                    known(&[Field::INPUT_NAME, ARP_TARGET_MAC], sets::MAC),
                    is(ARP_TARGET_IP, &[0; 4]),
                ],
            );
    }
    chain.end("EtherType that guests do not use")
}

/// A guest whose addresses are not checked: its MAC address is, and it is no server.
fn any_ip(family: Family) -> GuardChain {
    let mut chain = Builder::new("any-ip").drop(
        "source MAC address of another",
        vec![Statement::not_in_set(
            &[Field::INPUT_NAME, Field::ETHER_SOURCE],
            sets::MAC,
        )],
    );
    if family == Family::Bridge {
        chain = chain.drop(
            "MAC address of another in ARP",
            vec![
                is(Field::ETHER_TYPE, &[0x08, 0x06]),
                Statement::not_in_set(&[Field::INPUT_NAME, ARP_SENDER_MAC], sets::MAC),
            ],
        );
    }
    chain.goto("no server", Vec::new(), "servers").chain
}

/// No guest, whatever it may, serves DHCP or advertises itself as a router.
fn servers() -> GuardChain {
    let is_protocol = |number: [u8; 2]| vec![is(Field::Meta(MetaKey::Protocol), &number)];
    Builder::new("servers")
        .goto("IPv4", is_protocol([0x08, 0x00]), "servers4")
        .goto("IPv6", is_protocol([0x86, 0xdd]), "servers6")
        .drop("two VLAN tags", is_protocol([0x81, 0x00]))
        .drop("two VLAN tags", is_protocol([0x88, 0xa8]))
        .accept("neither IPv4 nor IPv6", Vec::new())
        .chain
}

/// Of a guest of which only that is known, that another gives the leases of its network: it
/// may be a router of it.
fn clients() -> GuardChain {
    let is_protocol = |number: [u8; 2]| is(Field::Meta(MetaKey::Protocol), &number);
    let mut chain = Builder::new("clients");
    for (protocol, mut check) in [
        ([0x08, 0x00], headers::check_headers4()),
        ([0x86, 0xdd], headers::check_headers6(17)),
    ] {
        check.statements.insert(0, is_protocol(protocol));
        chain = chain.add(check);
    }
    for (reason, protocol, port) in [
        ("message to a DHCP client", [0x08, 0x00], 68_u16),
        ("message to a DHCPv6 client", [0x86, 0xdd], 546),
    ] {
        chain = chain.drop(
            reason,
            vec![
                is_protocol(protocol),
                is(TRANSPORT, &[17]),
                is(Field::transport(2, 2), &port.to_be_bytes()),
            ],
        );
    }
    chain.accept("anything else", Vec::new()).chain
}

fn servers4() -> GuardChain {
    let chain = Builder::new("servers4").add(headers::check_headers4());
    let chain = routers4(headers::dhcp4(chain));
    payload4(chain)
        .accept("anything else", vec![present(TRANSPORT)])
        .end("IPv4 header that cannot be")
}

fn servers6() -> GuardChain {
    let icmp6 = |set: &str| vec![is(TRANSPORT, &[58]), known(&[TRANSPORT_TYPE], set)];
    Builder::new("servers6")
        .accept("a protocol that guests use", plain6())
        .add(headers::check_headers6(17))
        .drop(
            "router advertisement, redirect or MLD query",
            icmp6(sets::ICMP6_ROUTER),
        )
        .accept("ICMPv6", vec![is(TRANSPORT, &[58])])
        .accept("VRRP of a router", vec![is(TRANSPORT, &[112])])
        .goto("by protocol", Vec::new(), headers::PAYLOAD6)
        .chain
}

/// A protocol of the upper layer directly behind the IP header, of which no more is looked at.
fn plain6() -> Vec<Statement> {
    vec![known(&[IPV6_NEXT], sets::UPPER6)]
}

fn arp_entry() -> GuardChain {
    Builder::new("input")
        .goto(
            "a guarded guest",
            vec![known(&[Field::INPUT_NAME], sets::GUARDED)],
            "arp",
        )
        .chain
}

/// ARP for Ethernet and IPv4, requests and replies, from its own MAC and IP address.
fn arp(name: &'static str) -> GuardChain {
    let own = |operation: [u8; 2]| {
        vec![
            is(ARP_FIXED, &[0, 1, 8, 0, 6, 4]),
            is(ARP_OPERATION, &operation),
            known(&[Field::INPUT_NAME, ARP_SENDER_MAC], sets::MAC),
        ]
    };
    let with = |operation, last| {
        let mut conditions = own(operation);
        conditions.push(last);
        conditions
    };
    let mut chain = Builder::new(name);
    for operation in [[0, 1], [0, 2]] {
        for set in [sets::IPV4, sets::NETS4] {
            chain = chain.accept(
                "ARP from its own address",
                with(operation, known(&[Field::INPUT_NAME, ARP_SENDER_IP], set)),
            );
        }
    }
    chain
        .accept("ARP probe for its own address", {
            let mut conditions = with([0, 1], is(ARP_SENDER_IP, &[0; 4]));
            conditions.push(known(&[Field::INPUT_NAME, ARP_TARGET_IP], sets::IPV4));
            conditions
        })
        .end("ARP for the address of another")
}

fn ip4() -> GuardChain {
    let sound = || {
        vec![
            Statement::masked(Field::network(0, 1), &[0xf0], Operator::Equal, &[0x40]),
            present(TRANSPORT),
        ]
    };
    let with = |more: Vec<Statement>| {
        let mut conditions = sound();
        conditions.extend(more);
        conditions
    };
    Builder::new("ip4")
        .goto(
            "its own address",
            with(vec![known(
                &[Field::INPUT_NAME, Field::IPV4_SOURCE],
                sets::IPV4,
            )]),
            "ip4-own",
        )
        .goto(
            "its own network",
            with(vec![known(
                &[Field::INPUT_NAME, Field::IPV4_SOURCE],
                sets::NETS4,
            )]),
            "ip4-own",
        )
        .accept(
            "DHCP before it has an address",
            with(vec![
                // To all, or to the server that it asks (RFC 2131, section 4.3.2, has both).
                is(Field::IPV4_SOURCE, &[0; 4]),
                Statement::masked(IPV4_FRAGMENT, &[0x3f, 0xff], Operator::Equal, &[0, 0]),
                is(TRANSPORT, &[17]),
                is(Field::transport(0, 4), &[0, 68, 0, 67]),
            ]),
        )
        .accept(
            "IGMP before it has an address",
            with(vec![
                is(Field::IPV4_SOURCE, &[0; 4]),
                Statement::masked(IPV4_FRAGMENT, &[0x3f, 0xff], Operator::Equal, &[0, 0]),
                is(TRANSPORT, &[2]),
                known(&[TRANSPORT_TYPE], sets::IGMP_HOST),
            ]),
        )
        .end("IPv4 source address of another")
}

/// From its own address: all but what only servers and routers send.
fn ip4_own() -> GuardChain {
    let chain = Builder::new("ip4-own")
        .add(headers::check_headers4())
        .accept("its own address", vec![known(&[TRANSPORT], sets::UPPER4)]);
    let chain = routers4(headers::dhcp4(chain))
        .drop(
            "IGMP query",
            vec![is(TRANSPORT, &[2]), is(TRANSPORT_TYPE, &[0x11])],
        )
        .accept(
            "VRRP of a router",
            vec![
                is(TRANSPORT, &[112]),
                is(Field::IPV4_DESTINATION, &[224, 0, 0, 18]),
                known(&[Field::INPUT_NAME], sets::VRRP),
            ],
        )
        .drop("VRRP", vec![is(TRANSPORT, &[112])]);
    payload4(chain).accept("its own address", Vec::new()).chain
}

/// Messages that only routers send.
fn routers4(mut chain: Builder) -> Builder {
    for (reason, kind) in [("ICMP redirect", 5), ("ICMP router advertisement", 9)] {
        chain = chain.drop(
            reason,
            vec![is(TRANSPORT, &[1]), is(TRANSPORT_TYPE, &[kind])],
        );
    }
    chain
}

/// Headers behind an authentication header or in a tunnel.
fn payload4(chain: Builder) -> Builder {
    tunnels::dispatch(headers::behind_ah(chain))
}

/// The three ways in which an IPv6 address at `offset` can be its own.
fn own6(offset: u32) -> [Statement; 3] {
    let address = Field::network(offset, 16);
    [
        known(&[Field::INPUT_NAME, address], sets::IPV6),
        known(&[Field::ETHER_SOURCE, address], sets::LEARNED),
        known(&[Field::INPUT_NAME, address], sets::NETS6),
    ]
}

fn ip6() -> GuardChain {
    // The transport protocol is known only if all extension headers are there and sound.
    let sound = || {
        vec![
            Statement::masked(Field::network(0, 1), &[0xf0], Operator::Equal, &[0x60]),
            present(TRANSPORT),
        ]
    };
    let with = |more: Statement| {
        let mut conditions = sound();
        conditions.push(more);
        conditions
    };
    let mut chain = Builder::new("ip6").goto("ICMPv6", with(is(TRANSPORT, &[58])), "icmp6");
    for own in own6(8) {
        chain = chain.goto("its own address", with(own), "ip6-own");
    }
    chain.end("IPv6 source address of another")
}

fn ip6_own() -> GuardChain {
    Builder::new("ip6-own")
        .accept("its own address", plain6())
        .add(headers::check_headers6(17))
        .accept(
            "VRRP of a router",
            vec![
                is(TRANSPORT, &[112]),
                is(Field::IPV6_DESTINATION, &VRRP6),
                known(&[Field::INPUT_NAME], sets::VRRP),
            ],
        )
        .drop("VRRP", vec![is(TRANSPORT, &[112])])
        .goto("by protocol", Vec::new(), headers::PAYLOAD6)
        .chain
}

fn icmp6() -> GuardChain {
    let mut chain = Builder::new("icmp6");
    for number in [133, 135, 136] {
        chain = chain.goto(
            // RFC 4861: hop limit 255, code 0; RFC 6980: no fragments, and here no other
            // extension header either.
            "neighbour discovery",
            vec![
                is(IPV6_NEXT, &[58]),
                is(IPV6_HOPS, &[255]),
                is(ND_TYPE, &[number]),
                is(ND_CODE, &[0]),
            ],
            "nd",
        );
    }
    chain = chain.add(headers::check_headers6(58)).goto(
        "multicast listener",
        vec![known(&[TRANSPORT_TYPE], sets::ICMP6_LISTENER)],
        "listener",
    );
    for own in own6(8) {
        chain = chain.accept(
            "errors and echoes from its own address",
            vec![known(&[TRANSPORT_TYPE], sets::ICMP6_FREE), own],
        );
    }
    for own in own6(8) {
        chain = chain.accept(
            "a further fragment: the first was seen",
            vec![headers::later_fragment6(), own],
        );
    }
    chain
        .drop("router advertisement", vec![is(TRANSPORT_TYPE, &[134])])
        .drop("redirect", vec![is(TRANSPORT_TYPE, &[137])])
        .drop("MLD query", vec![is(TRANSPORT_TYPE, &[130])])
        .drop(
            "neighbour discovery in disguise",
            vec![
                Statement::compare(TRANSPORT_TYPE, Operator::AtLeast, &[133]),
                Statement::compare(TRANSPORT_TYPE, Operator::AtMost, &[137]),
            ],
        )
        .end("ICMPv6 from the address of another, or of a type guests do not use")
}

fn listener() -> GuardChain {
    let mut chain = Builder::new("listener").accept(
        "before it has an address",
        vec![is(Field::IPV6_SOURCE, &UNSPECIFIED)],
    );
    for own in own6(8) {
        chain = chain.accept("its own address", vec![own]);
    }
    chain.end("multicast listener with the address of another")
}

fn discovery() -> GuardChain {
    let [fixed, learned, net] = own6(8);
    Builder::new("nd")
        .goto(
            "before it has an address",
            vec![is(Field::IPV6_SOURCE, &UNSPECIFIED)],
            "nd-unspecified",
        )
        .goto("its own address", vec![fixed], "nd-sourced")
        .rule(
            "an address that it has taken: it still has it",
            vec![
                learned,
                remember(sets::LEARNED, &[Field::ETHER_SOURCE, Field::IPV6_SOURCE]),
                remember(sets::CLAIMED, &[Field::IPV6_SOURCE]),
                goto("nd-sourced"),
            ],
        )
        .goto("its own network", vec![net], "nd-sourced")
        .rule(
            "an address that it may take",
            vec![Statement::Jump("learn-source".to_owned())],
        )
        .end("neighbour discovery from the address of another")
}

fn remember(set: &str, key: &[Field]) -> Statement {
    Statement::Learn {
        key: key.to_vec(),
        set: set.to_owned(),
        timeout: None,
        update: true,
    }
}

/// Takes the address at `offset` for the sender if it may, and then does `then`; else returns.
fn learn(name: &'static str, offset: u32, then: &Statement) -> GuardChain {
    let address = Field::network(offset, 16);
    let back = |comment, condition| GuardRule {
        comment,
        statements: vec![condition, Statement::Return],
    };
    let key = [Field::ETHER_SOURCE, address];
    let take = vec![
        remember(sets::LEARNED, &key),
        remember(sets::CLAIMED, &[address]),
        then.clone(),
    ];
    let mut again = vec![known(&key, sets::LEARNED)];
    again.extend(take.clone());
    GuardChain {
        name: name.to_owned(),
        rules: vec![
            GuardRule {
                comment: "it has it already",
                statements: again,
            },
            back("a NIC's or a gateway's", known(&[address], sets::STATIC6)),
            back(
                "another's EUI-64",
                is(Field::network(offset + 11, 2), &[0xff, 0xfe]),
            ),
            back(
                "a small number, as routers have",
                is(Field::network(offset + 8, 4), &[0; 4]),
            ),
            back("taken by another", known(&[address], sets::CLAIMED)),
            back(
                "not in a prefix of its network",
                Statement::Lookup {
                    key: vec![
                        (Field::INPUT_NAME, None),
                        (address, Some(SELF_ASSIGNED_MASK.to_vec())),
                    ],
                    set: sets::PREFIX6.to_owned(),
                    inverted: true,
                },
            ),
            back(
                "too many at once",
                Statement::Meter {
                    key: vec![Field::INPUT_NAME],
                    set: sets::PACE.to_owned(),
                    rate: 1,
                    seconds: 60,
                    burst: 32,
                },
            ),
            GuardRule {
                comment: "taken",
                statements: take,
            },
        ],
    }
}

/// Lengths and options that a message of neighbour discovery may have. Every byte of it is
/// accounted for, so that no second option can contradict the first.
fn length(bytes: u8) -> Statement {
    is(IPV6_LENGTH, &[0, bytes])
}

/// An option with its own MAC address at an offset: of type 1 source, 2 target.
fn own_mac_option(kind: u8, offset: u32) -> [Statement; 2] {
    [
        is(Field::network(offset, 2), &[kind, 1]),
        known(
            &[Field::INPUT_NAME, Field::network(offset + 2, 6)],
            sets::MAC,
        ),
    ]
}

/// The nonce of enhanced duplicate address detection (RFC 7527).
fn nonce_option(offset: u32) -> Statement {
    is(Field::network(offset, 2), &[14, 1])
}

fn unspecified() -> GuardChain {
    let own = |form: &[Statement]| {
        let mut conditions = vec![is(ND_TYPE, &[135])];
        conditions.extend_from_slice(form);
        conditions.push(known(
            &[Field::INPUT_NAME, Field::network(ND_TARGET, 16)],
            sets::IPV6,
        ));
        conditions
    };
    let take = |form: &[Statement]| {
        let mut conditions = vec![is(ND_TYPE, &[135])];
        conditions.extend_from_slice(form);
        conditions.push(Statement::Jump("learn-target".to_owned()));
        conditions
    };
    let plain = [length(24)];
    let enhanced = [length(32), nonce_option(64)];
    Builder::new("nd-unspecified")
        .accept("router solicitation", vec![is(ND_TYPE, &[133]), length(8)])
        .accept("duplicate address detection", own(&plain))
        .accept("duplicate address detection", own(&enhanced))
        .rule("an address that it may take", take(&plain))
        .rule("an address that it may take", take(&enhanced))
        .end("duplicate address detection for the address of another")
}

fn sourced() -> GuardChain {
    let form = |kind: u8, parts: &[&[Statement]]| {
        let mut conditions = vec![is(ND_TYPE, &[kind])];
        conditions.extend(parts.iter().flat_map(|part| part.iter().cloned()));
        conditions
    };
    let source = |offset| own_mac_option(1, offset);
    let nonce = |offset| [nonce_option(offset)];
    Builder::new("nd-sourced")
        .accept("router solicitation", form(133, &[&[length(8)]]))
        .accept(
            "router solicitation",
            form(133, &[&[length(16)], &source(48)]),
        )
        .accept("neighbour solicitation", form(135, &[&[length(24)]]))
        .accept(
            "neighbour solicitation",
            form(135, &[&[length(32)], &source(64)]),
        )
        .accept(
            "neighbour solicitation",
            form(135, &[&[length(32)], &nonce(64)]),
        )
        .accept(
            "neighbour solicitation",
            form(135, &[&[length(40)], &source(64), &nonce(72)]),
        )
        .accept(
            "neighbour solicitation",
            form(135, &[&[length(40)], &nonce(64), &source(72)]),
        )
        .goto(
            "neighbour advertisement",
            form(136, &[&[length(24)]]),
            "nd-advertisement",
        )
        .goto(
            "neighbour advertisement",
            form(136, &[&[length(32)], &own_mac_option(2, 64)]),
            "nd-advertisement",
        )
        .end("neighbour discovery with the MAC address of another, or strange options")
}

fn advertisement() -> GuardChain {
    let mut chain = Builder::new("nd-advertisement");
    for own in own6(ND_TARGET) {
        chain = chain.accept("its own address", vec![own]);
    }
    chain.end("neighbour advertisement for the address of another")
}
