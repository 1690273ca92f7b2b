//! `snf-ifup check`: whether the host is fit for its NICs, and each NIC as its record says.

pub mod evasions;
pub mod forwarding;
pub mod host;
pub mod nics;
pub mod replay;
mod tap;
