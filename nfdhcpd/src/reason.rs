//! Why a packet got no answer.

use std::fmt;

macro_rules! reasons {
    ($(#[doc = $doc:literal] $name:ident = $label:literal,)+) => {
        /// Why a packet got no answer. The labels are stable: they are the metrics' label values.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Reason {
            $(#[doc = $doc] $name,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The label of metrics and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// The reason as a sentence.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$name => $doc,)+ }.trim_start()
            }
        }
    };
}

reasons! {
    /// Larger than any client's packet.
    TooLarge = "too-large",
    /// The IP header is cut off, or its lengths do not fit.
    MalformedIp = "malformed-ip",
    /// A part of a packet.
    Fragment = "fragment",
    /// The UDP header is cut off, or its lengths do not fit.
    MalformedUdp = "malformed-udp",
    /// The checksum is wrong.
    Checksum = "checksum",
    /// The hop limit of a solicitation is not 255: it came through a router.
    HopLimit = "hop-limit",
    /// A solicitation that RFC 4861 calls invalid.
    MalformedNd = "malformed-nd",
    /// A DHCPv4 message that is cut off, or whose options do not fit.
    MalformedDhcp4 = "malformed-dhcp4",
    /// A DHCPv6 message that is cut off, or whose options do not fit.
    MalformedDhcp6 = "malformed-dhcp6",
    /// BOOTP without a DHCP message type.
    Bootp = "bootp",
    /// Not a message that a client sends.
    NotAClient = "not-a-client",
    /// From an address that is not link-local.
    NotLinkLocal = "not-link-local",
    /// Through a relay agent: guests are none.
    Relayed = "relayed",
    /// The source MAC address is not the binding's.
    SpoofedMac = "spoofed-mac",
    /// The client's hardware address inside the message is not the binding's.
    SpoofedChaddr = "spoofed-chaddr",
    /// The guest chose another server.
    OtherServer = "other-server",
    /// The binding has no address of this kind.
    NoAddress = "no-address",
    /// The configuration turns this answer off.
    Disabled = "disabled",
    /// Nothing to say to this message (RELEASE, DECLINE).
    NoReply = "no-reply",
    /// A neighbour solicitation whose target is not ours to answer for.
    NotOurTarget = "not-our-target",
    /// The guest asks more often than it may.
    RateLimited = "rate-limited",
    /// The answer could not be sent.
    SendFailed = "send-failed",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
