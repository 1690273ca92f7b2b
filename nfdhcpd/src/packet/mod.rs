//! Packets: bytes ↔ what they mean. No parser here allocates more than its input, loops longer
//! than its input, or panics.

pub mod addresses;
pub mod dhcp4;
pub mod dhcp6;
pub mod frame;
pub mod ip;
pub mod nd;
