//! What Ganeti runs for each KVM NIC: TAP, bridge or route, anti-spoofing, firewall profile
