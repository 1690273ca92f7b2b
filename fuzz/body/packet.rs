//! Packets of guests, from the IP header on.

use nfdhcpd::packet::ip::{Checksum, parse};

pub fn run(data: &[u8]) {
    let partial = parse(data, Checksum::Partial);
    // a good checksum is not asked for where a partial one will do
    if let Ok(packet) = parse(data, Checksum::Present) {
        assert_eq!(Ok(packet), partial);
    }
}
