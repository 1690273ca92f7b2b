//! Which of its two users' expectations an answer follows, where they cannot both be met.

use super::fault::{Fault, Kind};

/// Chosen by the mount that the request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// What libcloud, novaclient, openstacksdk and the openstack CLI expect.
    OpenStack,
    /// What kamaki and the web interface of Cyclades expect.
    Cyclades,
}

impl Dialect {
    /// What comes before `/compute`, `/network` and so on.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::OpenStack => "",
            Self::Cyclades => "/cyclades",
        }
    }

    /// How a server that is shut down is called.
    pub fn stopped(self) -> &'static str {
        match self {
            Self::OpenStack => "SHUTOFF",
            Self::Cyclades => "STOPPED",
        }
    }

    /// What an action gets that the server's state does not allow.
    pub fn wrong_state(self, message: String) -> Fault {
        match self {
            Self::OpenStack => Fault::new(Kind::Conflict, message),
            Self::Cyclades => Fault::new(Kind::BadRequest, message),
        }
    }
}
