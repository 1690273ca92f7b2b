//! DHCPv4 messages of guests.

use nfdhcpd::packet::dhcp4::Request;

pub fn run(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        for code in 0..=255 {
            let _ = request.asks_for(code);
        }
    }
}
