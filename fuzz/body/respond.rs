//! From a guest's packet to the answer. The first byte says which guest, how its packet came, and
//! what the rest of the input is: a whole packet, or a message that is put into a good one, so that
//! not every input dies at a checksum.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use agents::addr::MacAddr;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nfdhcpd::client::{Client, Port};
use nfdhcpd::config::Config;
use nfdhcpd::packet::ip::Checksum;
use nfdhcpd::respond::{Action, Query, Scratch, respond};

const GUEST: MacAddr = MacAddr::new([0xaa, 0, 0, 0, 0, 1]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xa800, 0xff, 0xfe00, 1);

const BINDINGS: [&str; 3] = [
    "MAC=aa:00:00:00:00:01\nHOSTNAME=snf-1\nIP=10.0.0.5\nSUBNET=10.0.0.0/24\nGATEWAY=10.0.0.1\n\
     SUBNET6=fd66:1::/64\nGATEWAY6=fd66:1::1\nMTU=1450\n",
    "MAC=aa:00:00:00:00:01\nHOSTNAME=snf-1\nIP=10.0.0.5\nSUBNET=10.0.0.5/32\nGATEWAY=192.0.2.1\n\
     SUBNET6=fd66:1::/64\nGATEWAY6=fe80::1\nIP6=fd66:1::5\nMACSPOOF=yes\n\
     DOMAIN=\"a.example.com b.example.org\"\nROUTES=\"192.0.2.0/24 via 10.0.0.2\"\n\
     NAMESERVERS=\"192.0.2.53 2001:db8::53\"\n",
    "MAC=aa:00:00:00:00:01\nHOSTNAME=snf-1\n",
];

pub fn run(data: &[u8]) {
    let Some((&how, message)) = data.split_first() else {
        return;
    };
    let Some(client) = client(how) else { return };
    let Some(packet) = packet(how, message) else {
        return;
    };
    let query = Query {
        packet: &packet,
        source_mac: (how & 0x10 == 0).then_some(GUEST),
        checksum: if how & 0x20 == 0 {
            Checksum::Present
        } else {
            Checksum::Partial
        },
    };
    let (mut scratch, mut frame) = (Scratch::default(), Vec::new());
    let (kind, action) = respond(query, &client, &mut scratch, &mut frame);
    if let Action::Reply(_) | Action::ReplyAndPass(_) = action {
        check(&frame);
    }
    // the same again: nothing is remembered
    let mut again = Vec::new();
    assert_eq!(
        respond(query, &client, &mut scratch, &mut again),
        (kind, action)
    );
    assert_eq!(frame, again);
}

/// An answer is a frame to be believed: it fits, and its checksums are right.
fn check(frame: &[u8]) {
    assert!(frame.len() <= 14 + 1500, "{} bytes", frame.len());
    let packet = SlicedPacket::from_ethernet(frame).expect("headers");
    let (net, transport) = (
        packet.net.expect("IP"),
        packet.transport.expect("transport"),
    );
    let bytes = |slice: &[u8]| slice.to_vec();
    match (net, transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let sum = udp
                .to_header()
                .calc_checksum_ipv4(&header, &bytes(udp.payload()));
            assert_eq!(sum.expect("short"), udp.checksum());
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            let sum = udp
                .to_header()
                .calc_checksum_ipv6(&header, &bytes(udp.payload()));
            assert_eq!(sum.expect("short"), udp.checksum());
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            assert_eq!(header.hop_limit(), 255);
        }
        other => panic!("not an answer of ours: {other:?}"),
    }
}

fn client(how: u8) -> Option<Client> {
    /// Read once: the inputs are packets, not configurations.
    static PLACES: LazyLock<Vec<Client>> = LazyLock::new(|| {
        let config = Config::parse("fuzz.toml".as_ref(), CONFIGURATION).expect("good");
        let bindings = BINDINGS.map(|text| agents::binding::parse(text).expect("good"));
        let clients = bindings.map(|binding| Client {
            interface: "tap0".to_owned(),
            profile: config.profile(&binding),
            binding,
            port: Port {
                index: 7,
                bridged: false,
                host_mac: MacAddr::new([2, 0, 0, 0, 0, 0xff]),
                host_link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0xff),
                host_has_gateway6: false,
            },
        });
        clients.into()
    });
    let mut client = PLACES.get(usize::from((how >> 2) & 3))?.clone();
    client.port.bridged = how & 0x40 != 0;
    client.port.host_has_gateway6 = how & 0x80 != 0;
    Some(client)
}

const CONFIGURATION: &str = r#"
[dhcp]
nameservers = ["192.0.2.1", "192.0.2.2"]
domain = "example.com"
search = ["example.com", "example.org"]
ntp = ["192.0.2.3"]
ipv6_only_wait_seconds = 1800
captive_portal = "https://portal.example.com/api"
boot = [{ file = "snponly.efi", architecture = 7, next_server = "192.0.2.4" }, { file = "undionly.kpxe" }]
[ipv6]
nameservers = ["2001:db8::1"]
search = ["example.com"]
"#;

fn packet(how: u8, message: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    let multicast = |group: &str| group.parse::<Ipv6Addr>().expect("an address").octets();
    match how & 3 {
        0 => packet.extend(message),
        1 => {
            let (from, to) = (Ipv4Addr::UNSPECIFIED.octets(), Ipv4Addr::BROADCAST.octets());
            let builder = PacketBuilder::ipv4(from, to, 64).udp(68, 67);
            builder.write(&mut packet, message).ok()?;
        }
        2 => {
            let to = multicast("ff02::1:2");
            let builder = PacketBuilder::ipv6(LINK_LOCAL.octets(), to, 1).udp(546, 547);
            builder.write(&mut packet, message).ok()?;
        }
        _ => {
            let (head, rest) = message.split_first_chunk::<6>()?;
            let [kind, code, a, b, c, d] = *head;
            let to = multicast("ff02::1:ff00:1");
            let builder = PacketBuilder::ipv6(LINK_LOCAL.octets(), to, 255);
            let builder = builder.icmpv6_raw(kind, code, [a, b, c, d]);
            builder.write(&mut packet, rest).ok()?;
        }
    }
    Some(packet)
}
