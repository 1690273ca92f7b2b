//! DHCPv6 messages of guests.

use nfdhcpd::packet::dhcp6::Request;

pub fn run(data: &[u8]) {
    let Ok(request) = Request::parse(data) else {
        return;
    };
    for ia in request.ias() {
        assert!(ia.addresses().count() <= data.len() / 24);
    }
    for code in 0..200 {
        let _ = request.wants(code);
    }
}
