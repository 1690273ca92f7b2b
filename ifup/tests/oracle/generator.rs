//! Frames that know what a frame is made of: every chain of headers, fragments, tags, tunnels,
//! and lies about lengths.

use std::net::{Ipv4Addr, Ipv6Addr};

use agents::addr::{self, MacAddr};
use ifup::guard::corpus::Cast;
use ifup::guard::frame::{
    Ipv4, arp, ethernet, fragment, icmp, icmp6, ipv4, ipv6, mac_option, tagged, udp,
};

/// xorshift64* (Vigna 2016): the same frames for the same seed everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn port(&mut self, usual: &[u16]) -> u16 {
        if self.one_in(3) {
            self.next() as u16
        } else {
            self.pick(usual)
        }
    }
}

pub struct Generator<'a> {
    pub random: Random,
    pub cast: &'a Cast,
    /// Tags and strange EtherTypes are more frequent.
    pub tags: bool,
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const PORTS: [u16; 14] = [
    9, 53, 67, 68, 80, 123, 443, 546, 547, 1024, 4789, 5353, 33_000, 50_000,
];

impl Generator<'_> {
    fn source6(&mut self) -> Ipv6Addr {
        let Cast { mac, ipv6, .. } = *self.cast;
        let chosen = |at: u16| {
            let [a, b, c, d, ..] = ipv6.segments();
            Ipv6Addr::new(a, b, c, d, 0x1a2b, 0x3c4d, 0x5e6f, at)
        };
        match self.random.below(16) {
            0..=6 => ipv6,
            7..=11 => addr::link_local(mac),
            12 => chosen(1),
            13 => self
                .random
                .pick(&[self.cast.other_ipv6, self.cast.router_ipv6]),
            14 => Ipv6Addr::UNSPECIFIED,
            _ => {
                let at = self.random.below(3);
                self.random.pick(&[
                    addr::link_local(self.cast.other_mac),
                    Ipv6Addr::LOCALHOST,
                    chosen(2 + at as u16),
                    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x9a2b, 0x3c4d, 0x5e6f, 0x11),
                ])
            }
        }
    }

    fn target6(&mut self) -> Ipv6Addr {
        self.random.pick(&[
            self.cast.other_ipv6,
            self.cast.router_ipv6,
            ALL_NODES,
            addr::link_local(self.cast.other_mac),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16),
            addr::solicited_node(self.cast.other_ipv6),
        ])
    }

    fn source4(&mut self) -> Ipv4Addr {
        match self.random.below(10) {
            0..=6 => self.cast.ipv4,
            7 => Ipv4Addr::UNSPECIFIED,
            _ => self.random.pick(&[
                self.cast.other_ipv4,
                self.cast.router_ipv4,
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::BROADCAST,
            ]),
        }
    }

    fn target4(&mut self) -> Ipv4Addr {
        self.random.pick(&[
            self.cast.other_ipv4,
            self.cast.router_ipv4,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 22),
        ])
    }

    fn datagram(&mut self) -> Vec<u8> {
        let (from, to) = (self.random.port(&PORTS), self.random.port(&PORTS));
        let (from, to) = match self.random.below(6) {
            0 => (68, 67),
            1 => (546, 547),
            2 => (from, self.random.pick(&[68, 546])),
            _ => (from, to),
        };
        let size = self.random.below(80);
        let body = self.random.bytes(size);
        udp(from, to, &body, None)
    }

    fn segment(&mut self) -> Vec<u8> {
        let mut segment = self.random.bytes(20);
        segment[12] = 0x50;
        let size = self.random.below(60);
        segment.extend(self.random.bytes(size));
        segment
    }

    fn message6(&mut self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let kind = match self.random.below(4) {
            0 => self.random.pick(&[134_u8, 137, 130, 136]),
            1 => self.random.next() as u8,
            _ => self.random.pick(&[1, 2, 3, 128, 129, 131, 143, 133, 135]),
        };
        let mut body = vec![0; 4];
        if matches!(kind, 135..=137) {
            let target = self.source6();
            body.extend(target.octets());
        }
        let count = self.random.below(3);
        for _ in 0..count {
            let mac = if self.random.one_in(5) {
                self.cast.other_mac
            } else {
                self.cast.mac
            };
            body.extend(match self.random.below(4) {
                0 => vec![14, 1, 1, 2, 3, 4, 5, 6],
                1 => mac_option(2, mac),
                _ => mac_option(1, mac),
            });
        }
        if self.random.one_in(3) {
            let size = self.random.below(40);
            body.extend(self.random.bytes(size));
        }
        let mut message = icmp6(from, to, kind, &body);
        if self.random.one_in(20) {
            message[1] = self.random.next() as u8;
        }
        message
    }

    /// Protocol and payload; `depth` counts tunnels.
    fn upper(&mut self, six: bool, from: Ipv6Addr, to: Ipv6Addr, depth: usize) -> (u8, Vec<u8>) {
        let tunnels = if depth < 2 { 20 } else { 14 };
        match self.random.below(tunnels) {
            0..=3 => (6, self.segment()),
            4..=7 => (17, self.datagram()),
            8..=10 if six => (58, self.message6(from, to)),
            8..=10 => {
                let kind = self.random.pick(&[0_u8, 3, 5, 8, 9, 11, 13]);
                let size = self.random.below(40);
                let body = self.random.bytes(4 + size);
                (1, icmp(kind, &body))
            }
            11 => (self.random.pick(&[50, 132]), self.random.bytes(32)),
            12 if six => {
                let size = if self.random.one_in(2) { 0 } else { 24 };
                (59, self.random.bytes(size))
            }
            12 => {
                let kind = self.random.pick(&[0x11_u8, 0x16, 0x17, 0x22]);
                (2, icmp(kind, &[0; 8]))
            }
            13 => {
                let number = self
                    .random
                    .pick(&[112, 89, 135, 139, 140, 253, 99, 200, 58, 17]);
                let mut body = vec![self.random.pick(&[58, 17, 59, 6]), 0, 0, 0, 0, 0, 0, 0];
                if self.random.one_in(2) {
                    body = self.message6(from, to);
                } else if self.random.one_in(2) {
                    body.extend(self.datagram());
                } else {
                    body.extend(self.message6(from, to));
                }
                (number, body)
            }
            14 | 15 => {
                let four = self.random.one_in(2);
                let inner = self.packet(!four, depth + 1);
                (if four { 4 } else { 41 }, inner)
            }
            16 | 17 => {
                let flags = self
                    .random
                    .pick(&[0_u8, 0x20, 0x80, 0x10, 0xb0, 0x30, 0x40]);
                let words = (flags & 0xb0).count_ones() as usize;
                let four = self.random.one_in(2);
                let inner = self.packet(!four, depth + 1);
                let kind: u16 = if four { 0x0800 } else { 0x86dd };
                let bridged = self.random.one_in(3);
                let mut gre = vec![flags, 0];
                gre.extend(if bridged { 0x6558 } else { kind }.to_be_bytes());
                gre.extend(vec![0; 4 * words]);
                if bridged {
                    gre.extend(ethernet(MacAddr::BROADCAST, self.cast.mac, kind, &inner));
                } else {
                    gre.extend(inner);
                }
                (47, gre)
            }
            18 => {
                let inner = self.packet(true, depth + 1);
                let mut bridged = vec![0x30, 0];
                bridged.extend(ethernet(MacAddr::BROADCAST, self.cast.mac, 0x86dd, &inner));
                (97, bridged)
            }
            _ => {
                let (next, rest) = self.upper(six, from, to, depth + 2);
                let mut authenticated = vec![next, 4];
                authenticated.extend(vec![0; 22]);
                authenticated.extend(rest);
                (51, authenticated)
            }
        }
    }

    fn extension(&mut self, kind: u8, next: u8) -> Vec<u8> {
        let words = if self.random.one_in(3) {
            self.random.below(4)
        } else {
            0
        };
        let mut header = vec![next, words as u8];
        if kind == 43 {
            let left = if self.random.one_in(2) { 0 } else { 1 };
            header.extend([self.random.pick(&[0, 2, 4, 99]), left, 0, 0, 0, 0]);
        } else {
            header.extend([1, 4, 0, 0, 0, 0]);
        }
        header.extend(vec![0; words * 8]);
        header
    }

    fn packet(&mut self, six: bool, depth: usize) -> Vec<u8> {
        if six {
            self.packet6(depth)
        } else {
            self.packet4(depth)
        }
    }

    fn packet6(&mut self, depth: usize) -> Vec<u8> {
        let (from, to) = (self.source6(), self.target6());
        let (mut next, mut payload) = self.upper(true, from, to, depth);
        let mut hops = self.random.pick(&[64, 255, 1]);
        if next == 58 && matches!(payload.first(), Some(133..=137)) && !self.random.one_in(8) {
            hops = 255;
        }
        let headers = match self.random.below(8) {
            0..=4 => 0,
            5 | 6 => 1,
            _ => 1 + self.random.below(4),
        };
        for _ in 0..headers {
            let kind = self.random.pick(&[0, 43, 44, 44, 44, 60, 60]);
            let mut front = if kind == 44 {
                let first = self.random.one_in(2);
                let place = if self.random.one_in(3) {
                    1 + self.random.below(40)
                } else {
                    0
                };
                let more = first || self.random.one_in(2);
                // The size of a fragment that others follow.
                if more && !self.random.one_in(8) {
                    let cut = if self.random.one_in(3) {
                        self.random.below(payload.len() + 1)
                    } else {
                        payload.len()
                    };
                    payload.truncate(cut / 8 * 8);
                }
                // Receivers ignore it in a further fragment.
                let lie = place > 0 && self.random.one_in(2);
                let following = if lie {
                    self.random.pick(&[17, 6, 58, 59, 60, 50, 132])
                } else {
                    next
                };
                fragment(following, place as u16, more)
            } else {
                self.extension(kind, next)
            };
            front.extend(payload);
            payload = front;
            next = kind;
        }
        // As listeners send it.
        if headers == 0 && next == 58 && matches!(payload.first(), Some(131 | 132 | 143)) {
            let mut front = vec![58, 0, 5, 2, 0, 0, 1, 0];
            front.extend(payload);
            payload = front;
            next = 0;
            hops = 1;
        }
        let mut packet = ipv6(from, to, next, hops, &payload);
        if self.random.one_in(20) {
            let length = u16::from_be_bytes([packet[4], packet[5]]);
            let lie = match self.random.below(4) {
                0 => length.wrapping_add(8),
                1 => length.saturating_sub(8),
                2 => length.saturating_sub(self.random.below(40) as u16),
                _ => self.random.next() as u16,
            };
            packet[4..6].copy_from_slice(&lie.to_be_bytes());
        }
        packet
    }

    fn packet4(&mut self, depth: usize) -> Vec<u8> {
        let (from, to) = (self.source4(), self.target4());
        let none = Ipv6Addr::UNSPECIFIED;
        let (protocol, mut payload) = self.upper(false, none, none, depth);
        let mut how = Ipv4::default();
        if self.random.one_in(4) {
            how.fragment = match self.random.below(4) {
                0 => 0x2000,
                1 => 0x2001,
                2 => self.random.next() as u16 & 0x3fff,
                _ => 0x4000,
            };
            if how.fragment & 0x2000 != 0 {
                let cut = self.random.below(payload.len() + 1);
                let cut = if self.random.one_in(8) {
                    cut
                } else {
                    cut / 8 * 8
                };
                payload.truncate(cut);
            }
        }
        if self.random.one_in(10) {
            let words = 1 + self.random.below(10);
            how.options = vec![1; words * 4];
        }
        if self.random.one_in(60) {
            how.version = Some(self.random.next() as u8 & 15);
        }
        let mut packet = ipv4(from, to, protocol, &payload, &how);
        if self.random.one_in(20) {
            let length = u16::from_be_bytes([packet[2], packet[3]]);
            let lie = match self.random.below(3) {
                0 => length.saturating_sub(self.random.below(30) as u16),
                1 => length.wrapping_add(4),
                _ => self.random.next() as u16,
            };
            packet[2..4].copy_from_slice(&lie.to_be_bytes());
        }
        if self.random.one_in(60) {
            packet[0] = packet[0] & 0xf0 | self.random.next() as u8 & 15;
        }
        packet
    }

    fn arp(&mut self) -> Vec<u8> {
        let Cast {
            mac,
            other_mac,
            ipv4: own,
            other_ipv4: other,
            router_ipv4: router,
            ..
        } = *self.cast;
        let addresses = [own, own, own, other, router, Ipv4Addr::UNSPECIFIED];
        let operation = self.random.pick(&[1, 1, 2, 2, 3, 9]);
        let sender = (
            self.random.pick(&[mac, mac, mac, other_mac]),
            self.random.pick(&addresses),
        );
        let target = (
            self.random.pick(&[MacAddr::ZERO, other_mac, mac]),
            self.random.pick(&addresses),
        );
        let mut message = arp(operation, sender, target);
        if self.random.one_in(10) {
            let at = self.random.below(8);
            message[at] = self.random.next() as u8;
        }
        message
    }

    pub fn frame(&mut self) -> Vec<u8> {
        let (kind, packet) = match self.random.below(40) {
            0..=3 => (0x0806, self.arp()),
            4 => (0x8035, self.arp()),
            5..=16 => (0x0800, self.packet4(0)),
            17 => (
                self.random
                    .pick(&[0x88cc, 0x8863, 0x8847, 0x88a8, 0x8808, 0x0040, 0x888e]),
                self.packet6(0),
            ),
            _ => (0x86dd, self.packet6(0)),
        };
        let to = match self.random.below(30) {
            0 => MacAddr::new([1, 0x80, 0xc2, 0, 0, self.random.next() as u8 & 15]),
            1..=12 => MacAddr::BROADCAST,
            _ => self.cast.other_mac,
        };
        let from = if self.random.one_in(50) {
            self.cast.other_mac
        } else {
            self.cast.mac
        };
        let mut frame = ethernet(to, from, kind, &packet);
        if self.random.one_in(if self.tags { 4 } else { 40 }) {
            let number = self.random.below(3) as u16;
            let kind = self.random.pick(&[0x8100, 0x88a8]);
            let second = self.random.one_in(3);
            let tags = [(kind, number), (0x8100, 1)];
            frame = tagged(frame, &tags[..1 + usize::from(second)]);
        }
        match self.random.below(30) {
            0 => {
                let size = self.random.below(50);
                let more = self.random.bytes(size);
                frame.extend(more);
            }
            1 => {
                let size = 14 + self.random.below(frame.len() - 13);
                frame.truncate(size);
            }
            2 => {
                let at = 12 + self.random.below(frame.len() - 12);
                frame[at] = self.random.next() as u8;
            }
            _ => {}
        }
        frame.truncate(1500);
        frame
    }
}
