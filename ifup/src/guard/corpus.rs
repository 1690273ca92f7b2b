//! What a guest might send, good and bad: for tests, and to try a node's live rules with.

use std::net::{Ipv4Addr, Ipv6Addr};

use agents::addr::{self, MacAddr};

use super::frame::{
    Ipv4, arp, ethernet, extension, fragment, icmp, icmp6, ipv4, ipv6, mac_option, tagged, udp,
};

/// A frame, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it is, or pretends to be.
    pub name: &'static str,
    /// From the first byte of the destination's address.
    pub frame: Vec<u8>,
    /// It must pass; else it must not.
    pub passes: bool,
}

/// The guest that sends, and whom it might pretend to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// The guest's MAC address.
    pub mac: MacAddr,
    /// The guest's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The guest's global IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Another's MAC address.
    pub other_mac: MacAddr,
    /// Another's IPv4 address.
    pub other_ipv4: Ipv4Addr,
    /// Another's global IPv6 address.
    pub other_ipv6: Ipv6Addr,
    /// The router's IPv4 address.
    pub router_ipv4: Ipv4Addr,
    /// The router's global IPv6 address.
    pub router_ipv6: Ipv6Addr,
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const DHCPV6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const REPORTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const NONE6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const NONE4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// All cases for this cast, for a port of a bridge.
pub fn bridged(cast: &Cast) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut list = List {
        cast,
        cases: &mut cases,
    };
    list.ethernet();
    list.arp();
    list.ipv4();
    list.ipv6();
    list.neighbour_discovery();
    list.disguises();
    list.fragments();
    list.header_chains();
    list.leases();
    list.tunnels();
    cases
}

/// The cases that a router's interface with this MAC address takes notice of: IPv4, IPv6 and
/// ARP, those for the other sent to the router.
pub fn routed(cast: &Cast, router: MacAddr) -> Vec<Case> {
    let mut cases = bridged(cast);
    cases.retain(|case| {
        [IPV4, IPV6, ARP]
            .map(u16::to_be_bytes)
            .iter()
            .any(|kind| case.frame.get(12..14) == Some(kind.as_slice()))
    });
    for case in &mut cases {
        if case.frame.get(..6) == Some(&cast.other_mac.octets()) {
            case.frame.splice(..6, router.octets());
        }
    }
    cases
}

struct List<'a> {
    cast: &'a Cast,
    cases: &'a mut Vec<Case>,
}

impl List<'_> {
    fn pass(&mut self, name: &'static str, frame: Vec<u8>) {
        self.cases.push(Case {
            name,
            frame,
            passes: true,
        });
    }

    fn stop(&mut self, name: &'static str, frame: Vec<u8>) {
        self.cases.push(Case {
            name,
            frame,
            passes: false,
        });
    }

    fn broadcast(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        ethernet(MacAddr::BROADCAST, self.cast.mac, kind, payload)
    }

    fn to_other(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        ethernet(self.cast.other_mac, self.cast.mac, kind, payload)
    }

    fn group(&self, to: Ipv6Addr, packet: &[u8]) -> Vec<u8> {
        ethernet(MacAddr::ipv6_multicast(to), self.cast.mac, IPV6, packet)
    }

    fn four(&self, from: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let packet = ipv4(
            from,
            self.cast.other_ipv4,
            protocol,
            payload,
            &Ipv4::default(),
        );
        self.to_other(IPV4, &packet)
    }

    fn six(&self, from: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        self.to_other(IPV6, &ipv6(from, self.cast.other_ipv6, next, 64, payload))
    }

    /// A message of neighbour discovery, alone in its packet.
    fn nd(&self, from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
        let message = icmp6(from, to, kind, body);
        self.group(to, &ipv6(from, to, 58, 255, &message))
    }

    fn ethernet(&mut self) {
        let Cast {
            mac,
            other_mac,
            ipv4: own,
            other_ipv4: other,
            ..
        } = *self.cast;
        let ping = ipv4(own, other, 1, &icmp(8, &[0; 12]), &Ipv4::default());
        let forged = ethernet(other_mac, other_mac, IPV4, &ping);
        self.stop("another's source MAC address", forged);
        let request = arp(1, (mac, own), (MacAddr::ZERO, other));
        let arp_frame = self.broadcast(ARP, &request);
        self.stop(
            "a VLAN tag with VID 0",
            tagged(arp_frame.clone(), &[(0x8100, 0)]),
        );
        self.stop("a VLAN tag", tagged(arp_frame.clone(), &[(0x8100, 5)]));
        self.stop(
            "a service VLAN tag with VID 0",
            tagged(arp_frame.clone(), &[(0x88a8, 0)]),
        );
        self.stop(
            "two VLAN tags with VID 0",
            tagged(arp_frame.clone(), &[(0x88a8, 0), (0x8100, 0)]),
        );
        self.stop(
            "two VLAN tags",
            tagged(arp_frame, &[(0x8100, 0), (0x8100, 0)]),
        );
        let forged = arp(2, (mac, self.cast.router_ipv4), (MacAddr::ZERO, other));
        // LLC/SNAP: DSAP, SSAP, control, organisation 0, EtherType.
        let mut snap = vec![0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x06];
        snap.extend(&forged);
        let length = u16::try_from(snap.len()).unwrap_or(0);
        let frame = self.broadcast(length, &snap);
        self.stop("ARP behind LLC/SNAP", frame);
        let frame = self.broadcast(0x88cc, &[2, 7, 4]);
        self.stop("LLDP", frame);
        let frame = self.broadcast(0x8863, &[0x11, 9, 0, 0, 0, 0]);
        self.stop("PPPoE discovery", frame);
        let frame = self.broadcast(0x88f7, &[0; 44]);
        self.stop("PTP", frame);
        let own_rarp = arp(3, (mac, NONE4), (mac, NONE4));
        let frame = self.broadcast(0x8035, &own_rarp);
        self.pass("RARP that announces itself", frame);
        let forged = arp(3, (other_mac, NONE4), (other_mac, NONE4));
        let frame = self.broadcast(0x8035, &forged);
        self.stop("RARP that announces another", frame);
        let forged = arp(4, (mac, other), (mac, other));
        let frame = self.broadcast(0x8035, &forged);
        self.stop("RARP reply", frame);
    }

    fn arp(&mut self) {
        let Cast {
            mac,
            other_mac,
            ipv4: own,
            other_ipv4: other,
            router_ipv4: router,
            ..
        } = *self.cast;
        let cases = [
            (
                true,
                "ARP request",
                arp(1, (mac, own), (MacAddr::ZERO, other)),
            ),
            (true, "ARP reply", arp(2, (mac, own), (other_mac, other))),
            (
                true,
                "gratuitous ARP request",
                arp(1, (mac, own), (MacAddr::ZERO, own)),
            ),
            (
                true,
                "gratuitous ARP reply",
                arp(2, (mac, own), (MacAddr::BROADCAST, own)),
            ),
            (
                true,
                "ARP probe",
                arp(1, (mac, NONE4), (MacAddr::ZERO, own)),
            ),
            (
                false,
                "ARP reply for the router",
                arp(2, (mac, router), (other_mac, other)),
            ),
            (
                false,
                "ARP request from the router",
                arp(1, (mac, router), (MacAddr::ZERO, other)),
            ),
            (
                false,
                "gratuitous ARP for another",
                arp(1, (mac, other), (MacAddr::ZERO, other)),
            ),
            (
                false,
                "ARP with another's sender MAC",
                arp(1, (other_mac, own), (MacAddr::ZERO, other)),
            ),
            (
                false,
                "ARP reply with another's sender MAC",
                arp(2, (other_mac, router), (other_mac, other)),
            ),
            (
                false,
                "ARP probe for another's address",
                arp(1, (mac, NONE4), (MacAddr::ZERO, other)),
            ),
            (
                false,
                "ARP of operation 9",
                arp(9, (mac, own), (other_mac, other)),
            ),
        ];
        for (passes, name, message) in cases {
            let frame = self.broadcast(ARP, &message);
            self.cases.push(Case {
                name,
                frame,
                passes,
            });
        }
        let good = arp(2, (mac, router), (other_mac, other));
        for (name, at, value) in [
            ("ARP of another hardware type", 1, 6),
            ("ARP of another protocol", 2, 0x86),
            ("ARP with longer addresses", 4, 8),
            ("ARP with longer protocol addresses", 5, 16),
        ] {
            let mut bent = good.clone();
            bent.splice(at..=at, [value]);
            let frame = self.broadcast(ARP, &bent);
            self.stop(name, frame);
        }
    }

    fn ipv4(&mut self) {
        let Cast {
            ipv4: own,
            other_ipv4: other,
            router_ipv4: router,
            ..
        } = *self.cast;
        let tcp = [
            0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0,
        ];
        for (name, protocol, payload) in [
            ("TCP", 6, tcp.to_vec()),
            ("ping", 1, icmp(8, &[0; 12])),
            ("QUIC", 17, udp(50_000, 443, &[0xc0; 100], None)),
            ("IPsec ESP", 50, vec![0; 64]),
            (
                "SCTP",
                132,
                vec![0x0b, 0x59, 0x0b, 0x59, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20],
            ),
            ("GRE", 47, vec![0, 0, 8, 0, 0x45, 0, 0, 20]),
            ("DHCP renewal", 17, udp(68, 67, &[1; 240], None)),
        ] {
            let good = self.four(own, protocol, &payload);
            self.pass(name, good);
            let bad = self.four(other, protocol, &payload);
            self.stop(name, bad);
            let bad = self.four(router, protocol, &payload);
            self.stop(name, bad);
        }
        let inner = ipv4(own, other, 1, &icmp(8, &[0; 12]), &Ipv4::default());
        let frame = self.four(other, 4, &inner);
        self.stop("an IPv4 tunnel from another's address", frame);
        let inner6 = ipv6(self.cast.ipv6, self.cast.other_ipv6, 59, 64, &[]);
        let frame = self.four(other, 41, &inner6);
        self.stop("a 6in4 tunnel from another's address", frame);
        for (name, from) in [
            ("from no address", NONE4),
            ("from loopback", Ipv4Addr::LOCALHOST),
            ("from a group", Ipv4Addr::new(224, 0, 0, 1)),
            ("from broadcast", Ipv4Addr::BROADCAST),
        ] {
            let frame = self.four(from, 6, &tcp);
            self.stop(name, frame);
        }
        let discover = udp(68, 67, &[1; 240], None);
        let all = Ipv4Addr::BROADCAST;
        let packet = ipv4(NONE4, all, 17, &discover, &Ipv4::default());
        let frame = self.broadcast(IPV4, &packet);
        self.pass("DHCP discover", frame);
        let offer = udp(67, 68, &[2; 240], None);
        for (name, from) in [
            ("DHCP offer", own),
            ("DHCP offer from the router", router),
            ("DHCP offer from no address", NONE4),
        ] {
            let packet = ipv4(from, all, 17, &offer, &Ipv4::default());
            let frame = self.broadcast(IPV4, &packet);
            self.stop(name, frame);
        }
        let options = Ipv4 {
            options: vec![1; 40],
            ..Ipv4::default()
        };
        let packet = ipv4(own, all, 17, &offer, &options);
        let frame = self.broadcast(IPV4, &packet);
        self.stop("DHCP offer behind IPv4 options", frame);
        let six = Ipv4 {
            version: Some(6),
            ..Ipv4::default()
        };
        let packet = ipv4(own, other, 6, &tcp, &six);
        let frame = self.to_other(IPV4, &packet);
        self.stop("IPv4 of version 6", frame);
        let mut short = ipv4(own, other, 17, &offer, &Ipv4::default());
        short.splice(0..1, [0x41]);
        let frame = self.to_other(IPV4, &short);
        self.stop("IPv4 with a header of 4 bytes", frame);
        let mut long = ipv4(own, other, 17, &offer, &Ipv4::default());
        long.splice(2..4, [0xff, 0xff]);
        let frame = self.to_other(IPV4, &long);
        self.stop("IPv4 longer than the frame", frame);
        let group = Ipv4Addr::new(224, 0, 0, 22);
        let igmp = |kind: u8| icmp(kind, &[0; 4]);
        for (name, from, kind, passes) in [
            ("IGMP report", own, 0x22, true),
            ("IGMP report before an address", NONE4, 0x22, true),
            ("IGMP leave", own, 0x17, true),
            ("IGMP query", own, 0x11, false),
            ("IGMP query from no address", NONE4, 0x11, false),
            ("IGMP query from the router", router, 0x11, false),
        ] {
            let alert = Ipv4 {
                options: vec![0x94, 4, 0, 0],
                ..Ipv4::default()
            };
            let packet = ipv4(from, group, 2, &igmp(kind), &alert);
            let to = MacAddr::new([1, 0, 0x5e, 0, 0, 22]);
            let frame = ethernet(to, self.cast.mac, IPV4, &packet);
            self.cases.push(Case {
                name,
                frame,
                passes,
            });
        }
        let mut hidden = vec![17, 4];
        hidden.extend([0; 22]);
        hidden.extend(&offer);
        let frame = self.four(own, 51, &hidden);
        self.stop("DHCP offer behind an authentication header", frame);
        let mut open = vec![6, 4];
        open.extend([0; 22]);
        open.extend(tcp);
        let frame = self.four(own, 51, &open);
        self.pass("TCP behind an authentication header", frame);
        let frame = self.four(own, 1, &icmp(5, &[0; 32]));
        self.stop("ICMP redirect", frame);
        let frame = self.four(own, 1, &icmp(9, &[0; 12]));
        self.stop("ICMP router advertisement", frame);
        let frame = self.four(own, 112, &[0x31, 1, 255, 1, 0, 100, 0, 0]);
        self.stop("VRRP", frame);
        // Large datagrams come in fragments.
        let large = udp(5000, 5001, &[7; 1400], None);
        for (name, offset, part) in [
            ("the first fragment of UDP", 0x2000, large.get(..800)),
            ("the last fragment of UDP", 100, large.get(800..)),
        ] {
            let how = Ipv4 {
                fragment: offset,
                ..Ipv4::default()
            };
            let part = part.unwrap_or_default();
            let good = ipv4(own, other, 17, part, &how);
            let frame = self.to_other(IPV4, &good);
            self.pass(name, frame);
            let bad = ipv4(other, router, 17, part, &how);
            let frame = self.to_other(IPV4, &bad);
            self.stop(name, frame);
        }
        let tiny = Ipv4 {
            fragment: 0x2000,
            ..Ipv4::default()
        };
        let packet = ipv4(own, all, 17, offer.get(..8).unwrap_or_default(), &tiny);
        let frame = self.broadcast(IPV4, &packet);
        self.stop("DHCP offer in a tiny first fragment", frame);
        // Of two that are at the same place some hosts take the one, some the other.
        let harmless = ipv4(own, all, 17, large.get(..800).unwrap_or_default(), &tiny);
        let frame = self.broadcast(IPV4, &harmless);
        self.pass("a first fragment to be written over", frame);
        let packet = ipv4(own, all, 17, offer.get(..24).unwrap_or_default(), &tiny);
        let frame = self.broadcast(IPV4, &packet);
        self.stop("DHCP offer over another first fragment", frame);
        let packet = ipv4(NONE4, all, 17, &discover, &tiny);
        let frame = self.broadcast(IPV4, &packet);
        self.stop("DHCP discover in a fragment", frame);
    }

    fn ipv6(&mut self) {
        let Cast {
            mac,
            ipv6: own,
            other_ipv6: other,
            other_mac,
            router_ipv6: router,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        let other_local = addr::link_local(other_mac);
        let tcp = [
            0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0,
        ];
        for (name, next, payload) in [
            ("TCP over IPv6", 6, tcp.to_vec()),
            ("ping over IPv6", 58, icmp6(own, other, 128, &[0; 12])),
            ("ping reply over IPv6", 58, icmp6(own, other, 129, &[0; 12])),
            ("too big", 58, icmp6(own, other, 2, &[0; 60])),
            (
                "QUIC over IPv6",
                17,
                udp(50_000, 443, &[0xc0; 100], Some((own, other))),
            ),
            ("ESP over IPv6", 50, vec![0; 64]),
            ("SCTP over IPv6", 132, vec![0; 32]),
            ("no next header", 59, Vec::new()),
        ] {
            for from in [own, local] {
                let good = self.six(from, next, &payload);
                self.pass(name, good);
            }
            for from in [other, other_local, router, NONE6, Ipv6Addr::LOCALHOST] {
                let bad = self.six(from, next, &payload);
                self.stop(name, bad);
            }
            // Behind other headers the source still counts.
            let mut behind = extension(60);
            behind.extend(extension(next));
            behind.extend(&payload);
            let good = self.six(own, 0, &behind);
            self.pass(name, good);
            let bad = self.six(other, 0, &behind);
            self.stop(name, bad);
        }
        let solicit = udp(546, 547, &[1, 1, 2, 3], Some((local, DHCPV6)));
        let frame = self.group(DHCPV6, &ipv6(local, DHCPV6, 17, 1, &solicit));
        self.pass("DHCPv6 solicit", frame);
        let solicit = udp(546, 547, &[1, 1, 2, 3], Some((other_local, DHCPV6)));
        let frame = self.group(DHCPV6, &ipv6(other_local, DHCPV6, 17, 1, &solicit));
        self.stop("DHCPv6 solicit from another", frame);
        let reply = udp(547, 546, &[2, 1, 2, 3], Some((local, other_local)));
        let frame = self.to_other(IPV6, &ipv6(local, other_local, 17, 1, &reply));
        self.stop("DHCPv6 advertise", frame);
        let mut behind = extension(17);
        behind.extend(&reply);
        for (name, header) in [
            ("DHCPv6 advertise behind hop-by-hop options", 0),
            ("DHCPv6 advertise behind a routing header", 43),
            ("DHCPv6 advertise behind destination options", 60),
        ] {
            let frame = self.to_other(IPV6, &ipv6(local, other_local, header, 1, &behind));
            self.stop(name, frame);
        }
        for (name, from, kind, passes) in [
            ("MLD report", local, 143, true),
            ("MLD report before an address", NONE6, 143, true),
            ("MLD done", local, 132, true),
            ("MLD report from another", other_local, 143, false),
            ("MLD query", local, 130, false),
            ("MLD query from another", other_local, 130, false),
        ] {
            let message = icmp6(from, REPORTS, kind, &[0; 20]);
            let mut payload = vec![58, 0, 5, 2, 0, 0, 1, 0];
            payload.extend(message);
            let frame = self.group(REPORTS, &ipv6(from, REPORTS, 0, 1, &payload));
            self.cases.push(Case {
                name,
                frame,
                passes,
            });
        }
        let mut version4 = ipv6(own, other, 6, 64, &tcp);
        version4.splice(0..1, [0x45]);
        let frame = self.to_other(IPV6, &version4);
        self.stop("IPv6 of version 4", frame);
        let mut long = ipv6(own, other, 6, 64, &tcp);
        long.splice(4..6, [0xff, 0xff]);
        let frame = self.to_other(IPV6, &long);
        self.stop("IPv6 longer than the frame", frame);
    }

    fn neighbour_discovery(&mut self) {
        let Cast {
            mac,
            other_mac,
            ipv6: own,
            other_ipv6: other,
            router_ipv6: router,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        let other_local = addr::link_local(other_mac);
        let body = |target: Ipv6Addr, options: &[Vec<u8>]| {
            let mut body = vec![0; 4];
            body.extend(target.octets());
            body.extend(options.concat());
            body
        };
        let solicited = addr::solicited_node;
        let nonce = vec![14, 1, 1, 2, 3, 4, 5, 6];
        let none = |target| body(target, &[]);
        // Solicitations.
        for (name, from, target, options, passes) in [
            ("NS", own, other, vec![mac_option(1, mac)], true),
            (
                "NS from its link-local address",
                local,
                router,
                vec![mac_option(1, mac)],
                true,
            ),
            ("NS without an option", local, other, vec![], true),
            (
                "NS with a nonce",
                local,
                other,
                vec![mac_option(1, mac), nonce.clone()],
                true,
            ),
            ("DAD for its own address", NONE6, own, vec![], true),
            ("DAD with a nonce", NONE6, local, vec![nonce.clone()], true),
            (
                "NS with another's MAC",
                own,
                other,
                vec![mac_option(1, other_mac)],
                false,
            ),
            (
                "NS with two MACs",
                own,
                other,
                vec![mac_option(1, mac), mac_option(1, other_mac)],
                false,
            ),
            (
                "NS with another's MAC last",
                own,
                other,
                vec![nonce.clone(), mac_option(1, other_mac)],
                false,
            ),
            (
                "NS from another",
                other,
                router,
                vec![mac_option(1, mac)],
                false,
            ),
            (
                "NS from another's link-local address",
                other_local,
                router,
                vec![mac_option(1, mac)],
                false,
            ),
            (
                "NS from the router",
                router,
                other,
                vec![mac_option(1, mac)],
                false,
            ),
            ("DAD for another's address", NONE6, other, vec![], false),
            (
                "DAD for another's link-local address",
                NONE6,
                other_local,
                vec![],
                false,
            ),
            ("DAD for the router's address", NONE6, router, vec![], false),
        ] {
            let to = solicited(target);
            let frame = self.nd(from, to, 135, &body(target, &options));
            self.cases.push(Case {
                name,
                frame,
                passes,
            });
        }
        // Advertisements: flags are in the first byte.
        let flagged = |flags: u8, target, options: &[Vec<u8>]| {
            let mut body = body(target, options);
            body.splice(0..1, [flags]);
            body
        };
        for (name, from, target, options, passes) in [
            ("NA", own, own, vec![mac_option(2, mac)], true),
            (
                "NA for its link-local address",
                local,
                local,
                vec![mac_option(2, mac)],
                true,
            ),
            (
                "NA for one from the other of its addresses",
                local,
                own,
                vec![mac_option(2, mac)],
                true,
            ),
            ("NA without an option", own, own, vec![], true),
            (
                "NA for another",
                own,
                other,
                vec![mac_option(2, mac)],
                false,
            ),
            (
                "NA for the router",
                own,
                router,
                vec![mac_option(2, mac)],
                false,
            ),
            (
                "NA from another",
                other,
                other,
                vec![mac_option(2, mac)],
                false,
            ),
            (
                "NA with another's MAC",
                own,
                own,
                vec![mac_option(2, other_mac)],
                false,
            ),
            (
                "NA with two MACs",
                own,
                own,
                vec![mac_option(2, mac), mac_option(2, other_mac)],
                false,
            ),
            (
                "NA from no address",
                NONE6,
                own,
                vec![mac_option(2, mac)],
                false,
            ),
        ] {
            let frame = self.nd(from, ALL_NODES, 136, &flagged(0x20, target, &options));
            self.cases.push(Case {
                name,
                frame,
                passes,
            });
        }
        // Router solicitations.
        for (name, from, options, passes) in [
            ("RS", local, mac_option(1, mac), true),
            ("RS without an option", local, vec![], true),
            ("RS from no address", NONE6, vec![], true),
            (
                "RS from no address with a MAC",
                NONE6,
                mac_option(1, other_mac),
                false,
            ),
            ("RS from another", other_local, mac_option(1, mac), false),
            (
                "RS with another's MAC",
                local,
                mac_option(1, other_mac),
                false,
            ),
        ] {
            let mut body = vec![0; 4];
            body.extend(options);
            let frame = self.nd(from, ALL_ROUTERS, 133, &body);
            self.cases.push(Case {
                name,
                frame,
                passes,
            });
        }
        let mut advertisement = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advertisement.extend(mac_option(1, mac));
        for (name, from) in [
            ("RA", local),
            ("RA from another", other_local),
            (
                "RA from a router's address",
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            ),
        ] {
            let frame = self.nd(from, ALL_NODES, 134, &advertisement);
            self.stop(name, frame);
        }
        let mut redirect = vec![0; 4];
        redirect.extend(own.octets());
        redirect.extend(other.octets());
        let frame = self.nd(local, ALL_NODES, 137, &redirect);
        self.stop("redirect", frame);
        for (name, kind) in [
            ("router renumbering", 138),
            ("inverse solicitation", 141),
            ("home agent", 145),
            ("certification path", 149),
            ("multicast router", 151),
            ("an experimental type", 200),
        ] {
            let frame = self.nd(local, ALL_NODES, kind, &none(own));
            self.stop(name, frame);
        }
        // A host's own random address, asked for first.
        let [a, b, c, d, ..] = local.segments();
        let random = Ipv6Addr::new(a, b, c, d, 0x1a2b, 0x3c4d, 0x5e6f, 0x7081);
        let ping = |from| {
            ipv6(
                from,
                ALL_NODES,
                58,
                64,
                &icmp6(from, ALL_NODES, 128, &[0; 8]),
            )
        };
        let frame = self.group(ALL_NODES, &ping(random));
        self.stop("ping from a random address that was never asked for", frame);
        let frame = self.nd(NONE6, solicited(random), 135, &none(random));
        self.pass("DAD for a random link-local address", frame);
        let frame = self.group(ALL_NODES, &ping(random));
        self.pass("ping from the random address", frame);
        let frame = self.nd(
            random,
            ALL_NODES,
            136,
            &flagged(0x20, random, &[mac_option(2, mac)]),
        );
        self.pass("NA for the random address", frame);
        let [a, b, c, d, ..] = own.segments();
        let private = Ipv6Addr::new(a, b, c, d, 0x9a2b, 0x3c4d, 0x5e6f, 0x7082);
        let frame = self.nd(
            private,
            solicited(router),
            135,
            &body(router, &[mac_option(1, mac)]),
        );
        self.pass("NS from a privacy address, first seen", frame);
        let frame = self.group(ALL_NODES, &ping(private));
        self.pass("ping from the privacy address", frame);
        let foreign = Ipv6Addr::new(a, b, c, d ^ 1, 0x9a2b, 0x3c4d, 0x5e6f, 0x7082);
        let frame = self.nd(NONE6, solicited(foreign), 135, &none(foreign));
        self.stop("DAD for an address in a foreign prefix", frame);
        let small = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0x53);
        let frame = self.nd(NONE6, solicited(small), 135, &none(small));
        self.stop("DAD for an address such as servers have", frame);
    }

    /// What must not pass does not pass behind other headers either.
    fn disguises(&mut self) {
        let Cast {
            mac,
            ipv6: own,
            router_ipv6: router,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        let mut advertisement = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advertisement.extend(mac_option(1, mac));
        let mut forged = vec![0x20, 0, 0, 0];
        forged.extend(router.octets());
        forged.extend(mac_option(2, mac));
        for (name, kind, body) in [
            ("RA in disguise", 134, &advertisement),
            ("NA for the router in disguise", 136, &forged),
        ] {
            let message = icmp6(local, ALL_NODES, kind, body);
            for header in [0, 43, 60] {
                let mut behind = extension(58);
                behind.extend(&message);
                let frame = self.group(ALL_NODES, &ipv6(local, ALL_NODES, header, 255, &behind));
                self.stop(name, frame);
            }
            // Many in a row.
            let mut row = Vec::new();
            for _ in 0..20 {
                row.extend(extension(60));
            }
            row.extend(extension(58));
            row.extend(&message);
            let frame = self.group(ALL_NODES, &ipv6(local, ALL_NODES, 60, 255, &row));
            self.stop(name, frame);
            // An atomic fragment: the only one of its packet.
            let mut atomic = fragment(58, 0, false);
            atomic.extend(&message);
            let frame = self.group(ALL_NODES, &ipv6(local, ALL_NODES, 44, 255, &atomic));
            self.stop(name, frame);
            let mut authenticated = vec![58, 4];
            authenticated.extend([0; 22]);
            authenticated.extend(&message);
            let frame = self.group(ALL_NODES, &ipv6(local, ALL_NODES, 51, 255, &authenticated));
            self.stop(name, frame);
        }
        let frame = {
            let mut wrong = vec![0x20, 0, 0, 0];
            wrong.extend(own.octets());
            let message = icmp6(own, ALL_NODES, 136, &wrong);
            self.group(ALL_NODES, &ipv6(own, ALL_NODES, 58, 64, &message))
        };
        self.stop("NA that came from afar", frame);
    }

    fn fragments(&mut self) {
        let Cast {
            mac,
            ipv6: own,
            other_ipv6: other,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        // Good ones: a large ping and a large datagram.
        let ping = icmp6(own, other, 128, &[7; 2000]);
        let datagram = udp(5000, 5001, &[7; 2000], Some((own, other)));
        for (name, next, whole) in [
            ("a large ping in fragments", 58, ping),
            ("a large datagram in fragments", 17, datagram),
        ] {
            for (offset, more, part) in [
                (0, true, whole.get(..1200)),
                (150, false, whole.get(1200..)),
            ] {
                let mut payload = fragment(next, offset, more);
                payload.extend(part.unwrap_or_default());
                let good = self.six(own, 44, &payload);
                self.pass(name, good);
                let bad = self.six(other, 44, &payload);
                self.stop(name, bad);
            }
        }
        let mut advertisement = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advertisement.extend(mac_option(1, mac));
        let message = icmp6(local, ALL_NODES, 134, &advertisement);
        let send = |payload: &[u8]| ipv6(local, ALL_NODES, 44, 255, payload);
        // The message's head in the first fragment.
        let mut first = fragment(58, 0, true);
        first.extend(message.get(..8).unwrap_or_default());
        let frame = self.group(ALL_NODES, &send(&first));
        self.stop("RA: first of two fragments", frame);
        // Where the first of a ping was.
        let mut ping = fragment(58, 0, true);
        ping.extend(icmp6(local, ALL_NODES, 128, &[7; 1196]));
        let frame = self.group(ALL_NODES, &send(&ping));
        self.pass("the first fragment of a ping to be written over", frame);
        let mut over = fragment(58, 0, false);
        over.extend(&message);
        let frame = self.group(ALL_NODES, &send(&over));
        self.stop("RA over the first fragment of a ping", frame);
        // Its head in the second: only options in the first (RFC 7112 forbids it).
        let mut first = fragment(60, 0, true);
        first.extend(extension(58));
        let frame = self.group(ALL_NODES, &send(&first));
        self.stop("RA: options alone in the first fragment", frame);
        let mut second = fragment(60, 1, false);
        second.extend(&message);
        let frame = self.group(ALL_NODES, &send(&second));
        self.stop("RA: the head in the second fragment", frame);
        let mut again = fragment(58, 0, false);
        again.extend(&message);
        let frame = self.group(ALL_NODES, &send(&again));
        self.stop("RA: over a fragment sent before", frame);
        // A fragment inside a fragment.
        let mut inner = fragment(44, 0, false);
        inner.extend(fragment(58, 0, false));
        inner.extend(&message);
        let frame = self.group(ALL_NODES, &send(&inner));
        self.stop("RA in a fragment in a fragment", frame);
        let frame = self.group(ALL_NODES, &send(&[58]));
        self.stop("a fragment header that is cut off", frame);
    }

    /// RFC 7112: a first fragment has the whole header chain, and nothing is hidden behind a
    /// header that only some hosts follow.
    fn header_chains(&mut self) {
        let Cast {
            mac,
            ipv6: own,
            other_ipv6: other,
            ipv4: own4,
            other_ipv4: other4,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        let reply = udp(547, 546, &[7, 1, 2, 3], Some((local, ALL_NODES)));
        let harmless = udp(5000, 5001, &[7; 16], Some((own, other)));
        let tcp = tcp();
        for words in [0_u8, 1, 7, 100] {
            let mut first = fragment(60, 0, true);
            first.extend(options(17, words));
            let frame = self.six(own, 44, &first);
            self.stop("a first fragment of options alone", frame);
            // Bytes behind the packet's end are not part of it.
            let mut packet = ipv6(own, other, 44, 64, &first);
            packet.extend(&harmless);
            let frame = self.to_other(IPV6, &packet);
            self.stop("a first fragment with a header behind its end", frame);
            let mut whole = first.clone();
            whole.extend(&harmless);
            let frame = self.six(own, 44, &whole);
            self.pass("a first fragment with options and its whole header", frame);
            let mut atomic = fragment(60, 0, false);
            atomic.extend(options(17, words));
            let frame = self.six(own, 44, &atomic);
            self.stop("an atomic fragment of options alone", frame);
        }
        for (next, head) in [(6, 8), (6, 16), (17, 0), (58, 0), (41, 8), (132, 8)] {
            let mut first = fragment(next, 0, true);
            first.extend(tcp.get(..head).unwrap_or_default());
            let frame = self.six(own, 44, &first);
            self.stop("a first fragment with part of a header", frame);
        }
        let mut atomic = fragment(6, 0, false);
        atomic.extend(&tcp);
        let frame = self.six(own, 44, &atomic);
        self.pass("an atomic fragment with its whole header", frame);
        let mut nested = fragment(60, 0, false);
        nested.extend(extension(44));
        nested.extend(fragment(60, 0, true));
        nested.extend(extension(17));
        let frame = self.six(own, 44, &nested);
        self.stop("a fragment in an atomic fragment", frame);
        for (name, protocol, size) in [
            ("a first IPv4 fragment with part of a TCP header", 6, 8),
            ("a first IPv4 fragment with part of a TCP header", 6, 16),
            ("a first IPv4 fragment without a byte of UDP", 17, 0),
            ("a first IPv4 fragment with part of a UDP header", 17, 4),
        ] {
            let how = Ipv4 {
                fragment: 0x2000,
                ..Ipv4::default()
            };
            let part = tcp.get(..size).unwrap_or_default();
            let mut packet = ipv4(own4, other4, protocol, part, &how);
            packet.extend(tcp.get(size..).unwrap_or_default());
            let frame = self.to_other(IPV4, &packet);
            self.stop(name, frame);
        }
        let second = Ipv4 {
            fragment: 0x2001,
            ..Ipv4::default()
        };
        let packet = ipv4(own4, other4, 6, tcp.get(8..16).unwrap_or_default(), &second);
        let frame = self.to_other(IPV4, &packet);
        self.stop("a second fragment with the rest of a TCP header", frame);
        // Headers that not every host follows.
        let mut advertisement = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advertisement.extend(mac_option(1, mac));
        let advertisement = icmp6(local, ALL_NODES, 134, &advertisement);
        let frame = self.group(ALL_NODES, &ipv6(local, ALL_NODES, 59, 255, &advertisement));
        self.stop("RA behind no next header", frame);
        for (name, header) in [
            ("RA behind a mobility header", 135),
            ("RA behind a HIP header", 139),
            ("RA behind a shim6 header", 140),
            ("RA behind an experimental header", 253),
            ("RA behind an experimental header", 254),
            ("RA behind an unknown header", 61),
            ("RA behind an unknown header", 200),
        ] {
            let mut behind = extension(58);
            behind.extend(&advertisement);
            let frame = self.group(ALL_NODES, &ipv6(local, ALL_NODES, header, 255, &behind));
            self.stop(name, frame);
        }
        for kind in [0, 4, 99] {
            let query = icmp6(local, REPORTS, 130, &[0; 20]);
            let mut behind = vec![58, 0, kind, 1, 0, 0, 0, 0];
            behind.extend(&query);
            let frame = self.group(REPORTS, &ipv6(local, REPORTS, 43, 1, &behind));
            self.stop("MLD query behind a routing header", frame);
            let mut behind = vec![6, 2, kind, 1, 0, 0, 0, 0];
            behind.extend(other.octets());
            behind.extend(&tcp);
            let frame = self.six(own, 43, &behind);
            self.stop("a routing header with segments left", frame);
        }
        let mut behind = vec![6, 0, 4, 0, 0, 0, 0, 0];
        behind.extend(&tcp);
        let frame = self.six(own, 43, &behind);
        self.pass("a routing header that has done its work", frame);
        let mut lying = fragment(17, 0, true);
        lying.extend(&reply);
        let frame = self.six(local, 44, &lying);
        self.stop("DHCPv6 reply in a first fragment", frame);
    }

    /// Nothing from a guest reaches a DHCP client, from whatever port.
    fn leases(&mut self) {
        let Cast {
            mac,
            ipv6: own,
            other_ipv6: other,
            other_mac,
            ipv4: own4,
            other_ipv4: other4,
            router_ipv4: router4,
            router_ipv6: router6,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        let other_local = addr::link_local(other_mac);
        for from in [9_u16, 68, 1024, 67] {
            let offer = udp(from, 68, &[2; 240], None);
            for to in [other4, Ipv4Addr::BROADCAST] {
                let packet = ipv4(own4, to, 17, &offer, &Ipv4::default());
                let frame = if to == other4 {
                    self.to_other(IPV4, &packet)
                } else {
                    self.broadcast(IPV4, &packet)
                };
                self.stop("DHCP offer from any port", frame);
            }
        }
        let how = Ipv4 {
            fragment: 0x2000,
            ..Ipv4::default()
        };
        let offer = udp(9, 68, &[2; 240], None);
        let packet = ipv4(own4, other4, 17, offer.get(..64).unwrap_or_default(), &how);
        let frame = self.to_other(IPV4, &packet);
        self.stop("DHCP offer from any port in a fragment", frame);
        for from in [9_u16, 546, 1024, 547] {
            for (source, to) in [(local, other_local), (own, other), (local, ALL_NODES)] {
                let reply = udp(from, 546, &[7, 1, 2, 3], Some((source, to)));
                let send = |next: u8, payload: &[u8]| {
                    let packet = ipv6(source, to, next, 1, payload);
                    if to == ALL_NODES {
                        self.group(to, &packet)
                    } else {
                        self.to_other(IPV6, &packet)
                    }
                };
                let mut frames = vec![send(17, &reply)];
                for header in [0, 60] {
                    let mut behind = extension(17);
                    behind.extend(&reply);
                    frames.push(send(header, &behind));
                }
                for more in [true, false] {
                    let mut behind = fragment(17, 0, more);
                    behind.extend(reply.get(..8).unwrap_or_default());
                    frames.push(send(44, &behind));
                }
                for frame in frames {
                    self.stop("DHCPv6 reply from any port", frame);
                }
            }
        }
        // The guest's own client.
        let request = udp(68, 67, &[1; 240], None);
        let packet = ipv4(NONE4, router4, 17, &request, &Ipv4::default());
        let frame = self.broadcast(IPV4, &packet);
        self.pass("DHCP request to a server before it has an address", frame);
        let renew = udp(546, 547, &[5, 1, 2, 3], Some((own, router6)));
        let frame = self.to_other(IPV6, &ipv6(own, router6, 17, 64, &renew));
        self.pass("DHCPv6 renewal by unicast", frame);
        let renew = udp(546, 547, &[5, 1, 2, 3], Some((local, DHCPV6)));
        let frame = self.group(DHCPV6, &ipv6(local, DHCPV6, 17, 1, &renew));
        self.pass("DHCPv6 renewal", frame);
    }

    /// Tunnels, and what comes out of one where a host ends it.
    fn tunnels(&mut self) {
        let Cast {
            mac,
            ipv6: own,
            other_ipv6: other,
            ipv4: own4,
            other_ipv4: other4,
            ..
        } = *self.cast;
        let local = addr::link_local(mac);
        let mut advertisement = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advertisement.extend(mac_option(1, mac));
        let advertisement = icmp6(local, ALL_NODES, 134, &advertisement);
        let offer = udp(9, 68, &[2; 240], None);
        let reply = udp(9, 546, &[7, 1, 2, 3], Some((local, ALL_NODES)));
        let mut behind = extension(58);
        behind.extend(&advertisement);
        let mut first = fragment(60, 0, true);
        first.extend(extension(58));
        let bad6 = [
            ipv6(local, ALL_NODES, 58, 255, &advertisement),
            ipv6(local, ALL_NODES, 17, 1, &reply),
            ipv6(local, ALL_NODES, 60, 255, &behind),
            ipv6(local, ALL_NODES, 44, 255, &first),
            ipv6(local, ALL_NODES, 135, 255, &behind),
        ];
        let bad4 = [ipv4(
            own4,
            Ipv4Addr::BROADCAST,
            17,
            &offer,
            &Ipv4::default(),
        )];
        let good6 = [
            ipv6(own, other, 6, 64, &tcp()),
            ipv6(own, other, 58, 64, &icmp6(own, other, 128, &[0; 12])),
            ipv6(
                own,
                other,
                17,
                64,
                &udp(5000, 53, &[7; 30], Some((own, other))),
            ),
        ];
        let good4 = [
            ipv4(own4, other4, 6, &tcp(), &Ipv4::default()),
            ipv4(
                own4,
                other4,
                17,
                &udp(5000, 53, &[7; 30], None),
                &Ipv4::default(),
            ),
            ipv4(own4, other4, 1, &icmp(8, &[0; 12]), &Ipv4::default()),
        ];
        let firsts = [bad6.first(), bad4.first(), good6.first(), good4.first()];
        for (inner, inner_protocol, kind, passes) in bad6
            .iter()
            .map(|packet| (packet, 41, IPV6, false))
            .chain(bad4.iter().map(|packet| (packet, 4, IPV4, false)))
            .chain(good6.iter().map(|packet| (packet, 41, IPV6, true)))
            .chain(good4.iter().map(|packet| (packet, 4, IPV4, true)))
        {
            let mut forms = vec![(inner_protocol, inner.clone())];
            for flags in [0, 0x20, 0x80, 0xb0] {
                let words: usize = [0x80, 0x20, 0x10]
                    .iter()
                    .filter(|bit| flags & **bit != 0)
                    .count();
                let mut gre = vec![flags, 0];
                gre.extend(kind.to_be_bytes());
                gre.extend(vec![0; 4 * words]);
                gre.extend(inner);
                forms.push((47, gre));
            }
            let mut bridged = vec![0x20, 0, 0x65, 0x58, 0, 0, 0, 9];
            bridged.extend(ethernet(MacAddr::BROADCAST, mac, kind, inner));
            forms.push((47, bridged));
            // Every form of tunnel for one packet of each kind, one form for the others.
            if !firsts.contains(&Some(inner)) {
                forms.truncate(1);
            }
            for (protocol, payload) in forms {
                let name = if passes {
                    "a tunnel"
                } else {
                    "a server's message in a tunnel"
                };
                let mut frames = vec![
                    self.four(own4, protocol, &payload),
                    self.six(own, protocol, &payload),
                ];
                // The tunnel encapsulation limit (RFC 2473).
                let mut limited = vec![protocol, 0, 4, 1, 4, 1, 1, 0];
                limited.extend(&payload);
                frames.push(self.six(own, 60, &limited));
                for frame in frames {
                    self.cases.push(Case {
                        name,
                        frame,
                        passes,
                    });
                }
            }
        }
        let twice = ipv6(own, other, 41, 64, bad6.first().map_or(&[], Vec::as_slice));
        let frame = self.six(own, 41, &twice);
        self.stop("RA in a tunnel in a tunnel", frame);
    }
}

/// A TCP segment that opens a connection.
fn tcp() -> Vec<u8> {
    vec![
        0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0,
    ]
}

/// A header of destination options, of so many words of 8 bytes more than the first.
fn options(next: u8, words: u8) -> Vec<u8> {
    let mut header = vec![next, words];
    // PadN (RFC 8200, section 4.2), one or two of them.
    let mut left = usize::from(words) * 8 + 6;
    while left > 0 {
        let size = left.min(255);
        let size = if left - size == 1 { size - 1 } else { size };
        header.push(1);
        header.push(u8::try_from(size - 2).unwrap_or(0));
        header.extend(vec![0; size - 2]);
        left -= size;
    }
    header
}
