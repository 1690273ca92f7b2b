//! Messages of the kernel's queue. The kernel is trusted; a torn message must do no harm still.

use nfdhcpd::queue::message::{Message, parse};

pub fn run(data: &[u8]) {
    if let Message::Packet(packet) = parse(data) {
        assert!(packet.payload.len() <= data.len());
    }
}
