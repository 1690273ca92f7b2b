//! DHCPv4 messages (RFC 2131, RFC 2132): what a client sent, and the server's reply.
//!
//! The decoder is ours: it takes any bytes, keeps slices of them, and joins options that came
//! in pieces (RFC 3396), in options, `file` and `sname` alike.

mod reply;
mod request;

pub use reply::{OptionList, Reply};
pub use request::{Joined, Request};

/// The magic cookie before the options (RFC 2131, section 3).
pub const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The fixed part: from `op` to the end of `file`.
pub const FIXED: usize = 236;

/// DHCP message types (RFC 2132, section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the RFC's
pub enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl MessageType {
    /// The type with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => return None,
        })
    }

    /// The name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discover => "DHCPDISCOVER",
            Self::Offer => "DHCPOFFER",
            Self::Request => "DHCPREQUEST",
            Self::Decline => "DHCPDECLINE",
            Self::Ack => "DHCPACK",
            Self::Nak => "DHCPNAK",
            Self::Release => "DHCPRELEASE",
            Self::Inform => "DHCPINFORM",
        }
    }
}

/// Option codes (RFC 2132 where no other is named).
#[allow(missing_docs)] // the names are IANA's
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DOMAIN_SERVER: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU_INTERFACE: u8 = 26;
    pub const BROADCAST_ADDRESS: u8 = 28;
    pub const NTP_SERVERS: u8 = 42;
    pub const ADDRESS_REQUEST: u8 = 50;
    pub const ADDRESS_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLASS_ID: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const SERVER_NAME: u8 = 66;
    pub const BOOTFILE_NAME: u8 = 67;
    /// RFC 3004
    pub const USER_CLASS: u8 = 77;
    /// RFC 3046
    pub const RELAY_AGENT: u8 = 82;
    /// RFC 4578
    pub const CLIENT_SYSTEM: u8 = 93;
    /// RFC 8925
    pub const IPV6_ONLY: u8 = 108;
    /// RFC 8910
    pub const CAPTIVE_PORTAL: u8 = 114;
    /// RFC 3397
    pub const DOMAIN_SEARCH: u8 = 119;
    /// RFC 3442
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// Microsoft's number for [`CLASSLESS_ROUTES`], of the same form
    pub const CLASSLESS_ROUTES_MICROSOFT: u8 = 249;
    pub const END: u8 = 255;
}
